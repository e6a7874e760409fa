"""Causes below and beside the queue: Redis refuses or evicts, the queue is elsewhere, workers lack space or memory."""

from __future__ import annotations

from typing import Any

from runbook.diagnosis import disks, memory, words
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.queues import signatures
from runbook.diagnosis.queues.facts import Facts, lost
from runbook.diagnosis.queues.flow import DELAYED, WAITING
from runbook.diagnosis.queues.jobs import ACTIVE, FAILED, STATE
from runbook.diagnosis.queues.signatures import MAX_IDS
from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.verdict import Cause
from runbook.diagnosis.words import Kind
from runbook.result import DECISIVE

PING, INFO = "redis_ping", "redis_info"
DISK, WORKER_DISK = "disk", "worker_disk"
KINDS: tuple[Kind, ...] = ("disk", "memory")


def redis_refuses(facts: Facts) -> Cause:
    """Q14: the Redis that holds the queue refuses everybody, or every write.

    Gate: PING is refused by a word that is meant for all, or the Redis runbook's rules find what stops a queue: a
    replica, or a memory that is full without eviction, where reads and PING still work. A refusal of our own login,
    and silence, are unknown. Source: R9, Q14; R8.
    """
    bench, readings = Bench("Q14", facts.readings), facts.readings
    signature = signatures.redis_refuses(readings, facts.jobs.waiting or 0)
    code = str(signature.details["code"]) if signature else ""
    known = readings.known(PING) and readings.known(INFO)
    return Cause(
        id="Q14",
        name=f"Redis refuses ({code})" if code else "Redis refuses",
        applicable=facts.asked(PING) or facts.asked(STATE),
        gate=bench.fact("refuses", "Redis refuses everybody, or every write", bool(code) if code or known else None,
                        value=code or None, otherwise="refutes", rests_on=(PING, INFO), weight=DECISIVE if code else 3),
        share=1.0 if code else 0.0,
        details={"code": code, "refers_to": signature.details["redis"], "queue": (facts.jobs.state or {}).get("queue")}
        if signature else {},
    )  # fmt: skip


def evicted(facts: Facts) -> Cause:
    """Q15: jobs whose hash is gone: Redis evicted it, and nobody can work on them any more.

    Gate: ids among those that wait, run or failed whose hash lacks name or time. Clause: Redis has evicted keys, and
    its policy lets it. Source: R9, Q15; R8, K16.
    """
    bench, readings = Bench("Q15", facts.readings), facts.readings
    gone = [*(facts.gone or []), *lost(readings.rows(FAILED) or [])]
    known = facts.jobs.looks and facts.gone is not None
    info = readings.row(INFO)
    count, policy = (info or {}).get("evicted_keys"), (info or {}).get("maxmemory_policy")
    evicts = None if count is None or policy is None else number(info, "evicted_keys") > 0 and policy != "noeviction"
    return Cause(
        id="Q15",
        name="jobs whose hash was evicted",
        applicable=facts.configured,
        gate=bench.gate("gone", "jobs whose hash is gone", len(gone) if gone or known else None, at_least=1,
                        rests_on=(WAITING, ACTIVE, FAILED), reason=facts.jobs.absent),
        clauses=(
            bench.fact("evicts", "Redis evicted keys under a policy that lets it", evicts if gone else
                       None if info is None else evicts, value=f"{count} keys, {policy}" if policy else None,
                       rests_on=(INFO,)),
        ),
        share=facts.share(len(gone)),
        details={"job_ids": gone[:MAX_IDS], "jobs": len(gone), "evicted_keys": count, "maxmemory_policy": policy,
                 **({"refers_to": "K16"} if evicts else {})} if gone else {},
    )  # fmt: skip


