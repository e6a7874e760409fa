"""Builds the readings of a service that is described by how long its requests took, for tables of rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from runbook.connectors.access_log import Request
from runbook.connectors.latency_counts import Look, baseline, latency, splits
from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, Server, reading

Row = dict[str, Any]
WINDOW_SECONDS = 300.0
LOOKS = 5


def at(seconds: float) -> str:
    """So many seconds after the run began."""
    return (NOW + timedelta(seconds=seconds)).isoformat()


@dataclass
class Latency:
    """A service under traffic; everything has a default that is healthy."""

    requests: list[Request] = field(default_factory=list)
    before: list[Request] = field(default_factory=list)
    threshold_ms: float = 1000.0
    vendors: tuple[str, ...] = ("api.pay.example",)
    #: Statements: id → (text, calls before, ms before, calls added, ms added, blocks before, blocks added).
    statements: dict[str, tuple[str, float, float, float, float, float, float]] = field(default_factory=dict)
    has_statistics: bool = True
    #: What every look sees running: (id, text, sessions, longest seconds, kind of wait).
    running: list[tuple[str, str, int, float, str | None]] = field(default_factory=list)
    #: Tables: name → (rows, whole scans added, rows read added, index scans added, dead rows, index scans before).
    tables: dict[str, tuple[int, int, int, int, int, int]] = field(default_factory=dict)
    lock_waiting: int = 0
    #: Time in SQL by the server's own count, milliseconds a second; None = a server before version 14.
    sql_time: float | None = None
    server: Server = field(default_factory=Server)
    horizon: list[Row] = field(default_factory=list)
    replicas: list[Row] = field(default_factory=list)
    metrics: Row = field(default_factory=dict)
    metrics_later: Row = field(default_factory=dict)
    live_ms: float = 3.0
    pool: Row = field(default_factory=lambda: {"used": 1, "size": 10, "waiting": 0})
    pools: list[Row] = field(default_factory=list)
    log: dict[str, int] = field(default_factory=dict)
    ping_ms: float = 0.5
    slowlog: list[Row] = field(default_factory=list)
    redis_load: tuple[Row, Row] = ({}, {})
    hosts: list[Row] = field(default_factory=list)
    pages: list[Row] = field(default_factory=list)
    deployments: list[Row] = field(default_factory=list)
    runnable: float = 2.0
    #: Processors' time at two looks; nothing = not told.
    ticks: tuple[Row, Row] = ({}, {})
    cores: float = 4.0
    pressure: dict[tuple[str, str], float] = field(default_factory=dict)
    cgroups: tuple[list[Row], list[Row]] = ((), ())  # type: ignore[assignment]
    samples: int = 3
    #: Readings that replace those of the same name.
    instead: list[Reading] = field(default_factory=list)

    def add(self, count: int, milliseconds: float | None, *, route: str = "/items", earlier: bool = True,
            **how: Any) -> Latency:  # fmt: skip
        """``count`` requests that took so long, evenly over the window; ``earlier`` = so many came before, fast."""
        for number in range(count):
            share = (number + 0.5) / count
            request = Request(
                NOW.timestamp() - WINDOW_SECONDS * share, how.get("status", 200), milliseconds,
                how.get("client", f"10.0.0.{number % 9}"), how.get("user", f"u{number % 7}"), how.get("method", "GET"),
                route, how.get("release", "1.8.0"), how.get("instance", f"a{number % 3}"), how.get("upstream"),
                "200" if how.get("upstream") else None, how.get("connect"), how.get("span"),
            )  # fmt: skip
            self.requests.append(request)
            if earlier:
                then = NOW.timestamp() - 4000 - WINDOW_SECONDS * share
                self.before.append(
                    request._replace(at=then, duration_ms=30.0 + number % 10, upstream_response_time=None)
                )
        return self

    @property
    def look(self) -> Look:
        return Look(slow_ms=self.threshold_ms)

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        found = [*self._traffic(), *self._database(), *self._systems()]
        replaced = {r.name for r in self.instead}
        return [r for r in found if r.name not in replaced] + self.instead

    def _traffic(self) -> list[Reading]:
        row = {"window_seconds": WINDOW_SECONDS, "complete": True,
               **latency(self.requests, self.look, seconds=WINDOW_SECONDS)}  # fmt: skip
        then = baseline("before", self.before, self.look, begin=NOW.timestamp() - 4000 - WINDOW_SECONDS - 1,
                        end=NOW.timestamp() - 4000)  # fmt: skip
        return [
            *(reading("latency", dict(row), source="traffic") for _ in range(self.samples)),
            reading("latency_splits", splits(self.requests, self.before, self.look, self.vendors), source="traffic"),
            reading("latency_baseline", [then] if then else [], source="traffic"),
            reading("latency_curve", [], source="traffic"),
        ]

    def _database(self) -> list[Reading]:
        own = {r.name: r for r in self.server.readings()}
        headroom = {**own["headroom"].rows[0], "lock_waiting": self.lock_waiting}
        activity = [
            {"query_id": i or None, "query": text, "sessions": n, "longest_seconds": s, "wait_event_type": wait,
             "wait_event": wait} for i, text, n, s, wait in self.running
        ]  # fmt: skip
        return [
            own["connection"],
            *(reading("headroom", [dict(headroom)]) for _ in range(LOOKS)),
            *(reading("activity", [dict(r) for r in activity]) for _ in range(LOOKS)),
            own["blockers"], own["sessions"],
            *(reading("churn", [{"active_milliseconds": self._counted(s), "at": at(s)}]) for s in (0, 10)),
            *self._statistics(),
            reading("scans", [self._table(name, later=False) for name in self.tables]),
            reading("scans", [self._table(name, later=True) for name in self.tables]),
            reading("horizon", self.horizon), reading("replicas", self.replicas),
            reading("background", [{"timed": 100, "requested": 2, "vacuums": 0}]),
        ]  # fmt: skip

    def _counted(self, second: int) -> float | None:
        return None if self.sql_time is None else 5000.0 + second * self.sql_time

    def _statistics(self) -> list[Reading]:
        if not self.has_statistics:
            missing = 'relation "pg_stat_statements" does not exist (SQLSTATE 42P01)'
            return [reading("statements", None, state="not_configured", reason=missing, code="42P01")]
        first, last = [], []
        for identity, (text, calls, spent, more, took, blocks, added) in self.statements.items():
            row = {
                "query_id": identity,
                "database_id": "5",
                "role_id": "10",
                "toplevel": "true",
                "query": text,
                "rows": 1,
            }
            first.append(row | {"calls": calls, "total_milliseconds": spent, "blocks": blocks, "at": at(0)})
            last.append(row | {"calls": calls + more, "total_milliseconds": spent + took, "blocks": blocks + added,
                               "at": at(10)})  # fmt: skip
        idle = {"query_id": "1", "database_id": "5", "role_id": "10", "toplevel": "true", "query": "SELECT $1",
                "calls": 9, "total_milliseconds": 1.0, "blocks": 0}  # fmt: skip
        return [reading("statements", [*first, idle | {"at": at(0)}]),
                reading("statements", [*last, idle | {"at": at(10)}])]  # fmt: skip

    def _table(self, name: str, *, later: bool) -> Row:
        live, whole, read, by_index, dead, before = self.tables[name]
        return {
            "relation": name, "live_rows": live, "dead_rows": dead, "seq_scan": 10 + whole * later,
            "seq_tup_read": 100 + read * later, "idx_scan": before + by_index * later, "modified_since_analyze": 0,
            "dead_percent": round(100 * dead / max(1, live + dead), 1), "invalid_indexes": None, "at": at(10 * later),
        }  # fmt: skip

    def _systems(self) -> list[Reading]:
        usual = {"instance": "a0", "event_loop_lag_p99_ms": 4.0, "pool_waiting": 0.0, "pool_size": 10.0}
        figures = usual | self.metrics
        answer = {"instance": "a0", "status": "pass", "milliseconds": self.live_ms, "pool": self.pool}
        health = [answer | {"endpoint": kind} for kind in ("live", "health")]
        some = {("cpu", "some"): 2.0, ("io", "some"): 1.0, ("memory", "some"): 0.0, ("memory", "full"): 0.0}
        stalls = (some | self.pressure).items()
        pressure = [{"host": "w1", "resource": r, "scope": s, "avg10": v} for (r, s), v in stalls]
        ping = {"answer": "PONG", "milliseconds": self.ping_ms}
        lines = [{"log": "/srv/app.log", "pattern": p, "count": n, "last": at(0)} for p, n in self.log.items()]
        totals = {"commands": 1000, "hits": 90_000, "misses": 10_000, "busy_ms": 100.0}
        return [
            reading("app_metrics", [figures | {"at": at(0)}], source="app_metrics"),
            reading("app_metrics", [figures | self.metrics_later | {"at": at(10)}], source="app_metrics"),
            reading("health", health, source="health"), reading("health", health, source="health"),
            reading("pools", self.pools, source="pgbouncer"),
            reading("app_waits", lines, source="shell"),
            *(reading("redis_ping", ping, source="redis") for _ in range(3)),
            reading("redis_slowlog", self.slowlog, source="redis"),
            reading("redis_load", totals | self.redis_load[0] | {"at": at(0)}, source="redis"),
            reading("redis_load", totals | {"busy_ms": 101.0} | self.redis_load[1] | {"at": at(10)}, source="redis"),
            reading("dependency_hosts", self.hosts, source="reach"),
            reading("vendor_status", self.pages, source="status_pages"),
            reading("deployments", self.deployments, source="github"),
            *(reading("load", [{"host": "w1", "cores": self.cores, "runnable": self.runnable, **ticks}], source="host")
              for ticks in self.ticks),
            reading("pressure", pressure, source="host"),
            reading("memory", [{"host": "w1", "used_percent": 40.0}], source="host"),
            *(reading("cgroup", list(rows), source="host") for rows in self.cgroups),
        ]  # fmt: skip


def everybody(count: int, milliseconds: float, **how: Any) -> Latency:
    """Requests over three routes, all alike."""
    service = Latency()
    for route in ("/items", "/items/7", "/feed"):
        service.add(count, milliseconds, route=route, **how)
    return service


def probe(host: str, **how: Any) -> Row:
    """Our own look at a host: all well."""
    return {"host": host, "url": f"https://{host}/", "dns": "ok", "dns_ms": 2.0, "tcp_ms": 5.0, "tls": "ok",
            "tls_ms": 9.0, "answer_ms": 20.0, "answered": True, "code": "", "reason": ""} | how  # fmt: skip
