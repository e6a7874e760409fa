"""One run's view of the disks: which filesystems are in question, which are short, and what takes their space.

A cause claims bytes on one filesystem, or a pace of growth there. What is *abnormal* by itself (WAL that a dead slot
keeps, files that nobody can see any more) is held against what is too much; what is *ordinary* (logs, images, tables)
has to be a large part of all that is there. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.disks import words
from runbook.diagnosis.disks.database import Database
from runbook.diagnosis.disks.files import Files
from runbook.diagnosis.disks.filesystems import Filesystem, Key, lost_hosts, number, one_each, seen, with_history
from runbook.diagnosis.disks.limits import Limits
from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]
SPACE = ("disk", "disk_history")
"""Readings of how full filesystems are."""
BULK = 0.5
"""Part of what is used that ordinary files must be, to be half of the matter."""
SWELLING = 0.2
"""Part of its filesystem that something must write within the critical time, where it writes slowly."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a cause takes of one filesystem."""

    key: Key | None
    bytes: float = 0.0
    #: Bytes a second; 0 where it does not grow.
    pace: float = 0.0
    #: A pace from which on it is a matter on any disk.
    runaway: float = math.inf


@dataclass(frozen=True)
class Facts:
    """The disks as this run saw them."""

    readings: Readings
    limits: Limits

    # -- filesystems -------------------------------------------------------------------------------------------------

    @cached_property
    def _told(self) -> dict[Key, Filesystem] | None:
        found = seen(self.readings)
        return with_history(found, self.readings.rows("disk_history"), self.limits.instance)

    @cached_property
    def aliases(self) -> dict[Key, Key]:
        """Every mount, and the mount that stands for its filesystem: one that is mounted twice is one."""
        return one_each(self._told or {})

    @cached_property
    def every(self) -> dict[Key, Filesystem] | None:
        """Every filesystem that anybody told us of, once; ``None`` when nobody did."""
        if self._told is None:
            return None
        return {key: one for key, one in self._told.items() if self.aliases[key] == key}

    def at(self, row: Row) -> Key:
        """The filesystem of a row that names its host and its mount point."""
        key = (str(row.get("host") or "local"), str(row.get("mount") or ""))
        return self.aliases.get(key, key)

    @cached_property
    def mounts(self) -> dict[str, list[str]]:
        """Mount points by host, those that mount a filesystem once more among them."""
        found: dict[str, list[str]] = {}
        for host, mount in self._told or {}:
            found.setdefault(host, []).append(mount)
        return found

    @cached_property
    def asked(self) -> list[Filesystem] | None:
        """The filesystems in question: the one that the alert names, else every one; ``None`` when none is known.

        Where the one that is named was not seen, it is every one, and that one is :attr:`lost`.
        """
        wanted = self.limits.mount
        if self.every is None or (wanted and not wanted.startswith("/")):
            return None
        return [f for f in self._of_host if not self._named or f.key in self._named] or None

    @cached_property
    def _of_host(self) -> list[Filesystem]:
        hosts = self._hosts_meant
        return [f for f in (self.every or {}).values() if hosts is None or f.host in hosts]

    @cached_property
    def _named(self) -> set[Key]:
        """Those that the alert names by their mount point, or by a path on them, one on each host."""
        wanted = self.limits.mount
        rows = [row for row in self.readings.rows("disk") or [] if row.get("holds")]
        there = {self.at(row) for row in rows}
        there |= {self.at({"host": host, "mount": wanted}) for host, mounts in self.mounts.items() if wanted in mounts}
        return there & {f.key for f in self._of_host} if wanted else set()

    @cached_property
    def nowhere(self) -> str:
        """Why the filesystem that the alert names is none of those that were seen; empty when it is one."""
        wanted = self.limits.mount
        if not wanted or self.every is None or self._named:
            return ""
        hosts = ", ".join(sorted({f.host for f in self._of_host}))
        return f"nothing is mounted at {wanted}, and it is no path either, on what was looked at ({hosts})"

    @cached_property
    def _hosts_meant(self) -> set[str] | None:
        """Hosts that are the machine of the alert; ``None`` when it names none that we know."""
        wanted = self.limits.instance
        if not wanted:
            return None
        bare = wanted.rpartition(":")[0] or wanted
        found = {h for h in self.mounts if wanted == h or bare in (h, h.rpartition("@")[2].partition(":")[0])}
        return found or None

    @cached_property
    def judged(self) -> list[Filesystem] | None:
        """Those in question that can fill up at all, the fullest first."""
        if self.asked is None:
            return None
        found = [f for f in self.asked if not f.pseudo and not f.image]
        return sorted(found, key=lambda f: (-(f.used_percent or 0.0), f.host, f.mount))

    @cached_property
    def lost(self) -> list[str]:
        """Filesystems and hosts in question whose space nobody knows."""
        unsized = [f.name for f in self.judged or [] if f.used_percent is None]
        return [*lost_hosts(self.readings), *unsized, *([self.limits.mount] if self.nowhere else [])]

    def of(self, key: Key | None) -> Filesystem | None:
        """The filesystem of that key, wherever it is."""
        return None if key is None else (self.every or {}).get(key)

    def in_question(self, key: Key | None) -> bool | None:
        """Whether that is one of the filesystems in question; ``None`` when nobody knows where it is."""
        if not self.limits.mount:
            return True
        return None if key is None or self.asked is None else any(f.key == key for f in self.asked)

    # -- short of something ------------------------------------------------------------------------------------------

    def is_short(self, one: Filesystem) -> bool | None:
        """Whether it has too little room left for ordinary users."""
        return None if one.used_percent is None else one.used_percent >= self.limits.threshold_percent

    def is_short_of_inodes(self, one: Filesystem) -> bool:
        return (one.inodes_percent or 0.0) >= self.limits.inode_percent

    @cached_property
    def short(self) -> list[Filesystem]:
        """Those in question that are short of space, the fullest first."""
        return [f for f in self.judged or [] if self.is_short(f)]

    @cached_property
    def none_short(self) -> bool | None:
        """Whether none is short of space; ``None`` when none is known to be, and some are not known."""
        if self.short:
            return False
        return None if self.judged is None or self.lost else True

    def pace(self, one: Filesystem) -> float | None:
        """How fast it fills, bytes a second, by the better witness: the last hour, else what was seen at its source.

        A second of growth on a busy machine proves nothing about the next hour. It counts when files, or the database,
        were seen growing there; growth of which nobody saw the source, and that would matter, is *unknown*.
        """
        source = self.source_pace(one.key)
        if one.hour_pace is not None:
            return max(one.hour_pace, source)
        if source > 0 or one.run_pace is None or not self.is_fast(one.run_pace, one):
            return source
        hours = one.hours_to_full(one.run_pace)
        return None if hours is not None and hours < self.limits.critical_hours else source

    def source_pace(self, key: Key) -> float:
        """Growth that was seen in files, and in the database, of that filesystem."""
        grown = sum(f.pace for f in self.files.growing(key) if f.kind not in ("wal", "spill", "relation"))
        for role, pace in (
            ("wal", self.database.unbounded_wal_pace),
            ("spill", self._spilling),
            ("data", self._growing),
        ):
            if self.database.place(role) == key:
                grown += pace
        return grown

    @property
    def _spilling(self) -> float:
        return sum(self.database.spill_pace(s.get("pid")) for s in self.database.spills or [])

    @property
    def _growing(self) -> float:
        return self.database.fastest[1] if self.database.fastest else 0.0

    def hours_to_full(self, one: Filesystem) -> float | None:
        """At its pace; ``None`` when it does not fill, or not fast enough to say so after a few seconds' look."""
        pace = self.pace(one)
        if pace is None or not (self.is_fast(pace, one) or one.hour_pace is not None):
            return None
        return one.hours_to_full(pace)

    @cached_property
    def none_fills(self) -> bool | None:
        """Whether none of those in question would be full within the critical time; ``None`` when that is unknown."""
        if self.judged is None:
            return None
        hours = [(self.pace(f), self.hours_to_full(f)) for f in self.judged]
        if any(left is not None and left < self.limits.critical_hours for _, left in hours):
            return False
        return None if self.lost or any(pace is None for pace, _ in hours) else True

    def is_fast(self, pace: float, one: Filesystem | None) -> bool:
        """Whether a pace is worth an alarm: gigabytes an hour, or much of that filesystem within the critical time."""
        if pace >= self.limits.growth_bytes_per_second:
            return True
        if one is None or one.size is None:
            return False
        return pace * self.limits.critical_hours * 3600 >= SWELLING * one.size

    # -- claims ------------------------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> Files:
        return Files(self.readings, self.mounts, self.aliases)

    @cached_property
    def database(self) -> Database:
        return Database(self.readings, self.limits, self.aliases)

    def fills(self, claim: Claim) -> bool:
        """Whether it would fill its filesystem by itself within the critical time, at the pace that was seen.

        What runs away would fill any.
        """
        one = self.of(claim.key)
        if one is None or claim.pace <= 0 or not self.is_fast(claim.pace, one):
            return False
        if claim.pace >= claim.runaway:
            return True
        hours = one.hours_to_full(claim.pace)
        return hours is not None and hours < self.limits.critical_hours

    def share(self, claim: Claim, *, abnormal: bool) -> float:
        """Share of what is wrong with its filesystem that a claim explains, 0–1."""
        one = self.of(claim.key)
        if one is None:
            return 0.0
        level = 0.0
        if self.is_short(one) and one.used:
            excess = one.excess(self.limits.warn_percent)
            whole = excess if abnormal else max(excess, BULK * one.used)
            level = min(1.0, claim.bytes / whole) if whole else 0.0
        growth = 0.0
        if self.fills(claim):
            growth = min(1.0, claim.pace / max(claim.pace, self.source_pace(one.key)))
        return max(level, growth)

    def matters(self, claim: Claim, *, abnormal: bool) -> bool:
        """Whether it explains enough of a filesystem that is short, or fills one."""
        return self.share(claim, abnormal=abnormal) >= self.limits.level_share

    def best(self, claims: Iterable[Claim], *, abnormal: bool) -> Claim | None:
        """The claim that explains the most, of those on filesystems in question."""
        found = [c for c in claims if self.in_question(c.key) is not False]
        ranked = sorted(found, key=lambda c: (-self.share(c, abnormal=abnormal), -c.bytes, c.key or ("", "")))
        return ranked[0] if ranked else None

    def files_claim(self, key: Key, *kinds: words.Kind) -> Claim:
        """What the files of these kinds take of one filesystem."""
        files = self.files.on(key, *kinds)
        return Claim(key=key, bytes=sum(f.bytes for f in files), pace=sum(f.pace for f in files))

    def places(self, key: Key, *kinds: str) -> list[Row]:
        """The places of these kinds on one filesystem."""
        rows = self.readings.rows("places") or []
        return [row for row in rows if self.at(row) == key and row.get("kind") in kinds]

    @property
    def keys(self) -> list[Key]:
        """Filesystems in question that can fill up."""
        return [f.key for f in self.judged or []]

    # -- what logs say -----------------------------------------------------------------------------------------------

    def logged(self, code: str) -> int | None:
        """Lines of the application's log within the window that carry this error; ``None`` when it was not read."""
        rows = self.readings.rows("disk_errors")
        return None if rows is None else int(sum(number(r.get("count")) or 0 for r in rows if r.get("code") == code))
