"""Builds the readings of machines with disks that are described in a few words, for tables of rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, reading

Row = dict[str, Any]
GB = 1_000_000_000.0
LOOKS = 3
SECONDS = 2.0


def disk(mount: str = "/", *, size: float = 100 * GB, used: float = 40 * GB, reserve: float = 0.0, **more: Any) -> Row:
    """One filesystem as ``df`` tells it."""
    available = max(0.0, size - used - reserve)
    row = {
        "host": "local", "filesystem": f"/dev/disk{mount.strip('/')}", "type": "ext4", "mount": mount,
        "size_bytes": size, "used_bytes": used, "available_bytes": available,
        "used_percent": round(100 * used / (used + available), 2) if used + available else None,
        "inodes": 1e6, "inodes_used": 2e5, "read_only": False, "pseudo": False, "options": "rw,relatime",
    }  # fmt: skip
    return row | more


@dataclass
class Machine:
    """A host with a database; everything has a default that is healthy."""

    disks: list[Row] = field(default_factory=lambda: [disk()])
    #: Files that are written: path → (bytes at the last look, bytes a second, pid).
    written: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    hidden_processes: int = 0
    large: dict[str, float] = field(default_factory=dict)
    #: Old files of temporary directories: path → (bytes, hours, open).
    old: dict[str, tuple[float, float, bool | None]] = field(default_factory=dict)
    deleted: list[Row] = field(default_factory=list)
    places: list[Row] = field(default_factory=list)
    below: list[Row] = field(default_factory=list)
    volumes: list[Row] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    many: list[Row] = field(default_factory=list)
    history: list[Row] | None = None
    wal: Row = field(default_factory=dict)
    wal_pace: float = 0.0
    slots: list[Row] = field(default_factory=list)
    slot_pace: float = 0.0
    spills: list[Row] = field(default_factory=list)
    spill_pace: float = 0.0
    database_pace: float = 0.0
    relations: list[Row] = field(default_factory=list)
    active: list[Row] = field(default_factory=list)
    data_mount: str = "/"
    wal_mount: str = ""
    saving: int = 0
    looks: int = LOOKS
    #: Readings that replace those of the same name.
    instead: dict[str, Reading] = field(default_factory=dict)

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        found = [one for number in range(self.looks) for one in self._look((number - self.looks + 1) * SECONDS)]
        hidden = self._hidden
        found += [
            reading("deleted_files", self.deleted, source="host", **hidden),
            reading("old_files", [
                {"host": "local", "path": path, "bytes": size, "age_hours": hours, "open": opened}
                for path, (size, hours, opened) in self.old.items()
            ], source="host", **hidden),
            reading("large_files", [{"host": "local", "path": p, "bytes": b, "modified_at": NOW.isoformat()}
                                    for p, b in self.large.items()], source="host"),
            reading("places", [{"complete": "yes", "host": "local", "mount": "/"} | row for row in self.places],
                    source="host"),
            reading("hidden_files", self.below, source="host"),
            reading("volumes", self.volumes, source="host"),
            reading("many_files", self.many, source="host"),
            reading("disk_errors", [{"log": "/srv/app.log", "code": c, "count": n, "last": NOW.isoformat()}
                                    for c, n in self.errors.items()], source="shell"),
            reading("database_files", [{"role": role, "path": "/srv/pg", "mount": mount} for role, mount in
                                       (("data", self.data_mount), ("wal", self.wal_mount or self.data_mount))
                                       if mount], source="shell"),
            reading("horizon", [{"holder": "session", "name": "4711", "xmin_age": 90000}]),
            reading("redis_info", {"rdb_bgsave_in_progress": self.saving, "aof_rewrite_in_progress": 0},
                    source="redis"),
            reading("queue_active", self.active, source="bullmq"),
            reading("log_rotation", [{"host": "local", "file": "/etc/logrotate.d/app", "pattern": "/srv/logs/*.log"}],
                    source="shell"),
        ]  # fmt: skip
        if self.history is not None:
            found.append(reading("disk_history", self.history, source="prometheus"))
        return [self.instead.get(r.name, r) for r in found]

    @property
    def _hidden(self) -> dict[str, Any]:
        said = f"exit status 3: the open files of {self.hidden_processes} processes of other users are hidden"
        return {"state": "partial", "reason": said} if self.hidden_processes else {}

    def _look(self, at: float) -> list[Reading]:
        moment = (NOW + timedelta(seconds=at)).isoformat()
        hidden = self._hidden
        written = [
            {"host": "local", "path": path, "bytes": size + pace * at, "allocated_bytes": size + pace * at, "pid": pid,
             "command": f"writer of {path}", "modified_at": NOW.isoformat()}
            for path, (size, pace, pid) in self.written.items()
        ]  # fmt: skip
        grown = sum(pace for _, pace, _ in self.written.values())
        disks = [row | {"used_bytes": row["used_bytes"] + grown * at} for row in self.disks]
        wal = {
            "wal_bytes": 5e8, "max_wal_size_bytes": 1024**3, "wal_keep_bytes": 0, "max_slot_wal_keep_size": "-1",
            "temp_file_limit": "-1", "wal_ready": 0, "archive_mode": "off", "failed_count": 0,
            "archiver_failing": False, "data_directory": "/srv/pg",
        } | self.wal  # fmt: skip
        wal["wal_bytes"] += self.wal_pace * at
        slots = [s | {"retained_bytes": s["retained_bytes"] + self.slot_pace * at} for s in self.slots]
        spills = [s | {"bytes": s["bytes"] + self.spill_pace * at} for s in self.spills]
        relations = [r | {"bytes": r["bytes"] + self.database_pace * at} for r in self.relations]
        found = [
            reading("disk", disks, source="host"),
            reading("written_files", written, source="host", **hidden),
            reading("log_files", [], source="host", **hidden),
            reading("disk_wal", [wal]),
            reading("disk_slots", slots),
            reading("disk_spills", spills),
            reading("disk_databases", [{"database": "app", "bytes": 3 * GB + self.database_pace * at}]),
            reading("disk_relations", relations),
        ]
        return [replace(one, measured_at=moment) for one in found]


def slot(name: str = "standby_b", retained: float = 5 * GB, **more: Any) -> Row:
    """A replication slot that nobody reads."""
    return {"slot_name": name, "slot_type": "physical", "active": False, "wal_status": "extended",
            "retained_bytes": retained, "temporary": False, "inactive_since": None} | more  # fmt: skip
