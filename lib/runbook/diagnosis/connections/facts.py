"""What the readings say about a server's slots, each session counted once.

``None`` anywhere means *unknown*. A session belongs to the first of these groups that fits: its client is gone, it is
part of a lock pile-up, it idles inside a transaction, it runs, it idles; so that no slot explains two causes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any

from runbook.diagnosis import locks
from runbook.diagnosis.connections.limits import Limits
from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]
OWN_PREFIX = "runbook:"
_HALF_OPEN = re.compile(r"\bpostgres: .*\b(?:authentication|initializing)\s*$")
_PEER = re.compile(r"(?P<host>\[?[0-9a-fA-F:.]+\]?)[:(](?P<port>\d+)\)?")


def seconds(row: Row, key: str) -> float:
    """A duration of a row; 0 when it has none."""
    return float(row.get(key) or 0.0)


@dataclass(frozen=True)
class Facts:
    """The server as this run saw it."""

    readings: Readings
    limits: Limits

    # -- how we got in ----------------------------------------------------------------------------------------------

    @cached_property
    def connection(self) -> Row | None:
        return self.readings.row("connection")

    @cached_property
    def refused_for_slots(self) -> bool | None:
        """Whether the server as a whole refused the ordinary role for want of a slot (SQLSTATE 53300).

        A role that was let in at another database met that database's limit instead.
        """
        reading = self.readings.last("connection")
        if self.connection is not None:
            return self.connection.get("refused_code") == "53300" and not self.refused_at_database
        return True if reading is not None and reading.code == "53300" else None

    @cached_property
    def refused_at_database(self) -> bool:
        """Whether the role was refused at its own database and let in at another one of the same server."""
        return self.connection is not None and self.connection.get("via") == "maintenance database"

    @cached_property
    def sees_all(self) -> bool | None:
        """Whether the role sees other people's sessions; if not, every count of them is unknown."""
        if self.connection is None:
            return None
        hidden = [int(s["hidden_rows"]) for s in self.readings.samples("headroom")]
        return bool(self.connection.get("sees_all")) and not any(hidden) and not self.untracked

    @cached_property
    def untracked(self) -> int:
        """Most sessions in a sample that run with ``track_activities`` off: their state is not to be had."""
        return max((int(s.get("untracked") or 0) for s in self.readings.samples("headroom")), default=0)

    @cached_property
    def blind(self) -> str:
        """Why sessions cannot be seen although the server answers; empty when they can."""
        if self.untracked:
            return f"{self.untracked} sessions run with track_activities off, so that their state cannot be seen"
        if self.sees_all is False and self.connection is not None:
            role = self.connection.get("role", "the role")
            return f"role {role} sees only its own sessions (needs GRANT pg_monitor TO {role})"
        return ""

    # -- slots ------------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[Row]:
        """Samples of the headroom; empty when sessions cannot be seen."""
        return list(self.readings.samples("headroom")) if self.sees_all else []

    @cached_property
    def headroom(self) -> Row | None:
        return self.samples[-1] if self.samples else None

    @cached_property
    def usable(self) -> int | None:
        """Slots that ordinary roles may use: max_connections less both reserves."""
        samples = self.readings.samples("headroom")
        return int(samples[-1]["usable"]) if samples else None

    def clients(self, sample: Row) -> int:
        """Client sessions of a sample, our own apart."""
        return int(sample["clients"]) - int(sample["own"])

    @cached_property
    def used(self) -> int | None:
        """Client sessions now, our own apart: what the shares are shares of."""
        return self.clients(self.headroom) if self.headroom is not None else None

    @cached_property
    def used_percent(self) -> list[float]:
        """Percent of the usable slots in use, by sample."""
        return [round(100.0 * self.clients(s) / self.usable, 1) for s in self.samples] if self.usable else []

    @cached_property
    def used_share(self) -> float | None:
        """Share of usable slots in use, as the samples agree (their median)."""
        return median(self.used_percent) / 100 if self.used_percent else None

    def mostly(self, holds: Callable[[Row], bool]) -> bool | None:
        """Whether something holds in two of three samples; ``None`` without samples."""
        if not self.samples:
            return None
        return 3 * sum(holds(s) for s in self.samples) >= 2 * len(self.samples)

    @cached_property
    def short_of_slots(self) -> bool | None:
        """Slots are used to the threshold, or an ordinary role was refused one."""
        if self.refused_for_slots:
            return True
        if not self.used_percent:
            return None
        least = self.limits.threshold_percent
        return 3 * sum(p >= least for p in self.used_percent) >= 2 * len(self.used_percent)

    def of_usable(self, count: float | None) -> float | None:
        """A count as a share of the usable slots."""
        return round(count / self.usable, 3) if count is not None and self.usable else None

    def of_used(self, count: float) -> float:
        """A count as a share of the slots in use; 0 when none is."""
        return min(1.0, count / self.used) if self.used else 0.0

    # -- sessions ---------------------------------------------------------------------------------------------------

    @cached_property
    def sessions(self) -> list[Row] | None:
        rows = self.readings.rows("sessions") if self.sees_all else None
        return [r for r in rows if not str(r["application_name"]).startswith(OWN_PREFIX)] if rows is not None else None

    @cached_property
    def forest(self) -> locks.Forest | None:
        rows = self.readings.rows("blockers") if self.sees_all else None
        return locks.forest(rows) if rows is not None else None

    @cached_property
    def orphans(self) -> list[Row]:
        """Sessions whose client is gone: it has closed its end of the socket, or reads nothing any more."""
        gone = self.closed_peers or frozenset()
        return [
            s
            for s in self.sessions or []
            if (s["client"], s["client_port"]) in gone
            or (
                s.get("wait_event") == "ClientWrite" and seconds(s, "query_seconds") >= self.limits.orphan_after_seconds
            )
        ]

    @cached_property
    def sockets_settled(self) -> bool:
        """Whether the question for the server's sockets is settled: read, or nothing that this host could answer."""
        reading = self.readings.last("sockets")
        return reading is None or reading.known or reading.state == "not_configured"

    @cached_property
    def closed_peers(self) -> frozenset[tuple[str, int]] | None:
        """Peers of the server's sockets that have closed their end; ``None`` when its sockets cannot be seen.

        The list is believed only when it holds a socket of a session that the server itself reports: behind a port
        forward or a container's network the addresses differ, and *no match* would look like *no orphan*.
        """
        rows = self.readings.rows("sockets")
        if rows is None or self.sessions is None or not rows:
            return None
        peers: dict[tuple[str, int], str] = {}
        for row in rows:
            if match := _PEER.fullmatch(str(row.get("peer", ""))):
                host = match["host"].strip("[]").removeprefix("::ffff:")
                peers[host, int(match["port"])] = str(row.get("state", ""))
        known = {(s["client"], s["client_port"]) for s in self.sessions if s["client"] != "local"}
        own = (self.connection or {}).get("own_client_port")
        if not (known & set(peers)) and own not in {port for _, port in peers}:
            return None
        return frozenset(peer for peer, state in peers.items() if state == "CLOSE-WAIT")

    @cached_property
    def _claimed(self) -> frozenset[int]:
        piled = self.forest.sessions if self.forest is not None else frozenset[int]()
        return frozenset(int(s["pid"]) for s in self.orphans) | piled

    def _group(self, fits: Callable[[Row], bool]) -> list[Row] | None:
        if self.sessions is None:
            return None
        return [s for s in self.sessions if int(s["pid"]) not in self._claimed and fits(s)]

    @cached_property
    def leaking(self) -> list[Row] | None:
        """Sessions idle inside a transaction, roots of pile-ups and orphans apart.

        Unknown when sessions wait for locks and nobody could tell for whose: a root would look like a leak.
        """
        if self.forest is None and (self.headroom is None or int(self.headroom["lock_waiting"]) >= locks.MIN_QUEUE):
            return None
        return self._group(lambda s: str(s["state"]).startswith("idle in transaction"))

    @cached_property
    def running(self) -> list[Row] | None:
        """Sessions that run a statement and wait for no lock; those of a storm apart.

        Unknown when the sockets could not be read, since the statement of a client that is gone looks the same.
        """
        if not self.sockets_settled:
            return None
        return self._unless_storm(lambda s: s["state"] == "active" and s.get("wait_event_type") != "Lock")

    @cached_property
    def idle(self) -> list[Row] | None:
        """Sessions that idle outside a transaction; those of a storm, and superusers' in the reserve, apart."""
        return self._unless_storm(lambda s: s["state"] == "idle" and not (self.reserve_eaten and s["superuser"]))

    @cached_property
    def superusers(self) -> list[Row] | None:
        """Sessions of superusers that no other group claims."""
        return self._group(lambda s: bool(s["superuser"]) and not str(s["state"]).startswith("idle in transaction"))

    @cached_property
    def young(self) -> list[Row] | None:
        """Sessions younger than ``young_seconds`` that are neither leaking nor claimed."""
        return self._group(
            lambda s: (
                seconds(s, "session_seconds") <= self.limits.young_seconds
                and not str(s["state"]).startswith("idle in transaction")
            )
        )

    @cached_property
    def reserve_eaten(self) -> bool | None:
        """Whether sessions reach beyond the slots that ordinary roles may use."""
        if self.refused_for_slots:
            return True
        return None if self.used is None or self.usable is None else self.used >= self.usable

    # -- rates ------------------------------------------------------------------------------------------------------

    @cached_property
    def new_sessions_per_second(self) -> float | None:
        """Sessions opened a second while this run looked: by the server's counters, and by who turned up since."""
        churn = self.readings.samples("churn")
        if len(churn) < 2 or self.sees_all is not True:
            return None
        span = _elapsed(str(churn[0]["at"]), str(churn[-1]["at"]))
        if span <= 0:
            return None
        rates = []
        if churn[0].get("sessions") is not None and churn[-1].get("sessions") is not None and span >= 1.0:
            rates.append((int(churn[-1]["sessions"]) - int(churn[0]["sessions"])) / span)
        born = self._born_since(str(churn[0]["at"]))
        if born is not None:
            # One newcomer within a fraction of a second is no rate.
            rates.append(born / span if span >= 1.0 or born > 2 else 0.0)
        return round(max(rates), 2) if rates else None

    def _born_since(self, at: str) -> int | None:
        rows = self.readings.rows("sessions_after")
        if rows is None:
            return None
        return sum(
            _elapsed(at, str(r["backend_start"])) > 0
            for r in rows
            if not str(r["application_name"]).startswith(OWN_PREFIX)
        )

    @cached_property
    def storm_threshold(self) -> float | None:
        """New sessions a second from which on it is a storm."""
        if self.usable is None:
            return None
        return round(max(self.limits.storm_at_least, self.usable * self.limits.storm_per_slot), 2)

    @cached_property
    def storming(self) -> bool | None:
        """Whether sessions come and go at the rate of a storm; ``None`` when the rate is unknown."""
        rate, least = self.new_sessions_per_second, self.storm_threshold
        return None if rate is None or least is None else rate >= least

    def _unless_storm(self, fits: Callable[[Row], bool]) -> list[Row] | None:
        """A group less the young sessions of a storm; unknown when there are such and the rate is unknown."""
        group = self._group(fits)
        young = [s for s in group or [] if seconds(s, "session_seconds") <= self.limits.young_seconds]
        if group is None or not young or self.storming is False:
            return group
        return None if self.storming is None else [s for s in group if s not in young]

    # -- other sources ----------------------------------------------------------------------------------------------

    @cached_property
    def running_mean(self) -> float | None:
        """Running sessions, averaged over the samples; orphans and a storm's apart."""
        series = [r for r in self.readings.series("activity") if r.known]
        if not series or self.running is None or self.sessions is None:
            return None
        mean = fmean(sum(int(row["sessions"]) for row in r.rows) for r in series)
        plainly = sum(1 for s in self.sessions if s["state"] == "active" and s.get("wait_event_type") != "Lock")
        return round(max(0.0, mean - (plainly - len(self.running))), 2)

    @cached_property
    def cores(self) -> int | None:
        """Cores of the database host, from the parameter or from the host itself."""
        if self.limits.cores:
            return self.limits.cores
        row = self.readings.row("cores")
        value = row.get("cores") if row else None
        return value if isinstance(value, int) and value > 0 else None

    @cached_property
    def half_open(self) -> list[str] | None:
        """Titles of server processes that have not finished authenticating; ``None`` when processes cannot be seen."""
        rows = self.readings.rows("processes")
        if rows is None or not rows:
            return None
        return [str(r["title"]) for r in rows if _HALF_OPEN.search(str(r.get("title", "")))]

    @cached_property
    def server_processes(self) -> int:
        """Server processes that serve somebody, as the host shows them."""
        rows = self.readings.rows("processes") or []
        return sum(bool(_PEER.search(str(r.get("title", ""))) or "[local]" in str(r.get("title", ""))) for r in rows)


def _elapsed(since: str, until: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()


def leading(rows: Iterable[Row], keys: Sequence[str]) -> tuple[tuple[str, ...], list[Row]]:
    """The most frequent combination of ``keys`` and its rows; ties go to the first in alphabetical order."""
    rows = list(rows)
    counted = Counter(tuple(str(r.get(k)) for k in keys) for r in rows)
    if not counted:
        return tuple("" for _ in keys), []
    top = min(counted, key=lambda group: (-counted[group], group))
    return top, [r for r in rows if tuple(str(r.get(k)) for k in keys) == top]


def application(row: Row) -> tuple[str, str]:
    """Who a session belongs to: its application name, or its role and client where it has none."""
    name = str(row["application_name"])
    return (name, "") if name != "(unset)" else (f"(unset) of role {row['role']}", str(row["client"]))
