"""Builds the readings of hosts that are described in a few words, for tables of the rules of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, reading

Row = dict[str, Any]
MB = 2**20
GB = 2**30
SECONDS = 2.0
"""Between two samples."""


def command(title: str, mb: float, *, grows: float = 0.0, **more: Any) -> Row:
    """A process that holds ``mb`` in the last sample and grew by ``grows`` a sample before."""
    return {"command": title, "mb": mb, "grows": grows, **more}


@dataclass
class Machine:
    """One host of 16 GB; everything has a default that is healthy."""

    host: str = "local"
    total_gb: float = 16.0
    #: Memory in use by sample, percent.
    used: tuple[float, ...] = (50.0, 50.0, 50.0)
    processes: list[Row] = field(default_factory=list)
    memory: Row = field(default_factory=dict)
    #: By path: limit, working set and page cache in MB, and what differs.
    cgroups: dict[str, Row] = field(default_factory=dict)
    pressure: float = 0.0
    kills: list[Row] = field(default_factory=list)
    disks: list[Row] = field(default_factory=list)
    redis: Row = field(default_factory=dict)
    settings: Row = field(default_factory=lambda: {"work_mem": "4MB", "shared_buffers": "128MB"})
    log: dict[str, int] = field(default_factory=dict)
    heap_mb: float | None = None
    history: list[float] = field(default_factory=list)
    deployed_minutes_ago: float | None = None
    #: Readings that replace those of the same name.
    instead: dict[str, Reading] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return len(self.used)

    def add(self, title: str, mb: float, **more: Any) -> int:
        """A process; returns its pid."""
        self.processes.append(command(title, mb, **more) | {"pid": 4000 + len(self.processes)})
        return int(self.processes[-1]["pid"])

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        made = [
            *(r for n in range(self.samples) for r in self._sample(n)),
            reading("oom_kills", self.kills, source="host"),
            reading("load", [{"host": self.host, "cores": 4, "load_1": 0.5}], source="host"),
            reading("disk", self._disks(), source="host"),
            reading("redis_memory", self._redis(), source="redis"),
            reading("app_metrics", [] if self.heap_mb is None else [
                {"instance": "10.0.0.1:3000", "heap_used_bytes": self.heap_mb * MB}], source="app_metrics"),
            reading("deployments", self._deployments(), source="github"),
            reading("memory_history", [{"instance": "a", "at": (NOW + timedelta(minutes=n)).isoformat(), "value": v}
                                       for n, v in enumerate(self.history)], source="prometheus"),
            reading("memory_settings", [{"name": k, "setting": v, "bytes": None} for k, v in self.settings.items()]),
            reading("sessions", []),
            reading("app_errors", [{"log": "app.log", "pattern": k, "count": v, "last": NOW.isoformat(), "sample": ""}
                                   for k, v in self.log.items()], source="shell"),
        ]  # fmt: skip
        return [self.instead.get(r.name, r) for r in made]

    def _sample(self, number: int) -> list[Reading]:
        at = (NOW + timedelta(seconds=SECONDS * number)).isoformat()
        made = [
            reading("memory", [self._memory(number)], source="host"),
            reading("cgroup", [self._cgroup(path, row, number) for path, row in self.cgroups.items()], source="host"),
            reading("pressure", [{"host": self.host, "resource": "memory", "scope": "full", "avg10": self.pressure,
                                  "avg60": 0.0, "total_microseconds": 0}], source="host"),
            reading("processes", [self._process(row, number) for row in self.processes], source="host"),
        ]  # fmt: skip
        return [replace(r, measured_at=at) for r in made]

    def _memory(self, number: int) -> Row:
        whole = self.total_gb * GB
        anonymous = sum(row["mb"] for row in self.processes) * MB
        return {
            "host": self.host, "total_bytes": whole, "available_bytes": whole * (1 - self.used[number] / 100),
            "used_percent": self.used[number], "anonymous_bytes": anonymous, "shmem_bytes": 0.0,
            "slab_unreclaimable_bytes": 0.01 * whole, "swap_total_bytes": 0, "swap_free_bytes": 0,
            "hugepages_total": 0, "hugepages_free": 0, "hugepage_bytes": 2 * MB, "committed_bytes": 2 * whole,
            "commit_limit_bytes": whole / 2, "overcommit_mode": 0, "oom_kills": 0, "major_faults": 100,
            "refaults": 100, "swapped_in": 0, "swapped_out": 0,
        } | self._at(self.memory, number)  # fmt: skip

    def _cgroup(self, path: str, row: Row, number: int) -> Row:
        found = self._at(row, number)
        limit, working, cache = (found.pop(k, 0.0) * MB for k in ("limit", "working", "cache"))
        return {
            "host": self.host, "version": 2, "path": path, "usage_bytes": working + cache,
            "limit_bytes": limit or None, "inactive_file_bytes": cache, "working_set_bytes": working,
            "working_set_percent": round(100 * working / limit, 2) if limit else None, "max_events": 0,
            "oom_kills": 0, "anonymous_bytes": working, "shmem_bytes": 0.0, "major_faults": 0, "refaults": 0,
            "pressure_full_avg10": None,
        } | found  # fmt: skip

    @staticmethod
    def _at(row: Row, number: int) -> Row:
        """A row's cells in one sample: what has one a sample is a tuple."""
        return {key: value[number] if isinstance(value, tuple) else value for key, value in row.items()}

    def _process(self, row: Row, number: int) -> Row:
        before = row.get("grows", 0.0) * (self.samples - 1 - number)
        size = (row["mb"] - before) * MB
        return {
            "host": self.host, "pid": row["pid"], "parent": 1, "state": "S", "age_seconds": row.get("age", 7200),
            "rss_bytes": size * row.get("resident", 1.0), "pss_bytes": None if row.get("hidden") else size,
            "anonymous_bytes": None if row.get("hidden") else size * row.get("own", 1.0), "cpu_seconds": 1.0,
            "threads": 4, "open_files": 9, "open_files_limit": 1024, "cgroup": row.get("cgroup", "/"),
            "command": row["command"],
        }  # fmt: skip

    def _disks(self) -> list[Row]:
        root = {"type": "ext4", "mount": "/", "used_bytes": 9 * GB}
        return [{"host": self.host, **row} for row in (root, *self.disks)]

    def _redis(self) -> Row:
        return {
            "used_memory": 100 * MB, "used_memory_rss": 110 * MB, "maxmemory": 0, "maxmemory_policy": "noeviction",
            "mem_clients_normal": 1 * MB, "mem_clients_slaves": 0, "rdb_bgsave_in_progress": 0, "current_cow_size": 0,
        } | self.redis  # fmt: skip

    def _deployments(self) -> list[Row]:
        if self.deployed_minutes_ago is None:
            return []
        finished = (NOW - timedelta(minutes=self.deployed_minutes_ago)).isoformat()
        return [{"sha": "abc123", "ref": "v1.2", "finished_at": finished, "state": "success"}]


Make = Callable[[], Machine]


def killed(pid: int, *, ago: float, cgroup: str = "", host: str = "local") -> Row:
    """A row of the kernel's log."""
    return {"host": host, "age_seconds": ago, "pid": pid, "command": "node", "rss_bytes": 300 * MB, "cgroup": cgroup,
            "constraint": "CONSTRAINT_MEMCG" if cgroup else "CONSTRAINT_NONE"}  # fmt: skip
