"""The symptom of the disk runbook, re-measured: bytes, inodes and time until full, of every filesystem in question.

Source: reference fault model, runbook R5.
"""

from __future__ import annotations

from runbook.diagnosis.disks import words
from runbook.diagnosis.disks.facts import Facts
from runbook.diagnosis.disks.filesystems import Filesystem
from runbook.diagnosis.face import Face
from runbook.diagnosis.face import is_breached as is_breached
from runbook.result import Symptom


def faces(facts: Facts) -> list[Face]:
    """Every face, the most telling first."""
    return [_usage(facts), _inodes(facts), _time(facts)]


def shown(all_faces: list[Face]) -> Symptom:
    """The symptom as the report shows it: the first face that is breached, else the usage."""
    breached = [face for face in all_faces if face.breached]
    return (breached or all_faces)[0].symptom(is_breached(all_faces))


def peaked(facts: Facts) -> bool:
    """Whether a filesystem in question was short within the last hour, as the metrics server kept it."""
    return any((f.peak_percent or 0.0) >= facts.limits.threshold_percent for f in facts.judged or [])


def _usage(facts: Facts) -> Face:
    known = [f for f in facts.judged or [] if f.used_percent is not None]
    fullest = known[0] if known else None
    images = [f for f in facts.asked or [] if f.used_percent is not None] if facts.judged == [] else []
    if images:
        one = max(images, key=lambda f: (f.used_percent or 0.0, f.key))
        return Face(
            label=f"space in use on {one.name}, which nobody can write to", unit="%", value=one.used_percent,
            threshold=facts.limits.threshold_percent, breached=False,
        )  # fmt: skip
    return Face(
        label=f"space in use on {fullest.name}" if fullest else "space in use",
        unit="%",
        value=fullest.used_percent if fullest else None,
        threshold=facts.limits.threshold_percent,
        breached=True if facts.short else None if facts.none_short is None else False,
        peak=max((f.peak_percent or 0.0 for f in known), default=None),
    )


def _inodes(facts: Facts) -> Face:
    known = [f for f in facts.judged or [] if f.inodes_percent is not None]
    worst = max(known, key=lambda f: (f.inodes_percent or 0.0, f.key), default=None)
    over = worst is not None and facts.is_short_of_inodes(worst)
    return Face(
        label=f"inodes in use on {worst.name}" if worst else "inodes in use",
        unit="%",
        value=worst.inodes_percent if worst else None,
        threshold=facts.limits.inode_percent,
        breached=True if over else None if facts.judged is None or facts.lost else False,
    )


def _time(facts: Facts) -> Face:
    filling = [(hours, f) for f in facts.judged or [] if (hours := facts.hours_to_full(f)) is not None]
    soonest = min(filling, key=lambda item: (item[0], item[1].key), default=None)
    label = "hours until a filesystem is full"
    if soonest is not None:
        label = f"hours until {soonest[1].name} is full, at the pace of {basis(facts, soonest[1])}"
    none = facts.none_fills
    return Face(
        label=label,
        unit="h",
        value=round(soonest[0], 2) if soonest else None,
        threshold=facts.limits.critical_hours,
        breached=None if none is None else not none,
    )


def basis(facts: Facts, one: Filesystem) -> str:
    """Over which time the pace of a filesystem was taken."""
    return "this run's looks" if (one.hour_pace or 0.0) < facts.source_pace(one.key) else "the last hour"


def impact(facts: Facts, *, found: bool) -> str:
    """Who feels it, as far as the readings tell."""
    if facts.judged is None:
        return "Unknown: no filesystem could be read."
    refused = facts.logged("ENOSPC")
    said = f" The application's log says ENOSPC {refused} times." if refused else ""
    if facts.short:
        told = "; ".join(
            f"{f.name} is {f.used_percent:g} % full, {words.size(f.available)} left" for f in facts.short[:3]
        )
        return f"{told}.{said} What writes there fails when it is full."
    soon = [f"{f.name} is full in {words.duration(hours)} at this pace" for f in facts.judged
            if (hours := facts.hours_to_full(f)) is not None and hours < facts.limits.critical_hours]  # fmt: skip
    if soon:
        return f"{'; '.join(soon)}.{said} Nothing fails yet."
    if any(facts.is_short_of_inodes(f) for f in facts.judged):
        return f"No new file can be made where the inodes are used up.{said}"
    if facts.nowhere:
        return f"Unknown: {facts.nowhere}.{said}"
    return f"{'No room is short yet' if found else 'None seen: no filesystem is short'}.{said}"
