"""Causes by which the queue itself holds jobs back: paused, capped, out of turn, left behind, waiting for children."""

from __future__ import annotations

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.queues import signatures
from runbook.diagnosis.queues.facts import PARENTS, Facts
from runbook.diagnosis.queues.flow import FLOW, WAITING
from runbook.diagnosis.queues.jobs import ACTIVE, COMPLETED, STATE, moment
from runbook.diagnosis.readings import number
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

CAPPED_SHARE = 0.8
"""A queue that lets through so much of what its rate limit allows is held by that limit."""


def paused(facts: Facts) -> Cause:
    """Q02: the queue is paused, and jobs wait.

    Gate: its meta data say so at every look. Clause: jobs wait. Who paused it, and when, is not kept in Redis; it was
    not before the last job began. Source: R9, Q02.
    """
    bench, jobs = Bench("Q02", facts.readings), facts.jobs
    state, is_paused = jobs.state or {}, jobs.always("paused", True)
    begun = [str(r.get("processed_at")) for r in jobs.active or [] if r.get("processed_at")]
    last = max(
        [*begun, *(str(state[k]) for k in ("last_completed_at", "last_failed_at") if state.get(k))], default=None
    )
    details = {"queue": state.get("queue"), "waiting": jobs.waiting, "version": state.get("version"),
               "in_wait_list": state.get("in_wait_list"), "in_paused_list": state.get("in_paused_list"),
               "workers": state.get("workers"), "oldest_waiting_seconds": facts.oldest_seconds,
               "not_before": last, "paused_by": "not kept in Redis"}  # fmt: skip
    return Cause(
        id="Q02",
        name="the queue is paused",
        applicable=facts.configured,
        gate=bench.fact("paused", "the queue is paused", is_paused, otherwise="refutes", rests_on=(STATE,),
                        reason=jobs.absent),
        clauses=(
            bench.weigh("waiting", "jobs that wait", jobs.waiting, at_least=1, rests_on=(STATE,)),
        ),
        share=facts.share(jobs.waiting or 0) if is_paused else 0.0,
        details=details if is_paused else {},
    )  # fmt: skip


def capped(facts: Facts) -> Cause:
    """Q09: a rate limit or a limit of jobs at a time holds the queue.

    Gate: jobs wait, and a limiter is in force while none ends (a worker without one ignores it), or as many jobs are in
    work as the queue allows at a time, or as many end as its own rate limit allows. Clauses: workers are
    connected; what is in work is in good hands. Source: R9, Q09.
    """
    bench, jobs = Bench("Q09", facts.readings), facts.jobs
    kind, gate = cap(facts)
    state = jobs.state or {}
    workers = state.get("workers")
    return Cause(
        id="Q09",
        name="a rate or concurrency limit holds the queue",
        applicable=facts.configured,
        gate=bench.fact("cap", "jobs wait for a limit of the queue", gate, value=kind or None, otherwise="refutes",
                        rests_on=(STATE, ACTIVE, FLOW), reason=jobs.absent),
        clauses=(
            bench.fact("workers", "workers are connected that could do more", None if workers is None else workers >= 1,
                       value=workers, rests_on=(STATE,)),
            bench.fact("held", "no job in work hangs or lost its lock", facts.none_held, rests_on=(ACTIVE,),
                       otherwise="refutes"),
        ),
        share=facts.share(jobs.waiting or 0) if gate else 0.0,
        details={"limit": kind, "concurrency": state.get("concurrency"), "limiter_ms": state.get("limiter_ms"),
                 "rate_max": state.get("rate_max"), "rate_duration_ms": state.get("rate_duration_ms"),
                 "waiting": jobs.waiting} if gate else {},
    )  # fmt: skip


def cap(facts: Facts) -> tuple[str, bool | None]:
    """By which limit of the queue its jobs wait, and whether they do; ``None`` when that cannot be told."""
    jobs = facts.jobs
    if jobs.state is None or jobs.waiting is None:
        return "", None
    if not jobs.waiting or jobs.always("paused", True):
        return "", False
    if signatures.limited(jobs) is not None and not jobs.no_worker:
        return f"rate limiter in force for {number(jobs.state, 'limiter_ms') / 1000:g} s more", True
    most = jobs.count("concurrency")
    full = _full(facts, most) if most and not jobs.no_worker else False
    if full:
        return f"at most {most} jobs at a time in the whole queue", True
    rate, duration = jobs.count("rate_max"), jobs.count("rate_duration_ms")
    ended = facts.flow.ended_per_minute
    if rate and duration and ended is not None and ended >= CAPPED_SHARE * rate * 60_000 / duration:
        return f"at most {rate} jobs in {duration / 1000:g} s", True
    unknown = full is None or (number(jobs.state, "limiter_ms") > 0 and jobs.draining is None)
    return "", None if unknown else False


def _full(facts: Facts, most: int) -> bool | None:
    """Whether as many are in work as may be, and never more: at any look, since the next one takes a moment.

    Unknown where no look saw anything in work although jobs wait and workers are there: between two jobs it looks so.
    """
    in_work = [number(row, "active") for row in facts.jobs.looks]
    if not any(in_work):
        return None
    return max(in_work) == most


