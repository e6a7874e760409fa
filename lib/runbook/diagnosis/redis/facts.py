"""One run's view of a Redis: how far we get, what the server counts, what the application says. ``None`` = *unknown*.

What we meet ourselves is weighed against what the application meets: a password that only we have wrong is no outage.
Errors that our own commands were answered with are taken off what the server counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.redis import words
from runbook.diagnosis.redis.limits import Limits
from runbook.diagnosis.redis.words import Kind

Row = Mapping[str, Any]
WALK, PING, INFO, CLIENTS, LOG, HEALTH = (
    "redis_walk",
    "redis_ping",
    "redis_info",
    "redis_clients",
    "app_errors",
    "health",
)
ON_THE_WAY = ("name", "tcp", "tls", "greeting", "auth", "ping", "database")
"""Steps of the walk that every client takes; what is refused behind them is refused to us."""
TROUBLE = ("OOM", "MISCONF", "READONLY", "NOREPLICAS", "CLUSTERDOWN", "BUSY", "LOADING", "MASTERDOWN")
"""Errors that no server counts on a good day. ``NOAUTH`` and ``NOPERM`` are not among them: probes without a password
and exporters without rights are answered so for years."""
OURS_ALONE = 0.3
"""Share of a refusal that only we met, while the application is well: what the URL leads to is so, and may be news to
connections that were made before; but it is no outage yet. Enough for *probable*, never for *confirmed*."""


@dataclass(frozen=True)
class Attempt:
    """One try to be served; ``code`` is empty when it was."""

    code: str
    detail: str = ""
    reading: str = PING


@dataclass(frozen=True)
class Facts:
    """The Redis as this run saw it."""

    readings: Readings
    limits: Limits

    def asked(self, name: str) -> bool:
        """Whether there is such a source: its reading was taken, and it is configured."""
        reading = self.readings.last(name)
        return reading is not None and reading.state != "not_configured"

    @cached_property
    def configured(self) -> bool:
        """Whether there is a Redis to ask; one that nobody asked about may be there."""
        taken = [r for name in (WALK, PING, INFO) if (r := self.readings.last(name)) is not None]
        return not taken or any(r.state != "not_configured" for r in taken)

    # -- our own way in -----------------------------------------------------------------------------------------------

    @cached_property
    def walk(self) -> dict[str, dict[str, Any]] | None:
        rows = self.readings.rows(WALK)
        return None if rows is None else {str(row.get("step")): row for row in rows}

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Every try of this run, the walk first."""
        found = []
        if self.walk is not None:
            stopped = next((r for s in ON_THE_WAY if (r := self.walk.get(s)) and r.get("answer") == "no"), None)
            row = stopped or self.walk.get("late") or {}
            found.append(Attempt(str(row.get("code") or ""), str(row.get("detail") or ""), WALK))
        for reading in self.readings.series(PING):
            if reading.state == "not_configured":
                continue
            answer = str(reading.value.get("answer") or "PONG") if isinstance(reading.value, dict) else "PONG"
            code = "" if reading.known and answer == "PONG" else reading.code or reading.state.upper()
            if reading.known and answer not in ("PONG", "True"):
                code = answer.split(" ", 1)[0].lstrip("-")
            found.append(Attempt(code, reading.reason))
        return found

    @cached_property
    def failing(self) -> float | None:
        """Share of our attempts that failed; ``None`` without any."""
        return sum(1 for a in self.attempts if a.code) / len(self.attempts) if self.attempts else None

    @cached_property
    def refusal(self) -> Attempt | None:
        """What we meet at most attempts, when at least half of them fail.

        The walk knows best what it met; a client library words the same thing as a broken connection.
        """
        failed = [a for a in self.attempts if a.code]
        if not failed or (self.failing or 0.0) < 0.5:
            return None
        if failed[0].reading == WALK:
            return failed[0]
        often = Counter(a.code for a in failed)
        most = max(often.values())
        return next(a for a in failed if often[a.code] == most)

    def refused(self, *codes: str) -> bool | None:
        """Whether most attempts end so; ``None`` when nobody tried."""
        if not self.attempts:
            return None
        return self.refusal is not None and self.refusal.code in codes

    @cached_property
    def walked(self) -> Attempt | None:
        """How the walk went; ``None`` when it is unknown."""
        return next((a for a in self.attempts if a.reading == WALK), None)

    @property
    def way(self) -> tuple[str, ...]:
        """The readings of our attempts."""
        return tuple(name for name in (WALK, PING) if self.readings.last(name) is not None) or (WALK, PING)

    # -- what the server tells ----------------------------------------------------------------------------------------

    @cached_property
    def info(self) -> dict[str, Any] | None:
        return self.readings.row(INFO)

    @cached_property
    def config(self) -> dict[str, Any] | None:
        return self.readings.row("redis_config")

    def figure(self, name: str) -> float | None:
        """A number that the server tells of itself."""
        return number((self.info or {}).get(name))

    def setting(self, name: str) -> str | None:
        value = (self.config or {}).get(name)
        return None if value is None else str(value)

    @cached_property
    def counts_errors(self) -> bool:
        """Whether errors by their first word are there to be asked for; before 6.2 no server counts them."""
        return self.info is None or not _lacks_errorstats(self.info)

    def counted(self, *codes: str) -> int | None:
        """Errors of these codes answered to others between the first and the last look.

        ``None`` when it cannot be told: one look alone tells only that there never was one.
        """
        looks = [row for row in self.readings.samples(INFO) if row.get("error_counts") is not None]
        if not looks or _lacks_errorstats(looks[-1]):
            return None
        return self._grown(looks, lambda row: sum(_of(row, "error_counts", c) - _of(row, "own_errors", c)
                                                  for c in codes))  # fmt: skip

    def grown(self, name: str) -> int | None:
        """How much a counter of the server grew between the first and the last look."""
        looks = [row for row in self.readings.samples(INFO) if number(row.get(name)) is not None]
        return self._grown(looks, lambda row: int(number(row.get(name)) or 0)) if looks else None

    @staticmethod
    def _grown(looks: Sequence[Row], value: Any) -> int | None:
        first, last = value(looks[0]), value(looks[-1])
        if len(looks) == 1:
            return 0 if not first else None
        restarted = (number(looks[-1].get("uptime_seconds")) or 0) < (number(looks[0].get("uptime_seconds")) or 0)
        return max(0, int(last if restarted else last - first))

    @cached_property
    def clients(self) -> list[dict[str, Any]] | None:
        return self.readings.rows(CLIENTS)

    @cached_property
    def slots(self) -> float | None:
        """How many clients the server takes."""
        return self.figure("maxclients") or number(self.setting("maxclients"))

    @cached_property
    def used_percent(self) -> float | None:
        connected = self.figure("connected_clients")
        return None if connected is None or not self.slots else round(100.0 * connected / self.slots, 1)

    @cached_property
    def slowest_ms(self) -> float | None:
        """The longest that an answer took us; one that never came is not among them."""
        values = [number(row.get("milliseconds")) for row in self.readings.samples(PING)]
        late = number(((self.walk or {}).get("late") or {}).get("milliseconds"))
        known = [v for v in (*values, late) if v is not None]
        return max(known) if known else None

    @cached_property
    def slow_answers(self) -> int | None:
        """How many of our questions were answered slowly; ``None`` when none was answered."""
        values = [v for row in self.readings.samples(PING) if (v := number(row.get("milliseconds"))) is not None]
        late = number(((self.walk or {}).get("late") or {}).get("milliseconds"))
        values += [late] if late is not None else []
        return sum(1 for v in values if v >= self.limits.slow_ms) if values else None

    # -- what the application says ------------------------------------------------------------------------------------

    @cached_property
    def lines(self) -> Counter[Kind] | None:
        """Recent lines of the application's log about Redis, by kind; ``None`` when it was not read."""
        rows, reading = self.readings.rows(LOG), self.readings.last(LOG)
        # What was printed of a log that could not be read is not a log without lines.
        if rows is None or (not rows and reading is not None and reading.state != "ok"):
            return None
        found: Counter[Kind] = Counter()
        for row in rows:
            kind = words.kind(str(row.get("pattern") or "")) or words.kind(str(row.get("sample") or ""))
            recent = row.get("recent") if row.get("recent") is not None else row.get("count")
            if kind is not None:
                found[kind] += int(number(recent) or 0)
        return found

    def logged(self, *kinds: Kind) -> int | None:
        """Recent lines that say so."""
        return None if self.lines is None else sum(self.lines[kind] for kind in kinds)

    @cached_property
    def log_lines(self) -> int | None:
        """Recent lines about a trouble with Redis that is known by its words; a warning of any kind is none."""
        return None if self.lines is None else sum(self.lines.values()) - self.lines["other"]

    @cached_property
    def check(self) -> dict[str, Any] | None:
        """What the health endpoints say of Redis: the worst check of that name."""
        found = [
            {"name": check.get("name"), "status": check.get("status"), "instance": row.get("instance"),
             "output": str(check.get("output") or "")[:200]}
            for row in self.readings.rows(HEALTH) or []
            for check in row.get("checks") or []
            if _is_redis(str(check.get("name")))
        ]  # fmt: skip
        return min(found, key=lambda c: ("fail", "warn", "unknown", "pass").index(str(c["status"])), default=None)

    @cached_property
    def suffers(self) -> bool | None:
        """Whether the application is seen to suffer now: its health check of Redis fails, or its log says so."""
        signs = [None if self.check is None else self.check["status"] in ("fail", "warn"),
                 None if self.log_lines is None else self.log_lines >= self.limits.min_lines]  # fmt: skip
        if any(signs):
            return True
        return False if signs[0] is False else None

    @cached_property
    def ours(self) -> float:
        """Share of a refusal at our own door: all of it, unless the application is well, or may be and was not seen."""
        lost = self.asked(HEALTH) and not self.readings.known(HEALTH) and not self.suffers
        return OURS_ALONE if self.suffers is False or lost else 1.0

    @cached_property
    def serves(self) -> bool | None:
        """Whether the server is fine: it serves us, turns nobody away, holds nobody back, and counts no trouble."""
        if not self.attempts:
            return None
        signs: list[Any] = [bool(self.failing), self.grown("rejected_connections"), self.held_back, self.full_of_memory]
        signs += [self.counted(*TROUBLE)] if self.counts_errors else []
        return False if any(signs) else None if None in signs else True

    @cached_property
    def held_back(self) -> int | None:
        """Clients that the server lets wait with commands that do not wait by nature."""
        rows = self.clients
        return None if rows is None else sum(int(number(row.get("held_back")) or 0) for row in rows)

    @cached_property
    def full_of_memory(self) -> bool | None:
        """Whether its memory is used up while nothing may be evicted: then it takes no write that adds."""
        used, most, policy = (
            self.figure("used_memory"),
            self.figure("maxmemory"),
            (self.info or {}).get("maxmemory_policy"),
        )
        if used is None or most is None or policy is None:
            return None
        return most > 0 and used >= most and policy == "noeviction"

    # -- the server's host --------------------------------------------------------------------------------------------

    @cached_property
    def process(self) -> dict[str, Any] | None:
        """The server's process, where we have a shell on its host."""
        return next((row for row in self.readings.rows("redis_host") or [] if number(row.get("pid"))), None)

    @cached_property
    def listening(self) -> bool | None:
        """Whether anybody listens on its port; ``None`` where we cannot look."""
        told = {str(row.get("listening")) for row in self.readings.rows("redis_host") or []}
        return True if "yes" in told else False if "no" in told else None

    def server_log(self, kind: str) -> dict[str, Any] | None:
        """What the server's own log said of that lately."""
        return next((row for row in self.readings.rows("redis_log") or [] if row.get("kind") == kind), None)


def number(value: Any) -> float | None:
    """A cell as a number; ``None`` for anything that is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if found == found else None


def _of(row: Row, name: str, code: str) -> int:
    counts = row.get(name)
    return int(number(counts.get(code)) or 0) if isinstance(counts, Mapping) else 0


def _lacks_errorstats(row: Row) -> bool:
    """Before 6.2 there are none, which looks like none ever counted."""
    parts = str(row.get("version") or "").split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return not row.get("error_counts")
    return (int(parts[0]), int(parts[1])) < (6, 2)


def _is_redis(name: str) -> bool:
    lower = name.lower()
    return any(word in lower for word in ("redis", "cache", "valkey"))