def elsewhere(facts: Facts) -> Cause:
    """Q16: there is no queue by this name and prefix in this database.

    Never found, only excluded: a queue that is not there may be misspelt, elsewhere, or not have been used yet. Its
    gate is unknown then, and says which queues there are. Source: R9, Q16.
    """
    bench, jobs = Bench("Q16", facts.readings), facts.jobs
    row = facts.readings.row(STATE) or {}
    return Cause(
        id="Q16",
        name="wrong name, prefix or database",
        applicable=facts.configured,
        gate=bench.fact("exists", "the queue is not there by this name", False if jobs.state is not None else None,
                        otherwise="refutes", rests_on=(STATE,), reason=jobs.absent),
        details={"queue": row.get("queue"), "prefix": row.get("prefix"), "queues_there": row.get("other_queues")}
        if jobs.absent else {},
    )  # fmt: skip


def no_room(facts: Facts) -> Cause:
    """Q17: workers, or Redis beside them, have no space or no memory.

    Gate: jobs fail for it (decisive by itself), a file system that workers work in is full, or one is full while Redis
    cannot write its snapshot. Clause: somebody failed for it. Stands for the runbook of disks or of memory.
    Source: R9, Q17; R5, R6.
    """
    bench, jobs = Bench("Q17", facts.readings), facts.jobs
    disk, killed = jobs.failures("disk"), jobs.failures("memory")
    retried = [r for r in facts.retrying or [] if _kind(r) in KINDS]
    failed = (disk or 0) + (killed or 0) + len(retried)
    current = len(facts.lately(jobs.targets(*KINDS))) + len(retried)
    refusal = signatures.redis_refuses(facts.readings, 0)
    snapshot = refusal is not None and refusal.details["redis"] == "K08"
    full, known_disk = _full(facts, DISK if snapshot else WORKER_DISK)
    by_memory = (killed or 0) > (disk or 0)
    gate = True if failed or full else False if jobs.failed is not None or known_disk else None
    top: dict[str, Any] = full[0] if full else {}
    blocked = current >= facts.limits.min_jobs or (snapshot and bool(full))
    reasons = jobs.reasons(*KINDS) or [str(r.get("reason"))[:200] for r in retried[:1]]
    details = {"failed_jobs": failed, "reasons": reasons,
               "host": top.get("host"), "mount": top.get("mount"), "used_percent": top.get("used_percent"),
               "refers_to": _stands_for(facts.readings, by_memory)}  # fmt: skip
    return Cause(
        id="Q17",
        name=f"no {'memory' if by_memory else 'space' if gate else 'space or memory'} on a worker",
        applicable=facts.configured or facts.asked(WORKER_DISK),
        gate=bench.fact("no_room", "jobs fail for want of space or memory, or a file system of workers is full", gate,
                        value=failed or top.get("mount"), otherwise="refutes", rests_on=(FAILED, DELAYED, WORKER_DISK),
                        weight=DECISIVE if current else 3),
        clauses=(bench.fact("met", "jobs, or Redis' snapshot, met it lately", current > 0 or snapshot,
                            value="MISCONF" if snapshot else current, rests_on=(FAILED, PING)),) if gate else (),
        share=(1.0 if snapshot and full else facts.share(failed + ((jobs.waiting or 0) if blocked else 0)))
        if gate else 0.0,
        details=details if gate else {},
    )  # fmt: skip


def _stands_for(readings: Readings, by_memory: bool) -> str:
    """The finding of the runbook of memory, or of disks, that it stands for; else that runbook by its letter."""
    found = (memory if by_memory else disks).finding(readings)
    return found.cause if found is not None else "M" if by_memory else "D"


def _kind(row: dict[str, Any]) -> str:
    return words.kind(str(row.get("reason") or ""))


def _full(facts: Facts, name: str) -> tuple[list[dict[str, Any]], bool]:
    """File systems of this reading that are full, the fullest first, and whether there is one."""
    rows = facts.readings.rows(name)
    if rows is None:
        return [], False
    full = [r for r in rows if r.get("mount") and not r.get("pseudo") and _percent(r) >= facts.limits.disk_percent]
    return sorted(full, key=lambda r: (-_percent(r), str(r.get("mount")))), True


def _percent(row: dict[str, Any]) -> float:
    return max(number(row, "used_percent"), number(row, "inodes_percent"))
