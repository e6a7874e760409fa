"""What the application's own rows say: how many uploads of the window are bad, whose they are, how old.

A row is bad when it failed inside the window, or when it became stuck inside it: the rows of last month's incident are
not this one's. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.uploads.limits import Limits

Row = Mapping[str, Any]
PROCESSING = frozenset({"processing", "transcoding", "queued"})
"""States that a job, or what queues it, gives a row."""
ARRIVING = frozenset({"uploading", "waiting", "created", "new", "initiated", "pending_upload"})
"""States of a row whose file is still on its way to the bucket."""
MIN_BUCKET = 3
"""Hours of the week with fewer uploads say nothing about a usual rate."""


def total(rows: list[dict[str, Any]] | None, key: str) -> int | None:
    """The sum of a column; ``None`` without rows to know it from."""
    return None if rows is None else int(sum(number(row, key) for row in rows))


@dataclass(frozen=True)
class Content:
    """Uploads as rows of the application's table."""

    readings: Readings
    limits: Limits

    @cached_property
    def states(self) -> list[dict[str, Any]] | None:
        return self.readings.rows("content_overview")

    @cached_property
    def uploads(self) -> int | None:
        return total(self.states, "uploads")

    @cached_property
    def failed(self) -> int | None:
        return total(self.states, "failed")

    @cached_property
    def stuck(self) -> int | None:
        return total(self.states, "stuck")

    @cached_property
    def under_way(self) -> int | None:
        """Uploads in progress that are not stuck yet."""
        return total(self.states, "under_way")

    @cached_property
    def bad(self) -> int | None:
        return None if self.failed is None or self.stuck is None else self.failed + self.stuck

    @cached_property
    def finished(self) -> int | None:
        """Uploads of the window that came through."""
        if self.uploads is None or self.bad is None or self.under_way is None:
            return None
        return max(0, self.uploads - self.bad - self.under_way)

    @cached_property
    def arriving(self) -> int | None:
        """Bad rows whose file, by their state, never arrived."""
        if self.states is None:
            return None
        rows = [row for row in self.states if str(row.get("status")).lower() in ARRIVING]
        return int(sum(number(row, "failed") + number(row, "stuck") for row in rows))

    @cached_property
    def finished_state(self) -> str:
        """The application's word for an upload that came through: the state that most of them are in."""
        done = [r for r in self.states or [] if not any(number(r, k) for k in ("failed", "stuck", "under_way"))]
        return str(
            max(done, key=lambda r: (number(r, "uploads"), str(r.get("status"))), default={}).get("status", "READY")
        )

    @cached_property
    def arriving_now(self) -> int:
        """Uploads whose file, by their state, is on its way just now; 0 when nothing is known of them."""
        return int(sum(number(r, "under_way") for r in self.states or [] if str(r.get("status")).lower() in ARRIVING))

    @cached_property
    def percent(self) -> float | None:
        """Percent of the window's uploads that are bad; ``None`` when there is none to speak of."""
        return round(100.0 * self.bad / self.uploads, 1) if self.uploads and self.bad is not None else None

    @cached_property
    def peak_percent(self) -> float | None:
        """The worst five minutes of the window with uploads enough to speak of, % failed."""
        rates = [
            100.0 * number(row, "failed") / number(row, "total")
            for row in self.readings.rows("content_onset") or []
            if number(row, "total") >= self.limits.min_uploads
        ]
        return round(max(rates), 1) if rates else None

    @cached_property
    def recovered(self) -> bool | None:
        """Whether uploads come through again: so many since the last failure that luck explains less than 5 %.

        Only failures can be over; a row that is stuck still is. ``None`` when the course of the window is unknown.
        """
        rows = self.readings.rows("content_onset")
        if rows is None or not self.percent or self.failed is None:
            return None
        if not self.failed or self.stuck:
            return False
        course = sorted(rows, key=lambda row: str(row.get("begun")))
        last = max((n for n, row in enumerate(course) if number(row, "failed")), default=-1)
        since = sum(number(r, "total") - number(r, "in_progress") for r in course[last + 1 :])
        rate = min(0.99, self.percent / 100)
        return since >= max(self.limits.min_uploads, math.log(0.05) / math.log(1 - rate))

    @cached_property
    def usual_percent(self) -> float | None:
        """95th percentile of the hourly failure rate of the seven days before."""
        rows = self.readings.rows("content_history")
        rates = sorted(
            100.0 * number(row, "failed") / number(row, "total")
            for row in rows or []
            if number(row, "total") >= MIN_BUCKET
        )
        return round(rates[min(len(rates) - 1, int(0.95 * len(rates)))], 1) if rates else None

    @cached_property
    def threshold_percent(self) -> float:
        """The threshold in force: what is usual here, at most twice the parameter, counts as normal."""
        least = self.limits.threshold_percent
        usual = min(self.usual_percent or 0.0, 2 * least)
        return max(least, usual + 0.1) if usual >= least else least

    @cached_property
    def has_processing_state(self) -> bool | None:
        """Whether the application knows a state between arriving and done; ``None`` when its states are not known."""
        rows = self.readings.rows("content_states")
        return None if not rows else any(str(row.get("label")).lower() in PROCESSING for row in rows)

    # -- rows and creators ------------------------------------------------------------------------------------------

    @cached_property
    def stuck_rows(self) -> list[dict[str, Any]] | None:
        """Stuck rows of this window, one by one."""
        rows = self.readings.rows("stuck_rows")
        return None if rows is None else [row for row in rows if row.get("in_window") is not False]

    @cached_property
    def creators(self) -> list[dict[str, Any]] | None:
        return self.readings.rows("content_by_creator")

    @cached_property
    def worst(self) -> dict[str, Any] | None:
        """The creator with most bad uploads; ``None`` when there is none, or none can be told."""
        rows = [row for row in self.creators or [] if number(row, "failed") + number(row, "stuck") > 0]
        return max(
            rows, key=lambda r: (number(r, "failed") + number(r, "stuck"), str(r.get("creator_id"))), default=None
        )

    @cached_property
    def worst_share(self) -> float | None:
        """Share of what is bad that the worst creator has."""
        if self.creators is None or not self.bad:
            return None if self.creators is None or self.bad is None else 0.0
        return min(1.0, (number(self.worst, "failed") + number(self.worst, "stuck")) / self.bad)

    @cached_property
    def others_bad_share(self) -> float | None:
        """Share of everybody else's uploads that is bad; ``None`` when nobody else uploads, or it is unknown."""
        if self.worst is None or self.uploads is None or self.bad is None:
            return None
        others = self.uploads - number(self.worst, "total")
        bad = self.bad - number(self.worst, "failed") - number(self.worst, "stuck")
        return max(0.0, bad) / others if others >= 1 else None

    @cached_property
    def creators_hit(self) -> int | None:
        """Creators with a bad upload."""
        if self.creators is None:
            return None
        listed = sum(1 for row in self.creators if number(row, "failed") + number(row, "stuck") > 0)
        return max(listed, int(max((number(row, "creators_hit") for row in self.creators), default=0)))
