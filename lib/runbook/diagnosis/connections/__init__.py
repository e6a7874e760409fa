"""R2, PostgreSQL connections: readings of one run in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runbook.diagnosis import verdict
from runbook.diagnosis.connections import barriers, holders
from runbook.diagnosis.connections.facts import Facts
from runbook.diagnosis.connections.limits import Limits
from runbook.diagnosis.connections.prevention import prevention
from runbook.diagnosis.connections.proposals import propose
from runbook.diagnosis.connections.symptom import Face, faces, is_breached, shown
from runbook.diagnosis.evidence import Bench
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
    verdicts = verdict.rank(causes, _edges(facts, causes), breached=breached)
    return Findings(
        symptom=shown(symptom_faces),
        impact=_impact(facts, verdicts, symptom_faces),
        outcome=verdict.outcome(
            causes,
            verdicts,
            healthy=HEALTHY,
            breached=breached,
            peaked=any(face.peaked for face in symptom_faces),
        ),
        verdict=[_without_targets(v) for v in verdicts],
        evidence=[item for cause in sorted(causes, key=lambda c: c.id) for item in cause.evidence],
        not_checked=_not_checked(taken, causes, facts),
        unexplained=verdict.unexplained(verdicts),
        actions=propose(verdicts, facts),
    )


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
    causes.append(barriers.genuine_growth(facts, others=_any_other(causes, breached)))
    return [*causes, _healthy(facts, causes, breached)]


def _any_other(causes: Sequence[Cause], breached: bool | None) -> bool | None:
    """Whether any of these is found; ``None`` when none is and one that applies could not be checked."""
    if any(verdict.found(verdict.tier(cause, in_compound=True, breached=breached)) for cause in causes):
        return True
    return None if _unchecked(causes) else False


def _unchecked(causes: Sequence[Cause]) -> list[str]:
    return [cause.id for cause in causes if cause.applicable and cause.open]


def _healthy(facts: Facts, causes: Sequence[Cause], breached: bool | None) -> Cause:
    """P00: slots below the threshold, connects let in, no waiters, and no other cause found."""
    bench = Bench(HEALTHY, facts.readings)
    others, unknown = _any_other(causes, breached), _unchecked(causes)
    nothing = None if breached is None or (unknown and not breached) else not breached
    return Cause(
        id=HEALTHY,
        name="healthy",
        gate=bench.fact(
            "quiet",
            "no face of the symptom shows, and every cause that applies could be checked",
            nothing,
            rests_on=("headroom", "connection"),
            otherwise="refutes",
            reason=facts.blind or (f"could not be checked: {', '.join(unknown)}" if unknown else ""),
        ),
        clauses=(
            bench.fact(
                "no_cause",
                "no other cause found",
                None if others is None else not others,
                rests_on=("headroom",),
                otherwise="refutes",
            ),
        ),
        share=1.0,
    )


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


def _not_checked(taken: Readings, causes: Sequence[Cause], facts: Facts) -> list[NotChecked]:
    """Readings that failed, each with the causes whose gate rests on it; one line a source, state and reason."""
    grouped: dict[tuple[str, str, str], set[str]] = {}
    for reading in taken.failed():
        blocks = {c.id for c in causes if c.gate.reading == "unknown" and reading.name in c.gate.source.split(", ")}
        grouped.setdefault((reading.source, reading.state, reading.reason), set()).update(blocks)
    found = [
        NotChecked(source=source, state=state, reason=reason, blocks=sorted(blocks))  # type: ignore[arg-type]
        for (source, state, reason), blocks in grouped.items()
    ]
    if facts.blind:
        blocked = sorted(c.id for c in causes if c.applicable and c.gate.reading == "unknown")
        found.insert(0, NotChecked(source=POSTGRESQL, state="permission_denied", reason=facts.blind, blocks=blocked))
    return found
