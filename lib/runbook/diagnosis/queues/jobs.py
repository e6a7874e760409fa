"""What the queue says: who works, what waits or hangs, why jobs failed. Several looks, where there were several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from runbook.diagnosis import words
from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.words import Kind

Row = Mapping[str, Any]
STATE, ACTIVE, FAILED, COMPLETED = "queue_state", "queue_active", "queue_failed", "queue_completed"
BEFORE = "queue_before"
ELSEWHERE = ("queue_waiting", "queue_delayed", FAILED)
"""Where a job goes that is put back or fails."""
USUAL_TIMES = 3
"""A job hangs that runs so many times as long as 99 of 100 usually do, and no sooner."""
LATELY_SECONDS = 300.0
"""A job that ended within so many seconds ended lately."""
MIN_USUAL = 20
"""Fewer completed jobs say nothing about how long the slowest usually take."""


def moment(text: Any) -> datetime | None:
    """A time as a reading has it; ``None`` without one."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


@dataclass(frozen=True)
class Jobs:
    """One queue and those who work on it.

    Parameters
    ----------
    stuck_seconds
        A job that waits or runs for so long is stuck.
    """

    readings: Readings
    stuck_seconds: float

    @cached_property
    def configured(self) -> bool:
        reading = self.readings.last(STATE)
        return reading is not None and reading.state != "not_configured"

    @cached_property
    def looks(self) -> list[Row]:
        """Every known look at the queue, none when it does not exist by that name."""
        return [row for row in self.readings.samples(STATE) if row.get("exists") is not False]

    @cached_property
    def state(self) -> Row | None:
        return self.looks[-1] if self.looks else None

    @cached_property
    def absent(self) -> str:
        """Why nothing is known of a queue that was asked for; empty when there is one."""
        row = self.readings.row(STATE)
        if row is None or row.get("exists") is not False:
            return ""
        others = ", ".join(str(name) for name in row.get("other_queues") or []) or "none"
        return f"no queue {row.get('queue')} under prefix {row.get('prefix')}; queues there: {others}"

    def always(self, key: str, value: Any) -> bool | None:
        """Whether a fact had this value at every look; ``None`` when it is unknown."""
        values = [row.get(key) for row in self.looks]
        return None if not values or None in values else all(v == value for v in values)

    def count(self, key: str) -> int | None:
        """A count of the latest look."""
        return int(number(self.state, key)) if self.state is not None and self.state.get(key) is not None else None

    @cached_property
    def waiting(self) -> int | None:
        """Jobs that could run now: waiting, prioritized, and delayed ones that are due."""
        if self.count("waiting") is None:
            return None
        return sum(self.count(key) or 0 for key in ("waiting", "prioritized", "delayed_overdue"))

    @cached_property
    def no_worker(self) -> bool | None:
        """Whether nobody is connected to work; ``None`` when clients are hidden, or work goes on without a name."""
        absent = self.always("workers", 0)
        return None if absent and (self.draining or self._renewed) else absent

    @cached_property
    def _renewed(self) -> bool:
        """Whether somebody renewed a lock while we looked."""
        left: dict[str, float] = {}
        for row in (row for rows in self._active_looks for row in rows):
            job, lock = str(row.get("id")), number(row, "lock_ms")
            if lock > left.get(job, lock):
                return True
            left[job] = lock
        return False

    @cached_property
    def oldest_seconds(self) -> float | None:
        """Age of the oldest waiter; 0 when nothing waits."""
        if self.state is None:
            return None
        value = self.state.get("oldest_waiting_seconds")
        if isinstance(value, int | float):
            return float(value)
        return 0.0 if self.waiting == 0 else None

    # -- active -----------------------------------------------------------------------------------------------------

    @cached_property
    def active(self) -> list[dict[str, Any]] | None:
        return self.readings.rows(ACTIVE) if self.looks else None

    @cached_property
    def _active_looks(self) -> list[list[dict[str, Any]]]:
        return [r.rows for r in self.readings.series(ACTIVE) if r.known]

    @cached_property
    def unlocked(self) -> list[Row] | None:
        """Active jobs whose lock is gone at every look: their worker does not renew it."""
        if not self._active_looks or self.active is None:
            return None
        locked = {str(r.get("id")) for rows in self._active_looks for r in rows if r.get("has_lock") is not False}
        return [row for row in self.active if row.get("has_lock") is False and str(row.get("id")) not in locked]

    @cached_property
    def hung(self) -> list[Row] | None:
        """Active jobs that keep their lock and run longer than a job may."""
        if self.active is None:
            return None
        least = self.hung_after_seconds
        return [r for r in self.active if r.get("has_lock") is True and number(r, "running_seconds") >= least]

    @cached_property
    def slowest_usual_seconds(self) -> float | None:
        """How long 99 of 100 jobs take at most, by those that completed; ``None`` with too few of them."""
        rows = [*(self.readings.rows(BEFORE) or []), *(self.completed or [])]
        ran = sorted(number(row, "ran_seconds") for row in rows if row.get("ran_seconds") is not None)
        return ran[max(0, -(-len(ran) * 99 // 100) - 1)] if len(ran) >= MIN_USUAL else None

    @cached_property
    def hung_after_seconds(self) -> float:
        """How long a job may run here: what is configured, and more where jobs usually take their time."""
        return max(self.stuck_seconds, USUAL_TIMES * (self.slowest_usual_seconds or 0.0))

    @cached_property
    def draining(self) -> bool | None:
        """Whether jobs ended while we looked; ``None`` with fewer than two looks, or when it left no trace.

        A queue that keeps only so many of its finished jobs, or none, does not count more of them: then the time of
        the newest tells, or that a job with a lock is gone from those in work and stands nowhere else.
        """
        if len(self.looks) < 2:
            return None
        first, last = self.looks[0], self.looks[-1]
        if any(number(last, key) > number(first, key) for key in ("completed", "failed")):
            return True
        if any(str(last.get(key) or "") > str(first.get(key) or "") for key in ("last_completed_at", "last_failed_at")):
            return True
        if self._vanished:
            return True
        return None if self._other_jobs else False

    @cached_property
    def last_end_seconds(self) -> float | None:
        """How long ago the last job ended; ``None`` when the queue keeps none of them."""
        state, read = self.state or {}, moment(self.readings.measured_at((STATE,)))
        ends = [at for key in ("last_completed_at", "last_failed_at") if (at := moment(state.get(key))) is not None]
        return max(0.0, (read - max(ends)).total_seconds()) if ends and read is not None else None

    @cached_property
    def ends_now(self) -> bool | None:
        """Whether jobs end: while we looked, or within the last minutes; two looks alone miss jobs that take long."""
        if self.draining or (self.last_end_seconds is not None and self.last_end_seconds < LATELY_SECONDS):
            return True
        return self.draining

    @cached_property
    def _vanished(self) -> bool:
        """Whether a job that was in good hands at the first look is nowhere any more: it ended, and was not kept."""
        looks = self._active_looks
        if len(looks) < 2 or not all(self.readings.known(name) for name in ELSEWHERE):
            return False
        elsewhere = {str(r.get("id")) for name in ELSEWHERE for r in self.readings.rows(name) or []}
        held = {str(r.get("id")) for r in looks[0] if r.get("has_lock")}
        return bool(held - {str(r.get("id")) for r in looks[-1]} - elsewhere)

    @cached_property
    def _other_jobs(self) -> bool:
        """Whether jobs left the ends of the queue without a trace: the one in work or the next one is another."""
        looks = self._active_looks
        gone = len(looks) > 1 and {str(r.get("id")) for r in looks[0]} - {str(r.get("id")) for r in looks[-1]}
        return bool(gone) or self.looks[0].get("next_id") != self.looks[-1].get("next_id")

    # -- ended ------------------------------------------------------------------------------------------------------

    @cached_property
    def failed(self) -> list[dict[str, Any]] | None:
        """Jobs that failed within the window."""
        return self.readings.rows(FAILED)

    @cached_property
    def completed(self) -> list[dict[str, Any]] | None:
        """Jobs that completed within the window."""
        return self.readings.rows(COMPLETED)

    @cached_property
    def _kinds(self) -> Counter[Kind]:
        return Counter(words.kind(str(row.get("reason") or "")) for row in self.failed or [])

    def failures(self, *kinds: Kind) -> int | None:
        """Jobs that failed for reasons of these kinds."""
        return None if self.failed is None else sum(self._kinds[kind] for kind in kinds)

    def reasons(self, *kinds: Kind) -> list[str]:
        """Their reasons, the most frequent first, at most three."""
        texts = Counter(
            str(row.get("reason"))[:200] for row in self.failed or [] if words.kind(str(row.get("reason"))) in kinds
        )
        return [text for text, _ in sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:3]]

    def targets(self, *kinds: Kind) -> list[dict[str, Any]]:
        """Those jobs by id, the oldest first."""
        return as_targets([row for row in self.failed or [] if words.kind(str(row.get("reason"))) in kinds])


def as_targets(failed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Failed jobs as targets of a retry, the oldest first."""
    rows = sorted(failed, key=lambda row: (str(row.get("failed_at")), str(row.get("id"))))
    return [{"id": row.get("id"), "failed_at": row.get("failed_at"), "reason": str(row.get("reason"))[:200]}
            for row in rows]  # fmt: skip
