"""Builds the readings of a queue that is described in a few words, for tables of rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, reading

Row = dict[str, Any]


def ago(seconds: float) -> str:
    """A time so many seconds before now, ISO 8601."""
    return (NOW - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@dataclass
class Queue:
    """A queue with one worker that keeps up; everything has a default that is healthy."""

    state: Row = field(default_factory=dict)
    #: What differs at the last look: what moved while we looked.
    then: Row = field(default_factory=dict)
    looks: int = 3
    waiting: list[Row] = field(default_factory=list)
    active: list[Row] = field(default_factory=list)
    delayed: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)
    completed: list[Row] = field(default_factory=list)
    before: list[Row] = field(default_factory=list)
    parents: list[Row] = field(default_factory=list)
    clients: list[Row] = field(default_factory=lambda: [{"id": 7, "age_seconds": 9000, "idle_seconds": 3}])
    info: Row = field(default_factory=dict)
    processes: list[Row] = field(default_factory=list)
    log: list[Row] = field(default_factory=list)
    disks: list[Row] = field(default_factory=list)
    #: How long our own calls took, by reading, in milliseconds.
    calls: dict[str, float] = field(default_factory=dict)
    instead: dict[str, Reading] = field(default_factory=dict)
    next_id: int = 0

    def _id(self) -> str:
        self.next_id += 1
        return str(self.next_id)

    def wait(self, count: int, seconds: float, *, place: str = "wait", spread: float = 0.0, **more: Any) -> list[str]:
        """``count`` jobs that wait, the oldest for so many seconds, the newest for ``spread`` less."""
        ids = []
        for n in range(count):
            waited = seconds - spread * n / max(1, count - 1)
            ids.append(self._id())
            self.waiting.append({"id": ids[-1], "job": "resize", "has_hash": True, "added_at": ago(waited),
                                 "list": place,
                                 "waited_seconds": waited, "priority": 0, "attempts": 0, "stalled_count": 0,
                                 "reason": None, "at_head": True} | more)  # fmt: skip
        return ids

    def work(self, count: int, seconds: float = 5.0, *, lock: bool | None = True, **more: Any) -> list[str]:
        """``count`` jobs in work."""
        ids = [self._id() for _ in range(count)]
        self.active += [
            {"id": one, "job": "resize", "has_hash": True, "added_at": ago(seconds + 1), "processed_at": ago(seconds),
             "running_seconds": seconds, "has_lock": lock, "lock_ms": 20_000 if lock else None, "attempts": 0,
             "stalled_count": 0, "worker": None} | more
            for one in ids
        ]  # fmt: skip
        return ids

    def done(self, count: int, *, last: float = 10.0, apart: float = 1.0, waited: float = 1.0, ran: float = 2.0,
             before: bool = False) -> None:  # fmt: skip
        """``count`` jobs that completed, the last one so many seconds ago, so many seconds apart."""
        for n in range(count):
            ended = last + apart * n
            row = {"id": self._id(), "job": "resize", "has_hash": True, "added_at": ago(ended + ran + waited),
                   "finished_at": ago(ended), "waited_seconds": waited, "ran_seconds": ran,
                   "stalled_count": 0}  # fmt: skip
            (self.before if before else self.completed).append(row)

    def fail(self, count: int, reason: str, *, last: float = 10.0, ran: float = 2.0) -> list[str]:
        """``count`` jobs that failed for good."""
        ids = [self._id() for _ in range(count)]
        self.failed += [
            {"id": one, "job": "resize", "has_hash": True, "added_at": ago(last + n + ran + 1),
             "failed_at": ago(last + n),
             "reason": reason, "ran_seconds": ran, "attempts": 3, "stalled_count": 0}
            for n, one in enumerate(ids)
        ]  # fmt: skip
        return ids

    def retry_later(self, count: int, reason: str, *, seconds: float = 400.0) -> None:
        """``count`` jobs between two tries, added so long ago."""
        self.delayed += [
            {"id": self._id(), "job": "resize", "has_hash": True, "added_at": ago(seconds), "due_at": ago(-60),
             "overdue_seconds": 0.0, "attempts": 1, "stalled_count": 0, "reason": reason}
            for _ in range(count)
        ]  # fmt: skip

    def schedule(self, count: int) -> None:
        """``count`` jobs that are to run in an hour."""
        self.delayed += [
            {"id": self._id(), "job": "digest", "has_hash": True, "added_at": ago(900), "due_at": ago(-3600),
             "overdue_seconds": 0.0, "attempts": 0, "stalled_count": 0, "reason": None}
            for _ in range(count)
        ]  # fmt: skip

    # -- readings -----------------------------------------------------------------------------------------------------

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        made = [
            *self._looks(),
            *(reading(f"queue_{name}", list(rows), source="bullmq") for name, rows in (
                ("failed", self.failed), ("completed", self.completed), ("before", self.before),
                ("waiting", sorted(self.waiting, key=lambda r: -(r["waited_seconds"] or 0))), ("delayed", self.delayed),
                ("parents", self.parents), ("flow", self._flow()))),
            reading("redis_ping", {"answer": "PONG", "milliseconds": 0.4}, source="redis"),
            reading("redis_info", {"role": "master", "loading": False, "used_memory": 1_000_000, "maxmemory": 0,
                                   "maxmemory_policy": "noeviction", "evicted_keys": 0} | self.info, source="redis"),
            reading("worker_processes", self.processes, source="host"),
            reading("worker_disk", self.disks or [_disk()], source="shell"),
            reading("disk", self.disks or [_disk()], source="host"),
            reading("queue_log", self.log, source="shell"),
            reading("vendor_status", [], source="status_pages"),
            *(_timed(name, milliseconds) for name, milliseconds in self.calls.items()),
        ]  # fmt: skip
        return [self.instead.get(r.name, r) for r in made]

    def _looks(self) -> list[Reading]:
        def oldest(place: str) -> float | None:
            told = [r["waited_seconds"] for r in self.waiting if r["list"] == place]
            return max((waited for waited in told if waited is not None), default=None)

        ages = {place: oldest(place) for place in ("wait", "paused", "prioritized")}
        of = [age for age in ages.values() if age is not None]
        state = {
            "queue": "media", "prefix": "bull", "exists": True, "version": "bullmq:6.7.0", "major": 6, "paused": False,
            "waiting": sum(1 for r in self.waiting if r["list"] != "prioritized"),
            "in_wait_list": sum(1 for r in self.waiting if r["list"] == "wait"),
            "in_paused_list": sum(1 for r in self.waiting if r["list"] == "paused"),
            "prioritized": sum(1 for r in self.waiting if r["list"] == "prioritized"),
            "active": len(self.active), "delayed": len(self.delayed), "delayed_overdue": 0, "failed": len(self.failed),
            "completed": len(self.completed) + len(self.before), "waiting_children": len(self.parents),
            "concurrency": None, "limiter_ms": 0, "rate_max": None, "rate_duration_ms": None, "added": self.next_id,
            "last_completed_at": max((r["finished_at"] for r in self.completed), default=None), "last_failed_at": None,
            "oldest_waiting_seconds": max(of, default=None), "oldest_in_wait_seconds": ages["wait"],
            "oldest_in_paused_seconds": ages["paused"], "oldest_prioritized_seconds": ages["prioritized"],
            "next_id": self.waiting[0]["id"] if self.waiting else None, "workers": len(self.clients),
            "worker_clients": self.clients, "other_queues": [],
        } | self.state  # fmt: skip
        found = []
        for n in range(self.looks):
            row = state | (self.then if n == self.looks - 1 and n else {})
            found += [reading("queue_state", [row], source="bullmq"),
                      reading("queue_active", list(self.active), source="bullmq")]  # fmt: skip
        return found

    def _flow(self) -> list[Row]:
        rows = []
        for minute in range(60, 0, -1):
            low, high = ago(60 * minute), ago(60 * (minute - 1))
            rows.append({
                "at": low, "seconds": 60.0,
                "completed": sum(1 for r in self.completed if low <= r["finished_at"] < high),
                "failed": sum(1 for r in self.failed if low <= r["failed_at"] < high),
            })  # fmt: skip
        return rows


def _timed(name: str, milliseconds: float) -> Reading:
    from dataclasses import replace

    return replace(reading(name, [], source=name), duration_ms=milliseconds)


def _disk() -> Row:
    return {"host": "local", "filesystem": "/dev/sda1", "mount": "/tmp", "used_percent": 40, "inodes_percent": 5}
