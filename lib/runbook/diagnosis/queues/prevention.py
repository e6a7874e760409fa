"""Prevention, checked: which guards a queue has. Source: reference fault model, runbook R9 (Prevent) and R8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.queues.jobs import BEFORE, COMPLETED, FAILED, Jobs
from runbook.diagnosis.readings import Readings, number
from runbook.result import Reading

MANY_FINISHED = 100_000


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    taken = Readings(readings)
    jobs = Jobs(taken, 600.0)
    state, info = jobs.state, taken.row("redis_info")
    workers = None if state is None else state.get("workers")
    policy = None if info is None else info.get("maxmemory_policy")
    return [
        _row("more than one worker", None if workers is None else workers >= 2, workers,
             "one worker that hangs is then not the whole queue"),
        _row("Redis never evicts (noeviction)", None if policy is None else policy == "noeviction", policy,
             "a job whose hash was evicted is lost without a word"),
        _row("versions of BullMQ agree", None if state is None else not (state.get("in_paused_list") and
             number(state, "major") >= 6), None if state is None else state.get("version"),
             "scripts of another version lose jobs"),
        _tries(taken),
        _kept(jobs),
        _alert(taken),
        _time_out(jobs),
    ]  # fmt: skip


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": "not read" if value is None else value, "why": why}


def _tries(taken: Readings) -> dict[str, Any]:
    rows = taken.rows(FAILED)
    retried = None if not rows else sum(1 for row in rows if number(row, "attempts") > 1)
    value = None if rows is None else f"{retried or 0} of {len(rows)} failed jobs were tried more than once"
    return _row("jobs are retried", None if not rows else bool(retried), value,
                "a dependency's odd 503 should not cost a job")  # fmt: skip


def _kept(jobs: Jobs) -> dict[str, Any]:
    """Finished jobs are kept: enough to know what is usual, and not without end."""
    kept = None if jobs.state is None else (jobs.count("completed") or 0) + (jobs.count("failed") or 0)
    holds = None if kept is None else 0 < kept < MANY_FINISHED
    return _row("finished jobs are kept, and not for ever", holds, kept,
                "without any nobody knows what is usual; without an end Redis fills up")  # fmt: skip


def _alert(taken: Readings) -> dict[str, Any]:
    """Whether a metrics server watches the queue."""
    rows = taken.rows("queue_metrics")
    value = None if rows is None else f"{len(rows)} series of this queue"
    return _row("the queue is watched over weeks", None if rows is None else bool(rows), value,
                "what a usual week looks like is not in Redis; alert on the age of the oldest job")  # fmt: skip


def _time_out(jobs: Jobs) -> dict[str, Any]:
    """No job ran for longer than a job may: BullMQ itself has no time limit."""
    rows = [*(jobs.completed or []), *(jobs.readings.rows(BEFORE) or [])]
    known = jobs.readings.known(COMPLETED) and bool(rows)
    longest = max((number(row, "ran_seconds") for row in rows), default=0.0)
    return _row("jobs end in time", longest < jobs.stuck_seconds and not jobs.hung if known and jobs.hung is not None
                else None, f"longest {longest:g} s" if known else None,
                "BullMQ has no limit of its own: a time-out belongs into the job")  # fmt: skip
