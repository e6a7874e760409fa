"""Builds the readings of a server that is described in a few words, for tables of rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from runbook.result import Reading

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def reading(name: str, value: Any, *, source: str = "postgresql", **how: Any) -> Reading:
    """A reading as a connector would have recorded it."""
    return Reading(
        name=name, source=source, target="db:5432/app", query=name, measured_at=NOW.isoformat(), duration_ms=1.0,
        value=value, **how,
    )  # fmt: skip


@dataclass
class Server:
    """A server with sessions; everything has a default that is healthy."""

    max_connections: int = 100
    superuser_reserved: int = 3
    reserved: int = 0
    sessions: list[dict[str, Any]] = field(default_factory=list)
    blocked: dict[int, list[int]] = field(default_factory=dict)
    version_num: int = 160003
    limits: list[dict[str, Any]] = field(default_factory=list)
    prepared: list[dict[str, Any]] = field(default_factory=list)
    rate: float = 0.0
    cores: int | None = 4
    walsenders: int = 0
    max_wal_senders: int = 10
    connection: dict[str, Any] = field(default_factory=dict)
    sockets: list[dict[str, Any]] | None = None
    titles: list[str] | None = None
    extra: list[Reading] = field(default_factory=list)
    samples: int = 3
    next_pid: int = 1000

    def add(self, count: int, *, state: str = "idle", age: float = 300.0, app: str = "api", **how: Any) -> list[int]:
        """``count`` sessions of one kind; returns their pids."""
        pids = []
        for _ in range(count):
            self.next_pid += 1
            pids.append(self.next_pid)
            moment = (NOW - timedelta(seconds=age)).isoformat()
            born = how.get("session_age", max(age, 3600.0))
            self.sessions.append(
                {
                    "pid": self.next_pid, "application_name": app, "role": how.get("role", "web"),
                    "database": how.get("database", "app"), "client": how.get("client", "10.0.0.7"),
                    "client_port": 40000 + self.next_pid, "state": state,
                    "wait_event_type": how.get("wait_event_type"), "wait_event": how.get("wait_event"),
                    "backend_start": (NOW - timedelta(seconds=born)).isoformat(), "state_change": moment,
                    "query_start": moment, "xact_start": moment if state != "idle" else None,
                    "session_seconds": born, "state_seconds": age,
                    "transaction_seconds": age if state != "idle" else None, "query_seconds": age,
                    "query_id": how.get("query_id"), "query": how.get("query", "SELECT ?"),
                    "superuser": how.get("superuser", False), "replication": False,
                }
            )  # fmt: skip
        return pids

    def block(self, root: int, waiters: Iterable[int]) -> None:
        """Let sessions wait for a lock of ``root`` (0: a prepared transaction)."""
        by_pid = {s["pid"]: s for s in self.sessions}
        for pid in waiters:
            self.blocked.setdefault(pid, []).append(root)
            by_pid[pid] |= {"state": "active", "wait_event_type": "Lock", "wait_event": "transactionid"}

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        connection = {
            "via": "dsn", "refused": False, "refused_code": "", "refused_stage": "", "refused_message": "",
            "powers": "", "role": "monitor", "database": "app", "version_num": self.version_num, "sees_all": True,
            "own_client_port": 39999, "hidden_rows": 0,
        } | self.connection  # fmt: skip
        found = [reading("connection", connection)]
        for number in range(self.samples):
            found.append(reading("headroom", [self._headroom()]))
            found.append(reading("activity", self._activity()))
            if number == 0:
                found.append(reading("churn", [{"sessions": 1000, "at": NOW.isoformat()}]))
        found += [
            reading("sessions", self.sessions),
            reading("blockers", self._blockers()),
            reading("prepared", self.prepared),
            reading("limits", self.limits),
            reading(
                "churn", [{"sessions": 1000 + int(10 * self.rate), "at": (NOW + timedelta(seconds=10)).isoformat()}]
            ),
            reading("sessions_after", self.sessions),
            *self.extra,
        ]
        if self.cores is not None:
            found.append(reading("cores", [{"cores": self.cores}], source="shell"))
        if self.sockets is not None:
            found.append(reading("sockets", self.sockets, source="shell"))
        if self.titles is not None:
            found.append(reading("processes", [{"pid": 1, "title": t} for t in self.titles], source="shell"))
        return found

    def peers(self, closed: Sequence[int] = ()) -> None:
        """The server's sockets as its host shows them; the peers of ``closed`` pids have gone."""
        self.sockets = [
            {"state": "CLOSE-WAIT" if s["pid"] in closed else "ESTAB", "peer": f"{s['client']}:{s['client_port']}"}
            for s in self.sessions
        ] + [{"state": "ESTAB", "peer": "10.0.0.9:39999"}]

    def _headroom(self) -> Mapping[str, Any]:
        states = [s["state"] for s in self.sessions]
        lock = sum(s["wait_event_type"] == "Lock" for s in self.sessions)
        return {
            "max_connections": self.max_connections, "superuser_reserved": self.superuser_reserved,
            "reserved": self.reserved, "usable": self.max_connections - self.superuser_reserved - self.reserved,
            "max_wal_senders": self.max_wal_senders, "walsenders": self.walsenders, "own": 1,
            "clients": len(states) + 1, "active": states.count("active") - lock, "lock_waiting": lock,
            "idle": states.count("idle"),
            "idle_in_transaction": states.count("idle in transaction"), "starting": states.count("starting"),
            "hidden_rows": 0, "backends": len(states) + 1, "prepared_transactions": len(self.prepared),
            "at": NOW.isoformat(),
        }  # fmt: skip

    def _activity(self) -> list[dict[str, Any]]:
        running = [s for s in self.sessions if s["state"] == "active" and s["wait_event_type"] != "Lock"]
        return [{"query_id": s["query_id"], "query": s["query"], "sessions": 1, "longest_seconds": 1} for s in running]

    def _blockers(self) -> list[dict[str, Any]]:
        involved = set(self.blocked) | {b for blockers in self.blocked.values() for b in blockers}
        by_pid = {s["pid"]: s for s in self.sessions}
        rows = []
        for pid in sorted(involved):
            session = by_pid.get(pid, {"pid": pid, "application_name": "(unset)"})
            backend = "client backend" if pid in by_pid else "prepared transaction"
            lock = {"locktype": "transactionid", "mode": "ShareLock", "relation": None} if pid in self.blocked else {}
            rows.append(
                {"backend_type": backend, "wraparound": False} | session | lock
                | {"blocked_by": self.blocked.get(pid, [])} | dict(session.get("lock", {}))
            )  # fmt: skip
        return rows
