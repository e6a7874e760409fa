"""One run's view of a queue: who waits and for how long, what is held, what fails, what is usual.

What is affected is counted in jobs: those that wait, are held in work, are between two tries, failed while failing is
the matter, or wait for a child that failed. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from runbook.diagnosis import words
from runbook.diagnosis.queues.flow import DELAYED, WAITING, Flow
from runbook.diagnosis.queues.jobs import ACTIVE, BEFORE, COMPLETED, FAILED, Jobs, moment
from runbook.diagnosis.queues.limits import Limits
from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.words import Kind

Row = Mapping[str, Any]
PARENTS = "queue_parents"
OTHERS_MATTER: tuple[Kind, ...] = ("disk", "memory", "stalled")
"""Reasons of failed jobs that another cause knows more of."""
_AGES = ("oldest_waiting_seconds", "oldest_in_wait_seconds", "oldest_in_paused_seconds", "oldest_prioritized_seconds")
_VARYING = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+", re.IGNORECASE)


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(100 * share) // 100) - 1)] if ordered else None


@dataclass(frozen=True)
class Facts:
    """The queue as this run saw it."""

    readings: Readings
    limits: Limits

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self.readings, self.limits.stuck_seconds)

    @cached_property
    def flow(self) -> Flow:
        return Flow(self.readings, self.limits.rate_minutes)

    @cached_property
    def configured(self) -> bool:
        return self.jobs.configured

    def asked(self, name: str) -> bool:
        """Whether there is such a source: its reading was taken, and it is configured."""
        reading = self.readings.last(name)
        return reading is not None and reading.state != "not_configured"

    # -- who waits ----------------------------------------------------------------------------------------------------

    @cached_property
    def waiters(self) -> list[dict[str, Any]] | None:
        """Waiting jobs that were looked at, the oldest first."""
        return self.readings.rows(WAITING) if self.jobs.looks else None

    @cached_property
    def oldest_seconds(self) -> float | None:
        """Age of the job that waits longest, wherever it waits; 0 when none does."""
        state = self.jobs.state
        if state is None:
            return None
        ages = [number(state, key) for key in _AGES if state.get(key) is not None]
        ages += [number(row, "waited_seconds") for row in self.waiters or [] if row.get("waited_seconds") is not None]
        ages += [number(row, "overdue_seconds") for row in self.readings.rows(DELAYED) or []]
        if ages:
            return max(ages)
        return 0.0 if self.jobs.waiting == 0 else None

    @cached_property
    def late(self) -> bool | None:
        """Whether a job waits for longer than it may."""
        return None if self.oldest_seconds is None else self.oldest_seconds >= self.limits.threshold_seconds

    @cached_property
    def held(self) -> list[Row]:
        """Jobs in work that do not get on: they hang, nobody renews their lock, or nobody is there at all."""
        if self.jobs.no_worker:
            return list(self.jobs.active or [])
        return [*(self.jobs.unlocked or []), *(self.jobs.hung or [])]

    @cached_property
    def none_held(self) -> bool | None:
        """Whether what is in work is in good hands."""
        return None if self.jobs.unlocked is None or self.jobs.hung is None else not self.held

    @cached_property
    def retrying(self) -> list[dict[str, Any]] | None:
        """Jobs between two tries, and those that wait for another one."""
        rows = self.readings.rows(DELAYED)
        if rows is None:
            return None
        return [row for row in [*rows, *(self.waiters or [])] if number(row, "attempts") >= 1 and row.get("reason")]

    def age_seconds(self, row: Row) -> float | None:
        """How long ago a job was added, when it was read."""
        at, measured = moment(row.get("added_at")), moment(self.readings.measured_at((DELAYED, WAITING)))
        return None if at is None or measured is None else (measured - at).total_seconds()

    @cached_property
    def orphans(self) -> list[dict[str, Any]] | None:
        """Parents that wait for a child that failed for good."""
        rows = self.readings.rows(PARENTS)
        return None if rows is None else [row for row in rows if row.get("failed_child")]

    @cached_property
    def gone(self) -> list[str] | None:
        """Ids of jobs that are to be run and have no hash any more: nobody can; ``None`` when that is unknown."""
        known = all(self.readings.known(name) for name in (WAITING, ACTIVE))
        ids = lost(row for name in (WAITING, ACTIVE, DELAYED) for row in self.readings.rows(name) or [])
        return ids if ids or known else None

    # -- what ended ---------------------------------------------------------------------------------------------------

    @cached_property
    def waits(self) -> list[float] | None:
        """Waits of the jobs that completed in the window, in seconds."""
        rows = self.jobs.completed
        return (
            None if rows is None else [number(r, "waited_seconds") for r in rows if r.get("waited_seconds") is not None]
        )

    @cached_property
    def late_rows(self) -> list[dict[str, Any]] | None:
        """Jobs that completed within the last ``rate_minutes``."""
        rows, measured = self.jobs.completed, moment(self.readings.measured_at((COMPLETED,)))
        if rows is None or measured is None:
            return None
        least = 60.0 * self.limits.rate_minutes
        return [r for r in rows if (at := moment(r.get("finished_at"))) and (measured - at).total_seconds() <= least]

    @cached_property
    def p95_seconds(self) -> float | None:
        """95th percentile of the waits of jobs that completed lately; ``None`` when it was not read or none did."""
        rows = self.late_rows
        return None if rows is None else percentile(
            [number(r, "waited_seconds") for r in rows if r.get("waited_seconds") is not None], 0.95
        )  # fmt: skip

    def lately(self, failed: Sequence[Row]) -> list[Row]:
        """Those that failed within twice ``rate_minutes``: an earlier incident's are not this one's."""
        measured, least = moment(self.readings.measured_at((FAILED,))), 120.0 * self.limits.rate_minutes
        if measured is None:
            return []
        ended = [(row, moment(row.get("failed_at"))) for row in failed]
        return [row for row, at in ended if at is not None and (measured - at).total_seconds() <= least]

    @cached_property
    def failed_share(self) -> float | None:
        """Share of the jobs that ended in the window and failed; ``None`` with too few of them."""
        flow = self.readings.rows("queue_flow")
        if flow is None:
            return None
        failed = sum(number(row, "failed") for row in flow)
        ended = failed + sum(number(row, "completed") for row in flow)
        return failed / ended if ended >= self.limits.min_jobs else 0.0

    @cached_property
    def fails(self) -> bool | None:
        """Whether more jobs fail than may."""
        return None if self.failed_share is None else 100 * self.failed_share >= self.limits.failed_percent

    @cached_property
    def failing_rows(self) -> list[dict[str, Any]] | None:
        """Jobs that failed for good, or are about to be tried again, each with its reason; other causes' apart."""
        failed, retrying = self.jobs.failed, self.retrying
        if failed is None and retrying is None:
            return None
        rows = [*(failed or []), *(retrying or [])]
        return [row for row in rows if words.kind(str(row.get("reason") or "")) not in OTHERS_MATTER]

    @cached_property
    def common_reason(self) -> tuple[str, list[dict[str, Any]]]:
        """The reason most of them have in common, numbers apart, and those jobs; empty without any."""
        rows = self.failing_rows or []
        alike = Counter(_VARYING.sub("#", str(row.get("reason")))[:120] for row in rows)
        if not alike:
            return "", []
        top = min(alike, key=lambda text: (-alike[text], text))
        those = [row for row in rows if _VARYING.sub("#", str(row.get("reason")))[:120] == top]
        return str(those[0].get("reason"))[:200], those

    # -- how long they take -------------------------------------------------------------------------------------------

    @cached_property
    def usual_seconds(self) -> float | None:
        """How long a job usually runs: by those before the window, else by the first half of the window's."""
        before = [
            number(r, "ran_seconds") for r in self.readings.rows(BEFORE) or [] if r.get("ran_seconds") is not None
        ]
        if len(before) < self.limits.min_jobs:
            rows = sorted(self.jobs.completed or [], key=lambda r: str(r.get("finished_at")))
            first = rows[: len(rows) // 2]
            before = [number(r, "ran_seconds") for r in first if r.get("ran_seconds") is not None]
        return median(before) if len(before) >= self.limits.min_jobs else None

    @cached_property
    def lately_seconds(self) -> float | None:
        """How long jobs run now: those that ended lately, and those in work for longer than they did."""
        rows, measured = self.late_rows, moment(self.readings.measured_at((COMPLETED,)))
        if rows is None or measured is None:
            return None
        least = 60.0 * self.limits.rate_minutes
        failed = [r for r in self.jobs.failed or []
                  if (at := moment(r.get("failed_at"))) and (measured - at).total_seconds() <= least]  # fmt: skip
        ran = [number(r, "ran_seconds") for r in [*rows, *failed] if r.get("ran_seconds") is not None]
        usual = median(ran) if ran else 0.0
        ran += [s for r in self.jobs.active or [] if (s := number(r, "running_seconds")) > usual]
        return median(ran) if ran else None

    # -- shares -------------------------------------------------------------------------------------------------------

    @cached_property
    def affected(self) -> int:
        """Jobs that somebody waits for."""
        failed = len(self.jobs.failed or []) if self.fails else (self.jobs.failures("stalled") or 0)
        between = sum(1 for row in self.retrying or [] if "due_at" in row)
        return (self.jobs.waiting or 0) + len(self.held) + between + failed + len(self.orphans or [])

    def share(self, jobs: int) -> float:
        """How much of what is affected so many jobs are."""
        return min(1.0, jobs / self.affected) if self.affected and jobs else 0.0


def lost(rows: Iterable[Row]) -> list[str]:
    """Ids of the jobs whose hash is known to be gone, each once."""
    return list(dict.fromkeys(str(row.get("id")) for row in rows if row.get("has_hash") is False))
