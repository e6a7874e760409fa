"""The hosts that the instances run on: who listens where, in what state it is, whether its queue is full."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from runbook.diagnosis.health.limits import Limits
from runbook.diagnosis.health.places import Place, number
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

Row = Mapping[str, Any]
SOCKETS = "sockets_listening"
ADDRESSES = "instance_addresses"
PROCESSES = "processes"
LOCAL = "local"
RUNTIMES = re.compile(
    r"(?i)(?:^|/)(?:node|nodejs|bun|deno|next-server|python[\d.]*|gunicorn|uvicorn|hypercorn|java|ruby|puma|"
    r"php[\d.-]*|dotnet|beam\.smp)(?:$|:)"
)
"""Programs that applications run on; a database or a proxy is none."""
LEAST_BUSY = 0.1
"""Processors that something in a loop gets at least, however busy the machine is."""
STOPPED = ("T", "t", "D")
ANY_ADDRESS = ("0.0.0.0", "*", "[::]", "::")  # noqa: S104 - as the kernel writes it; nothing is bound here


def split(local: str) -> tuple[str, int | None]:
    """Address and port of ``127.0.0.1:80``, ``[::1]:80``, ``*:80``; a scope is left out."""
    address, _, port = local.rpartition(":")
    return re.sub(r"%[^\]]*", "", address), int(port) if port.isdigit() else None


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


@dataclass(frozen=True)
class Machine:
    """Listening sockets and processes of the hosts that could be looked at."""

    readings: Readings
    limits: Limits

    @cached_property
    def rows(self) -> Sequence[Row] | None:
        """Sockets as last seen; ``None`` when no host could be asked."""
        rows = self.readings.rows(SOCKETS)
        found: list[Row] = [r for r in rows or [] if r.get("local")]
        return None if rows is None else found

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Hosts whose sockets are known."""
        return frozenset(str(r.get("host")) for r in self.rows or [])

    def host_of(self, place: Place) -> str | None:
        """The host that an instance runs on, of those that could be looked at; ``None`` = none of them, or unknown."""
        address = str((place.last or place.first).get("address") or "")
        if not address:
            return None
        if is_loopback(address):
            return LOCAL if LOCAL in self.hosts else None
        for row in self.readings.rows(ADDRESSES) or []:
            if row.get("address") == address and row.get("host") in self.hosts:
                return str(row["host"])
        bare = {host: host.rpartition("@")[2].partition(":")[0] for host in self.hosts}
        return next((host for host, name in bare.items() if name == address), None)

    def _at(self, reading: Reading, place: Place) -> list[Row]:
        host, address = self.host_of(place), str((place.last or place.first).get("address") or "")
        found: list[Row] = []
        for row in reading.rows if reading.known else ():
            local, port = split(str(row.get("local") or ""))
            if (
                row.get("host") == host
                and port == place.port
                and (local in ANY_ADDRESS or local.strip("[]") == address)
            ):
                found.append(row)
        return found

    def _looks(self, place: Place) -> list[tuple[Reading, list[Row]]]:
        """Each look at the sockets with those of this place; none where its host cannot be looked at."""
        if self.host_of(place) is None:
            return []
        return [(r, self._at(r, place)) for r in self.readings.series(SOCKETS) if r.known]

    def listened(self, place: Place) -> bool | None:
        """Whether anybody listens at its port, by its own host's word."""
        looks = self._looks(place)
        return any(rows for _, rows in looks[-1:]) if looks else None

    def holder(self, place: Place) -> Row | None:
        """Who listens there, as last seen."""
        looks = self._looks(place)
        return next((row for _, rows in reversed(looks) for row in rows), None)

    def full(self, place: Place) -> Row | None:
        """The socket whose queue was full in a look: more wait than it holds."""
        for _, rows in reversed(self._looks(place)):
            for row in rows:
                waiting, backlog = number(row, "waiting"), number(row, "backlog")
                if waiting is not None and backlog is not None and waiting > backlog:
                    return row
        return None

    def out_of_files(self, place: Place) -> Row | None:
        """The process there, when it has as many files open as it may."""
        row = self.holder(place)
        opened, limit = number(row, "open_files"), number(row, "open_files_limit")
        return row if opened is not None and limit and opened >= self.limits.files_share * limit else None

    def stopped(self, place: Place) -> bool | None:
        """Whether the process there was stopped, or stuck in the kernel, in every look."""
        states = [str(row["state"]) for _, rows in self._looks(place) for row in rows if row.get("state")]
        return all(s in STOPPED for s in states) if states else None

    def busy(self, place: Place) -> float | None:
        """Processors that the process there used between the first look and the last."""
        seen = [
            (at, float(row["cpu_seconds"]), row.get("pid"))
            for reading, rows in self._looks(place)
            for row in rows
            if number(row, "cpu_seconds") is not None and (at := _moment(reading.measured_at)) is not None
        ]
        if len(seen) < 2 or seen[0][2] != seen[-1][2]:
            return None
        seconds = (seen[-1][0] - seen[0][0]).total_seconds()
        return round((seen[-1][1] - seen[0][1]) / seconds, 2) if seconds >= 0.3 else None

    def always_running(self, place: Place) -> bool:
        """Whether the process there was running, or about to, in each of several looks, and did use a processor.

        On a machine with much to do it gets less than a whole one.
        """
        states = [str(row.get("state")) for _, rows in self._looks(place) for row in rows]
        return len(states) >= 2 and set(states) == {"R"} and (self.busy(place) or 0.0) >= LEAST_BUSY

    def pids(self, place: Place) -> list[int]:
        """Processes that listened there, look by look, each once."""
        found = [int(row["pid"]) for _, rows in self._looks(place) for row in rows if number(row, "pid") is not None]
        return list(dict.fromkeys(found))

    def restarts(self, place: Place) -> int | None:
        """How often another process listened there than the look before; ``None`` when it was not seen twice."""
        looks = self._looks(place)
        return max(0, len(self.pids(place)) - 1) if len(looks) >= 2 else None

    def comes_and_goes(self, place: Place) -> int:
        """How many of the application's processes came after the first look, with as many gone before the last."""
        host = self.host_of(place)
        if self.pattern is None or host is None:
            return 0
        seen = [
            {int(r["pid"]) for r in reading.rows
             if r.get("host") == host and number(r, "pid") is not None and self.pattern.search(str(r.get("command")))}
            for reading in self.readings.series(PROCESSES) if reading.known
        ]  # fmt: skip
        if len(seen) < 2:
            return 0
        came, went = set().union(*seen[1:]) - seen[0], set().union(*seen[:-1]) - seen[-1]
        return min(len(came), len(went))

    # -- processes of the application -----------------------------------------------------------------------------

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """What the application's command lines look like; ``None`` where nobody said."""
        if not self.limits.process_pattern:
            return None
        try:
            return re.compile(self.limits.process_pattern)
        except re.error:
            return re.compile(re.escape(self.limits.process_pattern))

    @cached_property
    def processes(self) -> Sequence[Row] | None:
        """The application's processes; ``None`` when nobody said what they look like, or they could not be read."""
        rows = self.readings.rows(PROCESSES)
        if self.pattern is None or rows is None:
            return None
        return [r for r in rows if r.get("pid") and self.pattern.search(str(r.get("command") or ""))]

    def left(self, place: Place) -> int | None:
        """The application's processes on the host of an instance that is down."""
        host = self.host_of(place)
        return None if self.processes is None or host is None else sum(1 for r in self.processes if r["host"] == host)

    def strays(self, place: Place, serving: frozenset[tuple[Any, Any]], siblings: list[Row]) -> list[Row] | None:
        """Listening processes of the application on the host of a place, those apart that serve where one is expected.

        Known by the pattern, or as another of what listens where an instance is well. ``None`` = cannot be told.
        """
        host = self.host_of(place)
        if host is None or (self.pattern is None and not siblings):
            return None
        alike = {_shape(str(r.get("command") or "")) for r in siblings} - {""}
        found = []
        for row in self.rows or []:
            command = str(row.get("command") or "")
            ours = bool(self.pattern and self.pattern.search(command)) or _shape(command) in alike
            if row.get("host") == host and ours and (host, row.get("pid")) not in serving:
                found.append(row)
        return found

    def suspects(self, place: Place, serving: frozenset[tuple[Any, Any]]) -> list[Row]:
        """Listening processes on the host of a place that may be the application, moved: where nobody said what it
        looks like, what runs on an application's runtime, began within the window and serves nowhere that is known."""
        host = self.host_of(place)
        if host is None or self.pattern is not None:
            return []
        young = 60 * self.limits.window_minutes
        return [r for r in self.rows or [] if r.get("host") == host and (host, r.get("pid")) not in serving
                and RUNTIMES.search(str(r.get("command") or "").partition(" ")[0])
                and (number(r, "age_seconds") or young) < young]  # fmt: skip


def _shape(command: str) -> str:
    """A command line without its numbers."""
    return re.sub(r"\d+", "#", command).strip()


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
