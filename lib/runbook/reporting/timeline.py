"""When a run did what: from the alert to the last cell, for the report's timeline.

Works on the result document and on the times that the executing client left in the notebook's cells; either may be
missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runbook.reporting import words
from runbook.reporting.words import mapping

_SECTION_LEVEL = 2
"""Headings down to this level make a row of the timeline; what stands below them belongs to that row."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One row of the timeline, positions in percent of its whole width."""

    label: str
    start_at: float
    width: float
    duration: str
    #: How many cells it covers; 0 for what is no part of the notebook.
    cells: int
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Timeline:
    #: Event and time, in order: alert began, run started, run finished.
    events: tuple[tuple[str, str], ...]
    stretches: tuple[Stretch, ...]


@dataclass(kw_only=True)
class _Span:
    label: str
    start: float
    seconds: float
    cells: int = 0
    failed: bool = False


def cell_times(cell: Mapping[str, Any]) -> tuple[datetime | None, float | None]:
    """When a cell started and how many seconds it took, as papermill or nbclient recorded it."""
    metadata = mapping(cell.get("metadata"))
    recorded = mapping(metadata.get("papermill"))
    start, seconds = words.moment(recorded.get("start_time")), recorded.get("duration")
    if isinstance(seconds, int | float):
        return start, float(seconds)
    client = mapping(metadata.get("execution"))
    start = words.moment(client.get("iopub.execute_input")) or words.moment(client.get("iopub.status.busy"))
    end = words.moment(client.get("shell.execute_reply")) or words.moment(client.get("iopub.status.idle"))
    return start, (end - start).total_seconds() if start and end else None


def is_failed(cell: Mapping[str, Any]) -> bool:
    """Whether the engine marked this cell as the one that ended the run."""
    recorded = mapping(mapping(cell.get("metadata")).get("papermill"))
    return recorded.get("status") == "failed" or recorded.get("exception") is True


def timeline(result: Mapping[str, Any], cells: list[Any]) -> Timeline:
    """The timeline of a run; ``cells`` are the notebook's, executed or not."""
    spans = _before(mapping(result.get("timings")))
    spans += _sections(cells, words.moment(result.get("started_at")), spans)
    whole = max((span.start + span.seconds for span in spans), default=0.0)
    stretches = tuple(_stretch(span, whole) for span in spans) if whole > 0 else ()
    return Timeline(events=_events(result), stretches=stretches)


def _stretch(span: _Span, whole: float) -> Stretch:
    width = max(0.4, span.seconds / whole * 100)
    return Stretch(
        label=span.label,
        start_at=round(min(span.start / whole * 100, 100 - width), 2),
        width=round(width, 2),
        duration=words.duration(span.seconds),
        cells=span.cells,
        failed=span.failed,
    )


def _before(timings: Mapping[str, Any]) -> list[_Span]:
    spans: list[_Span] = []
    at = 0.0
    for key, label in (("queued_s", "Waiting in the queue"), ("kernel_s", "Kernel")):
        seconds = timings.get(key)
        if isinstance(seconds, int | float) and seconds >= 0:
            spans.append(_Span(label=label, start=at, seconds=float(seconds)))
            at += float(seconds)
    return spans


def _sections(cells: list[Any], started: datetime | None, before: list[_Span]) -> list[_Span]:
    """One span for each stretch of cells under one heading."""
    queued = before[0].seconds if before and before[0].label != "Kernel" else 0.0
    at = sum(span.seconds for span in before)
    spans: list[_Span] = []
    heading, fresh = "Preparation", True
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            for title, level in headings(cell):
                if 1 < level <= _SECTION_LEVEL:
                    heading, fresh = title, True
            continue
        start, seconds = cell_times(cell)
        if cell.get("cell_type") != "code" or seconds is None:
            continue
        if start and started:
            at = max(at, (start - started).total_seconds() + queued)
        if fresh:
            spans.append(_Span(label=heading, start=at, seconds=0.0))
            fresh = False
        span = spans[-1]
        span.seconds, span.cells = max(span.seconds, at + seconds - span.start), span.cells + 1
        span.failed = span.failed or is_failed(cell)
        at += seconds
    return spans


def headings(cell: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The headings of a markdown cell, as text and level."""
    found: list[tuple[str, int]] = []
    fenced = False
    for line in str(cell.get("source", "")).splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        mark, _, title = line.partition(" ")
        if not fenced and mark and not mark.strip("#") and len(mark) <= 6 and title.strip():
            found.append((title.strip().strip("#*` "), len(mark)))
    return found


def _events(result: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    alert = mapping(result.get("alert"))
    began, started = words.moment(alert.get("starts_at")), words.moment(result.get("started_at"))
    finished = words.moment(result.get("finished_at"))
    queued = mapping(result.get("timings")).get("queued_s")
    events: list[tuple[str, str]] = []
    if began:
        before = f" ({words.duration((started - began).total_seconds())} before the run)" if started else ""
        events.append(("Alert began", f"{words.clock(began.isoformat())}{before}"))
    if started and isinstance(queued, int | float):
        events.append(("Queued", words.clock((started - timedelta(seconds=queued)).isoformat())))
    if started:
        events.append(("Run started", words.clock(started.isoformat())))
    if finished:
        took = f" (took {words.duration((finished - started).total_seconds())})" if started else ""
        events.append(("Run finished", f"{words.clock(finished.isoformat())}{took}"))
    return tuple(events)
