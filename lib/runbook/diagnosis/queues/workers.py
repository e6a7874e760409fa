"""Causes that lie with the workers: none, one that hangs, blocks, died or is cut off, a job that kills them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.queues import signatures
from runbook.diagnosis.queues.facts import Facts
from runbook.diagnosis.queues.flow import DELAYED, WAITING
from runbook.diagnosis.queues.jobs import ACTIVE, COMPLETED, FAILED, STATE
from runbook.diagnosis.queues.signatures import MAX_IDS, Signature
from runbook.diagnosis.readings import number
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, WEAK, Evidence

PROCESSES = "worker_processes"
RESTARTED_SECONDS = 120.0
"""A worker that is no older has been restarted lately."""
HIDDEN = "names of clients are hidden, so that workers cannot be seen"


def _shown(facts: Facts, signature: Signature | None) -> bool | None:
    """Whether a signature shows; ``None`` while the queue itself, or who works on it, cannot be seen."""
    jobs = facts.jobs
    if signature is not None:
        return True
    return False if jobs.state is not None and jobs.waiting is not None else None


def _reason(facts: Facts) -> str:
    blind = facts.jobs.state is not None and facts.jobs.no_worker is None
    return facts.jobs.absent or (HIDDEN if blind and facts.jobs.always("workers", 0) is None else "")


def _still(facts: Facts, bench: Bench) -> Evidence:
    """No job ends while we look."""
    ends = facts.jobs.draining
    return bench.fact("stands", "no job ended while we looked", None if ends is None else not ends, otherwise="refutes",
                      rests_on=(STATE, ACTIVE), reason="needs two looks, and a queue that keeps what ended"
                      if ends is None and facts.jobs.state is not None else "")  # fmt: skip


def _none_ends(facts: Facts, bench: Bench) -> Evidence:
    """No job ends, nor did one lately."""
    ends = facts.jobs.ends_now
    last = facts.jobs.last_end_seconds
    return bench.fact("stands", "no job ended while we looked, nor in the last minutes",
                      None if ends is None else not ends, value=last, unit="s ago" if last is not None else "",
                      otherwise="refutes", rests_on=(STATE, ACTIVE))  # fmt: skip


def _identity(facts: Facts) -> dict[str, Any]:
    state = facts.jobs.state or {}
    return {"queue": state.get("queue"), "waiting": facts.jobs.waiting, "active": facts.jobs.count("active"),
            "workers": state.get("workers"), "oldest_waiting_seconds": facts.oldest_seconds}  # fmt: skip


def no_worker(facts: Facts) -> Cause:
    """Q01: jobs wait, and nobody is connected to work on them.

    Gate: at every look no connection is named as a worker of this queue, although names are shown, and no lock was
    renewed nor a job ended meanwhile. Clauses: jobs wait; none ends. Refuted where a worker's process lives: that is a
    zombie (Q18). Source: R9, Q01.
    """
    bench, jobs = Bench("Q01", facts.readings), facts.jobs
    signature = signatures.no_worker(jobs)
    alive = signatures.processes(facts.readings)
    gate = _shown(facts, signature)
    if signature is None and jobs.no_worker is None and jobs.waiting:
        gate = None if not jobs.draining else False
    if signature is not None and alive:
        gate = False
    hints = (
        bench.fact("processes", "no process of a worker lives", True, value=0, rests_on=(PROCESSES,), weight=WEAK),
    )
    return Cause(
        id="Q01",
        name="no worker is connected",
        applicable=facts.configured,
        gate=bench.fact("absent", "no worker is connected, nor does its process live", gate, otherwise="refutes",
                        value=(jobs.state or {}).get("workers"), rests_on=(STATE, ACTIVE), reason=_reason(facts)),
        clauses=(
            bench.weigh("waiting", "jobs that wait", jobs.waiting, at_least=1, rests_on=(STATE,)),
            _still(facts, bench),
        ),
        hints=hints if alive == 0 and gate else (),
        share=facts.share(signature.jobs) if signature and gate else 0.0,
        details=_identity(facts) | signature.details if signature and gate else {},
    )  # fmt: skip


def zombie(facts: Facts) -> Cause:
    """Q18: a worker's process lives, but it is not connected to the queue.

    Gate: as Q01, and processes that match ``workers.process_pattern`` live. Clauses: jobs wait; none ends. Source: R9,
    Q18; R8, K20.
    """
    bench, jobs = Bench("Q18", facts.readings), facts.jobs
    signature, alive = signatures.no_worker(jobs), signatures.processes(facts.readings)
    gate = _shown(facts, signature)
    if signature is not None:
        gate = None if alive is None else alive > 0
    elif jobs.no_worker is None and jobs.waiting:
        gate = None if not jobs.draining else False
    rows = facts.readings.rows(PROCESSES) or []
    there = [{"host": p.get("host"), "pid": p.get("pid"), "state": p.get("state")} for p in rows if p.get("pid")]
    return Cause(
        id="Q18",
        name="the worker lives, and is not connected",
        applicable=facts.configured and facts.asked(PROCESSES),
        gate=bench.fact("alive", "processes of workers that live while none is connected", gate, otherwise="refutes",
                        value=alive, rests_on=(STATE, PROCESSES), reason=_reason(facts)),
        clauses=(
            bench.weigh("waiting", "jobs that wait", jobs.waiting, at_least=1, rests_on=(STATE,)),
            _still(facts, bench),
        ),
        share=facts.share(signature.jobs) if signature and gate else 0.0,
        details=_identity(facts) | {"processes": there[:MAX_IDS]} if gate else {},
    )  # fmt: skip


def hung_job(facts: Facts) -> Cause:
    """Q04: jobs keep their locks, run far beyond their time, and nothing ends.

    Gate: active jobs whose lock lives and that run for ``job_stuck_minutes``, and at least three times as long as 99 of
    100 usually do. Clauses: their lock was there at every look; no job ended. Source: R9, Q04.
    """
    bench, jobs = Bench("Q04", facts.readings), facts.jobs
    hung, signature = jobs.hung, signatures.hung_job(jobs)
    longest = max((number(row, "running_seconds") for row in hung or []), default=0.0)
    ids = [row.get("id") for row in (hung or [])[:MAX_IDS]]
    usual = jobs.slowest_usual_seconds
    details = {"job_ids": ids, "longest_seconds": round(longest, 1), "usually_at_most_seconds": usual,
               "workers_named": sorted({str(r["worker"]) for r in hung or [] if r.get("worker")})}  # fmt: skip
    return Cause(
        id="Q04",
        name="jobs hang",
        applicable=facts.configured,
        gate=bench.gate("hung", f"active jobs with a lock that run for {jobs.hung_after_seconds:g} s or more",
                        None if hung is None else len(hung), at_least=1, rests_on=(ACTIVE, STATE),
                        reason=jobs.absent),
        clauses=(
            bench.weigh("longest", "longest of them, s", longest if hung is not None else None, unit="s",
                        at_least=jobs.hung_after_seconds, rests_on=(ACTIVE,)),
            _none_ends(facts, bench),
        ),
        share=facts.share(signature.jobs if signature else len(hung or [])),
        details=_identity(facts) | details if hung else {},
    )  # fmt: skip


def _silence(facts: Facts) -> bool | None:
    """Whether a worker's connection is silent for longer than one that waits for work ever is.

    False when all of them spoke between the first look and the last; ``None`` in between, or without such a list.
    """
    clients = [list(row.get("worker_clients") or []) for row in facts.jobs.looks]
    if not clients or not clients[-1]:
        return None
    idle = [c.get("idle_seconds") for c in clients[-1]]
    if any(i is not None and i >= facts.limits.silent_seconds for i in idle):
        return True
    before = {c.get("id"): number(c, "idle_seconds") for c in clients[0]}
    spoke = [number(c, "idle_seconds") < before.get(c.get("id"), 0.0) for c in clients[-1]]
    return False if all(spoke) else None


def blocked_loop(facts: Facts) -> Cause:
    """Q05: the worker is connected, and does not renew the locks of its jobs: blocked, or stopped.

    Gate: active jobs without a lock at every look while a worker is connected, a connection is silent for longer than
    ``silent_seconds``, and no other job's lock lives (a live worker would take a dead one's jobs over).
    Clause: no job ended. Source: R9, Q05.
    """
    bench, jobs = Bench("Q05", facts.readings), facts.jobs
    signature = signatures.blocked_worker(jobs)
    silent = _silence(facts)
    gate = _shown(facts, signature)
    if signature is not None:
        gate = silent
        if silent and any(row.get("has_lock") for row in jobs.active or []):
            gate = None
    why = (
        "whether the one connected blocks or another one died cannot be told yet" if signature and gate is None else ""
    )
    rows = facts.readings.rows(PROCESSES) or []
    stopped = [p for p in rows if str(p.get("state")).startswith(("T", "t", "D"))]
    return Cause(
        id="Q05",
        name="the worker's event loop is blocked, or it is stopped",
        applicable=facts.configured,
        gate=bench.fact("unlocked", "jobs in work without a lock while their worker is connected, and silent", gate,
                        otherwise="refutes", value=len(jobs.unlocked or []) if signature else None,
                        rests_on=(ACTIVE, STATE), reason=why or _reason(facts)),
        clauses=(_still(facts, bench),),
        hints=tuple(bench.fact("stopped", "a worker's process is stopped, or waits for a device", True,
                               rests_on=(PROCESSES,),
                               value=f"pid {p.get('pid')} state {p.get('state')}", weight=WEAK) for p in stopped[:1]),
        share=facts.share(signature.jobs) if signature and gate else 0.0,
        details=_identity(facts) | signature.details | {"stopped_pids": [p.get("pid") for p in stopped]}
        if signature and gate else {},
    )  # fmt: skip


def dead_worker(facts: Facts) -> Cause:
    """Q06: the worker died over its jobs.

    Gate: jobs are in work while no worker is connected, nor does its process live; or they have no lock at any look
    while those that are connected all speak, so that it is another one that died. Clause: no worker is left to take
    them over. Source: R9, Q06.
    """
    bench, jobs = Bench("Q06", facts.readings), facts.jobs
    signature = signatures.dead_worker(jobs)
    unlocked = len(jobs.unlocked or [])
    left = len(jobs.active or []) if signature else unlocked
    gate = _shown(facts, signature)
    if signature is not None and signatures.processes(facts.readings):
        gate = False
    alone = True if signature else None
    if signature is None and unlocked:
        gate = None if jobs.no_worker is None else _silence(facts) is False or None
        alone = False if gate else None
    details = signature.details if signature else {"job_ids": [r.get("id") for r in (jobs.unlocked or [])[:MAX_IDS]]}
    return Cause(
        id="Q06",
        name="a worker died over its jobs",
        applicable=facts.configured,
        gate=bench.fact("orphaned", "jobs in work whose worker is gone", gate, otherwise="refutes",
                        value=left or None, rests_on=(ACTIVE, STATE), reason=_reason(facts)),
        clauses=(
            bench.fact("alone", "nobody is there to take them over (the check runs in workers)", alone,
                       rests_on=(STATE,)),
            bench.weigh("jobs", "jobs it left", left if jobs.unlocked is not None else None, at_least=1,
                        rests_on=(ACTIVE,)),
        ),
        share=facts.share(signature.jobs if signature else left) if gate else 0.0,
        details=_identity(facts) | details if gate else {},
    )  # fmt: skip


def poison(facts: Facts) -> Cause:
    """Q07: a job kills, or blocks, whichever worker takes it.

    Gate: jobs that failed since they stalled more often than allowed, or that stalled twice. Clause: they are few; a
    worker that dies over everything is not one job's doing. Source: R9, Q07.
    """
    bench, jobs = Bench("Q07", facts.readings), facts.jobs
    for_good = jobs.targets("stalled")
    rows = [*(jobs.active or []), *(facts.waiters or []), *(facts.readings.rows(DELAYED) or [])]
    again = [row for row in rows if number(row, "stalled_count") >= 2]
    ids = list(dict.fromkeys(str(row.get("id")) for row in [*for_good, *again]))
    known = jobs.failed is not None
    ended = len(jobs.failed or []) + len(jobs.completed or [])
    few = None if not known or jobs.completed is None else len(ids) <= 3 or 2 * len(ids) < ended
    restarted = _restarted(facts)
    current = bool(again or facts.lately(for_good))
    claims = len(ids) + ((jobs.waiting or 0) if current and (restarted or jobs.no_worker) else 0)
    names = Counter(str(row.get("job")) for row in [*again, *(jobs.failed or [])] if str(row.get("id")) in ids)
    return Cause(
        id="Q07",
        name="a job kills every worker that takes it",
        applicable=facts.configured,
        gate=bench.gate("stalled", "jobs that stalled for good, or again and again", len(ids) if ids or known else None,
                        at_least=1, rests_on=(FAILED, ACTIVE, WAITING), reason=jobs.absent,
                        weight=DECISIVE if for_good and few and current else 3),
        clauses=(
            bench.fact("few", "they are few among those that ended", few if ids else None if not known else False,
                       value=f"{len(ids)} of {ended}" if ids else None, rests_on=(FAILED, COMPLETED)),
        ),
        hints=(bench.fact("restarted", "a worker was restarted lately", True, value=restarted, unit="s ago",
                          rests_on=(STATE, PROCESSES), weight=WEAK),) if restarted is not None and ids else (),
        share=facts.share(claims) if ids else 0.0,
        details={"job_ids": ids[:MAX_IDS], "job_names": dict(names.most_common(3)),
                 "reasons": jobs.reasons("stalled")} if ids else {},
    )  # fmt: skip


def _restarted(facts: Facts) -> float | None:
    """Age in seconds of the youngest worker, if that is young; ``None`` otherwise."""
    clients = (facts.jobs.state or {}).get("worker_clients") or []
    ages = [float(c["age_seconds"]) for c in clients if c.get("age_seconds") is not None]
    youngest = min(ages, default=None)
    return youngest if youngest is not None and youngest <= RESTARTED_SECONDS else None
