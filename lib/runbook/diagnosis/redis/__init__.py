"""R8, Redis: readings of one run in, findings out; and the leading finding alone, for rooms that stand for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis import conclusion, verdict
from runbook.diagnosis.edges import across
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.redis import door, slots, states, symptom, writes
from runbook.diagnosis.redis.facts import Facts
from runbook.diagnosis.redis.ladder import ladder
from runbook.diagnosis.redis.limits import Limits
from runbook.diagnosis.redis.prevention import prevention
from runbook.diagnosis.redis.proposals import propose
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading, Verdict

__all__ = ["diagnose", "finding", "ladder", "prevention"]

HEALTHY = "K00"
EXPLAINS: tuple[tuple[str, str], ...] = (
    ("K06", "K05"), ("K11", "K12"), ("K19", "K12"), ("K08", "K12"), ("K12", "K13"), ("K17", "K20"), ("K18", "K20"),
)  # fmt: skip
"""Static edges: leaked clients take the last slots; a script, a fork or a failing disk is why nothing is answered."""


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *redis_connection_failure*; the same readings give the same findings."""
    return _findings(Readings(readings), parameters)


def finding(readings: Readings, parameters: Mapping[str, Any] | None = None) -> Verdict | None:
    """What is wrong with Redis by whatever readings of it there are; ``None`` when nothing is found."""
    return conclusion.leading(_findings(readings, parameters or {}), HEALTHY)


def _findings(taken: Readings, parameters: Mapping[str, Any]) -> Findings:
    facts = Facts(taken, Limits.of(parameters))
    faces = symptom.faces(facts)
    breached = symptom.is_breached(faces)
    causes = _causes(facts, breached)
    return conclusion.findings(
        taken, causes, [*EXPLAINS, *across(causes)], symptom=symptom.shown(faces),
        impact=lambda verdicts: _impact(facts, verdicts), propose=lambda verdicts: propose(verdicts, facts),
        healthy=HEALTHY, breached=breached, peaked=symptom.peaked(facts),
    )  # fmt: skip


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    causes = [
        door.down(facts), door.unreachable(facts), door.login(facts), writes.rights(facts), slots.no_slot(facts),
        slots.leak(facts), writes.out_of_memory(facts), writes.snapshot_failed(facts), writes.replica(facts),
        states.loading(facts), states.script(facts), door.hangs(facts), door.paused(facts), door.tls(facts),
        door.protected(facts), writes.eviction(facts), writes.too_few_replicas(facts), states.cluster(facts),
        states.forks(facts), states.zombie(facts), slots.buffers(facts),
    ]  # fmt: skip
    bench = Bench(HEALTHY, facts.readings)
    return [*causes, conclusion.healthy(bench, "Redis serves", causes, breached=breached, rests_on=facts.way)]


def _impact(facts: Facts, verdicts: Sequence[Verdict]) -> str:
    """Who feels it, as far as the readings tell: an application may go on without Redis, only poorer."""
    check, lines = facts.check, facts.log_lines
    if check is None and lines is None:
        return "Unknown: neither a health check of Redis nor the application's log could be read."
    said = []
    if check is not None:
        said.append(f"the application's check of Redis says {check['status']}")
    if lines is not None:
        said.append(f"{lines} recent lines of its log are about Redis" if lines else "its log says nothing of Redis")
    found = any(verdict.found(v.tier) for v in verdicts if v.cause != HEALTHY)
    level = "; ".join(said)
    if not found and not lines and (check is None or check["status"] == "pass"):
        return f"None seen: {level}."
    return f"{level[0].upper()}{level[1:]}. Whether users feel it depends on what Redis is used for."
