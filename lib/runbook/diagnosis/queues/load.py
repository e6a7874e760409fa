"""Causes that lie in the load and in what the jobs do: too little capacity, failing jobs, a burst, something slow."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.queues import downstream, holds, signatures
from runbook.diagnosis.queues.facts import Facts
from runbook.diagnosis.queues.flow import DELAYED, FLOW, MIN_PEAK, WAITING
from runbook.diagnosis.queues.jobs import ACTIVE, BEFORE, COMPLETED, FAILED, STATE, as_targets
from runbook.diagnosis.queues.signatures import MAX_IDS
from runbook.diagnosis.readings import number
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

ONE_REASON = 0.5
"""Share of the failing jobs that have one reason in common."""
CATCHING_UP = 1.5
"""So many times more jobs end than arrive: the backlog is an earlier hour's, and goes by itself."""
_TIMEOUT = re.compile(r"(?i)time[d]?[ -]?out|ETIMEDOUT|deadline exceeded|did not answer within|ESOCKETTIMEDOUT")


def _works(facts: Facts) -> bool | None:
    """Whether workers get jobs done: they end while we look, or ended lately and nothing stands in the way since.

    Without a look at who is connected, only what ended while we looked counts.
    """
    jobs = facts.jobs
    if jobs.draining:
        return True
    if jobs.no_worker or jobs.always("paused", True) or signatures.blocked_worker(jobs) or signatures.hung_job(jobs):
        return False
    return None if jobs.no_worker is None else jobs.ends_now


def under_capacity(facts: Facts) -> Cause:
    """Q03: workers work, jobs end, and more arrive than end.

    Gate: jobs wait for too long while others end, not clearly more end than arrive (else the backlog is of an earlier
    time, and goes by itself), and it is known whether a limit of the queue holds them. Clauses: at least as many arrive
    as end; what is in work is in good hands. Where no finished job is kept, the backlog that does not shrink while we
    look stands for the rates. Source: R9, Q03.
    """
    bench, jobs, flow = Bench("Q03", facts.readings), facts.jobs, facts.flow
    works, late = _works(facts), facts.late
    arrived, ended = flow.arrivals_per_minute, flow.ended_per_minute
    more = _outnumber(facts, arrived, ended)
    catching_up = arrived is not None and ended is not None and ended >= CATCHING_UP * arrived
    gate = False if late is False or works is False or catching_up else None
    if gate is None and late and works and more is not None and holds.cap(facts)[1] is not None:
        gate = True
    state = jobs.state or {}
    backlog = (jobs.waiting or 0) / (ended - arrived) if catching_up and arrived is not None and ended else None
    return Cause(
        id="Q03",
        name="more jobs arrive than the workers get through",
        applicable=facts.configured,
        gate=bench.fact("behind", "jobs wait for too long while others end", gate, value=facts.oldest_seconds, unit="s",
                        otherwise="refutes", rests_on=(STATE, ACTIVE, WAITING), reason=jobs.absent),
        clauses=(
            bench.fact("rate", "arrivals a minute against jobs that end", more, rests_on=(WAITING, COMPLETED, FLOW),
                       value=None if arrived is None or ended is None else f"{arrived:g} against {ended:g}"),
            bench.fact("held", "no job in work hangs or lost its lock", facts.none_held, rests_on=(ACTIVE,),
                       otherwise="refutes"),
        ),
        share=facts.share(jobs.waiting or 0) if gate else 0.0,
        details={"arrivals_per_minute": arrived, "ended_per_minute": ended, "waiting": jobs.waiting,
                 "workers": state.get("workers"), "active": jobs.count("active"),
                 "median_seconds": facts.lately_seconds, "backlog_gone_in_minutes": backlog and round(backlog, 1)}
        if gate else {},
    )  # fmt: skip


def _outnumber(facts: Facts, arrived: float | None, ended: float | None) -> bool | None:
    """Whether at least as many arrive as end; ``None`` when that is not known."""
    if arrived is not None and ended is not None:
        return arrived >= ended
    looks = facts.jobs.looks
    keeps_none = facts.readings.known(FLOW) and facts.jobs.always("completed", 0) and facts.jobs.always("failed", 0)
    if not keeps_none or len(looks) < 2:
        return None
    return number(looks[-1], "waiting") >= number(looks[0], "waiting")


