"""What the queue says: who works, what waits or hangs, why jobs failed. Several looks, where there were several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.uploads import words
from runbook.diagnosis.uploads.content import number
from runbook.diagnosis.uploads.limits import Limits
from runbook.diagnosis.uploads.words import Kind

Row = Mapping[str, Any]
STATE, ACTIVE, FAILED, COMPLETED = "queue_state", "queue_active", "queue_failed", "queue_completed"


@dataclass(frozen=True)
class Jobs:
    """The queue between upload and transcoding."""

    readings: Readings
    limits: Limits

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
        for row in (row for look in self.readings.series(ACTIVE) if look.known for row in look.rows):
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
    def unlocked(self) -> list[Row] | None:
        """Active jobs whose lock is gone at every look: their worker does not renew it."""
        looks = [r.rows for r in self.readings.series(ACTIVE) if r.known]
        if not looks or self.active is None:
            return None
        locked = {str(row.get("id")) for rows in looks for row in rows if row.get("has_lock") is not False}
        return [row for row in self.active if row.get("has_lock") is False and str(row.get("id")) not in locked]

    @cached_property
    def hung(self) -> list[Row] | None:
        """Active jobs that keep their lock and run longer than a job may."""
        if self.active is None:
            return None
        least = self.limits.job_stuck_seconds
        return [r for r in self.active if r.get("has_lock") is True and number(r, "running_seconds") >= least]

    @cached_property
    def draining(self) -> bool | None:
        """Whether jobs went through while we looked; ``None`` with fewer than two looks."""
        if len(self.looks) < 2:
            return None
        first, last = self.looks[0], self.looks[-1]
        done = [number(last, key) - number(first, key) for key in ("completed", "failed")]
        return any(d > 0 for d in done)

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
        rows = [row for row in self.failed or [] if words.kind(str(row.get("reason"))) in kinds]
        rows.sort(key=lambda row: (str(row.get("failed_at")), str(row.get("id"))))
        return [{"id": row.get("id"), "failed_at": row.get("failed_at"), "reason": str(row.get("reason"))[:200]}
                for row in rows]  # fmt: skip
