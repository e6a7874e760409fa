"""A queue by time, drawn: how long the oldest waited against the limit, what came and went, where the jobs stand now.

A static SVG like the other charts: the same bytes for the same queue, text stays text, colours from the page. A step of
which nothing is known is left blank, and never drawn as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Protocol

from runbook.reporting import svg
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart

_WIDTH, _LEFT, _RIGHT = 533.0, 48.0, 527.0
_AGE_TOP, _AGE_HEIGHT = 26.0, 76.0
_RATE_TOP, _RATE_HEIGHT = 132.0, 48.0
_STATES_TOP, _STATES_HEIGHT = 214.0, 16.0
_HEIGHT = 256.0
_CAME, _WENT = "#d9822b", "#2b6cb0"
_FILLS = {
    "waiting": "#d9822b",
    "paused": "#b0326b",
    "prioritized": "#a8551b",
    "in work": "#2b6cb0",
    "between tries": "#7a6fb0",
    "scheduled": "#9aa5b1",
    "wait for children": "#6b7b4f",
}
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}
_GLYPH = 4.9
"""Mean width of a character of 9 points."""


class Step(Protocol):
    """A step of time; see ``runbook.diagnosis.queues.depth``."""

    @property
    def at(self) -> datetime: ...
    @property
    def arrived(self) -> int | None: ...
    @property
    def ended(self) -> int | None: ...
    @property
    def oldest_seconds(self) -> float | None: ...


class Depth(Protocol):
    """What is drawn; see ``runbook.diagnosis.queues.depth``."""

    @property
    def steps(self) -> Sequence[Step]: ...
    @property
    def step_seconds(self) -> float: ...
    @property
    def threshold_seconds(self) -> float: ...
    @property
    def states(self) -> Mapping[str, int]: ...
    @property
    def queue(self) -> str: ...


def queue_chart(depth: Depth | None) -> Chart | None:
    """The queue by time; nothing where it could not be read."""
    if depth is None or not depth.steps:
        return None
    alt = _in_words(depth)
    parts = [
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" width="{_WIDTH:g}pt" '
        f'height="{_HEIGHT:g}pt" font-family="system-ui, sans-serif" font-size="9">',
        _box(0, 0, _WIDTH, _HEIGHT, GROUND),
        _ages(depth),
        _rates(depth),
        _clock(depth),
        _standing(depth),
        "</svg>",
    ]
    drawing = svg.sanitised("".join(parts), label=alt)
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _in_words(depth: Depth) -> str:
    last = depth.steps[-1].oldest_seconds
    age = "unknown" if last is None else _long(last)
    states = ", ".join(f"{count} {state}" for state, count in depth.states.items()) or "no job"
    came, went = (_sum([getattr(step, what) for step in depth.steps]) for what in ("arrived", "ended"))
    return (
        f"Queue {depth.queue}: the oldest waiting job has waited for {age}, the limit is "
        f"{_long(depth.threshold_seconds)}. In the window {came} jobs arrived and {went} ended. Now: {states}."
    )


def _sum(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    if not known:
        return "an unknown number of"
    return f"{sum(known)}" if len(known) == len(counts) else f"at least {sum(known)}"


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _x(depth: Depth, number: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * number / len(depth.steps)


def _ages(depth: Depth) -> str:
    """The oldest waiter's age at the end of each step, and the limit."""
    highest = max([step.oldest_seconds or 0.0 for step in depth.steps] + [1.25 * depth.threshold_seconds, 1.0])
    bottom = _AGE_TOP + _AGE_HEIGHT

    def y(seconds: float) -> float:
        return bottom - _AGE_HEIGHT * seconds / highest

    drawn = [_text(_LEFT, 14, "age of the oldest waiting job", INK, bold=True), _axis(bottom)]
    for number, step in enumerate(depth.steps):
        if step.oldest_seconds:
            top, late = y(step.oldest_seconds), step.oldest_seconds >= depth.threshold_seconds
            width = _x(depth, number + 1) - _x(depth, number)
            drawn.append(_box(_x(depth, number), top, width, bottom - top, ALARM if late else _WENT))
    limit = y(depth.threshold_seconds)
    drawn.append(_line(_LEFT, limit, _RIGHT, limit, ALARM, dashed=True))
    drawn.append(_text(_LEFT - 6, limit + 3, _long(depth.threshold_seconds), ALARM, anchor="end"))
    if limit - _AGE_TOP > 12:
        drawn.append(_text(_LEFT - 6, _AGE_TOP + 6, _long(highest), MUTED, anchor="end"))
    return "".join(drawn)