def failing(facts: Facts) -> Cause:
    """Q08: jobs fail, most for one reason, and are tried again and again.

    Gate: at least ``min_jobs`` jobs failed, or stand between two tries. Clauses: one reason is common to half of them;
    most of what ends fails, or as many are tried again as completed. Reasons that are another cause's (space, memory,
    stalls) are left to that. Source: R9, Q08.
    """
    bench, rows = Bench("Q08", facts.readings), facts.failing_rows
    reason, those = facts.common_reason
    share = len(those) / len(rows) if rows else 0.0
    between = [row for row in rows or [] if "due_at" in row or "waited_seconds" in row]
    done = None if facts.jobs.completed is None else len(facts.jobs.completed)
    going = None if facts.fails is None and done is None else bool(facts.fails) or (
        bool(between) and len(between) >= (done or 0))  # fmt: skip
    enough = len(those) >= facts.limits.min_jobs
    # A handful that failed within the hour explains nothing that waits now, unless failing is the matter.
    current = those if going else [row for row in those if "due_at" in row or "waited_seconds" in row]
    named = downstream.named_in([reason])
    return Cause(
        id="Q08",
        name="jobs fail and are tried again",
        applicable=facts.configured,
        gate=bench.gate("failing", "jobs that failed or wait for another try", None if rows is None else len(rows),
                        at_least=facts.limits.min_jobs, rests_on=(FAILED, DELAYED, WAITING), reason=facts.jobs.absent),
        clauses=(
            bench.weigh("one_reason", "share of them with one reason", share if rows is not None else None,
                        at_least=ONE_REASON, share=True, rests_on=(FAILED, DELAYED)),
            bench.fact("going_on", "most of what ends fails, or is tried again", going,
                       value=None if facts.failed_share is None else f"{100 * facts.failed_share:.0f} % failed",
                       rests_on=(FLOW, COMPLETED, DELAYED)),
        ),
        share=facts.share(len(current)) if enough else 0.0,
        details={"reason": reason, "jobs": len(those), "between_tries": len(between), "dependency": named,
                 "job_names": dict(Counter(str(r.get("job")) for r in those).most_common(3)),
                 "job_ids": [r.get("id") for r in as_targets(those)[:MAX_IDS]]} if enough else {},
    )  # fmt: skip


def burst(facts: Facts) -> Cause:
    """Q12: far more jobs arrived at once than usually do.

    Gate: jobs wait for too long, jobs are worked on, and the most that arrived in ``rate_minutes`` is ``burst_factor``
    times the usual. Clause: it was many. What is usual is told by the jobs before the window; the week before is not in
    Redis. Whose jobs they are stands in their data, which is never read. Source: R9, Q12.
    """
    bench, flow, limits = Bench("Q12", facts.readings), facts.flow, facts.limits
    works, peak, usual = _works(facts), flow.peak_per_minute, flow.usual_arrivals_per_minute
    times = None if peak is None or usual is None else peak / usual
    if facts.late is False or works is False or peak == 0:
        times = 0.0
    elif facts.late is None or works is None:
        times = None
    found = times is not None and times >= limits.burst_factor
    names = Counter(str(r.get("job")) for r in facts.waiters or [])
    why = "what usually arrives is not known: too few finished jobs are kept" if usual is None and peak else ""
    return Cause(
        id="Q12",
        name="a burst of jobs",
        applicable=facts.configured,
        gate=bench.gate("times", "most arrivals against the usual, times, while jobs are worked on", times,
                        at_least=limits.burst_factor, rests_on=(WAITING, COMPLETED, BEFORE, STATE),
                        reason=facts.jobs.absent or why),
        clauses=(
            bench.weigh("many", f"most jobs that arrived in {limits.rate_minutes:g} minutes", max(flow.bins, default=0)
                        if flow.known else None, at_least=MIN_PEAK, rests_on=(WAITING, COMPLETED, BEFORE)),
        ),
        share=facts.share(facts.jobs.waiting or 0) if found else 0.0,
        details={"peak_per_minute": peak, "usual_per_minute": usual, "times": times and round(times, 1),
                 "job_names": dict(names.most_common(3)), "creator": "not looked at: the data of jobs is not read"}
        if found else {},
    )  # fmt: skip


