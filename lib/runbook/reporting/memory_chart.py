"""Who holds the memory, drawn: one bar a program, all against the limit of the place where they run.

A static SVG like the other charts: the same bytes for the same figures, text stays text, colours from the page. What is
in use and belongs to no process that was seen has a bar of its own, hatched by its outline, so that the bars add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from runbook.reporting import svg
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart

_WIDTH, _PITCH, _HEIGHT, _TOP = 533, 22, 14, 46
_NAMES, _BARS, _END = 156, 163, 408
_HELD, _GREW = "#2b6cb0", "#d9822b"
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}
_NAME_CHARACTERS = 26
_TAIL_CHARACTERS = 11
"""Kept of a name that is too long: its pid stands there."""


class Bar(Protocol):
    """One program; see ``runbook.diagnosis.memory.bars``."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> float: ...
    @property
    def grew(self) -> float: ...
    @property
    def causes(self) -> Sequence[str]: ...


class Bars(Protocol):
    """The programs of one place, bytes."""

    @property
    def place(self) -> str: ...
    @property
    def limit(self) -> float: ...
    @property
    def used(self) -> float: ...
    @property
    def threshold_share(self) -> float: ...
    @property
    def bars(self) -> Sequence[Bar]: ...
    @property
    def rest(self) -> float: ...
    @property
    def others(self) -> int: ...


def memory_chart(drawn: Bars | None) -> Chart | None:
    """All in use first, then each program, then what is no program's; nothing where there is nothing to draw."""
    if drawn is None or not drawn.bars or drawn.limit <= 0:
        return None
    alt = _in_words(drawn)
    height = _TOP + _PITCH * (len(drawn.bars) + 2) + 6
    whole, threshold = max(drawn.limit, drawn.used), drawn.limit * drawn.threshold_share
    scale = (_END - _BARS) / whole
    bottom = height - 8
    parts = [
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}pt" height="{height}pt" '
        'font-family="system-ui, sans-serif" font-size="9">',
        _rectangle(0, 0, _WIDTH, height, fill=GROUND),
        *_limits(drawn, scale, threshold, bottom),
        _row(_TOP, "all in use", drawn.used, 0.0, scale, _beside(drawn.used, drawn.limit, ()), bold=True),
        *(
            _row(_TOP + _PITCH * n, bar.name, bar.size, bar.grew, scale, _beside(bar.size, drawn.limit, bar.causes),
                 bold=bool(bar.causes))
            for n, bar in enumerate(drawn.bars, 1)
        ),
        _rest(_TOP + _PITCH * (len(drawn.bars) + 1), drawn, scale),
        "</svg>",
    ]  # fmt: skip
    drawing = svg.sanitised("".join(parts), label=alt)
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _in_words(drawn: Bars) -> str:
    side = "at or above" if drawn.used >= drawn.limit * drawn.threshold_share else "below"
    listed = ", ".join(
        f"{bar.name} {_size(bar.size)}"
        + (f" (grew by {_size(bar.grew)} while looked at)" if bar.grew else "")
        + (f" [{', '.join(bar.causes)}]" if bar.causes else "")
        for bar in drawn.bars
    )
    return (
        f"Of {_size(drawn.limit)} in {drawn.place}, {_size(drawn.used)} are in use, {side} the threshold of "
        f"{_size(drawn.limit * drawn.threshold_share)}: {listed}; {_size(drawn.rest)} not in processes."
    )


def _size(size: float) -> str:
    if size >= 2**30:
        return f"{size / 2**30:.1f} GB"
    return f"{size / 2**20:.0f} MB" if size >= 10 * 2**20 else f"{size / 2**20:.1f} MB"


def _beside(size: float, limit: float, causes: Sequence[str]) -> str:
    share = 100 * size / limit
    text = f"{_size(size)}, {share:.0f} %" if share >= 1 else _size(size)
    return f"{text}  {', '.join(causes)}" if causes else text


def _limits(drawn: Bars, scale: float, threshold: float, bottom: float) -> list[str]:
    limit, alarm = _BARS + drawn.limit * scale, _BARS + threshold * scale
    percent = f"{100 * drawn.threshold_share:g} %"
    anchor = "end" if alarm - _BARS > 90 else "start"
    place = drawn.place if len(drawn.place) <= 60 else f"…{drawn.place[-58:]}"
    return [
        _label(6, 14, f"Memory of {place}", INK, bold=True),
        _line(limit, _TOP - 8, bottom, INK),
        _label(limit, 14, f"limit {_size(drawn.limit)}", INK, anchor="end" if limit > 300 else "start"),
        _line(alarm, _TOP - 8, bottom, ALARM, dashed=True),
        _label(alarm - 3 if anchor == "end" else alarm + 3, 32, f"alert at {percent}", ALARM, anchor=anchor, bold=True),
        *([_label(6, 32, f"{drawn.others} more looked at", MUTED)] if drawn.others > 0 else []),
    ]  # fmt: skip


def _row(y: float, name: str, size: float, grew: float, scale: float, text: str, *, bold: bool = False) -> str:
    middle, width = y + _HEIGHT - 3.5, max(0.8, size * scale)
    grown = min(width, grew * scale)
    shown = name
    if len(name) > _NAME_CHARACTERS:
        shown = f"{name[: _NAME_CHARACTERS - _TAIL_CHARACTERS - 1]}…{name[-_TAIL_CHARACTERS:]}"
    return "".join((
        _label(_NAMES, middle, shown, INK, anchor="end", bold=bold),
        _rectangle(_BARS, y, width - grown, _HEIGHT, fill=_HELD),
        _rectangle(_BARS + width - grown, y, grown, _HEIGHT, fill=_GREW),
        _label(_END + 12, middle, text, INK, bold=bold),
    ))  # fmt: skip


def _rest(y: float, drawn: Bars, scale: float) -> str:
    middle, width = y + _HEIGHT - 3.5, max(0.8, drawn.rest * scale)
    return (
        _label(_NAMES, middle, "not in processes", MUTED, anchor="end")
        + _rectangle(_BARS, y, width, _HEIGHT, fill="none", stroke=MUTED, dashed=True)
        + _label(_END + 12, middle, _size(drawn.rest), MUTED)
    )


def _rectangle(
    x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "", dashed: bool = False
) -> str:
    if width <= 0:
        return ""
    outline = f' stroke="{stroke}" stroke-width="0.8"' if stroke else ""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<rect x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{height:g}" fill="{fill}"{outline}{dashes}/>'


def _line(x: float, top: float, bottom: float, colour: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 2"' if dashed else ""
    return (
        f'<line x1="{x:.2f}" x2="{x:.2f}" y1="{top:g}" y2="{bottom:g}" stroke="{colour}" stroke-width="1.2"{dashes}/>'
    )


def _label(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.2f}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