def starved(facts: Facts) -> Cause:
    """Q11: jobs of low priority never come up, since others always go first.

    Gate: a prioritized job waits for too long. Clauses: jobs that came later began before it; those without a priority
    do not wait long. Source: R9, Q11.
    """
    bench, jobs = Bench("Q11", facts.readings), facts.jobs
    rows = [r for r in facts.waiters or [] if r.get("list") == "prioritized"]
    many = jobs.count("prioritized")
    oldest = max((number(r, "waited_seconds") for r in rows), default=None if many or facts.waiters is None else 0.0)
    passed = _overtaking(facts, oldest)
    wait = (jobs.state or {}).get("oldest_in_wait_seconds")
    young = None if jobs.state is None else wait is None or float(wait) < facts.limits.threshold_seconds
    top = rows[0] if rows else {}
    late = sum(1 for r in rows if number(r, "waited_seconds") >= facts.limits.threshold_seconds)
    held = oldest is not None and oldest >= facts.limits.threshold_seconds
    return Cause(
        id="Q11",
        name="jobs of low priority starve",
        applicable=facts.configured,
        gate=bench.gate("oldest", "oldest prioritized job, s", oldest, at_least=facts.limits.threshold_seconds,
                        unit="s", rests_on=(WAITING, STATE), reason=jobs.absent),
        clauses=(
            bench.gate("overtaken", "jobs that came later and went first", _known(passed, oldest, held),
                       at_least=1, rests_on=(COMPLETED, ACTIVE, WAITING)),
            bench.fact("young", "jobs without a priority do not wait long", young, value=wait, unit="s",
                       rests_on=(STATE,)),
        ),
        share=facts.share(late) if held and passed else 0.0,
        details={"prioritized": many, "oldest_id": top.get("id"), "oldest_priority": top.get("priority"),
                 "oldest_seconds": oldest, "overtaken_by": passed} if held else {},
    )  # fmt: skip


def _known(passed: int | None, oldest: float | None, held: bool) -> int | None:
    """How many went first, which only matters once a job waits for too long."""
    return passed if held else None if oldest is None else 0


def _overtaking(facts: Facts, oldest: float | None) -> int | None:
    """Jobs that arrived after the oldest prioritized one, and that began all the same."""
    flow = facts.flow
    if oldest is None or flow.now is None or not flow.known:
        return None
    return sum(1 for p in flow.passages if p.begun is not None and (flow.now - p.arrived).total_seconds() < oldest - 1)


def mixed_versions(facts: Facts) -> Cause:
    """Q19: jobs were left in a list that the workers of this version do not read.

    Gate: the list ``paused`` holds jobs, although version 6 keeps paused jobs where they are, or although the queue is
    not paused. Clause: they wait for too long, or the others get on. Source: R9, Q19; contracts, section 10.
    """
    bench, jobs = Bench("Q19", facts.readings), facts.jobs
    signature = signatures.mixed_versions(jobs)
    left = jobs.count("in_paused_list")
    state = jobs.state or {}
    age = state.get("oldest_in_paused_seconds")
    standing = jobs.always("in_paused_list", left) if left else None
    return Cause(
        id="Q19",
        name="versions of BullMQ are mixed: jobs left in the list paused",
        applicable=facts.configured,
        gate=bench.fact("left", "jobs in a list that this version does not read",
                        None if left is None else signature is not None, value=left if signature else None,
                        otherwise="refutes", rests_on=(STATE,), reason=jobs.absent),
        clauses=(
            bench.fact("standing", "they do not move", standing if signature else None if left is None else False,
                       value=age, unit="s", rests_on=(STATE,)),
        ),
        hints=(bench.fact("version", "version that the queue says it was written by", True, value=state.get("version"),
                          rests_on=(STATE,), weight=WEAK),) if signature else (),
        share=facts.share(left or 0) if signature else 0.0,
        details={"in_paused_list": left, "in_wait_list": state.get("in_wait_list"), "version": state.get("version"),
                 "major": state.get("major"), "oldest_in_paused_seconds": age} if signature else {},
    )  # fmt: skip


def childless(facts: Facts) -> Cause:
    """Q20: parents wait for children that failed for good.

    Gate: a job that waits for its children has one that failed, and that is still among those waited for. Clause: it
    waits for too long. Source: R9, Q20.
    """
    bench, orphans = Bench("Q20", facts.readings), facts.orphans
    many = facts.jobs.count("waiting_children")
    if orphans is None and many == 0:
        orphans = []
    longest = max((number(r, "waited_seconds") for r in orphans or []), default=0.0)
    top = max(orphans or [{}], key=lambda r: (number(r, "waited_seconds"), str(r.get("id"))))
    measured = moment(facts.readings.measured_at((PARENTS,)))
    return Cause(
        id="Q20",
        name="parents wait for a child that failed",
        applicable=facts.configured,
        gate=bench.gate("orphans", "parents whose child failed for good", None if orphans is None else len(orphans),
                        at_least=1, rests_on=(PARENTS, STATE), reason=facts.jobs.absent),
        clauses=(
            bench.weigh("longest", "longest wait of such a parent, s", longest if orphans is not None else None,
                        at_least=facts.limits.threshold_seconds, unit="s", rests_on=(PARENTS,)),
        ),
        share=facts.share(len(orphans or [])),
        details={"parents": len(orphans), "parent_id": top.get("id"), "child": top.get("failed_child"),
                 "child_reason": top.get("child_reason"), "waiting_children": many,
                 "measured_at": measured.isoformat() if measured else None} if orphans else {},
    )  # fmt: skip
