"""Thresholds of the disk runbook, from its parameters. Source: reference fault model, runbook R5."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1."""

    #: The filesystem that the alert names, or a path on it; empty = every filesystem.
    mount: str = ""
    #: The machine that the alert names, as the metrics server calls it; empty = every one.
    instance: str = ""
    #: Percent in use, as df counts it, from which on a filesystem is short of space.
    threshold_percent: float = 85.0
    #: Percent in use to which one has to come back.
    warn_percent: float = 80.0
    #: Percent of the inodes from which on a filesystem is short of them.
    inode_percent: float = 90.0
    #: A filesystem that is full within so many hours is an incident now.
    critical_hours: float = 4.0
    #: Growth of one kind of files that is worth a look, gigabytes an hour.
    growth_gb_per_hour: float = 1.0
    #: A log that grows this fast is a matter on any disk, gigabytes an hour.
    runaway_gb_per_hour: float = 20.0
    #: What takes this share of what is too much explains some of it.
    level_share: float = 0.2
    #: An inactive slot that keeps less WAL than this is no matter yet, megabytes.
    slot_mb: float = 64.0
    #: Segments that wait to be archived, from which on a failing archiver piles them up.
    ready_segments: int = 2
    #: Temporary files older than this, that nobody has open, are left over, hours.
    temp_age_hours: float = 24.0
    #: Dead rows, in percent of a table, from which on it is bloated.
    dead_percent: float = 20.0
    #: A thin pool or a snapshot fuller than this stops its filesystem, percent.
    volume_percent: float = 90.0

    @property
    def growth_bytes_per_second(self) -> float:
        return self.growth_gb_per_hour * GIB / 3600.0

    @property
    def runaway_bytes_per_second(self) -> float:
        return self.runaway_gb_per_hour * GIB / 3600.0
