"""Builds the readings of a service that is described by the requests it got, for tables of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, Server
from tests.unit.diagnosis.server import reading as recorded

BYS = ("release", "instance", "route", "upstream", "client", "user")
MINUTE = timedelta(minutes=1)


def reading(name: str, value: Any, *, source: str = "traffic", **how: Any) -> Reading:
    return recorded(name, value, source=source, **how)


def at(minutes: float) -> str:
    """So many minutes before now."""
    return (NOW - minutes * MINUTE).isoformat()


@dataclass(kw_only=True)
class Lot:
    """So many requests of one kind."""

    requests: int
    errors: int = 0
    status: int = 500
    release: str | None = "1.8.0"
    instance: str | None = "a1"
    route: str = "GET /items"
    client: str | None = None
    user: str | None = None
    upstream: str | None = None
    #: What the failing ones' call to the vendor came to: ``error``, ``timeout``, ``refused``, ``auth``, ``throttled``.
    outcome: str = ""
    known_host: bool = True


@dataclass
class Service:
    """A service under traffic; everything has a default that is healthy."""

    lots: list[Lot] = field(default_factory=list)
    #: Minutes ago that the errors began; ``None``: as long ago as the curve reaches.
    onset: float | None = 8.0
    before_percent: float = 0.2
    baseline_rate: float | None = None
    p95: float = 80.0
    baseline_p95: float = 70.0
    overlap: Sequence[str] = ()
    missing: frozenset[str] = frozenset()
    deployments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    issues: list[dict[str, Any]] = field(default_factory=list)
    releases: list[dict[str, Any]] = field(default_factory=list)
    migrations: list[str] = field(default_factory=list)
    pages: list[dict[str, Any]] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    log: list[tuple[str, int]] = field(default_factory=list)
    health: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=lambda: {"standby": False, "read_only": "off", "read_only_for": None})
    disks: list[dict[str, Any]] = field(default_factory=list)
    redis: dict[str, Any] = field(default_factory=lambda: {"answer": "PONG", "milliseconds": 1.0})
    server: Server = field(default_factory=Server)
    closed_by_client: int = 0
    client_errors: int = 0
    window_seconds: int = 300
    samples: int = 3
    #: Readings that are replaced by others of the same name.
    instead: list[Reading] = field(default_factory=list)

    def add(self, requests: int, errors: int = 0, **how: Any) -> Service:
        """Requests of one kind, spread over eight clients and users unless one is named."""
        named = "client" in how or "user" in how
        for number in range(1 if named else 8):
            share, bad = (requests, errors) if named else (_part(requests, number), _part(errors, number))
            spread = {"client": f"10.9.0.{number}", "user": f"u{number}"}
            self.lots.append(Lot(requests=share, errors=bad, **(spread | how)))
        return self

    @property
    def requests(self) -> int:
        return sum(lot.requests for lot in self.lots)

    @property
    def errors(self) -> int:
        return sum(lot.errors for lot in self.lots)

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        found = []
        for _ in range(self.samples):
            found += [
                reading("requests", self._requests()), reading("request_curve", self._curve()),
                reading("splits", self._splits()), reading("upstreams", self._upstreams()),
                reading("traffic_baseline", self._baseline()),
            ]  # fmt: skip
        lines = [{"log": "/srv/app.log", "pattern": p, "count": n, "recent": n, "last": at(0), "sample": p}
                 for p, n in self.log]  # fmt: skip
        found += [
            reading("deployments", self.deployments, source="github"),
            reading("workflow_runs", self.runs, source="github"),
            reading("compare", {"migrations": self.migrations}, source="github"),
            reading("sentry_issues", self.issues, source="sentry"),
            reading("sentry_releases", self.releases, source="sentry"),
            reading("vendor_status", self.pages, source="status_pages"),
            reading("dependency_hosts", self.hosts, source="reach"),
            reading("health", self.health, source="health"),
            reading("app_errors", lines, source="shell"),
            reading("database_state", [self.state], source="postgresql"),
            reading("redis_ping", self.redis, source="redis"),
            reading("redis_info", {"loading": 0, "rdb_last_bgsave_status": "ok"}, source="redis"),
            reading("worker_disk", self.disks, source="shell"),
            reading("worker_memory", [{"host": "w1", "oom_kills": 0}], source="shell"),
            *self.server.readings(),
        ]
        replaced = {r.name for r in self.instead}
        return [r for r in found if r.name not in replaced] + self.instead

    def _requests(self) -> dict[str, Any]:
        return {
            "requests": self.requests, "errors": self.errors, "window_seconds": self.window_seconds,
            "requests_per_second": self.requests / self.window_seconds, "p95_ms": self.p95, "unparsed": 0,
            "client_errors": self.client_errors, "closed_by_client": self.closed_by_client, "retried": 0,
            "peak_percent": None, "complete": True, "first_at": at(5), "last_at": at(0), "format": "json",
        }  # fmt: skip

    def _curve(self) -> list[dict[str, Any]]:
        percent = 100 * self.errors / self.requests if self.requests else 0.0
        per_minute = max(20, self.requests // 5)
        rows = []
        for minute in range(60, 0, -1):
            high = self.onset is None or minute <= self.onset
            errors = round(per_minute * (percent if high else self.before_percent) / 100)
            rows.append({"at": at(minute), "seconds": 60, "requests": per_minute, "errors": errors,
                         "p95_ms": self.p95, "clients": 8})  # fmt: skip
        return rows

    def _splits(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for by in BYS:
            key: Callable[[Lot], Any] = attrgetter(by)
            values = {key(lot) for lot in self.lots} - {None}
            if by in self.missing or not values:
                rows.append({"by": by, "value": None, "missing": True})
                continue
            rows += [self._row(by, v, [lot for lot in self.lots if key(lot) == v]) for v in sorted(values)]
        together = [lot for lot in self.lots if lot.release in self.overlap]
        if "release" not in self.missing:
            rows += [self._row("release_overlap", v, [x for x in together if x.release == v]) for v in self.overlap]
        for status in sorted({lot.status for lot in self.lots if lot.errors}):
            bad = sum(lot.errors for lot in self.lots if lot.status == status)
            rows.append({"by": "status", "value": str(status), "requests": bad, "errors": bad})
        rows.append({"by": "status", "value": "200", "requests": self.requests - self.errors, "errors": 0})
        return rows

    def _row(self, by: str, value: Any, lots: Sequence[Lot]) -> dict[str, Any]:
        requests, errors = sum(lot.requests for lot in lots), sum(lot.errors for lot in lots)
        return {"by": by, "value": value, "requests": requests, "errors": errors, "first_at": at(5),
                "last_at": at(0)}  # fmt: skip

    def _upstreams(self) -> list[dict[str, Any]]:
        rows = []
        for host in sorted({lot.upstream for lot in self.lots if lot.upstream}):
            lots = [lot for lot in self.lots if lot.upstream == host]
            counted = {o: sum(lot.errors for lot in lots if lot.outcome == o)
                       for o in ("error", "timeout", "refused", "auth", "throttled")}  # fmt: skip
            rows.append(
                {
                    "host": host, "requests": sum(lot.requests for lot in lots),
                    "failing": sum(lot.errors for lot in lots),
                    "upstream_errors": counted["error"] + counted["timeout"] + counted["refused"],
                    "auth": counted["auth"], "throttled": counted["throttled"], "refused": counted["refused"],
                    "timeouts": counted["timeout"], "known_host": lots[0].known_host,
                }
            )  # fmt: skip
        return rows

    def _baseline(self) -> list[dict[str, Any]]:
        rate = self.baseline_rate if self.baseline_rate is not None else self.requests / self.window_seconds
        return [{"window": "before", "requests_per_second": rate, "error_percent": self.before_percent, "clients": 8,
                 "p95_ms": self.baseline_p95}]  # fmt: skip


def _part(whole: int, number: int) -> int:
    """One of eight parts of a whole number, that together make it."""
    return whole * (number + 1) // 8 - whole * number // 8


def deployment(minutes_ago: float, sha: str, ref: str = "", **how: Any) -> dict[str, Any]:
    """A deployment that was finished so many minutes ago."""
    began: datetime = NOW - (minutes_ago + 2) * MINUTE
    return {"id": sha[:6], "sha": sha, "ref": ref or sha, "environment": "production", "state": "success",
            "created_at": began.isoformat(), "finished_at": at(minutes_ago), "description": "",
            "url": ""} | how  # fmt: skip


def workflow(minutes_ago: float, name: str, **how: Any) -> dict[str, Any]:
    """A workflow run that ended so many minutes ago."""
    return {"id": 77, "name": name, "sha": "f" * 40, "event": "workflow_dispatch", "status": "completed",
            "conclusion": "success", "created_at": at(minutes_ago + 1), "started_at": at(minutes_ago + 1),
            "updated_at": at(minutes_ago), "url": ""} | how  # fmt: skip


def issue(number: int, **how: Any) -> dict[str, Any]:
    """An unresolved issue of Sentry."""
    return {"id": str(number), "short_id": f"WEB-{number}", "title": f"TypeError {number}", "level": "error",
            "count": 100, "users": 60, "first_seen": at(900), "last_seen": at(0), "first_release": "1.0.0",
            "is_new": False} | how  # fmt: skip


def probe(host: str, **how: Any) -> dict[str, Any]:
    """Our own look at a host: all well."""
    return {"host": host, "url": f"https://{host}/", "dns": "ok", "tls": "ok", "verify_code": 0, "days_left": 60,
            "http_status": 200, "answered": True, "code": "", "reason": ""} | how  # fmt: skip
