"""Builds the readings of an application with instances and a front, described in a few words, for tables of rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, reading

Row = dict[str, Any]
HOST = "app.example"
COMMAND = "node dist/server.js"


def answer(status: int = 200, *, after: float = 20.0, **more: Any) -> Row:
    """A look that was answered after so many milliseconds."""
    fails = "http" if status >= 300 else ""
    return {"layer": fails, "code": str(status) if fails else "", "reason": f"answered {status}" if fails else "",
            "http_status": status, "dns": "ok", "tcp": "ok", "total_ms": after, "first_byte_ms": after,
            "status": "pass" if status < 300 else "fail", **more}  # fmt: skip


def not_ready(**down: str) -> Row:
    """A 503 whose body names what is down, and in which words."""
    named = [{"name": name, "status": "fail", "output": said} for name, said in down.items()]
    return answer(503, checks=named, word="error", reason=f"answered 503: {', '.join(down)}")


def degraded(*names: str, status: str = "warn") -> Row:
    checks = [{"name": name, "status": "fail", "output": "down"} for name in names]
    return answer(checks=checks, word="degraded") | {"layer": "body", "status": status, "code": "200",
                                                     "reason": "answered 200"}  # fmt: skip


def refused() -> Row:
    return {"layer": "tcp", "code": "ECONNREFUSED", "reason": "Connection refused", "dns": "ok", "tcp": "failed"}


def unconnected() -> Row:
    return {"layer": "tcp", "code": "TIMEOUT", "reason": "no connection in time", "dns": "ok", "tcp": "failed"}


def silent() -> Row:
    return {"layer": "http", "code": "TIMEOUT", "reason": "no answer within 5 s", "dns": "ok", "tcp": "ok"}


def no_name(reason: str = "its name does not resolve: Name or service not known") -> Row:
    return {"layer": "dns", "code": "DNS", "reason": reason, "dns": "failed"}


def bad_certificate(code: int, *, behind: Row | None = None, skew: float | None = 0.3, **certificate: Any) -> Row:
    """A certificate that is not accepted, and what answers behind it."""
    own = {"names": [HOST], "issuer": "Some CA", "self_signed": False, "not_before": "2025-12-01T00:00:00+00:00",
           "not_after": "2026-05-01T00:00:00+00:00", "days_left": 60.0, "expired": False, "not_yet_valid": False,
           "names_host": True} | certificate  # fmt: skip
    return (behind or answer()) | {
        "layer": "tls", "tls": "not accepted", "verify_code": code, "code": f"TLS{code}",
        "reason": "its certificate is not accepted", "certificate": own, "skew_seconds": skew,
    }  # fmt: skip


@dataclass
class Application:
    """An application behind a front; everything has a default that is healthy."""

    #: Looks at the checked endpoint outside; one = the same in each.
    outside: list[Row] = field(default_factory=lambda: [answer()])
    live: list[Row] = field(default_factory=lambda: [answer()])
    #: The same at each instance: address → looks; their liveness: address → looks.
    instances: dict[str, list[Row]] = field(default_factory=lambda: {f"10.0.0.{n}:3000": [answer()] for n in (1, 2, 3)})
    instances_live: dict[str, list[Row]] = field(default_factory=dict)
    endpoint: str = "check"
    scheme: str = "https"
    looks: int = 3
    #: Listening sockets that differ: address → columns; ``None`` = nobody listens there.
    sockets: dict[str, Row | None] = field(default_factory=dict)
    #: More listening sockets, as their host writes them.
    more_sockets: list[Row] = field(default_factory=list)
    #: The application's processes on the hosts of instances.
    processes: list[Row] = field(default_factory=list)
    log: dict[str, int] = field(default_factory=dict)
    disks: list[Row] = field(default_factory=list)
    vendors: list[Row] = field(default_factory=list)
    deployments: list[Row] = field(default_factory=list)
    #: Readings that replace those of the same name.
    instead: dict[str, Reading] = field(default_factory=dict)

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        made = [
            *(self._walk(number) for number in range(self.looks)),
            *(self._sockets(number) for number in range(self.looks + 1)),
            reading("health", [], source="health"),
            reading("checker", [], source="prometheus", state="not_configured", reason="prometheus.url is not set"),
            reading("connection", {"way": "dsn"}),
            reading("redis_ping", {"answer": "PONG", "milliseconds": 0.4}, source="redis"),
            reading("storage_clock", [{"skew_seconds": 0.1}], source="object_storage"),
            reading("dependency_hosts", self.vendors, source="reach"),
            reading("deployments", self.deployments, source="github"),
            reading("disk", self.disks or [_disk()], source="host"),
            reading("app_errors", [{"pattern": p, "count": n} for p, n in self.log.items()], source="shell"),
            reading("instance_addresses", [{"host": a.partition(":")[0], "address": a.partition(":")[0]}
                                           for a in self.instances], source="shell"),
            reading("processes", self.processes, source="host"),
        ]  # fmt: skip
        return [self.instead.get(r.name, r) for r in made]

    def _walk(self, number: int) -> Reading:
        base = f"{self.scheme}://{HOST}"
        path = "" if self.endpoint == "root" else "/ready"
        rows = [
            _row("outside", self.endpoint, f"{base}{path}", HOST, _nth(self.outside, number)),
            _row("outside", "live", f"{base}/live", HOST, _nth(self.live, number)),
        ]
        for address, looks in self.instances.items():
            rows.append(_row("inside", "check", f"http://{address}/ready", address, _nth(looks, number)))
            live = self.instances_live.get(address, [answer()])
            rows.append(_row("inside", "live", f"http://{address}/live", address, _nth(live, number)))
        return reading("walk", rows, source="walk")

    def _sockets(self, number: int) -> Reading:
        rows = []
        for position, address in enumerate(self.instances):
            changed = self.sockets.get(address, {})
            if changed is None:
                continue
            host, _, port = address.partition(":")
            row = {"host": host, "local": f"0.0.0.0:{port}", "waiting": 0, "backlog": 511, "pid": 4000 + position,
                   "state": "S", "age_seconds": 86_400.0, "cpu_seconds": 30.0, "open_files": 60,
                   "open_files_limit": 65_536, "command": COMMAND} | changed  # fmt: skip
            if callable(row["pid"]):
                row["pid"] = row["pid"](number)
            if callable(row["cpu_seconds"]):
                row["cpu_seconds"] = row["cpu_seconds"](number)
            rows.append(row)
        # A host whose sockets are known has at least the one by which it was asked.
        rows += [{"host": a.partition(":")[0], "local": "0.0.0.0:22", "pid": 1} for a in self.instances]
        made = reading("sockets_listening", [*rows, *self.more_sockets], source="host")
        at = (NOW + timedelta(seconds=2 * number)).isoformat()
        return Reading(**(made.as_dict() | {"measured_at": at}))


def _row(vantage: str, endpoint: str, url: str, instance: str, look: Row) -> Row:
    address = instance.partition(":")[0] if vantage == "inside" else "192.0.2.10"
    return {"vantage": vantage, "endpoint": endpoint, "url": url, "instance": instance, "checks": [], "stale": [],
            "address": address, "word": "", "status": ""} | look  # fmt: skip


def _nth(looks: list[Row], number: int) -> Row:
    return looks[min(number, len(looks) - 1)]


def _disk() -> Row:
    return {"host": "10.0.0.1", "mount": "/", "used_percent": 41.0, "inodes_percent": 6.0, "pseudo": False,
            "read_only": False}  # fmt: skip
