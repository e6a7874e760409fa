"""What came and what went, by time: arrivals, starts and ends of the jobs that the queue still knows.

A queue keeps only some of its finished jobs, and only the ends of a long list are read; before
:attr:`Flow.known_since` arrivals are incomplete, and nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

from runbook.diagnosis.queues.jobs import ACTIVE, BEFORE, COMPLETED, FAILED, moment
from runbook.diagnosis.readings import Readings, number

Row = Mapping[str, Any]
WAITING, DELAYED, FLOW = "queue_waiting", "queue_delayed", "queue_flow"
MIN_BEFORE = 10
"""Fewer jobs before the window say nothing about the usual rate."""
MIN_BINS = 6
"""So many steps of the window in which jobs came tell what is usual, where nothing is left of the time before."""
MIN_PEAK = 10
"""Fewer jobs at once are no burst, whatever is usual."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One job on its way: when it could first run, when it began, when it ended."""

    id: str
    arrived: datetime
    begun: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Flow:
    """Jobs by time."""

    readings: Readings
    rate_minutes: float

    @cached_property
    def now(self) -> datetime | None:
        """When the waiting jobs were read."""
        return moment(self.readings.measured_at((WAITING,)))

    @cached_property
    def known(self) -> bool:
        """Whether everything was read that arrivals are counted from."""
        return self.now is not None and all(self.readings.known(name) for name in (WAITING, COMPLETED, FAILED, ACTIVE))

    @cached_property
    def passages(self) -> list[Passage]:
        """Jobs of the window, each once, in the order of their arrival."""
        found = {p.id: p for p in [*self._finished(COMPLETED), *self._finished(FAILED), *self._present()]}
        return sorted(found.values(), key=lambda p: (p.arrived, p.id))

    def _finished(self, name: str) -> Iterator[Passage]:
        for row in self.readings.rows(name) or []:
            ended = moment(row.get("finished_at") or row.get("failed_at"))
            if ended is None:
                continue
            begun = ended - timedelta(seconds=number(row, "ran_seconds"))
            waited = row.get("waited_seconds")
            added = moment(row.get("added_at"))
            arrived = begun - timedelta(seconds=float(waited)) if waited is not None else added
            if arrived is not None:
                yield Passage(id=str(row.get("id")), arrived=arrived, begun=begun, ended=ended)

    def _present(self) -> Iterator[Passage]:
        for row in self.readings.rows(ACTIVE) or []:
            arrived = moment(row.get("added_at"))
            if arrived is not None:
                yield Passage(id=str(row.get("id")), arrived=arrived, begun=moment(row.get("processed_at")))
        for row in self.readings.rows(WAITING) or []:
            if self.now is not None and row.get("waited_seconds") is not None:
                arrived = self.now - timedelta(seconds=number(row, "waited_seconds"))
                yield Passage(id=str(row.get("id")), arrived=arrived)
        for row in self.readings.rows(DELAYED) or []:
            arrived = moment(row.get("added_at"))
            if arrived is not None and number(row, "attempts") >= 1:
                yield Passage(id=str(row.get("id")), arrived=arrived)

    @cached_property
    def known_since(self) -> datetime | None:
        """From when on every arrival is known; ``None`` = the whole window."""
        starts: list[datetime] = []
        for name in (COMPLETED, FAILED):
            reading = self.readings.last(name)
            if reading is not None and reading.state == "partial":
                ends = [p.ended for p in self._finished(name) if p.ended is not None]
                starts += [min(ends)] if ends else [self.now] if self.now is not None else []
        waiting = self.readings.last(WAITING)
        if waiting is not None and waiting.state == "partial" and self.now is not None:
            newest = [number(row, "waited_seconds") for row in waiting.rows if row.get("at_head")]
            starts.append(self.now - timedelta(seconds=max(newest, default=0.0)))
        return max(starts, default=None)

    def _per_minute(self, count: float, begin: datetime, end: datetime) -> float | None:
        minutes = (end - begin).total_seconds() / 60
        return round(count / minutes, 2) if minutes > 0 else None

    @cached_property
    def arrivals_per_minute(self) -> float | None:
        """Lately, over ``rate_minutes`` or what is known of them."""
        if not self.known or self.now is None:
            return None
        begin = self.now - timedelta(minutes=self.rate_minutes)
        begin = max(begin, self.known_since) if self.known_since is not None else begin
        return self._per_minute(sum(1 for p in self.passages if p.arrived > begin), begin, self.now)

    @cached_property
    def ended_per_minute(self) -> float | None:
        """Jobs that completed or failed lately, of those that the queue keeps; ``None`` when it keeps none."""
        rows, now = self.readings.rows(FLOW), self.now
        if rows is None or now is None:
            return None
        begin = now - timedelta(minutes=self.rate_minutes)
        late = [(at, row) for row in rows if (at := moment(row.get("at"))) is not None and at >= begin]
        late = late or [(at, row) for row in rows[-1:] if (at := moment(row.get("at"))) is not None]
        count = sum(number(row, "completed") + number(row, "failed") for _, row in late)
        return self._per_minute(count, min(at for at, _ in late), now) if count else None

    @cached_property
    def usual_arrivals_per_minute(self) -> float | None:
        """By the jobs before the window; else by the window itself, where jobs came all the time; else ``None``."""
        arrived = sorted(p.arrived for p in self._finished(BEFORE))
        if len(arrived) >= MIN_BEFORE:
            return self._per_minute(len(arrived) - 1, arrived[0], arrived[-1])
        bins = self.bins
        if len(bins) < MIN_BINS or sum(1 for count in bins if count) < len(bins) - 1 or sum(bins) < MIN_BEFORE:
            return None
        return round(median(bins) / self.rate_minutes, 2) or None

    @cached_property
    def bins(self) -> list[int]:
        """Arrivals in steps of ``rate_minutes`` back from now, the newest first, as far as they are known."""
        if not self.known or self.now is None or not self.passages:
            return []
        step = timedelta(minutes=self.rate_minutes)
        first = max(self.passages[0].arrived, self.known_since or self.passages[0].arrived)
        edges = [self.now - step * n for n in range(int((self.now - first) / step) + 2)]
        return [sum(1 for p in self.passages if low < p.arrived <= high) for high, low in pairwise(edges)]

    @cached_property
    def peak_per_minute(self) -> float | None:
        """The most that arrived in ``rate_minutes``, per minute; 0 when it was never many."""
        if not self.known:
            return None
        most = max(self.bins, default=0)
        return round(most / self.rate_minutes, 2) if most >= MIN_PEAK else 0.0
