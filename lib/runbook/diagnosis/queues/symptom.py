"""The symptom by its faces: the oldest waiter, the waits that ended, jobs that are held, fail, are orphaned or gone.

Completions alone look fine when nothing completes, and the oldest waiter looks fine when everybody waited: both count.
"""

from __future__ import annotations

from collections.abc import Sequence

from runbook.diagnosis.face import Face
from runbook.diagnosis.face import is_breached as is_breached
from runbook.diagnosis.queues.facts import Facts, percentile
from runbook.diagnosis.readings import number
from runbook.result import Symptom


def faces(facts: Facts) -> list[Face]:
    """Every face, the runbook's own first."""
    limit = facts.limits.threshold_seconds
    return [
        _oldest(facts, limit),
        _percentile(facts, limit),
        _held(facts),
        _failing(facts),
        _between(facts, limit),
        _orphans(facts, limit),
        _gone(facts),
    ]


def _face(label: str, value: float | None, limit: float, unit: str = "s", peak: float | None = None) -> Face:
    value = None if value is None else round(value, 1)
    return Face(label=label, unit=unit, value=value, threshold=limit, peak=peak,
                breached=None if value is None else value >= limit)  # fmt: skip


def _oldest(facts: Facts, limit: float) -> Face:
    seen = [number(row, "oldest_waiting_seconds") for row in facts.jobs.looks if row.get("oldest_waiting_seconds")]
    seen += [] if facts.oldest_seconds is None else [facts.oldest_seconds]
    return _face("oldest waiting job", facts.oldest_seconds, limit, peak=max(seen, default=None))


def _percentile(facts: Facts, limit: float) -> Face:
    label = "95th percentile of the waits of jobs that completed"
    if facts.jobs.completed is None or not facts.jobs.looks:
        return _face(label, None, limit)
    peak = percentile(facts.waits or [], 0.95)
    few = len(facts.waits or []) < facts.limits.min_jobs
    late = [r for r in facts.late_rows or [] if r.get("waited_seconds") is not None]
    # Too few to speak of a percentile: the oldest waiter alone decides then.
    value = 0.0 if len(late) < facts.limits.min_jobs else facts.p95_seconds
    return _face(label, value, limit, peak=None if few else peak)


def _held(facts: Facts) -> Face:
    known = facts.jobs.unlocked is not None and facts.jobs.hung is not None
    return _face("jobs in work that hang or lost their lock", float(len(facts.held)) if known else None, 1, "jobs")


def _failing(facts: Facts) -> Face:
    share = None if facts.failed_share is None or not facts.jobs.looks else 100 * facts.failed_share
    return _face("jobs that ended and failed", share, facts.limits.failed_percent, "%")


def _between(facts: Facts, limit: float) -> Face:
    rows = facts.retrying
    if rows is None or not facts.jobs.looks:
        return _face("oldest job between two tries", None, limit)
    ages = [s for row in rows if (s := facts.age_seconds(row)) is not None]
    return _face("oldest job between two tries", max(ages, default=0.0), limit)


def _orphans(facts: Facts, limit: float) -> Face:
    orphans = facts.orphans
    value = None if orphans is None or not facts.jobs.looks else max(
        (number(row, "waited_seconds") for row in orphans), default=0.0)  # fmt: skip
    return _face("oldest parent whose child failed", value, limit)


def _gone(facts: Facts) -> Face:
    known = facts.gone is not None and facts.jobs.looks
    return _face("jobs to be run whose hash is gone", float(len(facts.gone or [])) if known else None, 1, "jobs")


def shown(all_faces: Sequence[Face]) -> Symptom:
    """The face that the report shows: the runbook's own, or the first that shows where that does not."""
    breached = is_breached(all_faces)
    first = next((face for face in all_faces if face.breached), all_faces[0])
    return first.symptom(breached)
