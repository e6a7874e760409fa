"""Static charts: one SVG, the same bytes for the same numbers, legible without a script and without colour.

Drawn by matplotlib straight on its SVG backend; pyplot, with its global state, is never used. Text stays text.
Colours are CSS variables with a value to fall back on, so that a report shows a chart in its own light or dark theme
and Jupyter shows it on the chart's own light ground.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook.reporting import svg, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GROUND, LINE, ALARM = "#1b1f24", "#57606a", "#fefefe", "#c9d0d8", "#b3261e"
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}

_STATES = {
    "active": "#2b6cb0",
    "waiting for a lock": "#b0326b",
    "idle in transaction": "#d9822b",
    "idle in transaction (aborted)": "#a8551b",
    "idle": "#9aa5b1",
}
"""Fill by state of a session, in drawing order; each is labelled, so that colour carries nothing alone."""

_OTHER = "#7a6fb0"
_WIDTH_INCHES = 7.4
_LABEL_POINTS = 9.0
_GLYPH_POINTS = 5.0
"""Mean width of a character at that size; labels only need to be kept apart, not measured."""


_drawing = threading.Lock()
"""matplotlib's settings are the whole process's: one chart at a time."""


@dataclass(frozen=True)
class Chart:
    """A drawing and the same in words."""

    svg: str
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": self.alt}


@dataclass(frozen=True, kw_only=True)
class _Bar:
    label: str
    states: tuple[tuple[str, int], ...]

    @property
    def used(self) -> int:
        return sum(count for _, count in self.states)


def connections_by_state(
    states: Mapping[str, int],
    *,
    usable: int,
    max_connections: int,
    threshold_share: float,
    samples: Sequence[Mapping[str, Any]] | None = None,
) -> Chart:
    """Sessions by state against the slots that ordinary roles can use.

    Parameters
    ----------
    states
        Sessions now, by ``pg_stat_activity.state``.
    usable
        ``max_connections`` less the reserved slots.
    threshold_share
        Share of ``usable`` at which the alert fires, 0–1.
    samples
        Earlier measurements, oldest first, each ``{"measured_at": ISO 8601, "states": {state: sessions}}``; a bar each.
    """
    bars = [_bar(words.clock(s.get("measured_at"))[11:19], s.get("states", {})) for s in samples or ()]
    bars.append(_bar("now" if bars else "", states))
    threshold = usable * threshold_share
    alt = _in_words(bars, usable, max_connections, threshold)
    return Chart(svg=_drawn(bars, usable, max_connections, threshold, alt), alt=alt)


def _bar(label: str, states: Mapping[str, Any]) -> _Bar:
    known = {str(state or "unknown"): int(count) for state, count in states.items() if count and int(count) > 0}
    order = {state: position for position, state in enumerate(_STATES)}
    ranked = sorted(known.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
    return _Bar(label=label, states=tuple(ranked))


def _in_words(bars: Sequence[_Bar], usable: int, max_connections: int, threshold: float) -> str:
    now = bars[-1]
    split = ", ".join(f"{count} {state}" for state, count in now.states) or "no session"
    share = f" ({words.percent(now.used / usable)})" if usable > 0 else ""
    side = "at or above" if now.used >= threshold else "below"
    text = (
        f"{now.used} of {usable} usable connection slots are taken{share}, {side} the alert threshold of "
        f"{words.number(threshold)}: {split}. "
        f"{max(0, max_connections - usable)} of {max_connections} slots are reserved."
    )
    earlier = ", ".join(f"{bar.label} {bar.used}" for bar in bars[:-1])
    return f"{text} Earlier: {earlier}." if earlier else text


def _drawn(bars: Sequence[_Bar], usable: int, max_connections: int, threshold: float, alt: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    fixed = {
        "svg.fonttype": "none",
        "svg.hashsalt": "runbook",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": _LABEL_POINTS,
    }
    with _drawing, matplotlib.rc_context(fixed):
        inches = 0.58 + 0.34 * len(bars) + 0.17 * _label_rows(bars[-1], max_connections)
        figure = Figure(figsize=(_WIDTH_INCHES, inches), facecolor=GROUND)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        _draw(axes, bars, usable, max_connections, threshold, inches)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, facecolor=GROUND)
    return _themed(svg.sanitised(buffer.getvalue(), label=alt))


def _themed(drawing: str) -> str:
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return drawing.replace("DejaVu Sans", "system-ui").replace("&#x27;", "")


def _scale(max_connections: int) -> float:
    """Points a slot is wide."""
    return (_WIDTH_INCHES * 72 - 90) / max(1, max_connections)


def _placed(bar: _Bar, max_connections: int) -> list[tuple[str, float, float, int]]:
    """Labels under a bar: text, its segment's middle, its own middle (points), and the row that keeps it apart."""
    scale, ends, start = _scale(max_connections), [-math.inf] * 6, 0
    placed = []
    for state, count in bar.states:
        middle, text = (start + count / 2) * scale, f"{count} {state}"
        half = len(text) * _GLYPH_POINTS / 2
        centre = max(half, min(middle, max_connections * scale - half))
        row = next((r for r, end in enumerate(ends) if centre - half >= end), len(ends) - 1)
        ends[row] = centre + half + 2 * _GLYPH_POINTS
        placed.append((text, middle, centre, row))
        start += count
    return placed


