"""V12, queue and workers: by which signature the queue stands still. Refers to the runbook of queues (R9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runbook.diagnosis import redis
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.uploads.content import number
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.uploads.jobs import ACTIVE, FAILED, STATE
from runbook.diagnosis.verdict import Cause

MAY_BE_OURS = frozenset({"K02", "K03", "K04", "K14"})
"""Findings of the runbook of Redis that may be our own way in alone: a name, a route, a password, a right, TLS."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way in which a queue stands still."""

    #: Cause of the runbook of queues.
    id: str
    words: str
    #: Jobs that wait or hang for it.
    jobs: int
    details: dict[str, Any] = field(default_factory=dict)


def queue_stands_still(facts: Facts) -> Cause:
    """V12: jobs wait or hang, since of their workers none works.

    Gate: one of the signatures of a queue that stands still. Clause: jobs wait or hang for it. Unknown when the queue
    cannot be read or is not there by its name, and when names of clients are hidden while nothing else shows.
    Source: R3, V12; R9, Q01–Q09.
    """
    bench, jobs = Bench("V12", facts.readings), facts.jobs
    found = signatures(facts)
    known = jobs.state is not None and jobs.waiting is not None
    blind = known and not found and jobs.no_worker is None and jobs.waiting != 0 and not jobs.draining
    first = found[0] if found else None
    gate = True if first else None if not known or blind else False
    held = max((signature.jobs for signature in found), default=0)
    details: dict[str, Any] = {}
    if first is not None:
        details = {"refers_to": first.id, "signature": first.words, "also": [s.id for s in found[1:]],
                   "queue": (jobs.state or {}).get("queue"), "waiting": jobs.waiting, "active": jobs.count("active"),
                   "workers": (jobs.state or {}).get("workers"), "oldest_waiting_seconds": jobs.oldest_seconds,
                   **first.details}  # fmt: skip
    reason = jobs.absent or ("names of clients are hidden, so that workers cannot be seen" if blind else "")
    return Cause(
        id="V12",
        name=f"queue stands still: {first.words}" if first else "queue or worker",
        applicable=jobs.configured,
        gate=bench.fact("signature", "the queue stands still", gate, value=first.words if first else None,
                        otherwise="refutes", rests_on=(STATE, ACTIVE, FAILED, "redis_ping"), reason=reason),
        clauses=(
            bench.weigh("jobs", "jobs that wait or hang", held if first else jobs.waiting if known else None,
                        at_least=1, rests_on=(STATE, ACTIVE)),
        ),
        share=min(1.0, held / facts.total) if facts.total and held else 0.0,
        details=details,
    )  # fmt: skip


def signatures(facts: Facts) -> list[Signature]:
    """Every signature that shows, the most telling first."""
    return [signature for look in SIGNATURES if (signature := look(facts)) is not None]


def _paused(facts: Facts) -> Signature | None:
    """Q02: somebody paused it."""
    jobs = facts.jobs
    if not jobs.always("paused", True) or not jobs.waiting:
        return None
    return Signature(id="Q02", words="the queue is paused", jobs=jobs.waiting)


def _mixed_versions(facts: Facts) -> Signature | None:
    """Q19: jobs in the list that version 6 does not read."""
    jobs = facts.jobs
    left = jobs.count("in_paused_list") or 0
    if not left or number(jobs.state, "major") < 6 or jobs.always("paused", True):
        return None
    return Signature(id="Q19", words="jobs left in the list that this version does not read", jobs=left)


def _no_worker(facts: Facts) -> Signature | None:
    """Q01: nobody is connected to work; a process without a connection is a zombie (Q18)."""
    jobs = facts.jobs
    held = (jobs.waiting or 0) + len(jobs.unlocked or [])
    if not jobs.no_worker or not held or jobs.always("paused", True) or not jobs.waiting:
        return None
    processes = facts.readings.rows("worker_processes")
    return Signature(
        id="Q01", words="no worker is connected", jobs=held,
        details={"worker_processes": None if processes is None else sum(1 for p in processes if p.get("pid"))},
    )  # fmt: skip


