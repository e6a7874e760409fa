"""Builds the readings of a Redis that is described in a few words, for tables of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import reading

Row = dict[str, Any]
STEPS = ("name", "tcp", "tls", "greeting", "auth", "ping", "database", "info", "write")


@dataclass
class Cache:
    """A Redis with an application; everything has a default that is healthy."""

    #: Where the walk ends and with which code; empty = it does not.
    stops: tuple[str, str] | None = None
    #: Code and milliseconds of an answer that came late.
    late: tuple[str, float] | None = None
    #: Codes of the pings; empty = PONG.
    pings: tuple[str, ...] = ("", "", "")
    ping_ms: float = 0.8
    info: Row = field(default_factory=dict)
    #: By how much errors and counters grow from the first look to the last.
    errors: Mapping[str, int] = field(default_factory=dict)
    own_errors: Mapping[str, int] = field(default_factory=dict)
    grows: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    looks: int = 3
    clients: list[Row] = field(default_factory=list)
    slow: list[Row] = field(default_factory=list)
    config: Row = field(default_factory=dict)
    refusals: list[Row] = field(default_factory=list)
    latency: list[Row] = field(default_factory=list)
    cluster: Row = field(default_factory=lambda: {"enabled": False, "state": None})
    #: Text of lines of the application's log → how many of them are recent.
    log: dict[str, int] = field(default_factory=dict)
    #: What the health check of Redis says; ``None`` = there is none of that name.
    check: str | None = "pass"
    host: list[Row] = field(default_factory=list)
    server_log: list[Row] = field(default_factory=list)
    disk: Reading | None = None
    queue: Row = field(default_factory=lambda: {"exists": False})
    #: Readings that replace those of the same name; ``None`` = was not taken.
    instead: dict[str, Reading | None] = field(default_factory=dict)

    def refused(self, step: str, code: str, *, ping: str | None = None) -> Cache:
        """Refused at a step of the walk, and by every PING likewise; suffered by the application."""
        self.stops = (step, code)
        self.pings = (ping if ping is not None else code,) * 3
        self.looks = 0
        self.check = "fail"
        return self

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        made = [reading("redis_walk", self._walk(), source="redis")]
        for number, code in enumerate(self.pings):
            made.append(self._ping(code))
            if number < self.looks:
                made.append(reading("redis_info", self._info(number), source="redis"))
        inside = self.looks > 0
        made += [self._inside(name, value, inside) for name, value in (
            ("redis_clients", self._clients()), ("redis_slowlog", self.slow), ("redis_config", self._config()),
            ("redis_refusals", self.refusals), ("redis_latency", self.latency), ("redis_cluster", self.cluster),
        )]  # fmt: skip
        if not inside:
            made.append(self._inside("redis_info", None, inside))
        made += [
            reading("redis_host", self.host or [{"pid": 612, "state": "Ssl", "listening": "yes"}], source="shell"),
            self.disk or reading("redis_disk", [{"mount": "/", "used_percent": 40}], source="shell"),
            reading("redis_log", self.server_log, source="shell"),
            reading("health", self._health(), source="health"),
            reading("app_errors", [{"log": "/var/log/app.log", "pattern": text, "count": count, "recent": count,
                                    "last": "2026-03-01T02:59:58Z", "sample": text}
                                   for text, count in self.log.items()], source="shell"),
            reading("queue_state", [{"queue": "transcode"} | self.queue], source="bullmq"),
            reading("queue_active", [], source="bullmq"),
        ]  # fmt: skip
        return [r for one in made if (r := self.instead.get(one.name, one)) is not None]

    def _walk(self) -> list[Row]:
        rows: list[Row] = []
        ended = False
        for step in STEPS:
            stops = self.stops is not None and self.stops[0] == step
            answer = "not reached" if ended else "no" if stops else "cannot tell" if step == "write" else "yes"
            code = self.stops[1] if stops and self.stops else ""
            rows.append({"step": step, "answer": answer, "code": code, "detail": f"{code} by the server".strip(),
                         "milliseconds": 1.0})  # fmt: skip
            ended = ended or (stops and step not in ("info", "write"))
        if self.late is not None:
            code, taken = self.late
            rows.append({"step": "late", "answer": "yes", "code": code, "detail": "late", "milliseconds": taken})
        return rows

    def _ping(self, code: str) -> Reading:
        if not code:
            return reading("redis_ping", {"answer": "PONG", "milliseconds": self.ping_ms}, source="redis")
        states = {"ECONNREFUSED": "unreachable", "DNS": "unreachable", "SILENT": "timeout", "ETIMEDOUT": "timeout",
                  "WRONGPASS": "auth_failed", "NOAUTH": "auth_failed", "MAXCLIENTS": "unreachable",
                  "NOPERM": "permission_denied", "DENIED": "permission_denied"}  # fmt: skip
        return reading("redis_ping", None, source="redis", state=states.get(code, "partial"), reason=code, code=code)

    def _info(self, number: int) -> Row:
        done = number / max(1, self.looks - 1)
        row = {
            "version": "7.0.15", "role": "master", "loading": False, "used_memory": 40_000_000, "maxmemory": 0,
            "maxmemory_policy": "noeviction", "evicted_keys": 0, "connected_clients": 12, "blocked_clients": 0,
            "maxclients": 10000, "rejected_connections": 0, "rdb_last_bgsave_status": "ok", "latest_fork_usec": 400,
            "aof_enabled": 0, "aof_last_write_status": "ok", "aof_delayed_fsync": 0, "uptime_seconds": 90_000 + number,
        } | self.info  # fmt: skip
        row |= {key: int(row.get(key) or 0) + round(done * by) for key, by in self.grows.items()}
        codes = {*self.before, *self.errors}
        row["error_counts"] = {c: self.before.get(c, 0) + round(done * self.errors.get(c, 0)) for c in sorted(codes)}
        row["own_errors"] = {c: round(done * n) for c, n in self.own_errors.items()}
        return row

    def _inside(self, name: str, value: Any, inside: bool) -> Reading:
        if inside:
            return reading(name, value, source="redis")
        return reading(name, None, source="redis", state="unreachable", reason="refused")

    def _clients(self) -> list[Row]:
        usual = {"name": "api", "host": "10.0.0.7", "user": "default", "connections": 12, "idle_median_seconds": 2,
                 "idle_max_seconds": 30, "subscribers": 0, "blocked": 0, "held_back": 0, "held_back_seconds": 0,
                 "longest_idle": [{"id": 7, "addr": "10.0.0.7:50112", "idle_seconds": 30}]}  # fmt: skip
        return [usual | row for row in self.clients] if self.clients else [usual]

    def _config(self) -> Row:
        return {"maxclients": "10000", "timeout": "0", "tcp-keepalive": "300", "save": "3600 1",
                "dir": "/var/lib/redis",
                "stop-writes-on-bgsave-error": "yes", "min-replicas-to-write": "0",
                "client-output-buffer-limit": "normal 0 0 0"} | self.config  # fmt: skip

    def _health(self) -> list[Row]:
        checks = [{"name": "database", "status": "pass", "output": ""}]
        if self.check is not None:
            checks.append({"name": "redis", "status": self.check, "output": "down" if self.check == "fail" else ""})
        return [{"endpoint": "ready", "instance": "web-1:8080", "status": "pass", "checks": checks}]
