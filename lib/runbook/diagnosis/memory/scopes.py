"""Where memory may be short: a host as a whole, or a cgroup with a limit of its own, each over several samples.

A host is short by what is not available, a cgroup by its working set: usage less page cache that can go. ``None``
anywhere means *unknown*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from runbook.diagnosis.memory.processes import number
from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]
ENOUGH = 2 / 3
"""Share of the samples that must breach."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A host, or a cgroup on it."""

    host: str
    #: Path of the cgroup; empty = the host.
    path: str
    #: Known rows of it, oldest first.
    rows: tuple[Row, ...]
    threshold: float

    @property
    def row(self) -> Row:
        return self.rows[-1]

    @property
    def percents(self) -> list[float]:
        column = "working_set_percent" if self.path else "used_percent"
        return [value for row in self.rows if (value := number(row, column)) is not None]

    @property
    def percent(self) -> float | None:
        """Memory in use, the median of the samples."""
        return median(self.percents) if self.percents else None

    @property
    def breached(self) -> bool | None:
        """Whether two of three samples reach the threshold."""
        if not self.percents:
            return None
        return sum(p >= self.threshold for p in self.percents) >= math.ceil(ENOUGH * len(self.percents))

    @property
    def total(self) -> float | None:
        return number(self.row, "limit_bytes" if self.path else "total_bytes")

    @property
    def used(self) -> float | None:
        if self.path:
            return number(self.row, "working_set_bytes")
        whole, left = number(self.row, "total_bytes"), number(self.row, "available_bytes")
        return None if whole is None or left is None else whole - left

    @property
    def rose(self) -> bool:
        """Whether there was more in use in the last sample than in the first."""
        return len(self.percents) >= 2 and self.percents[-1] > self.percents[0]

    @property
    def label(self) -> str:
        name = "this host" if self.host == "local" else self.host
        return f"cgroup {self.path} on {name}" if self.path else name

    def share(self, size: float) -> float:
        """What part of the memory in use these bytes are."""
        return min(1.0, size / self.used) if self.used else 0.0

    def delta(self, column: str) -> float | None:
        """How much a counter rose over the samples; ``None`` with fewer than two."""
        known = [value for row in self.rows if (value := number(row, column)) is not None]
        return known[-1] - known[0] if len(known) >= 2 else None

    def holds(self, cgroup: str) -> bool:
        """Whether what runs in that cgroup runs in here."""
        return self.path in ("", "/") or cgroup == self.path or cgroup.startswith(f"{self.path}/")

    def facts(self) -> dict[str, Any]:
        """It as the details of a verdict name it."""
        return {"host": self.host, **({"cgroup": self.path} if self.path else {})}


def hosts(readings: Readings, threshold: float) -> list[Scope]:
    """Every host whose memory is known."""
    rows: dict[str, list[Row]] = {}
    for reading in readings.series("memory"):
        for row in reading.rows if reading.known else ():
            if number(row, "total_bytes") is not None:
                rows.setdefault(str(row.get("host")), []).append(row)
    return [Scope(host=host, path="", rows=tuple(found), threshold=threshold) for host, found in rows.items()]


def cgroups(readings: Readings, threshold: float) -> list[Scope]:
    """Every cgroup that was looked at."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for reading in readings.series("cgroup"):
        for row in reading.rows if reading.known else ():
            if row.get("path"):
                rows.setdefault((str(row.get("host")), str(row["path"])), []).append(row)
    return [Scope(host=h, path=p, rows=tuple(found), threshold=threshold) for (h, p), found in rows.items()]


def lost(readings: Readings, name: str) -> list[str]:
    """Hosts of which that reading has nothing but the reason, ``*`` for all of them."""
    reading = readings.last(name)
    if reading is None or reading.state == "not_configured":
        return []
    if not reading.known:
        return ["*"]
    answered = {str(row.get("host")) for row in reading.rows if "state" not in row or "pid" in row}
    return [str(row.get("host")) for row in reading.rows if row.get("reason") and str(row.get("host")) not in answered]


def worst(reading: Any, count: int = 5) -> list[str]:
    """The hosts of a ``memory`` reading that are nearest to their limit, for what is too much to ask of all."""
    if reading is None or not reading.known:
        return []
    known: Sequence[Row] = [row for row in reading.rows if number(row, "used_percent") is not None]
    ranked = sorted(known, key=lambda row: (-(number(row, "used_percent") or 0.0), str(row.get("host"))))
    return [str(row["host"]) for row in ranked[:count]]
