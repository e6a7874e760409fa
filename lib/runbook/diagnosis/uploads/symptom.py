"""The symptom of the upload runbook, re-measured: it has several faces, any of which is enough.

Source: reference fault model, runbook R3.
"""

from __future__ import annotations

from collections.abc import Callable

from runbook.diagnosis.face import Face
from runbook.diagnosis.face import is_breached as is_breached
from runbook.diagnosis.uploads.facts import NOT_OURS, Facts
from runbook.result import Symptom

PEAK_PERCENT = 50.0


def faces(facts: Facts) -> list[Face]:
    """Every face, the most telling first."""
    return [face(facts) for face in FACES]


def shown(all_faces: list[Face]) -> Symptom:
    """The symptom as the report shows it: the first face that is breached, else the rows."""
    breached = [face for face in all_faces if face.breached]
    return (breached or all_faces)[0].symptom(is_breached(all_faces))


def sufficient(facts: Facts) -> bool:
    """Whether there were uploads enough to speak of a rate; when they are unknown, that is the larger trouble."""
    content, limits = facts.content, facts.limits
    if content.uploads is None or content.bad is None:
        return True
    return content.uploads >= limits.min_uploads or content.bad >= limits.min_bad


def peaked(facts: Facts) -> bool:
    """Whether it was there within the window: it has recovered since, or half of the uploads of five minutes failed."""
    return bool(facts.content.recovered) or (facts.content.peak_percent or 0.0) >= PEAK_PERCENT


def _rows(facts: Facts) -> Face:
    content, limits = facts.content, facts.limits
    breached: bool | None = None
    if content.uploads is not None and content.bad is not None:
        enough = content.bad >= limits.min_bad
        over = (content.percent or 0.0) >= content.threshold_percent
        breached = enough and over and not content.recovered
        if not breached and content.uploads < limits.min_uploads:
            breached = None
    return Face(
        label="uploads of the window that failed or got stuck",
        unit="%",
        value=content.percent,
        threshold=round(content.threshold_percent, 1),
        breached=breached,
        peak=max((p for p in (content.percent, content.peak_percent) if p is not None), default=None),
    )


def _requests(facts: Facts) -> Face:
    traffic, limits = facts.traffic, facts.limits
    failing, requests = traffic.failing, traffic.requests
    percent = round(min(100.0, 100.0 * failing / requests), 1) if failing is not None and requests else None
    return Face(
        label="requests of uploads that failed",
        unit="%",
        value=percent,
        threshold=limits.threshold_percent,
        breached=None
        if facts.lost("splits")
        else (failing or 0) >= limits.min_bad and (percent or 0.0) >= limits.threshold_percent,
    )


def _queue(facts: Facts) -> Face:
    oldest = facts.jobs.oldest_seconds
    return Face(
        label="age of the oldest job that waits",
        unit="s",
        value=oldest,
        threshold=facts.limits.job_stuck_seconds,
        breached=None if facts.lost("queue_state") else (oldest or 0.0) >= facts.limits.job_stuck_seconds,
    )


def _attempt(facts: Facts) -> Face:
    """Our own upload; one that only ours fails at is no symptom of the users'."""
    writes = facts.bucket.writes
    refused = writes is False and facts.share_at_bucket() > NOT_OURS
    return Face(
        label="our own test upload refused",
        unit="",
        value=None if writes is None else float(not writes),
        threshold=1.0,
        breached=refused,
    )


FACES: tuple[Callable[[Facts], Face], ...] = (_rows, _requests, _queue, _attempt)