def _dead_worker(facts: Facts) -> Signature | None:
    """Q06: jobs are active, their locks are gone, and so is their worker."""
    unlocked = facts.jobs.unlocked or []
    if not unlocked or not facts.jobs.no_worker:
        return None
    return Signature(id="Q06", words="the worker died over its jobs", jobs=len(unlocked) + (facts.jobs.waiting or 0),
                     details={"job_ids": [row.get("id") for row in unlocked[:10]]})  # fmt: skip


def _blocked_worker(facts: Facts) -> Signature | None:
    """Q05: a job's lock is gone although its worker is still connected: its event loop is blocked, or it is stopped."""
    unlocked, workers = facts.jobs.unlocked or [], facts.jobs.count("workers")
    if not unlocked or not workers:
        return None
    states = sorted({str(p.get("state"))[:1] for p in facts.readings.rows("worker_processes") or [] if p.get("state")})
    return Signature(id="Q05", words="the worker does not renew the locks of its jobs",
                     jobs=len(unlocked) + (facts.jobs.waiting or 0),
                     details={"job_ids": [row.get("id") for row in unlocked[:10]],
                              "process_states": states})  # fmt: skip


def _hung_job(facts: Facts) -> Signature | None:
    """Q04: a job keeps its lock, runs far beyond its time, and nothing completes."""
    jobs = facts.jobs
    hung = jobs.hung or []
    if not hung or jobs.draining:
        return None
    longest = max(number(row, "running_seconds") for row in hung)
    return Signature(id="Q04", words="jobs hang", jobs=len(hung) + (jobs.waiting or 0),
                     details={"job_ids": [row.get("id") for row in hung[:10]],
                              "longest_seconds": round(longest, 1)})  # fmt: skip


def _limited(facts: Facts) -> Signature | None:
    """Q09: a rate limit holds the queue, and nothing drains."""
    jobs = facts.jobs
    if not number(jobs.state, "limiter_ms") or jobs.draining is not False or not jobs.waiting:
        return None
    return Signature(id="Q09", words="a rate limit holds the queue", jobs=jobs.waiting)


def _failing(facts: Facts) -> Signature | None:
    """Q08: jobs fail for one reason that none of the other causes knows."""
    jobs = facts.jobs
    count = jobs.failures("other") or 0
    if count < facts.limits.min_bad or facts.content.recovered:
        return None
    return Signature(id="Q08", words="jobs fail for a reason of their own", jobs=count,
                     details={"failed_jobs": count, "reasons": jobs.reasons("other")})  # fmt: skip


def _too_slow(facts: Facts) -> Signature | None:
    """Q03: workers work, jobs complete, and more arrive than leave."""
    jobs = facts.jobs
    oldest = jobs.oldest_seconds
    if oldest is None or oldest < facts.limits.job_stuck_seconds or not jobs.waiting or not jobs.count("workers"):
        return None
    return Signature(id="Q03", words="more jobs arrive than the workers get through", jobs=jobs.waiting,
                     details={"concurrency": (jobs.state or {}).get("concurrency")})  # fmt: skip


def _redis_refuses(facts: Facts) -> Signature | None:
    """Q14: the Redis that holds the queue refuses everybody, by the rules of its own runbook; silence is unknown."""
    found = redis.finding(facts.readings)
    if found is None or found.cause in MAY_BE_OURS or facts.bad < facts.limits.min_bad:
        return None
    said = found.details.get("code") or found.name
    return Signature(id="Q14", words=f"Redis refuses ({said})", jobs=facts.bad, details={"redis": found.cause})


SIGNATURES: tuple[Callable[[Facts], Signature | None], ...] = (
    _redis_refuses, _paused, _no_worker, _dead_worker, _blocked_worker, _hung_job, _mixed_versions, _limited,
    _too_slow, _failing,
)  # fmt: skip
