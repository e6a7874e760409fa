"""Causes that are processes: one that leaks, many that are alike, transcoders that came at once (M01, M02, M09)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.memory import history
from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.memory.processes import CHURN, MIN_SAMPLES, Process, megabytes, number, total
from runbook.diagnosis.memory.scopes import Scope
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

RESTS_ON = ("processes", "memory")
MANY_NAMED = 5
SMALL = 0.25
"""A process that holds more of what its group holds is not one of many."""


def short(bench: Bench, facts: Facts, scope: Scope | None, pace: float = 0.0) -> Evidence:
    """Memory is short where the cause is; refutes otherwise: what fits is no trouble."""
    known = None if scope is None else facts.short(scope, pace)
    left = None if scope is None else facts.minutes_left(scope, pace)
    label = f"memory of {scope.label} in use" if scope is not None else "memory in use"
    value: Any = None if scope is None or scope.percent is None else scope.percent
    if known and scope is not None and not scope.breached:
        label, value = f"memory of {scope.label} is used up at this pace", left
    unit = "min" if known and scope is not None and not scope.breached else "%"
    return bench.fact("short", label, known, value=value, unit=unit, otherwise="refutes",
                      rests_on=("cgroup",) if scope is not None and scope.path else ("memory",))  # fmt: skip


def explains(part: float | None, tight: Evidence) -> float:
    """What it explains: nothing, where memory is not short."""
    return 0.0 if part is None or tight.reading == "refutes" else part


def leak(facts: Facts, scope: Scope | None) -> Cause:
    """M01: one process holds ever more.

    Gate: a process grew in every one of three samples or more, by ``min_growth_mb`` and by a hundredth of its size; one
    that is just starting counts only where memory is short already, and is never sure, since a start grows as a leak
    does. Or its metrics rise over the window, minimum over minimum. Clauses: memory is short there, or will be within
    ``full_minutes``; it has grown like this for all of its life (pace × age is about its size), or over the window.
    What could not have lasted, ten times its size by now, is churn between two garbage collections and
    refutes. Source: R6, M01.
    """
    bench = Bench("M01", facts.readings)
    grown = sorted(_grown(facts, scope), key=lambda p: -p.growth)
    risen = history.risen(facts.readings)
    leading = grown[0] if grown else None
    pace = sum(process.pace for process in grown)
    tight = short(bench, facts, scope, pace)
    details: dict[str, Any] = {}
    if leading is not None and scope is not None:
        details = {**leading.facts(), **scope.facts(), "processes": [p.facts() for p in grown[:MANY_NAMED]],
                   "minutes_left": facts.minutes_left(scope, pace)}  # fmt: skip
    elif risen:
        details = {"series": risen[0].labels, "from_mb": megabytes(risen[0].first), "to_mb": megabytes(risen[0].last)}
    return Cause(
        id="M01",
        name="memory leak",
        gate=_growth(bench, facts, scope, leading, risen),
        clauses=(tight, _lasting(bench, facts, leading, risen)),
        hints=(*_heap(bench, facts), *_deployed(bench, facts)),
        share=explains(_part(facts, scope, grown) if grown else 1.0 if risen and facts.breached else 0.0, tight),
        details=details,
    )


def _grown(facts: Facts, scope: Scope | None) -> list[Process]:
    """Those that are not just starting; where memory is short, those that are as well."""
    owned = None if scope is None else facts.owned(scope)
    if scope is None or owned is None:
        return []
    return [process for process in owned["growing"] if scope.breached or facts.settled(process)]


def _growth(bench: Bench, facts: Facts, scope: Scope | None, leading: Process | None,
            risen: Sequence[history.Series]) -> Evidence:  # fmt: skip
    label, rests_on = "a process grew in every sample", ("processes",)
    if leading is None and risen:
        return bench.fact("grows", "memory of a process rises over the window, minimum over minimum", True,
                          value=megabytes(risen[0].last - risen[0].first), unit="MB",
                          rests_on=("memory_history",))  # fmt: skip
    samples = 0 if scope is None else facts.seen(scope.host)[1]
    hidden = "" if scope is None else facts.hidden(scope)
    known = samples >= MIN_SAMPLES and not hidden
    reason = hidden
    if not hidden and samples and samples < MIN_SAMPLES:
        reason = f"processes were sampled {samples} times; it takes {MIN_SAMPLES} (parameter samples)"
    value = megabytes(leading.growth) if leading is not None else 0.0 if known else None
    return bench.gate("grows", label, value, at_least=facts.limits.min_growth_mb, unit="MB", rests_on=rests_on,
                      reason=reason)  # fmt: skip


def _lasting(bench: Bench, facts: Facts, leading: Process | None, risen: Sequence[history.Series]) -> Evidence:
    """Whether it has gone on for long, or cannot have."""
    label = "its pace times its age, against its size (about 1: it grew like this all its life)"
    if risen:
        return bench.fact("lasts", "its minimum rose all over the window", True, rests_on=("memory_history",))
    ratio = None if leading is None else leading.lasted
    lasts = None if leading is None or ratio is None else leading.has_lasted and facts.settled(leading)
    if leading is not None and not facts.settled(leading):
        label += f"; it is only {leading.age_seconds or 0:.0f} s old"
    quick = leading is not None and leading.size > 0 and leading.growth >= 0.1 * leading.size
    refuted = ratio is not None and ratio > CHURN and not quick
    return bench.fact("lasts", label, lasts, value=None if ratio is None else round(ratio, 2), rests_on=("processes",),
                      otherwise="refutes" if refuted else "neutral",
                      reason="no process grew" if leading is None else "")  # fmt: skip


def _heap(bench: Bench, facts: Facts) -> tuple[Evidence, ...]:
    percent = facts.heap_percent
    if percent is None:
        return ()
    return (bench.weigh("heap", "Node heap against --max-old-space-size", percent, unit="%", weight=WEAK,
                        at_least=facts.limits.threshold_percent, rests_on=("app_metrics", "processes")),)  # fmt: skip


def _deployed(bench: Bench, facts: Facts) -> tuple[Evidence, ...]:
    """A deployment within the window: there is nearly always one, hence weak."""
    rows = facts.readings.rows("deployments")
    if not rows:
        return ()
    return (bench.fact("deployed", "a deployment within the window", history.within(facts, rows[0]),
                       value=rows[0].get("ref") or rows[0].get("sha"), weight=WEAK,
                       rests_on=("deployments",)),)  # fmt: skip


def _part(facts: Facts, scope: Scope | None, grown: Sequence[Process]) -> float:
    """Its part of the memory in use; of a growth that lasted or is quick, its part of what grows there."""
    if scope is None:
        return 0.0
    part = scope.share(total(grown))
    lasting = [process for process in grown if process.has_lasted and facts.settled(process)]
    if not lasting:
        return part
    rise = scope.delta("working_set_bytes") if scope.path else _host_rise(scope)
    whole = max(sum(p.growth for p in grown), rise or 0.0)
    return max(part, sum(p.growth for p in lasting) / whole if whole else 0.0)


def _host_rise(scope: Scope) -> float | None:
    fell = scope.delta("available_bytes")
    return None if fell is None else -fell


def many(facts: Facts, scope: Scope | None) -> Cause:
    """M02: each process holds little, and there are many of them.

    Gate: ``many_processes`` or more of one program that together hold ``owner_share`` of the memory in use. Clauses:
    none of them is large by itself; memory is short there; and there are more than there were (their number rose while
    we looked, or half of them began within the window). Sessions of PostgreSQL and transcoders are other causes.
    Source: R6, M02.
    """
    bench, limits = Bench("M02", facts.readings), facts.limits
    owned = None if scope is None else facts.owned(scope)
    group, name = _largest(owned["rest"] + owned["growing"], limits.many_processes) if owned else ([], "")
    hidden = "processes were not read" if scope is None else facts.hidden(scope)
    known = owned is not None and not hidden
    part = None if not group or scope is None else round(scope.share(total(group)), 3)
    largest = max((p.size for p in group), default=0.0)
    together = total(group)
    tight = short(bench, facts, scope)
    large_enough = (part or 0.0) >= limits.owner_share
    fresh = sum(1 for p in group if p.age_seconds is not None and p.age_seconds <= limits.window_seconds)
    return Cause(
        id="M02",
        name="too many processes",
        gate=bench.gate("many", f"processes of one program that hold {limits.owner_share:.0%} of the memory in use",
                        (len(group) if large_enough else 0) if group and not hidden else
                        0 if known else None, at_least=limits.many_processes, rests_on=RESTS_ON, reason=hidden),
        clauses=(
            bench.fact("flat", "the largest of them, MB", largest < SMALL * together if together else None,
                       value=megabytes(largest) if group else None, otherwise="refutes", rests_on=("processes",),
                       reason="" if group else "there are not many of any"),
            tight,
            bench.fact("more", "began within the window", fresh >= len(group) / 2 if group else None,
                       value=fresh if group else None, rests_on=("processes",),
                       reason="" if group else "there are not many of any"),
        ),
        share=explains(part, tight) if largest < SMALL * together else 0.0,
        details={"program": name, "processes": len(group), "mb": megabytes(together), "began_within_window": fresh,
                 "pids": [p.pid for p in group[:MANY_NAMED]], **scope.facts()}
        if group and scope and large_enough else {},
    )  # fmt: skip


def _largest(found: Sequence[Process], least: int) -> tuple[list[Process], str]:
    """The program with many processes that hold the most, else the one with the most processes."""
    counts = Counter(process.program for process in found if process.size)
    chosen = [name for name, count in counts.items() if count >= least]
    if not chosen:
        return [], ""
    groups = {name: [p for p in found if p.program == name and p.size] for name in chosen}
    name = max(groups, key=lambda n: (total(groups[n]), n))
    return groups[name], name


def transcoding(facts: Facts, scope: Scope | None) -> Cause:
    """M09: several transcoders at once, each with its file: concurrency times the memory of a job.

    Gate: two transcoders or more. Clauses: together they hold ``owner_share`` of the memory in use; they are jobs (they
    began within the window); memory is short there. Hint: memory fell when one of them ended. Source: R6, M09.
    """
    bench, limits = Bench("M09", facts.readings), facts.limits
    owned = None if scope is None else facts.owned(scope)
    jobs = owned["transcoders"] if owned is not None else []
    hidden = "processes were not read" if scope is None else facts.hidden(scope)
    part = round(scope.share(total(jobs)), 3) if jobs and scope is not None else None
    young = sum(1 for p in jobs if p.age_seconds is not None and p.age_seconds <= limits.window_seconds)
    none, tight = "" if jobs else "there is none", short(bench, facts, scope)
    return Cause(
        id="M09",
        name="burst of transcoding",
        gate=bench.gate("at_once", "transcoders at once", len(jobs) if jobs or not hidden else None, at_least=2,
                        rests_on=("processes",), reason=hidden),
        clauses=(
            bench.weigh("hold", "of the memory in use, together", part, at_least=limits.owner_share, share=True,
                        rests_on=RESTS_ON, otherwise="refutes", reason=none),
            bench.fact("jobs", "began within the window", young == len(jobs) if jobs else None, value=young or None,
                       rests_on=("processes",), reason=none),
            tight,
        ),
        hints=_ended(bench, facts, scope),
        share=explains(part, tight),
        details={"jobs": len(jobs), "mb": megabytes(total(jobs)), "mb_a_job": megabytes(total(jobs) / len(jobs)),
                 "processes": [p.facts() for p in sorted(jobs, key=lambda p: -p.size)[:MANY_NAMED]],
                 **scope.facts()} if jobs and scope else {},
    )  # fmt: skip


def _ended(bench: Bench, facts: Facts, scope: Scope | None) -> tuple[Evidence, ...]:
    """Memory that fell together with the number of jobs."""
    if scope is None or scope.rose or len(scope.percents) < 2 or scope.percents[-1] >= scope.percents[0]:
        return ()
    counts = []
    for reading in facts.readings.series("processes"):
        rows = [row for row in reading.rows if row.get("host") == scope.host and number(row, "pid") is not None]
        names = [str(row.get("command") or "").split(" ", 1)[0].rpartition("/")[2] for row in rows]
        counts.append(sum(name.startswith(tuple(filter(None, facts.limits.transcoders.split("|")))) for name in names))
    if len(counts) < 2 or counts[-1] >= counts[0]:
        return ()
    return (bench.fact("ended", "memory fell when a job ended", True, value=counts[0] - counts[-1], weight=WEAK,
                       rests_on=RESTS_ON),)  # fmt: skip
