"""R7, health check failure: readings of one run in, findings out. From outside in, the first layer that fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis import conclusion, edges
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.health import layers, processes, service, symptom
from runbook.diagnosis.health.facts import WALK, Facts
from runbook.diagnosis.health.ladder import ladders
from runbook.diagnosis.health.limits import Limits
from runbook.diagnosis.health.prevention import prevention
from runbook.diagnosis.health.processes import urls_elsewhere
from runbook.diagnosis.health.proposals import propose
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading, Verdict

__all__ = ["diagnose", "elsewhere", "finding", "ladders", "prevention"]

HEALTHY = "H00"

EXPLAINS: tuple[tuple[str, str], ...] = (
    ("H14", "H01"), ("H14", "H02"), ("H14", "H13"), ("H14", "H07"),
    ("H07", "H16"), ("H07", "H08"),
    ("H15", "H12"), ("H15", "H01"), ("H15", "H10"), ("H15", "H09"),
    ("H03", "H01"),
)  # fmt: skip
"""Static edges: a full disk stops what writes; a dependency that is down makes degraded and slow; a release breaks the
instances that have it; who listens elsewhere is not down."""


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *health_check_failure*; the same readings give the same findings."""
    return _findings(Readings(readings), parameters)


def finding(readings: Readings, parameters: Mapping[str, Any] | None = None) -> Verdict | None:
    """The leading finding on whatever readings of it there are, for a runbook whose cause stands for this one's."""
    return conclusion.leading(_findings(readings, parameters or {}), HEALTHY)


def _findings(taken: Readings, parameters: Mapping[str, Any]) -> Findings:
    facts = Facts(taken, Limits.of(parameters))
    faces = symptom.faces(facts)
    breached = symptom.is_breached(faces)
    causes = _causes(facts, breached)
    return conclusion.findings(
        taken, causes, _edges(causes), symptom=symptom.shown(faces), impact=lambda _: _impact(facts),
        propose=lambda verdicts: propose(verdicts, facts), healthy=HEALTHY, breached=breached,
        peaked=any(face.peak for face in faces),
    )  # fmt: skip


def elsewhere(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> list[str]:
    """Where the application was found to listen although it is asked elsewhere: what to ask there."""
    return urls_elsewhere(Facts(Readings(readings), Limits.of(parameters)))


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    ready = service.Ready(facts)
    own = [
        processes.down(facts),
        processes.hung(facts),
        processes.elsewhere(facts),
        layers.name_does_not_resolve(facts),
        layers.certificate(facts),
        layers.edge(facts),
        service.dependency(facts, ready),
        service.slow(facts),
        layers.wrong_question(facts),
        processes.starting(facts),
        layers.checker_side(facts),
        processes.queue_full(facts),
        service.disk_or_memory(facts),
        service.degraded(facts, ready),
    ]
    release = service.release(facts, others=conclusion.any_other(own, breached))
    causes = [*own, release]
    causes.append(layers.some_instances(facts, causes))
    causes.sort(key=lambda cause: cause.id)
    healthy = conclusion.healthy(
        Bench(HEALTHY, facts.readings), "healthy", causes, breached=breached, rests_on=(WALK,),
        quiet="endpoint and instances are well, and every cause that applies could be checked",
        blind=facts.why_not(),
    )  # fmt: skip
    return [healthy, *causes]


def _edges(causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The static edges, those across runbooks, and two whose direction depends.

    Who restarts again and again is always starting. Who hangs accepts nothing, and who has no file left hangs.
    """
    by_id = {cause.id: cause.details for cause in causes}
    starting = ("H01", "H10") if by_id["H01"].get("restarts") else ("H10", "H01")
    hung = ("H13", "H02") if by_id["H13"].get("kind") == "files" else ("H02", "H13")
    return [*EXPLAINS, starting, hung, *edges.across(causes)]


def _impact(facts: Facts) -> str:
    """Who feels it, as far as was seen."""
    checked = facts.first_bad or facts.checked
    if checked is None and not facts.instances:
        return "Unknown: no endpoint could be asked."
    parts = []
    if checked is not None and checked.bad:
        parts.append(f"{checked.url} fails ({checked.reason})")
    elif checked is not None and checked.passes:
        parts.append(f"{checked.url} answers well" if checked.expected else f"{checked.url} answers")
    if facts.instances:
        parts.append(f"{len(facts.well)} of {len(facts.instances)} instances are well")
    if facts.cut_off:
        parts.append(f"{len(facts.cut_off)} instances cannot be reached from here")
    said = "; ".join(parts) or "nothing could be told"
    felt = bool(facts.affected) or facts.first_bad is not None
    return f"{said}." if felt or not parts else f"None seen: {said}."
