"""What the charts of the disk runbook show, and where its notebook looks closer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.disks import words
from runbook.diagnosis.disks.facts import Facts
from runbook.diagnosis.disks.filesystems import number
from runbook.diagnosis.disks.limits import Limits
from runbook.diagnosis.disks.symptom import basis
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

CLOSER_PERCENT = 5.0
"""So far below the alert a filesystem is already looked into."""
MOST = 8


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """One filesystem as it is drawn."""

    name: str
    used_percent: float | None
    inodes_percent: float | None
    note: str
    #: It is short of space or inodes, or will be within the critical time.
    alarming: bool


@dataclass(frozen=True, kw_only=True)
class Directory:
    """One directory as it is drawn."""

    path: str
    bytes: float
    #: Bytes of files in it that were changed within the last hour.
    changed_bytes: float
    depth: int


def suspects(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> list[str]:
    """Mount points to look into: of the filesystems that are short or nearly so, or the one that the alert names.

    A whole large disk that has room is not walked through.
    """
    facts = Facts(Readings(readings), Limits.of(parameters))
    near = facts.limits.threshold_percent - CLOSER_PERCENT
    chosen = [f for f in facts.judged or [] if (f.used_percent or 0.0) >= near
              or (f.inodes_percent or 0.0) >= facts.limits.inode_percent - CLOSER_PERCENT]  # fmt: skip
    return list(dict.fromkeys(f.mount for f in chosen))[:5]


def overview(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> list[Gauge]:
    """The filesystems in question, the fullest first."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    asked = sorted(facts.asked or [], key=lambda f: (f.image or f.pseudo, -(f.used_percent or 0.0), f.key))
    warn = facts.limits.warn_percent
    shown = [f for f in asked if f.used_percent is not None and (not f.pseudo or f.image)
             and (not f.image or f.used_percent >= warn)]  # fmt: skip
    return [_gauge(facts, f) for f in shown if _is_anyones(f.mount)][:MOST]


def _is_anyones(mount: str) -> bool:
    """Whether it is no place of the kernel's own."""
    return mount == "/dev/shm" or not any(words.beneath(mount, k) for k in ("/dev", "/sys", "/proc"))  # noqa: S108


def _gauge(facts: Facts, one: Any) -> Gauge:
    if one.image:
        return Gauge(name=one.name, used_percent=one.used_percent, inodes_percent=None, alarming=False,
                     note=f"{one.type}, read-only: as full as it is meant to be")  # fmt: skip
    hours = facts.hours_to_full(one)
    note = f"{words.size(one.available)} left"
    soon = hours is not None and hours < facts.limits.critical_hours
    if hours is not None:
        note += f"; full in {words.duration(hours)} at the pace of {basis(facts, one)}"
    return Gauge(name=one.name, used_percent=one.used_percent, inodes_percent=one.inodes_percent, note=note,
                 alarming=bool(facts.is_short(one)) or facts.is_short_of_inodes(one) or soon)  # fmt: skip


def directories(readings: Sequence[Reading]) -> list[Directory]:
    """The largest directories that were listed, the largest first; with how deep each lies below another one."""
    taken = Readings(readings)
    rows = [r for r in taken.rows("disk_directories") or [] if r.get("path") and number(r.get("bytes"))]
    rows.sort(key=lambda r: (-(number(r["bytes"]) or 0.0), str(r["path"])))
    chosen = rows[:12]
    paths = [str(r["path"]) for r in chosen]
    return [
        Directory(path=str(r["path"]) if r.get("host") in (None, "local") else f"{r['path']} on {r['host']}",
                  bytes=number(r["bytes"]) or 0.0, changed_bytes=number(r.get("changed_bytes_per_hour")) or 0.0,
                  depth=sum(1 for p in paths if p != r["path"] and words.beneath(str(r["path"]), p)))
        for r in chosen
    ]  # fmt: skip