def _label_rows(bar: _Bar, max_connections: int) -> int:
    return max((row for *_, row in _placed(bar, max_connections)), default=0) + 1


def _draw(axes: Axes, bars: Sequence[_Bar], usable: int, max_connections: int, threshold: float, inches: float) -> None:
    left, height, pitch = 62.0, 17.0, 0.34 * 72
    scale, tall = _scale(max_connections), inches * 72
    axes.set_xlim(0, _WIDTH_INCHES * 72)
    axes.set_ylim(0, tall)
    axes.set_axis_off()
    top = tall - 34
    bottom = top - pitch * len(bars) + (pitch - height)
    for position, bar in enumerate(bars):
        _draw_bar(axes, bar, (left, top - pitch * position - height), height, scale, usable, max_connections)
    _draw_limits(axes, left, scale, top, bottom, threshold, usable, max_connections)
    for text, middle, centre, row in _placed(bars[-1], max_connections):
        y = bottom - 14 - 12.3 * row
        axes.plot([left + middle, left + middle], [bottom - 1, y + 8.5], color=MUTED, linewidth=0.6)
        axes.text(left + centre, y, text, color=INK, ha="center", fontsize=_LABEL_POINTS)


def _draw_bar(
    axes: Axes, bar: _Bar, at: tuple[float, float], height: float, scale: float, usable: int, max_connections: int
) -> None:
    left, y = at
    _box(axes, left, y, usable * scale, height, "none", MUTED)
    _box(axes, left + usable * scale, y, max(0, max_connections - usable) * scale, height, LINE, MUTED)
    if bar.label:
        axes.text(left - 8, y + height / 2, bar.label, color=MUTED, ha="right", va="center", fontsize=_LABEL_POINTS)
    start = 0
    for state, count in bar.states:
        _box(axes, left + start * scale, y, count * scale, height, _STATES.get(state, _OTHER), GROUND)
        start += count


def _box(axes: Axes, x: float, y: float, width: float, height: float, fill: str, edge: str) -> None:
    from matplotlib.patches import Rectangle

    if width > 0:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=edge, linewidth=0.8))


def _draw_limits(
    axes: Axes,
    left: float,
    scale: float,
    top: float,
    bottom: float,
    threshold: float,
    usable: int,
    max_connections: int,
) -> None:
    x = left + threshold * scale
    axes.plot([x, x], [bottom - 3, top + 15], color=ALARM, linewidth=1.4, dashes=(4, 2))
    share = f"{words.percent(threshold / usable)} = " if usable > 0 else ""
    text = f"alert at {share}{words.number(round(threshold, 1))}"
    axes.text(x - 4, top + 7, text, color=ALARM, ha="right", va="bottom", fontsize=_LABEL_POINTS, weight="bold")
    reserved = max(0, max_connections - usable)
    limit = left + max(usable, max_connections) * scale
    text = f"{usable} usable slots" + (f" + {reserved} reserved" if reserved else "")
    axes.text(limit, top + 20, text, color=INK, ha="right", va="bottom", fontsize=_LABEL_POINTS)
    end = left + usable * scale
    axes.plot([end, end], [bottom - 3, top + 3], color=INK, linewidth=1.0)
