"""Where uploads stop, drawn: one bar a stage, as wide as what comes that far, cut where it ends.

A static SVG like the other charts: the same bytes for the same stages, text stays text, colours from the page. A stage
that could not be seen is drawn as an outline and says *unknown*; it is never drawn as passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from runbook.reporting import svg
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart

_WIDTH, _PITCH, _HEIGHT, _TOP = 533, 23, 15, 26
_NAMES, _BARS, _TEXT = 62, 72, 262
_FLOW = "#2b6cb0"
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}


class Stage(Protocol):
    """What a stage has to tell; see ``runbook.diagnosis.uploads.funnel``."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reached(self) -> int | None: ...
    @property
    def stopped(self) -> int | None: ...
    @property
    def causes(self) -> Sequence[str]: ...
    @property
    def note(self) -> str: ...


def funnel_chart(stages: Sequence[Stage]) -> Chart:
    """The stages from the first to the last; ``reached`` and ``stopped`` count uploads, ``None`` is unknown."""
    alt = _in_words(stages)
    whole = max((stage.reached or 0 for stage in stages), default=0)
    height = _TOP + _PITCH * len(stages) + 6
    heading = f"{whole} uploads in the window" if whole else "uploads in the window: unknown"
    parts = [
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}pt" height="{height}pt" '
        'font-family="system-ui, sans-serif" font-size="9">',
        _rectangle(0, 0, _WIDTH, height, fill=GROUND),
        _label(_BARS, 14, heading, MUTED),
        *(_row(stage, _TOP + _PITCH * number, whole) for number, stage in enumerate(stages)),
        "</svg>",
    ]
    drawing = svg.sanitised("".join(parts), label=alt)
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _in_words(stages: Sequence[Stage]) -> str:
    stops = [f"{_stopped(stage)} at {stage.name} ({', '.join(stage.causes)})" for stage in stages if _ends(stage)]
    unknown = [stage.name for stage in stages if stage.state == "unknown"]
    text = f"Uploads stop: {'; '.join(stops)}." if stops else "No stage is known to stop uploads."
    return f"{text} Unknown: {', '.join(unknown)}." if unknown else text


def _ends(stage: Stage) -> bool:
    return stage.state == "stops"


def _stopped(stage: Stage) -> str:
    return "some" if stage.stopped is None else str(stage.stopped)


def _row(stage: Stage, y: float, whole: int) -> str:
    wide = _TEXT - 10 - _BARS
    width = wide * (stage.reached / whole) if stage.reached is not None and whole else float(wide)
    lost = width * ((stage.stopped or 0) / stage.reached) if stage.reached else (width if _ends(stage) else 0.0)
    middle = y + _HEIGHT - 4
    drawn = [_label(_NAMES, middle, stage.name, INK if stage.state != "unknown" else MUTED, anchor="end")]
    if stage.state == "unknown" or (stage.reached is None and not _ends(stage)):
        drawn.append(_rectangle(_BARS, y, width, _HEIGHT, fill="none", stroke=MUTED, dashed=stage.state == "unknown"))
    else:
        drawn.append(_rectangle(_BARS, y, width - lost, _HEIGHT, fill=_FLOW))
        drawn.append(_rectangle(_BARS + width - lost, y, lost, _HEIGHT, fill=ALARM))
    if _ends(stage):
        text = f"{_stopped(stage)} stop here: {', '.join(stage.causes)}"
        drawn.append(_label(_TEXT, middle, text, ALARM, bold=True))
        drawn.append(_label(_WIDTH - 4, middle, stage.note, MUTED, anchor="end"))
    else:
        text = f"unknown: {stage.note}" if stage.state == "unknown" else stage.note
        drawn.append(_label(_TEXT, middle, text, MUTED if stage.state == "unknown" else INK))
    return "".join(drawn)


def _rectangle(
    x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "", dashed: bool = False
) -> str:
    if width <= 0:
        return ""
    outline = f' stroke="{stroke}" stroke-width="0.8"' if stroke else ""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.2f}" height="{height:g}" fill="{fill}"{outline}{dashes}/>'


def _label(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
