"""How full each filesystem is, drawn: a bar of its space, warning and alert as lines, how soon it is full beside it.

A static SVG like the other charts: the same bytes for the same numbers, text stays text, colours from the page. An
image, which is full by nature, is drawn as an outline and raises no alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from runbook.reporting import svg
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart

WIDTH = 533
FLOW = "#2b6cb0"
_PITCH, _HEIGHT, _TOP, _LEFT = 36, 13, 36, 6
_NAME_GLYPHS = 60
VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}


class Gauge(Protocol):
    """What a filesystem has to tell; see ``runbook.diagnosis.disks.overview``."""

    @property
    def name(self) -> str: ...
    @property
    def used_percent(self) -> float | None: ...
    @property
    def inodes_percent(self) -> float | None: ...
    @property
    def note(self) -> str: ...
    @property
    def alarming(self) -> bool: ...


def disk_chart(gauges: Sequence[Gauge], *, threshold_percent: float, warn_percent: float) -> Chart | None:
    """The filesystems, in the given order; nothing where none is known."""
    known = [gauge for gauge in gauges if gauge.used_percent is not None]
    if not known:
        return None
    height = _TOP + _PITCH * len(known) + 4
    rows = "".join(_row(gauge, _TOP + _PITCH * number) for number, gauge in enumerate(known))
    lines = _limits(warn_percent, threshold_percent, len(known))
    return drawn(rows + lines, height, _in_words(known, threshold_percent))


def drawn(parts: str, height: float, alt: str) -> Chart:
    """These parts as a chart of the usual width, in the page's colours."""
    source = (
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}pt" height="{height:g}pt" '
        f'font-family="system-ui, sans-serif" font-size="9">{rectangle(0, 0, WIDTH, height, fill=GROUND)}{parts}</svg>'
    )
    drawing = svg.sanitised(source, label=alt)
    for colour, name in VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _in_words(gauges: Sequence[Gauge], threshold_percent: float) -> str:
    told = "; ".join(f"{gauge.name} {gauge.used_percent:g} % ({gauge.note})" for gauge in gauges)
    return f"Filesystems, alert at {threshold_percent:g} %: {told}."


def _x(percent: float) -> float:
    return _LEFT + (WIDTH - 2 * _LEFT) * min(100.0, max(0.0, percent)) / 100.0


def _row(gauge: Gauge, y: float) -> str:
    used = gauge.used_percent or 0.0
    image = gauge.inodes_percent is None and "as full as it is meant" in gauge.note
    colour = ALARM if gauge.alarming else INK
    told = f"{used:.1f} %"
    if gauge.inodes_percent is not None and gauge.inodes_percent > used:
        told += f", inodes {gauge.inodes_percent:.1f} %"
    top = y + 14
    fill = "none" if image else ALARM if gauge.alarming else FLOW
    return "".join(
        (
            label(_LEFT, y + 9, shortened(gauge.name, _NAME_GLYPHS), INK, bold=True),
            label(WIDTH - _LEFT, y + 9, f"{told} · {gauge.note}", colour, anchor="end"),
            rectangle(_LEFT, top, WIDTH - 2 * _LEFT, _HEIGHT, fill="none", stroke=LINE),
            rectangle(_LEFT, top, _x(used) - _LEFT, _HEIGHT, fill=fill, stroke=MUTED if image else "", dashed=image),
        )
    )


def _limits(warn_percent: float, threshold_percent: float, rows: int) -> str:
    """Both limits, named once and drawn through each bar, clear of the words above it."""
    warn, alert = _x(warn_percent), _x(threshold_percent)
    text = f"warning at {warn_percent:g} %"
    tops = [_TOP + _PITCH * number + 12 for number in range(rows)]
    return (
        "".join(line(warn, top, top + _HEIGHT + 4, INK) + line(alert, top, top + _HEIGHT + 4, ALARM) for top in tops)
        + label(min(warn, alert - 2) - 4, _TOP - 22, text, MUTED, anchor="end")
        + label(alert - 4, _TOP - 10, f"alert at {threshold_percent:g} %", ALARM, anchor="end", bold=True)
    )


def shortened(text: str, glyphs: int) -> str:
    """A path that is too long, without its middle."""
    return text if len(text) <= glyphs else f"{text[: glyphs // 3]}…{text[-(glyphs - glyphs // 3 - 1) :]}"


def line(x: float, top: float, bottom: float, colour: str) -> str:
    """A dashed line downwards."""
    return f'<line x1="{x:.1f}" y1="{top:g}" x2="{x:.1f}" y2="{bottom:g}" stroke="{colour}" stroke-dasharray="4 3"/>'


def rectangle(
    x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "", dashed: bool = False
) -> str:
    """A box; nothing when it has no width."""
    if width <= 0:
        return ""
    outline = f' stroke="{stroke}" stroke-width="0.8"' if stroke else ""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.2f}" height="{height:g}" fill="{fill}"{outline}{dashes}/>'


def label(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    """Text, whatever it contains."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
