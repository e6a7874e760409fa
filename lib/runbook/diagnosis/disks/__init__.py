"""R5, full disks: readings of one run in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis import conclusion, edges
from runbook.diagnosis.disks import ordinary, server, symptom, unseen
from runbook.diagnosis.disks.facts import SPACE, Facts
from runbook.diagnosis.disks.limits import Limits
from runbook.diagnosis.disks.pictures import directories, overview, suspects
from runbook.diagnosis.disks.prevention import prevention
from runbook.diagnosis.disks.proposals import propose
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading, Verdict

__all__ = ["diagnose", "directories", "finding", "overview", "prevention", "short_of_space", "suspects"]

HEALTHY = "D16"

EXPLAINS: tuple[tuple[str, str], ...] = tuple((f"D{n:02}", "D11") for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15))
"""Static edges: what filled the disk is why only the reserve is left."""

RULES = (
    ordinary.logs, server.slot, server.archiver, server.ordinary_wal, server.spill, server.tables,
    unseen.deleted_files, unseen.inodes, ordinary.temporary_files, ordinary.images, unseen.reserved, unseen.hidden,
    unseen.read_only, unseen.snapshots, unseen.redis_files,
)  # fmt: skip


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *high_disk_usage*; the same readings give the same findings."""
    taken = Readings(readings)
    facts = Facts(taken, Limits.of(parameters))
    faces = symptom.faces(facts)
    breached = symptom.is_breached(faces)
    causes = _causes(facts, breached)
    return conclusion.findings(
        taken, causes, (*EXPLAINS, *edges.across(causes)), symptom=symptom.shown(faces),
        impact=lambda verdicts: symptom.impact(facts, found=conclusion.any_finding(verdicts, HEALTHY)),
        propose=lambda verdicts: propose(verdicts, facts), healthy=HEALTHY, breached=breached,
        peaked=symptom.peaked(facts),
    )  # fmt: skip


def finding(readings: Readings, parameters: Mapping[str, Any] | None = None) -> Verdict | None:
    """The leading finding on whatever readings of disks there are, for a runbook whose cause stands for it."""
    taken = [reading for name in readings.names for reading in readings.series(name)]
    return conclusion.leading(diagnose(taken, parameters or {}), HEALTHY)


def short_of_space(readings: Readings, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The filesystem that is short of space or inodes, or read-only where it must not be, whatever the cause.

    ``{host, mount, used_percent, inodes_percent, available_bytes}``; ``None`` when none is known to be.
    """
    facts = Facts(readings, Limits.of(parameters or {}))
    short = [*facts.short, *(f for f in facts.judged or [] if facts.is_short_of_inodes(f))]
    if not short:
        return None
    one = short[0]
    return {"host": one.host, "mount": one.mount, "used_percent": one.used_percent,
            "inodes_percent": one.inodes_percent, "available_bytes": one.available}  # fmt: skip


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    causes = [rule(facts) for rule in RULES]
    return [*causes, _false_alarm(facts, causes, breached)]


def _false_alarm(facts: Facts, causes: Sequence[Cause], breached: bool | None) -> Cause:
    """D16: no filesystem that can fill up is short; what is full is so by construction, an image say.

    Gate: the symptom is known to be absent, and every cause that applies could be checked. Source: R5, D16.
    """
    from dataclasses import replace

    full = [f for f in facts.asked or [] if f.image and (f.used_percent or 0.0) >= facts.limits.threshold_percent]
    cause = conclusion.healthy(
        Bench(HEALTHY, facts.readings), "false alarm, or nothing wrong", causes, breached=breached, rests_on=SPACE,
        quiet="no filesystem that can fill up is short, and every cause that applies could be checked",
        blind=facts.nowhere,
    )  # fmt: skip
    told = [{"host": f.host, "mount": f.mount, "type": f.type, "used_percent": f.used_percent} for f in full]
    return replace(cause, details={"full_by_nature": told} if told else {})