def _rates(depth: Depth) -> str:
    """What arrived above the line, what ended below it, on one scale."""
    most = max([max(step.arrived or 0, step.ended or 0) for step in depth.steps] + [1])
    middle = _RATE_TOP + _RATE_HEIGHT / 2
    scale = (_RATE_HEIGHT / 2 - 1) / most
    unit = "a minute" if abs(depth.step_seconds - 60) < 1 else f"in {_long(depth.step_seconds)}"
    drawn = [_text(_LEFT, _RATE_TOP - 6, f"arrivals (above) and ends (below) {unit}", INK, bold=True), _axis(middle)]
    for number, step in enumerate(depth.steps):
        x, width = _x(depth, number) + 0.4, _x(depth, number + 1) - _x(depth, number) - 0.8
        if step.arrived:
            drawn.append(_box(x, middle - scale * step.arrived, width, scale * step.arrived, _CAME))
        if step.ended:
            drawn.append(_box(x, middle, width, scale * step.ended, _WENT))
    drawn.append(_text(_LEFT - 6, _RATE_TOP + 6, f"{most}", MUTED, anchor="end"))
    drawn.append(_text(_LEFT - 6, _RATE_TOP + _RATE_HEIGHT, f"{most}", MUTED, anchor="end"))
    return "".join(drawn)


def _clock(depth: Depth) -> str:
    y = _RATE_TOP + _RATE_HEIGHT + 12
    whole = len(depth.steps)
    first = depth.steps[0].at.timestamp() - depth.step_seconds
    marks = [(n, first + depth.step_seconds * n) for n in (0, whole // 3, 2 * whole // 3, whole)]
    drawn = []
    for number, at in marks:
        anchor = "start" if number == 0 else "end" if number == whole else "middle"
        text = datetime.fromtimestamp(at, depth.steps[0].at.tzinfo).strftime("%H:%M")
        drawn.append(_text(_x(depth, number), y, f"{text} UTC" if number == whole else text, MUTED, anchor=anchor))
    return "".join(drawn)


def _standing(depth: Depth) -> str:
    """Where the jobs stand now, one bar, each part labelled below it."""
    total = sum(depth.states.values())
    drawn = [_text(_LEFT - 6, _STATES_TOP + 11, "now", INK, anchor="end", bold=True)]
    if not total:
        return "".join([*drawn, _text(_LEFT, _STATES_TOP + 11, "no job waits or is in work", MUTED)])
    # A single job among thousands is still to be seen.
    widths = {s: max(3.0, (_RIGHT - _LEFT) * n / total) for s, n in depth.states.items()}
    factor = (_RIGHT - _LEFT) / math.fsum(widths.values())
    x, label = _LEFT, _LEFT
    for state, count in depth.states.items():
        width, text = widths[state] * factor, f"{count} {state}"
        drawn.append(_box(x, _STATES_TOP, width, _STATES_HEIGHT, _FILLS.get(state, MUTED), stroke=GROUND))
        drawn.append(_box(label, _STATES_TOP + _STATES_HEIGHT + 8, 6, 6, _FILLS.get(state, MUTED)))
        drawn.append(_text(label + 9, _STATES_TOP + _STATES_HEIGHT + 14, text, INK))
        x += width
        label += 9 + _GLYPH * len(text) + 12
    return "".join(drawn)


def _axis(y: float) -> str:
    return _line(_LEFT, y, _RIGHT, y, LINE)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 2"' if dashed else ""
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{colour}" stroke-width="1"{dashes}/>'


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "") -> str:
    outline = f' stroke="{stroke}" stroke-width="0.8"' if stroke else ""
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"{outline}/>'


def _text(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
