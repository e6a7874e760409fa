"""One run's view of the uploads, stage by stage, with each bad upload counted once.

What is bad is counted in uploads: rows that failed or got stuck, and requests that failed before there was a row.
Causes with a trace of their own (a reason, a video, a waiting job) claim theirs; what is left never left a trace behind
the bucket, and only that can be explained by the way into it. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from runbook.diagnosis import words
from runbook.diagnosis.queues.jobs import Jobs
from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.uploads.bucket import Bucket
from runbook.diagnosis.uploads.content import ARRIVING, Content
from runbook.diagnosis.uploads.limits import Limits
from runbook.diagnosis.uploads.traffic import Traffic
from runbook.diagnosis.uploads.videos import Videos
from runbook.diagnosis.words import Kind

Row = Mapping[str, Any]
LATER_SOURCES = ("queue_state", "queue_failed", "mux_assets", "stream_videos", "stuck_rows")
"""Readings that show uploads behind the bucket; while one of them failed, nobody knows what did not get so far."""
TRACED: tuple[Kind, ...] = ("disk", "memory", "stalled", "size", "quota", "input", "provider", "database", "other")
"""Reasons of failed jobs that are not the bucket's."""

NOT_OURS = 0.1
"""Share of a refusal that only our own attempt met."""


def _utc(text: str) -> datetime:
    """A time of a log, taken as UTC where it says nothing else."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Facts:
    """The uploads as this run saw them."""

    readings: Readings
    limits: Limits

    @cached_property
    def content(self) -> Content:
        return Content(self.readings, self.limits)

    @cached_property
    def bucket(self) -> Bucket:
        return Bucket(self.readings)

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self.readings, self.limits.job_stuck_seconds)

    @cached_property
    def videos(self) -> Videos:
        return Videos(self.readings)

    @cached_property
    def traffic(self) -> Traffic:
        return Traffic(self.readings, self.limits)

    # -- the application's log ----------------------------------------------------------------------------------------

    def logged(self, *kinds: Kind) -> int | None:
        """Lines of the application's log within the window that point there; ``None`` when it was not read."""
        rows = self.readings.rows("app_errors")
        if rows is None:
            return None
        return int(sum(number(row, "count") for row in rows if self._line_kind(row) in kinds and self._recent(row)))

    def _recent(self, row: Row) -> bool:
        """Whether a line was last seen in the later half of the window: one that stopped is over."""
        measured, last = self.readings.measured_at(("app_errors",)), str(row.get("last") or "")
        try:
            age = _utc(measured) - _utc(last)
        except ValueError:
            return True
        return age <= timedelta(minutes=self.limits.window_minutes / 2)

    @staticmethod
    def _line_kind(row: Row) -> Kind:
        found = words.kind(str(row.get("pattern") or ""))
        return found if found != "other" else words.kind(str(row.get("sample") or ""))

    def said(self, *kinds: Kind) -> int | None:
        """The larger of what the log and the failed jobs say; none at all only when both were read."""
        return self.most({"app_errors": self.logged(*kinds), "queue_failed": self.jobs.failures(*kinds)})

    def most(self, counts: Mapping[str, int | None]) -> int | None:
        """The largest of these counts by reading; 0 only when every reading that applies is known."""
        known = [count for count in counts.values() if count is not None]
        if any(known):
            return max(known)
        return None if not known or any(self.lost(name) for name in counts) else 0

    @cached_property
    def refused_for_size(self) -> int | None:
        """Uploads refused for their size, by whoever counted most of them."""
        said = {"app_errors": self.logged("size"), "queue_failed": self.jobs.failures("size")}
        return self.most({"splits": self.traffic.too_large, **said})

    def asked(self, name: str) -> bool:
        """Whether there is such a source: its reading was taken, and it is configured."""
        reading = self.readings.last(name)
        return reading is not None and reading.state != "not_configured"

    def lost(self, name: str) -> bool:
        """Whether there is such a source, and it could not be read."""
        return self.asked(name) and not self.readings.known(name)

    # -- rows against videos and jobs ---------------------------------------------------------------------------------

    @cached_property
    def _ready(self) -> list[dict[str, Any]] | None:
        """Stuck rows whose video the provider says is ready, and that no active job is busy with."""
        rows = self.content.stuck_rows
        if rows is None or not self.videos.configured:
            return None
        busy = {str(job.get("id")) for job in self.jobs.active or []}
        found = [
            row
            for row in rows
            if (video := self.videos.of(row)) is not None
            and video.get("status") == "ready"
            and str(row.get("id")) not in busy
        ]
        if found:
            return found
        cannot = self.videos.rows is None or (rows and self.videos.rows and not self.videos.traceable)
        return None if cannot else []

    def _never_touched(self, row: Row) -> bool:
        """Whether the row is where it was before its job, although the job's work is there to be seen.

        A webhook that is lost leaves a row in processing; one that still says *uploading* was not written by the job.
        """
        arriving = str(row.get("status")).lower() in ARRIVING
        return arriving and self.content.has_processing_state is True

    @cached_property
    def _states_lost(self) -> bool:
        reading = self.readings.last("content_states")
        return reading is not None and not reading.known

    @cached_property
    def stuck_ready(self) -> list[dict[str, Any]] | None:
        """Stuck rows that only the provider's word is missing from."""
        if self._ready is None:
            return None
        if self._states_lost and any(str(row.get("status")).lower() in ARRIVING for row in self._ready):
            return None
        return [row for row in self._ready if not self._never_touched(row)]

    @cached_property
    def stuck_done(self) -> list[dict[str, Any]] | None:
        """Stuck rows whose job completed and that nobody wrote.

        Rows that are still as they were before a job whose video is ready; else by the job's id where that is the
        row's; else as many as more jobs completed than uploads came through.
        """
        rows, jobs = self.content.stuck_rows, self.jobs.completed
        if rows is None or jobs is None or (rows and self.videos.configured and self.stuck_ready is None):
            return None  # the provider that could not be asked may be done with them: then it is the webhook
        ready = {str(row.get("id")) for row in self._ready or []}
        untouched = [row for row in self._ready or [] if self._never_touched(row)]
        rest = [row for row in rows if str(row.get("id")) not in ready]
        done = {str(job.get("id")) for job in jobs}
        by_id = [row for row in rest if str(row.get("id")) in done]
        if by_id or not rest:
            return [*untouched, *by_id]
        finished, waiting = self.content.finished, self.jobs.waiting
        if finished is None or waiting is None:
            return untouched or None
        surplus = len(jobs) - finished - len(ready) - waiting - len(self.jobs.active or [])
        return [*untouched, *rest[: max(0, min(len(rest), surplus))]]

    # -- counting -----------------------------------------------------------------------------------------------------

    @cached_property
    def claims(self) -> dict[str, int]:
        """Bad uploads by the cause that has a trace of them, at most."""
        jobs, videos = self.jobs, self.videos
        hung = len(jobs.hung or []) + len(jobs.unlocked or [])
        return {
            "V07": self.refused_for_size or 0,
            "V08": max(len(videos.over_quota), self.said("quota") or 0),
            "V09": max(
                len(videos.bad_input) + len(videos.provider_fault),
                (jobs.failures("provider") or 0) + (jobs.failures("input") or 0),
                len(videos.bad_input) + (jobs.failures("provider") or 0),
            ),
            "V10": len(self.stuck_ready or []),
            "V11": jobs.failures("disk") or 0,
            "V12": (jobs.waiting or 0) + hung + (jobs.failures("other") or 0),
            "V13": jobs.failures("memory", "stalled") or 0,
            "V14": max(len(self.stuck_done or []), jobs.failures("database") or 0),
        }

    @cached_property
    def bad(self) -> int:
        """Bad uploads: rows, and failing requests beyond the rows whose file never arrived."""
        requests = self.traffic.failing or 0
        if self.content.bad is None:
            return requests
        return self.content.bad + max(0, requests - (self.content.arriving or 0))

    @cached_property
    def more_than_usual(self) -> bool:
        """Whether more rows are bad, or more requests fail, than an odd one; unknown rows are not held against it."""
        content, limits = self.content, self.limits
        if (self.traffic.failing or 0) >= limits.min_bad or content.bad is None:
            return True
        return content.bad >= limits.min_bad and (content.percent or 0.0) >= content.threshold_percent

    @cached_property
    def total(self) -> int:
        """What the shares are shares of: bad uploads, or as many as one cause alone has traces of."""
        return max(self.bad, *self.claims.values())

    def share(self, cause: str) -> float:
        """Share of the bad uploads that a cause with traces of its own explains."""
        return min(1.0, self.claims[cause] / self.total) if self.total else 0.0

    @cached_property
    def untraced(self) -> int:
        """Bad uploads that left no trace behind the bucket; only those known to, while a later source failed."""
        if any(self.lost(name) for name in LATER_SOURCES):
            return min(self.bad, self.content.arriving or 0)
        waiting = self.claims["V12"] if self.queue_stopped else (self.jobs.failures("other") or 0)
        traced = sum(count for cause, count in self.claims.items() if cause != "V12") + waiting
        return max(0, self.bad - traced)

    @cached_property
    def queue_stopped(self) -> bool:
        """Whether jobs wait longer than they should: a queue that is merely busy explains nothing."""
        oldest = self.jobs.oldest_seconds
        stopped = self.jobs.no_worker or self.jobs.always("paused", True)
        return bool(stopped) or (oldest is not None and oldest >= self.limits.job_stuck_seconds)

    def share_at_bucket(self) -> float:
        """Share that a closed way into the bucket explains: the untraced, those arriving now, and our own attempt."""
        arriving = self.content.arriving_now
        if self.bad == 0 and not arriving and (self.content.finished or 0) > 0:
            return NOT_OURS  # uploads come through, and none waits: it is our credentials that may not
        return (self.untraced + arriving + 1) / (max(self.bad, self.untraced) + arriving + 1)

    def share_on_the_way(self) -> float:
        """Share that something before the bucket explains, which uploads that came through speak against."""
        arriving = self.content.arriving_now
        whole = self.bad + arriving + (0 if self.more_than_usual else (self.content.finished or 0))
        return min(1.0, (self.untraced + arriving) / whole) if whole else 0.0