def slow_downstream(facts: Facts) -> Cause:
    """Q13: jobs take far longer than usual, since something that they call is slow.

    Gate: jobs run ``slow_factor`` times as long as usual, or fail by time-outs. Clause: what they wait for has a name:
    in their reasons, by our own slow call of it, or by the connection runbook's rules; the log alone is weak, since
    others than jobs write into it. A status page is weak evidence. Source: R9, Q13.
    """
    bench, limits = Bench("Q13", facts.readings), facts.limits
    usual, lately = facts.usual_seconds, facts.lately_seconds
    times = lately / max(usual, 0.05) if usual is not None and lately is not None else None
    late_jobs = [r for r in facts.failing_rows or [] if _TIMEOUT.search(str(r.get("reason")))]
    timed_out = len(late_jobs) >= limits.min_jobs
    gate = _slower(facts, times, lately, timed_out)
    names = downstream.names(facts)
    first = next(iter(names), None)
    only_logged = first is not None and first.told_by == downstream.LOG
    held = facts.jobs.waiting or 0
    value = f"{len(late_jobs)} time-outs" if timed_out else None if times is None else f"{times:.1f} times"
    finding = downstream.database(facts)
    details: dict[str, Any] = {
        "dependency": first.name if first else None, "told_by": first.told_by if first else None,
        "also": [n.name for n in names[1:]], "usual_seconds": usual, "lately_seconds": lately,
        "timed_out_jobs": len(late_jobs)}  # fmt: skip
    if finding is not None and first is not None and first.name == downstream.DATABASE:
        details["refers_to"] = finding.cause
    return Cause(
        id="Q13",
        name=f"slow downstream: {first.name}" if gate and first else "something that the jobs call is slow",
        applicable=facts.configured,
        gate=bench.fact("slower", "jobs take far longer than usual, or time out", gate, value=value,
                        otherwise="refutes",
                        rests_on=(COMPLETED, FAILED, BEFORE, ACTIVE), reason=facts.jobs.absent),
        clauses=(
            bench.fact("named", "what they wait for has a name",
                       None if gate is None or only_logged else first is not None,
                       value=f"{first.name}: {first.told_by}" if first else None,
                       rests_on=(FAILED, *downstream.CALLS),
                       reason="only the log names it, into which others write as well" if only_logged else ""),
        ),
        hints=(
            *_logged(bench, first if gate and only_logged else None),
            *_status(facts, bench, first.name if gate and first else ""),
        ),
        share=facts.share(held + len(late_jobs)) if gate else 0.0,
        details=details if gate else {},
    )  # fmt: skip


def _slower(facts: Facts, times: float | None, lately: float | None, timed_out: bool) -> bool | None:
    if timed_out:
        return True
    if times is None:
        # Nothing waits or fails: whatever jobs take, nobody minds.
        calm = facts.late is False and facts.fails is False and not facts.held
        return False if calm or _works(facts) is False else None
    return times >= facts.limits.slow_factor and (lately or 0.0) >= 0.5


def _logged(bench: Bench, named: downstream.Named | None) -> tuple[Evidence, ...]:
    if named is None:
        return ()
    return (bench.fact("logged", "the log names what is slow", True, value=named.name, rests_on=("queue_log",),
                       weight=WEAK),)  # fmt: skip


def _status(facts: Facts, bench: Bench, name: str) -> tuple[Evidence, ...]:
    admitted = [
        row
        for row in facts.readings.rows("vendor_status") or []
        if row.get("indicator") in ("minor", "major", "critical") and str(row.get("vendor")).lower() in name.lower()
    ]
    return tuple(
        bench.fact(f"status_{row['vendor']}", f"status page of {row['vendor']} admits it", True,
                   value=row.get("indicator"), rests_on=("vendor_status",), weight=WEAK)
        for row in admitted[:1] if name
    )  # fmt: skip
