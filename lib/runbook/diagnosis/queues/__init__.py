"""R9, queues: readings of one run in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis import conclusion, edges
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.face import Face
from runbook.diagnosis.queues import backing, holds, load, symptom, workers
from runbook.diagnosis.queues.depth import depth
from runbook.diagnosis.queues.facts import Facts
from runbook.diagnosis.queues.limits import Limits
from runbook.diagnosis.queues.prevention import prevention
from runbook.diagnosis.queues.proposals import propose
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading, Verdict

__all__ = ["depth", "diagnose", "finding", "prevention"]

HEALTHY = "Q10"

EXPLAINS: tuple[tuple[str, str], ...] = (
    *(("Q07", b) for b in ("Q06", "Q01", "Q18", "Q05")),
    ("Q06", "Q01"), ("Q06", "Q18"), ("Q05", "Q07"),
    ("Q13", "Q08"), ("Q15", "Q08"), ("Q17", "Q08"), ("Q17", "Q13"),
    *((a, "Q03") for a in ("Q13", "Q12", "Q09", "Q11", "Q08", "Q04", "Q17", "Q19")),
    ("Q13", "Q12"), ("Q09", "Q12"), ("Q04", "Q09"), ("Q04", "Q13"), ("Q13", "Q11"),
)  # fmt: skip
"""Static edges: a job that kills workers leaves none; what is slow, capped or fails uses capacity up."""

OWN_DOING = frozenset({"Q02", "Q09", "Q12", "Q16", "Q19", "Q20"})
"""Somebody's doing, or the jobs' own: no full disk and no Redis that refuses explains them."""


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *queue_processing_delays*; the same readings give the same findings."""
    return _findings(Readings(readings), parameters)


def finding(readings: Readings, parameters: Mapping[str, Any] | None = None) -> Verdict | None:
    """The leading finding on whatever readings are there; ``None`` when there is none."""
    return conclusion.leading(_findings(readings, parameters or {}), HEALTHY)


def _findings(taken: Readings, parameters: Mapping[str, Any]) -> Findings:
    facts = Facts(taken, Limits.of(parameters))
    faces = symptom.faces(facts)
    breached = symptom.is_breached(faces)
    causes = _causes(facts, breached)
    return conclusion.findings(
        taken, causes, _edges(causes), symptom=symptom.shown(faces), impact=lambda _: _impact(facts, faces),
        propose=lambda verdicts: propose(verdicts, facts), healthy=HEALTHY, breached=breached,
        peaked=any(face.peaked for face in faces),
    )  # fmt: skip


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    causes = [
        workers.no_worker(facts),
        holds.paused(facts),
        load.under_capacity(facts),
        workers.hung_job(facts),
        workers.blocked_loop(facts),
        workers.dead_worker(facts),
        workers.poison(facts),
        load.failing(facts),
        holds.capped(facts),
        holds.starved(facts),
        load.burst(facts),
        load.slow_downstream(facts),
        # Before Redis: what a full disk explains is its consequence, and not that of what it broke first.
        backing.no_room(facts),
        backing.redis_refuses(facts),
        backing.evicted(facts),
        backing.elsewhere(facts),
        workers.zombie(facts),
        holds.mixed_versions(facts),
        holds.childless(facts),
    ]
    return [*causes, _scheduled_only(facts, causes, breached)]


def _scheduled_only(facts: Facts, causes: Sequence[Cause], breached: bool | None) -> Cause:
    """Q10: nothing waits but what is scheduled for later, and that is not due.

    Gate: the symptom is known to be absent, and every cause that applies could be checked. Source: R9, Q10.
    """
    later = facts.jobs.count("delayed")
    name = f"healthy: {later} jobs are scheduled for later" if later else "healthy: nothing waits for too long"
    return conclusion.healthy(
        Bench(HEALTHY, facts.readings), name, causes, breached=breached, rests_on=("queue_state", "queue_active"),
        quiet="nothing waits for too long but what is scheduled, and every cause that applies could be checked",
        blind=facts.jobs.absent,
    )  # fmt: skip


def _edges(causes: Sequence[Cause]) -> list[tuple[str, str]]:
    crossing = [(a, b) for a, b in edges.across(causes) if b not in OWN_DOING]
    return [*crossing, *EXPLAINS]


def _impact(facts: Facts, faces: Sequence[Face]) -> str:
    """Who feels it, as far as the readings tell."""
    jobs = facts.jobs
    if jobs.waiting is None:
        return f"Unknown: {jobs.absent or 'the queue could not be read'}."
    between = sum(1 for row in facts.retrying or [] if "due_at" in row)
    told = [f"{jobs.waiting} jobs wait", f"{jobs.count('active') or 0} are in work"]
    told += [f"{between} are between two tries"] if between else []
    told += [f"{len(jobs.failed)} failed in the window"] if jobs.failed else []
    if facts.oldest_seconds:
        told.append(f"the oldest has waited for {facts.oldest_seconds / 60:.1f} minutes")
    felt = any(face.breached for face in faces) or bool(facts.held)
    return f"{'' if felt else 'None seen: '}{', '.join(told)}."
