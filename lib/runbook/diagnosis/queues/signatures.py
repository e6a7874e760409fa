"""The ways in which a queue stands still, each by the trace it leaves in Redis; every room that asks is told the same.

A signature is a fact about the queue, not a verdict: rules ask for more before they name a cause.
Source: reference fault model, runbook R9 (signatures measured on BullMQ 5 and 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runbook.diagnosis import redis
from runbook.diagnosis.queues.jobs import Jobs
from runbook.diagnosis.readings import Readings, number

STOPS: Mapping[str, str] = {
    "K01": "ECONNREFUSED", "K05": "MAXCLIENTS", "K07": "OOM", "K08": "MISCONF", "K09": "READONLY", "K10": "LOADING",
    "K11": "BUSY", "K12": "no answer", "K13": "clients are paused", "K15": "DENIED", "K17": "NOREPLICAS",
    "K18": "CLUSTERDOWN",
}  # fmt: skip
"""Findings of the Redis runbook that stop everybody's queue, and how each shows. What may be our own way in alone (a
name, a route, a password, a right, TLS) is none of them. Source: R8."""
V6 = 6
"""From this version on paused jobs stay where they are, and the list ``paused`` is read by nobody."""
MAX_IDS = 10


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way in which a queue stands still."""

    #: Cause of the runbook of queues.
    id: str
    words: str
    #: Jobs that wait or hang for it.
    jobs: int
    details: dict[str, Any] = field(default_factory=dict)


def paused(jobs: Jobs) -> Signature | None:
    """Q02: somebody paused it."""
    if not jobs.always("paused", True) or not jobs.waiting:
        return None
    return Signature(id="Q02", words="the queue is paused", jobs=jobs.waiting)


def mixed_versions(jobs: Jobs) -> Signature | None:
    """Q19: jobs in the list that version 6 does not read, or that nobody reads while the queue is not paused."""
    left = jobs.count("in_paused_list") or 0
    standing = jobs.always("paused", True)
    if not left or (number(jobs.state, "major") < V6 and standing is not False):
        return None
    return Signature(id="Q19", words="jobs left in the list that this version does not read", jobs=left)


def no_worker(jobs: Jobs) -> Signature | None:
    """Q01: nobody is connected to work; a process without a connection is a zombie (Q18)."""
    if not jobs.no_worker or not jobs.waiting:
        return None
    return Signature(id="Q01", words="no worker is connected", jobs=jobs.waiting + len(jobs.unlocked or []),
                     details={"worker_processes": processes(jobs.readings)})  # fmt: skip


def processes(readings: Readings) -> int | None:
    """Processes of workers that live; ``None`` when nobody looked."""
    rows = readings.rows("worker_processes")
    return None if rows is None else sum(1 for p in rows if p.get("pid") and not str(p.get("state")).startswith("Z"))


def dead_worker(jobs: Jobs) -> Signature | None:
    """Q06: jobs are active, and their worker is gone: their locks are, too, or nobody renews them."""
    orphans = jobs.active or []
    if not orphans or not jobs.no_worker:
        return None
    return Signature(id="Q06", words="the worker died over its jobs", jobs=len(orphans) + (jobs.waiting or 0),
                     details={"job_ids": [row.get("id") for row in orphans[:MAX_IDS]]})  # fmt: skip


def blocked_worker(jobs: Jobs) -> Signature | None:
    """Q05: a job's lock is gone although its worker is still connected: its event loop is blocked, or it is stopped."""
    unlocked, workers = jobs.unlocked or [], jobs.count("workers")
    if not unlocked or not workers:
        return None
    taken = jobs.readings.rows("worker_processes") or []
    return Signature(id="Q05", words="the worker does not renew the locks of its jobs",
                     jobs=len(unlocked) + (jobs.waiting or 0),
                     details={"job_ids": [row.get("id") for row in unlocked[:MAX_IDS]],
                              "process_states": sorted({str(p.get("state"))[:1] for p in taken if p.get("state")}),
                              })  # fmt: skip


def hung_job(jobs: Jobs) -> Signature | None:
    """Q04: a job keeps its lock, runs far beyond its time, and nothing completes."""
    hung = jobs.hung or []
    if not hung or jobs.ends_now:
        return None
    longest = max(number(row, "running_seconds") for row in hung)
    return Signature(id="Q04", words="jobs hang", jobs=len(hung) + (jobs.waiting or 0),
                     details={"job_ids": [row.get("id") for row in hung[:MAX_IDS]],
                              "longest_seconds": round(longest, 1)})  # fmt: skip


def limited(jobs: Jobs) -> Signature | None:
    """Q09: a rate limit holds the queue, and nothing drains."""
    if not number(jobs.state, "limiter_ms") or jobs.draining is not False or not jobs.waiting:
        return None
    return Signature(id="Q09", words="a rate limit holds the queue", jobs=jobs.waiting)


def too_slow(jobs: Jobs) -> Signature | None:
    """Q03: there are workers, and jobs wait for too long all the same."""
    oldest = jobs.oldest_seconds
    if oldest is None or oldest < jobs.stuck_seconds or not jobs.waiting or not jobs.count("workers"):
        return None
    return Signature(id="Q03", words="more jobs arrive than the workers get through", jobs=jobs.waiting,
                     details={"concurrency": (jobs.state or {}).get("concurrency")})  # fmt: skip


def failing(jobs: Jobs, least: int) -> Signature | None:
    """Q08: at least ``least`` jobs fail for reasons that none of the other causes knows."""
    count = jobs.failures("other") or 0
    if count < least:
        return None
    return Signature(id="Q08", words="jobs fail for a reason of their own", jobs=count,
                     details={"failed_jobs": count, "reasons": jobs.reasons("other")})  # fmt: skip


def redis_refuses(readings: Readings, held: int) -> Signature | None:
    """Q14: the Redis that holds the queue refuses everybody, by the rules of its own runbook; silence is unknown."""
    found = redis.finding(readings)
    if found is None or found.cause not in STOPS:
        return None
    code = str(found.details.get("code") or STOPS[found.cause])
    return Signature(id="Q14", words=f"Redis refuses ({code})", jobs=held,
                     details={"code": code, "redis": found.cause})  # fmt: skip


STANDING: tuple[Callable[[Jobs], Signature | None], ...] = (
    paused, no_worker, dead_worker, blocked_worker, hung_job, mixed_versions, limited, too_slow,
)  # fmt: skip
"""The signatures of a queue alone, the most telling first."""
