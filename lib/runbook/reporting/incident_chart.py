"""An incident on one time axis: what was deployed or changed, what vendors say of themselves, how many requests failed.

A static SVG like the other charts: the same bytes for the same readings, text stays text, colours from the page. What
could not be read has a lane all the same, which says *unknown*; an empty lane means that there was nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Any

from runbook.reporting import svg, words
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart
from runbook.result import Reading

_WIDTH, _LEFT, _RIGHT = 533.0, 76.0, 8.0
_LANE, _CURVE, _TOP, _BOTTOM = 30.0, 92.0, 8.0, 20.0
_RATE, _CHANGE, _VENDOR = "#b3261e", "#2b6cb0", "#d9822b"
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}
_GLYPH = 4.9
_MAX_EVENTS = 6
"""A lane with more events shows the latest, and says how many more there were."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, or lasted."""

    label: str
    began: datetime
    #: ``None``: at that moment only.
    ended: datetime | None = None
    lasts: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stretch of the curve."""

    began: datetime
    seconds: float
    requests: int
    errors: int

    @property
    def percent(self) -> float | None:
        """Percent of its requests that failed; ``None`` where there were none."""
        return 100.0 * self.errors / self.requests if self.requests else None


def incident_chart(readings: Sequence[Reading], *, threshold_percent: float) -> Chart | None:
    """The chart of a run's readings; ``None`` when nothing is known of the requests.

    Parameters
    ----------
    readings
        Those named ``request_curve``, ``deployments``, ``workflow_runs`` and ``vendor_status`` are drawn.
    threshold_percent
        Where the alert fires, % of the requests.
    """
    latest = {r.name: r for r in readings if r.known}
    curve = [s for row in _rows(latest, "request_curve") or [] if (s := _step(row)) is not None]
    if not curve:
        return None
    curve.sort(key=lambda s: s.began)
    began, ended = curve[0].began, curve[-1].began + timedelta(seconds=curve[-1].seconds)
    changes = _changes(_rows(latest, "deployments"), _rows(latest, "workflow_runs"))
    incidents = _incidents(_rows(latest, "vendor_status"))
    lanes = [
        ("changes", _CHANGE, _within(changes, began, ended)),
        ("vendors", _VENDOR, _within(incidents, began, ended)),
    ]
    return _drawn(curve, lanes, began, ended, threshold_percent)


def _rows(latest: Mapping[str, Reading], name: str) -> list[dict[str, Any]] | None:
    return latest[name].rows if name in latest else None


def _step(row: Mapping[str, Any]) -> Step | None:
    began = words.moment(row.get("at"))
    if began is None:
        return None
    return Step(
        began=began,
        seconds=float(row.get("seconds") or 60),
        requests=int(row.get("requests") or 0),
        errors=int(row.get("errors") or 0),
    )


def _changes(
    deployments: Sequence[Mapping[str, Any]] | None, runs: Sequence[Mapping[str, Any]] | None
) -> list[Event] | None:
    if deployments is None and runs is None:
        return None
    found = [
        Event(label=f"deploy {row.get('ref') or str(row.get('sha') or '')[:7]}", began=at)
        for row in deployments or []
        if (at := words.moment(row.get("finished_at")) or words.moment(row.get("created_at")))
    ]
    deployed = {str(row.get("sha")) for row in deployments or []}
    return found + [
        Event(label=str(row.get("name") or "workflow"), began=at)
        for row in runs or []
        if str(row.get("sha")) not in deployed or row.get("event") == "workflow_dispatch"
        if (at := words.moment(row.get("updated_at")) or words.moment(row.get("created_at")))
    ]


def _incidents(pages: Sequence[Mapping[str, Any]] | None) -> list[Event] | None:
    if pages is None or all(row.get("indicator") == "unknown" for row in pages):
        return None
    return [
        Event(
            label=f"{page.get('vendor')}: {incident.get('name')}",
            began=at,
            ended=words.moment(incident.get("resolved_at")),
            lasts=True,
        )
        for page in pages
        for incident in page.get("incidents") or []
        if (at := words.moment(incident.get("created_at")))
    ]


def _within(events: Iterable[Event] | None, began: datetime, ended: datetime) -> list[Event] | None:
    if events is None:
        return None
    seen = [e for e in events if e.began <= ended and (e.began >= began or (e.lasts and (e.ended or ended) >= began))]
    return sorted(seen, key=lambda e: (e.began, e.label))


# -- in words ---------------------------------------------------------------------------------------------------------


def _in_words(
    curve: Sequence[Step], lanes: Sequence[tuple[str, str, list[Event] | None]], threshold_percent: float
) -> str:
    known = [s for s in curve if s.percent is not None]
    if not known:
        return "No request was seen in the window."
    peak = max(known, key=lambda s: (s.percent or 0.0, s.began))
    text = (
        f"Requests answered 5xx: {words.number(round(known[-1].percent or 0.0, 1))} % at the end, at most "
        f"{words.number(round(peak.percent or 0.0, 1))} % at {_clock(peak.began)}; the alert fires at "
        f"{words.number(threshold_percent)} %."
    )
    for name, _, events in lanes:
        if events is None:
            text += f" {name.capitalize()}: unknown."
        else:
            listed = ", ".join(f"{e.label} at {_clock(e.began)}" for e in events[-_MAX_EVENTS:]) or "none"
            text += f" {name.capitalize()}: {listed}."
    return text


def _clock(at: datetime) -> str:
    return words.clock(at.isoformat())[11:16]


# -- drawn ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    began: datetime
    ended: datetime

    def x(self, at: datetime) -> float:
        """Where a moment stands, kept within the axis."""
        whole = max(1.0, (self.ended - self.began).total_seconds())
        share = min(1.0, max(0.0, (at - self.began).total_seconds() / whole))
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _drawn(
    curve: Sequence[Step],
    lanes: Sequence[tuple[str, str, list[Event] | None]],
    began: datetime,
    ended: datetime,
    threshold_percent: float,
) -> Chart:
    alt = _in_words(curve, lanes, threshold_percent)
    axis = _Axis(began, ended)
    base = _TOP + _LANE * len(lanes) + _CURVE
    height = base + _BOTTOM
    parts = [
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {_WIDTH:g} {height:g}" width="{_WIDTH:g}pt" '
        f'height="{height:g}pt" font-family="system-ui, sans-serif" font-size="9">',
        _box(0, 0, _WIDTH, height, GROUND),
    ]
    for number, (name, colour, events) in enumerate(lanes):
        parts += _lane(axis, _TOP + _LANE * number, base, name, colour, events)
    parts += _rate(axis, curve, base, threshold_percent)
    parts += _ticks(axis, base)
    drawing = svg.sanitised("".join([*parts, "</svg>"]), label=alt)
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _lane(axis: _Axis, y: float, base: float, name: str, colour: str, events: list[Event] | None) -> list[str]:
    parts = [_text(_LEFT - 8, y + 18, name, MUTED, anchor="end"), _line(_LEFT, y + 24, _WIDTH - _RIGHT, y + 24, LINE)]
    if not events:
        return [*parts, _text(_LEFT + 4, y + 18, "unknown" if events is None else "none in the window", MUTED)]
    shown = events[-_MAX_EVENTS:]
    left_out = f"{len(events) - len(shown)} earlier; " if len(events) > len(shown) else ""
    edge = _LEFT - 1
    for number, event in enumerate(shown):
        x = axis.x(event.began)
        if event.lasts:
            end = axis.x(event.ended) if event.ended is not None else axis.x(axis.ended)
            parts.append(_box(x, y + 20, max(2.0, end - x), 4, colour))
        else:
            parts.append(_line(x, y + 12, x, base, colour, dashes="2 2"))
            parts.append(f'<path d="M{x - 4:g} {y + 12:g} L{x + 4:g} {y + 12:g} L{x:g} {y + 19:g} Z" fill="{colour}"/>')
        label = (left_out if number == 0 else "") + event.label
        parts += _placed(label, x + (0 if event.lasts else 6), y + 9, edge)
        edge = max(edge, x + 6 + _GLYPH * min(len(label), 28))
    return parts


def _placed(label: str, x: float, y: float, edge: float) -> list[str]:
    """A label beside its mark; left out where an earlier one stands."""
    short = label if len(label) <= 28 else label[:27] + "…"
    start = min(x, _WIDTH - _RIGHT - _GLYPH * len(short))
    if start < edge:
        return []
    return [_box(start - 1, y - 8, _GLYPH * len(short) + 2, 10, GROUND), _text(start, y, short, INK)]


def _rate(axis: _Axis, curve: Sequence[Step], base: float, threshold_percent: float) -> list[str]:
    """The rate as filled steps; a stretch without requests has a gap."""
    highest = max([threshold_percent * 1.5, *(s.percent or 0.0 for s in curve)])
    scale = (_CURVE - 16) / highest if highest else 0.0
    parts = [_line(_LEFT, base, _WIDTH - _RIGHT, base, MUTED)]
    for step in curve:
        if step.percent is None:
            continue
        x, end = axis.x(step.began), axis.x(step.began + timedelta(seconds=step.seconds))
        tall = round(step.percent * scale, 1)
        colour = _RATE if step.percent > threshold_percent else MUTED
        if tall > 0:
            parts.append(_box(x, base - tall, max(0.6, end - x), tall, colour))
    y = round(base - threshold_percent * scale, 1)
    parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, ALARM, dashes="4 2"))
    top = round(base - highest * scale, 1)
    parts.append(_text(_LEFT - 8, base - _CURVE / 2, "failing", MUTED, anchor="end"))
    parts.append(_text(_LEFT - 8, y + 3, f"{words.number(threshold_percent)} %", ALARM, anchor="end"))
    if y - top > 14:
        parts.append(_text(_LEFT - 8, top + 3, f"{words.number(round(highest, 1))} %", MUTED, anchor="end"))
    return parts


def _ticks(axis: _Axis, base: float) -> list[str]:
    """Times of day under the axis, at round minutes."""
    minutes = max(1.0, (axis.ended - axis.began).total_seconds() / 60)
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480) if minutes / s <= 8), 1440)
    first = axis.began.replace(second=0, microsecond=0)
    at = first + timedelta(minutes=(step - (first.hour * 60 + first.minute) % step) % step or step)
    parts = []
    while at <= axis.ended:
        x = axis.x(at)
        parts.append(_line(x, base, x, base + 3, MUTED))
        if x <= _WIDTH - _RIGHT - 12:
            parts.append(_text(x, base + 13, _clock(at), MUTED, anchor="middle"))
        at += timedelta(minutes=step)
    return parts


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{round(width, 1):g}" height="{height:g}" fill="{fill}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashes: str = "") -> str:
    broken = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}"{broken}/>'


def _text(x: float, y: float, text: str, colour: str, *, anchor: str = "start") -> str:
    placed = f'x="{round(x, 1):g}" y="{round(y, 1):g}" text-anchor="{anchor}"'
    return f'<text {placed} fill="{colour}">{escape(text)}</text>'
