"""PostgreSQL's own space as this run saw it: WAL, who keeps it, temporary files, databases and their relations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from runbook.diagnosis.disks.filesystems import Key, moment, number, paces_of
from runbook.diagnosis.disks.limits import MIB, Limits
from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]
IDLE_BYTES = 256 * 1024
"""WAL that a server writes within seconds although nobody uses it, and more."""
PROBES = ("disk_wal", "disk_slots", "disk_spills", "disk_databases", "disk_relations")


class Database:
    """One server's space."""

    def __init__(self, readings: Readings, limits: Limits, aliases: Mapping[Key, Key]) -> None:
        self._aliases = aliases
        self._readings = readings
        self._limits = limits

    @property
    def configured(self) -> bool:
        """Whether there is such a server: it was asked, and it is configured."""
        asked = [r for name in ("connection", *PROBES) if (r := self._readings.last(name)) is not None]
        return any(reading.state != "not_configured" for reading in asked)

    @cached_property
    def wal(self) -> Row | None:
        return self._readings.row("disk_wal")

    @cached_property
    def slots(self) -> list[dict[str, Any]] | None:
        """Slots that keep WAL and are not lost already."""
        rows = self._readings.rows("disk_slots")
        if rows is None:
            return None
        return [row for row in rows if row.get("retained_bytes") is not None and row.get("wal_status") != "lost"]

    @cached_property
    def idle_slot(self) -> Row | None:
        """The inactive slot that keeps the most WAL, if any keeps enough to matter."""
        idle = [s for s in self.slots or [] if s.get("active") is False and not s.get("temporary")]
        most = max(idle, key=lambda s: number(s["retained_bytes"]) or 0.0, default=None)
        return most if most and (number(most["retained_bytes"]) or 0.0) >= self._limits.slot_mb * MIB else None

    def slot_grows(self, name: str) -> bool:
        """Whether what a slot keeps grew from the first look to the last, by more than an idle server writes."""
        looks = [r for r in self._readings.series("disk_slots") if r.known]
        sizes = [
            number(row.get("retained_bytes")) for look in looks for row in look.rows if row.get("slot_name") == name
        ]
        known = [size for size in sizes if size is not None]
        return len(known) > 1 and known[-1] - known[0] >= IDLE_BYTES

    def slot_pace(self, name: str) -> float:
        """How fast what a slot keeps grows, bytes a second; 0 when it does not."""
        return self._pace("disk_slots", "slot_name", "retained_bytes").get(name, 0.0)

    @cached_property
    def wal_pace(self) -> float:
        """How fast the WAL directory grows, bytes a second; 0 when it does not at every look."""
        looks = [r for r in self._readings.series("disk_wal") if r.known and r.rows]
        sizes = ((moment(r.measured_at), {"wal": number(r.rows[0].get("wal_bytes"))}) for r in looks)
        return paces_of(sizes).get("wal", 0.0)

    @property
    def unbounded_wal_pace(self) -> float:
        """The same, of WAL that its settings do not bound: somebody keeps it, or it is beyond them already."""
        size, usual = (number(self.wal.get("wal_bytes")) if self.wal else None), self.usual_wal_bytes
        failing = self.wal is not None and self.wal.get("archiver_failing") is True
        beyond = size is not None and usual is not None and size > usual
        return self.wal_pace if self.idle_slot is not None or failing or beyond else 0.0

    @cached_property
    def usual_wal_bytes(self) -> float | None:
        """What the settings allow the WAL to be."""
        if self.wal is None:
            return None
        parts = (number(self.wal.get("max_wal_size_bytes")), number(self.wal.get("wal_keep_bytes")))
        return None if None in parts else sum(part or 0.0 for part in parts)

    @cached_property
    def ready_before(self) -> float | None:
        """Segments that waited for the archiver at the first look."""
        looks = [r for r in self._readings.series("disk_wal") if r.known and r.rows]
        return number(looks[0].rows[0].get("wal_ready")) if len(looks) > 1 else None

    # -- temporary files ---------------------------------------------------------------------------------------------

    @cached_property
    def spills(self) -> list[dict[str, Any]] | None:
        return self._readings.rows("disk_spills")

    def spill_pace(self, pid: Any) -> float:
        return self._pace("disk_spills", "pid", "bytes").get(pid, 0.0)

    # -- databases and relations -------------------------------------------------------------------------------------

    @cached_property
    def databases(self) -> list[dict[str, Any]] | None:
        """Every database with its size; ``None`` when they are unknown, or the role may not enter one of them."""
        rows = self._readings.rows("disk_databases")
        return None if rows is None or any(row.get("bytes") is None for row in rows) else rows

    @cached_property
    def fastest(self) -> tuple[str, float] | None:
        """The database that grows the fastest, and how fast; ``None`` when none grew at every look."""
        paces = self._pace("disk_databases", "database", "bytes")
        return max(paces.items(), key=lambda item: (item[1], item[0]), default=None)

    @cached_property
    def relations(self) -> list[dict[str, Any]] | None:
        return self._readings.rows("disk_relations")

    @cached_property
    def growing_relation(self) -> tuple[Row, float] | None:
        paces = self._pace("disk_relations", "relation", "bytes")
        found = [(row, paces[row["relation"]]) for row in self.relations or [] if row["relation"] in paces]
        return max(found, key=lambda item: (item[1], str(item[0]["relation"])), default=None)

    @cached_property
    def bloated(self) -> Row | None:
        """The relation with the most bytes of dead rows, of those that are bloated at all."""
        worn = [r for r in self.relations or [] if (number(r.get("dead_percent")) or 0.0) >= self._limits.dead_percent]
        return max(worn, key=dead_bytes, default=None)

    @property
    def looked_twice(self) -> bool:
        """Whether databases were looked at more than once, so that growth could be seen."""
        return len([r for r in self._readings.series("disk_databases") if r.known]) > 1

    # -- where it lies -----------------------------------------------------------------------------------------------

    def place(self, role: str) -> Key | None:
        """The filesystem of ``data``, ``wal`` or ``spill``; ``None`` when the server is elsewhere, or nobody knows."""
        rows = self._readings.rows("database_files") or []
        wanted = role if role == "wal" else "data"
        row = next((r for r in rows if r.get("role") == wanted and r.get("mount")), None)
        if row is None:
            return None
        key = ("local", str(row["mount"]))
        return self._aliases.get(key, key)

    def _pace(self, name: str, by: str, size: str) -> dict[Any, float]:
        looks = [reading for reading in self._readings.series(name) if reading.known]
        return paces_of(
            (moment(look.measured_at), {row.get(by): number(row.get(size)) for row in look.rows}) for look in looks
        )


def dead_bytes(row: Row) -> float:
    """Bytes of dead rows, by their share of all rows."""
    return (number(row.get("bytes")) or 0.0) * (number(row.get("dead_percent")) or 0.0) / 100.0
