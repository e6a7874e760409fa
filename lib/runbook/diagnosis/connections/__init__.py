"""R2, PostgreSQL connections: readings of one run in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runbook.diagnosis import conclusion, verdict
from runbook.diagnosis.connections import barriers, holders
from runbook.diagnosis.connections.facts import Facts
from runbook.diagnosis.connections.limits import Limits
from runbook.diagnosis.connections.prevention import prevention
from runbook.diagnosis.connections.proposals import propose
from runbook.diagnosis.connections.symptom import faces, is_breached, shown
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.face import Face
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, NotChecked, Reading, Verdict

__all__ = ["diagnose", "prevention"]

HEALTHY = "P00"

EXPLAINS: tuple[tuple[str, str], ...] = (
    *((a, b) for a in ("P02", "P02a", "P02b", "P02c", "P01", "P03", "P09") for b in ("P10", "P06", "P07", "P11")),
    ("P01", "P14"),
)
"""Static edges: sessions that pile up, leak or run long use up pools and limits before them."""

POSTGRESQL = "postgresql"


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *db_connection_exhaustion*; the same readings give the same findings."""
    taken = Readings(readings)
    facts = Facts(taken, Limits.of(parameters))
    symptom_faces = faces(facts)
    breached = is_breached(symptom_faces)
    causes = _causes(facts, breached)
    told = conclusion.findings(
        taken, causes, _edges(facts, causes), symptom=shown(symptom_faces),
        impact=lambda verdicts: _impact(facts, verdicts, symptom_faces),
        propose=lambda verdicts: propose(verdicts, facts), healthy=HEALTHY, breached=breached,
        peaked=any(face.peaked for face in symptom_faces),
    )  # fmt: skip
    return replace(told, verdict=[_without_targets(v) for v in told.verdict],
                   not_checked=[*_hidden(causes, facts), *told.not_checked])  # fmt: skip


def _without_targets(found: Verdict) -> Verdict:
    """The verdict names who it is; the sessions to act on, one by one, stand with the actions."""
    return replace(found, details={k: v for k, v in found.details.items() if k != "targets"})


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    causes = [
        holders.idle_in_transaction_leak(facts),
        *(barriers.lock_pile_up(facts, kind) for kind in barriers.PILE_UPS),
        holders.slow_query_saturation(facts),
        holders.oversized_pools(facts),
        holders.reconnect_storm(facts),
        barriers.limit_reached(facts, "role"),
        barriers.limit_reached(facts, "database"),
        holders.half_open_logins(facts),
        holders.orphans(facts),
        barriers.pooler_full(facts),
        barriers.application_pool(facts),
        barriers.walsenders_used_up(facts),
        holders.superusers_eat_reserve(facts),
    ]
    causes.append(barriers.genuine_growth(facts, others=conclusion.any_other(causes, breached)))
    healthy = conclusion.healthy(
        Bench(HEALTHY, facts.readings),
        "healthy",
        causes,
        breached=breached,
        rests_on=("headroom", "connection"),
        blind=facts.blind,
    )
    return [*causes, healthy]


def _edges(facts: Facts, causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The static edges, less those between a limit and sessions of somebody else."""
    by_id = {cause.id: cause for cause in causes}
    role = by_id["P06"].details.get("role")
    return [
        (a, b)
        for a, b in EXPLAINS
        if not (b == "P06" and by_id[a].details.get("role") != role)
    ]  # fmt: skip


def _impact(facts: Facts, verdicts: Sequence[Verdict], symptom_faces: Sequence[Face]) -> str:
    """Who feels it, as far as the readings tell."""
    if facts.refused_for_slots:
        return "Ordinary roles are refused: new connections fail."
    breached = [face.label for face in symptom_faces if face.breached]
    if facts.used is None or facts.usable is None:
        return "Unknown: the sessions of the server could not be seen."
    room = max(0, facts.usable - facts.used)
    level = f"{facts.used} of {facts.usable} usable slots in use, {room} left"
    if facts.refused_at_database:
        level += "; connects to the database itself are refused"
    waiting = sum(v.details.get("blocked", 0) for v in verdicts if verdict.found(v.tier))
    if waiting:
        level += f"; {waiting} sessions wait for locks"
    found = any(verdict.found(v.tier) for v in verdicts if v.cause != HEALTHY)
    return f"{level}." if breached or found else f"None seen: {level}."


def _hidden(causes: Sequence[Cause], facts: Facts) -> list[NotChecked]:
    """Sessions that this role cannot see."""
    blocked = sorted(c.id for c in causes if c.applicable and c.gate.reading == "unknown")
    told = NotChecked(source=POSTGRESQL, state="permission_denied", reason=facts.blind, blocks=blocked)
    return [told] if facts.blind else []
