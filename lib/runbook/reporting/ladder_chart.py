"""The way to an endpoint, drawn: a ladder of layers for each side, down to the first that fails.

A static SVG like the other charts: the same bytes for the same ladders, text stays text, colours from the page. A layer
that was not come to is an empty dashed box and says so; it is never drawn as passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from runbook.reporting import svg
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart

_WIDTH, _PITCH, _HEIGHT, _TOP = 533, 21, 15, 26
_NAMES, _BOX, _BOX_WIDTH = 84, 94, 15
_TEXT = _BOX + _BOX_WIDTH + 8
_GAP = 12
_GLYPH = 4.9
"""Mean width of a character, in points: labels are cut so that they stay inside."""
_PASSES = "#2b6cb0"
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}


class Rung(Protocol):
    """What a layer has to tell; see ``runbook.diagnosis.health.ladder``."""

    @property
    def layer(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def note(self) -> str: ...


class Ladder(Protocol):
    """The way from one side."""

    @property
    def vantage(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def rungs(self) -> Sequence[Rung]: ...
    @property
    def causes(self) -> Sequence[str]: ...


def ladder_chart(ladders: Sequence[Ladder]) -> Chart | None:
    """One ladder below the other; nothing where no way was walked."""
    if not ladders:
        return None
    alt = " ".join(_in_words(ladder) for ladder in ladders)
    tall = [_TOP + _PITCH * len(ladder.rungs) for ladder in ladders]
    height = sum(tall) + _GAP * (len(ladders) - 1) + 6
    parts = [
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}pt" height="{height}pt" '
        'font-family="system-ui, sans-serif" font-size="9">',
        f'<rect x="0" y="0" width="{_WIDTH}" height="{height}" fill="{GROUND}"/>',
    ]
    top = 0
    for ladder, one in zip(ladders, tall, strict=True):
        parts.append(_ladder(ladder, top))
        top += one + _GAP
    drawing = svg.sanitised("".join([*parts, "</svg>"]), label=alt)
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _in_words(ladder: Ladder) -> str:
    side = f"From {ladder.vantage} ({ladder.target})"
    failing = next((rung for rung in ladder.rungs if rung.state == "fails"), None)
    if failing is not None:
        causes = f" ({', '.join(ladder.causes)})" if ladder.causes else ""
        return f"{side} the first layer that fails is {failing.layer}: {failing.note}{causes}."
    unknown = [rung.layer for rung in ladder.rungs if rung.state == "unknown"]
    return f"{side} no layer fails." + (f" Unknown: {', '.join(unknown)}." if unknown else "")


def _ladder(ladder: Ladder, top: int) -> str:
    drawn = [_label(_BOX, top + 14, f"{ladder.vantage}: {ladder.target}", INK, bold=True, room=_WIDTH - _BOX)]
    last = top + _TOP + _PITCH * (len(ladder.rungs) - 1) + _HEIGHT
    sides = (_BOX - 0.5, _BOX + _BOX_WIDTH + 0.5)
    drawn += [f'<line x1="{x:g}" y1="{top + _TOP - 4}" x2="{x:g}" y2="{last + 4}" stroke="{LINE}"/>' for x in sides]
    first = next((number for number, rung in enumerate(ladder.rungs) if rung.state == "fails"), None)
    for number, rung in enumerate(ladder.rungs):
        causes = ladder.causes if number == first else ()
        drawn.append(_rung(rung, top + _TOP + _PITCH * number, causes, first=number == first))
    return "".join(drawn)


def _rung(rung: Rung, y: int, causes: Sequence[str], *, first: bool) -> str:
    middle = y + _HEIGHT - 4
    quiet = rung.state in ("unknown", "none")
    drawn = [_label(_NAMES, middle, rung.layer, MUTED if quiet else INK, anchor="end"), _box(rung.state, y)]
    room = _WIDTH - _TEXT - 4
    if rung.state == "fails":
        marked = f"✕ {rung.note}" if first else rung.note
        tail = f"  {', '.join(causes)}" if causes else ""
        drawn.append(_label(_TEXT, middle, marked + tail, ALARM, bold=first, room=room))
    else:
        text = f"unknown: {rung.note}" if rung.state == "unknown" else rung.note
        drawn.append(_label(_TEXT, middle, text, MUTED if quiet else INK, room=room))
    return "".join(drawn)


def _box(state: str, y: int) -> str:
    place = f'x="{_BOX}" y="{y}" width="{_BOX_WIDTH}" height="{_HEIGHT}"'
    if state == "passes":
        return f'<rect {place} fill="{_PASSES}"/>'
    if state == "fails":
        return f'<rect {place} fill="{ALARM}"/>'
    if state == "none":
        middle = y + _HEIGHT / 2
        return f'<line x1="{_BOX}" y1="{middle:g}" x2="{_BOX + _BOX_WIDTH}" y2="{middle:g}" stroke="{MUTED}"/>'
    return f'<rect {place} fill="none" stroke="{MUTED}" stroke-width="0.8" stroke-dasharray="4 3"/>'


def _label(
    x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False, room: float = 0
) -> str:
    most = int(room / (_GLYPH * (1.08 if bold else 1))) if room else len(text)
    shown = text if len(text) <= most else text[: max(1, most - 1)] + "…"
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(shown)}</text>'
