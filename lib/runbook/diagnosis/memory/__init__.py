"""R6, memory: readings of one run in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis import conclusion, edges
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.memory import growth, places, stalls, stores, symptom
from runbook.diagnosis.memory.bars import bars
from runbook.diagnosis.memory.facts import Facts, over
from runbook.diagnosis.memory.limits import Limits
from runbook.diagnosis.memory.prevention import prevention
from runbook.diagnosis.memory.proposals import propose
from runbook.diagnosis.memory.scopes import worst
from runbook.diagnosis.memory.tables import fullest_first, growing, in_memory, kills_by_place, largest_first
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading, Verdict

__all__ = [
    "bars",
    "diagnose",
    "finding",
    "fullest_first",
    "growing",
    "in_memory",
    "kills_by_place",
    "largest_first",
    "prevention",
    "worst",
]

HEALTHY = "M00"
HOLDERS = ("M01", "M02", "M05", "M07", "M08", "M09")

EXPLAINS: tuple[tuple[str, str], ...] = (
    *((holder, felt) for holder in HOLDERS for felt in ("M04", "M10", "M11")),
    ("M06", "M10"), ("M06", "M11"), ("M12", "M10"), ("M12", "M11"),
    ("M04", "M10"), ("M04", "M11"), ("M10", "M11"),
)  # fmt: skip
"""Static edges: what holds the memory brings a cgroup to its limit, makes work wait and has processes killed."""


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *high_memory_usage*; the same readings give the same findings."""
    return _findings(Readings(readings), parameters)


def finding(readings: Readings, parameters: Mapping[str, Any] | None = None) -> Verdict | None:
    """The leading finding on memory in whatever readings there are: other runbooks' causes stand for it."""
    return conclusion.leading(_findings(readings, parameters or {}), HEALTHY)


def _findings(taken: Readings, parameters: Mapping[str, Any]) -> Findings:
    facts = Facts(taken, Limits.of(parameters))
    faces = symptom.faces(facts)
    breached = symptom.is_breached(faces)
    causes = _causes(facts, breached)
    return conclusion.findings(
        taken, causes, _edges(causes), symptom=symptom.shown(faces), impact=lambda _: _impact(facts),
        propose=lambda verdicts: propose(verdicts, facts), healthy=HEALTHY, breached=breached,
        peaked=symptom.peaked(facts),
    )  # fmt: skip


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    causes = [
        over(facts, growth.leak),
        over(facts, growth.many),
        over(facts, places.page_cache),
        over(facts, places.limit_reached),
        over(facts, places.files_in_memory),
        over(facts, places.slab),
        over(facts, stores.postgres),
        over(facts, stores.redis),
        over(facts, growth.transcoding),
        stalls.thrash(facts),
        stalls.killed(facts),
        over(facts, places.promised),
    ]
    healthy = conclusion.healthy(
        Bench(HEALTHY, facts.readings), "memory is fine", causes, breached=breached, rests_on=("memory", "cgroup"),
        quiet="memory is not short anywhere, and every cause that applies could be checked",
    )  # fmt: skip
    return [*causes, healthy]


def _edges(causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The static edges, where both are in the same place: a leak brings no other host's cgroup to its limit."""
    by_id = {cause.id: cause for cause in causes}
    known = [*EXPLAINS, *edges.across(causes)]
    return [(a, b) for a, b in known if _same_place(by_id[a], by_id[b])]


def _same_place(one: Cause, other: Cause) -> bool:
    places_ = [(cause.details.get("host"), cause.details.get("cgroup")) for cause in (one, other)]
    (host, group), (other_host, other_group) = places_
    if host is None or other_host is None:
        return True
    if host != other_host:
        return False
    return other.id != "M04" or group is None or other_group is None or _beside(str(group), str(other_group))


def _beside(group: str, other: str) -> bool:
    return group == other or group.startswith(f"{other}/") or other.startswith(f"{group}/")


def _impact(facts: Facts) -> str:
    """Who feels it, as far as the readings tell."""
    short = [scope for scope in facts.scopes if scope.breached]
    said = [f"{scope.label} has {scope.percent:.0f} % of its memory in use" for scope in short[:3]]
    if len(short) > 3:
        said.append(f"{len(short) - 3} more are short of memory")
    if facts.soonest is not None and facts.soonest <= facts.limits.full_minutes:
        said.append(f"memory is used up in {facts.soonest:g} minutes at the pace of what grows")
    if facts.kills.number:
        said.append(f"{facts.kills.number} processes were killed within the window")
    if facts.stalled_percent and facts.stalled_percent >= facts.limits.stalled_percent:
        said.append(f"all work waited for memory {facts.stalled_percent:g} % of the time")
    if said:
        return "; ".join(said) + "."
    missing = facts.lost("memory")
    if not facts.scopes or missing:
        return (
            "Unknown: the memory of "
            + (", ".join(h for h in missing if h != "*") or "the hosts")
            + " could not be read."
        )
    fullest = facts.scopes[0]
    return f"None seen: {fullest.label} has {fullest.percent:.0f} % of its memory in use."
