"""What the application depends on, each by its own probe and by the application's own word.

A probe that fails for a credential of ours says nothing of the system: then it is unknown. Which finding of another
runbook a failing system stands for is said here, once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis import connections, redis
from runbook.diagnosis.conclusion import leading
from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]
OURS_ALONE = ("auth_failed", "permission_denied", "rate_limited", "not_configured")
"""States of a reading that speak of us."""
REFUSALS = re.compile(
    r"ECONNREFUSED|ENOENT|^(?:53|57|58)\w{3}$|^(?:LOADING|MISCONF|MAXCLIENTS|OOM|READONLY|CLUSTERDOWN|BUSY|"
    r"MASTERDOWN|NOREPLICAS)$|^5\d\d$|SlowDown|ServiceUnavailable|InternalError"
)
"""Codes with which a system itself, or its host, says that it does not serve."""
SILENCES = re.compile(r"TIMEOUT|ETIMEDOUT|DNS|EHOSTUNREACH|ENETUNREACH|ECONNRESET")
"""Codes of silence, which may be our own way there: they count where the application says the same."""
NO_DEPENDENCY = re.compile(
    r"(?i)disk|space|memory|heap|\brss\b|cpu|event.?loop|uptime|migrat|version|release|config|env|ping|self|"
    r"(?:^|_)app(?:$|_)|liveness|readiness|http$|server$"
)
"""Checks of a body that speak of the application itself."""
DATABASE = re.compile(r"(?i)database|postgres|prisma|\bdb\b|(?:^|_)db(?:$|_)|sql|typeorm|sequelize|hikari|knex")
REDIS = re.compile(r"(?i)redis|cache|valkey|\bqueue|bull")
STORAGE = re.compile(r"(?i)\bs3\b|(?:^|_)s3(?:$|_)|bucket|object.?storage|\br2\b|blob|minio|(?:^|[^a-z])storage")
SLOTS = ("connection", "headroom", "activity", "sessions", "blockers", "prepared", "limits", "churn", "sessions_after",
         "pools", "pooler_databases", "pooler_config")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """One system that the application needs."""

    name: str
    #: Whether the application says that it is down; ``None`` = it does not speak of it.
    said: bool | None
    #: In the application's words.
    output: str
    #: Whether its own probe fails; ``None`` = unknown.
    fails: bool | None
    #: What the probe said.
    why: str
    #: The readings of the probe.
    rests_on: Sequence[str]
    #: The finding of its own runbook, where there is one.
    refers_to: str | None = None

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """How much speaks for it: probe and word, the probe, the word."""
        return (bool(self.fails and self.said), bool(self.fails and self.said is not False), bool(self.said))


@dataclass(frozen=True)
class Backing:
    """Every system that could be asked, or that the application names."""

    readings: Readings
    #: Checks of the health endpoints' bodies.
    checks: Sequence[Row]
    #: Whether a health endpoint itself waits for something.
    waits: bool = False

    @cached_property
    def all(self) -> list[Dependency]:
        """The systems, those that most speaks for first."""
        known = [self._redis(), self._database(), self._storage(), *self._vendors()]
        named = [self._by_name(name) for name in self._unknown_names(known)]
        return sorted([*known, *named], key=lambda d: (*(not part for part in d.rank), d.name))

    @cached_property
    def failing(self) -> list[Dependency]:
        """Those that are down by their own probe or by the application's word, unless the word is that it is up."""
        found = [d for d in self.all if any(d.rank)]
        # Where the application names what is down, what it does not speak of is not the matter.
        return [d for d in found if d.said] or found

    @cached_property
    def unknown(self) -> list[str]:
        """Readings of probes that could have been had and could not be read."""
        return [name for d in self.all if d.fails is None for name in d.rests_on if self._asked(name)]

    def _asked(self, name: str) -> bool:
        reading = self.readings.last(name)
        return reading is None or reading.state != "not_configured"

    def _said(self, pattern: re.Pattern[str]) -> tuple[bool | None, str]:
        mine = [c for c in self.checks if pattern.search(str(c.get("name")))]
        bad = [c for c in mine if c.get("status") == "fail"] or [c for c in mine if c.get("status") == "warn"]
        said = True if bad else False if any(c.get("status") == "pass" for c in mine) else None
        return said, str(bad[0].get("output") or "")[:200] if bad else ""

    def _probed(self, name: str, *, said: bool | None) -> tuple[bool | None, str]:
        """Whether the probe of that reading fails, and what it says.

        Silence is unknown unless the application says the same, or waits itself.
        """
        reading = self.readings.last(name)
        if reading is None:
            return None, f"{name} was not read"
        if reading.state == "ok":
            return False, "answers"
        told = f"{reading.code} {reading.reason}".strip()[:200]
        refused = bool(REFUSALS.search(reading.code))
        quiet = bool(SILENCES.search(reading.code)) and (bool(said) or self.waits)
        return (True if (refused or quiet) and reading.state not in OURS_ALONE else None), told

    def _redis(self) -> Dependency:
        said, output = self._said(REDIS)
        fails, why = self._probed("redis_ping", said=said)
        finding = redis.finding(self.readings) if fails or said else None
        return Dependency(name="Redis", said=said, output=output, fails=fails, why=why, rests_on=("redis_ping",),
                          refers_to=finding.cause if finding is not None else None)  # fmt: skip

    def _database(self) -> Dependency:
        said, output = self._said(DATABASE)
        fails, why = self._probed("connection", said=said)
        finding = None
        if fails or said:
            taken = [r for name in SLOTS for r in self.readings.series(name)]
            finding = leading(connections.diagnose(taken, {}), connections.HEALTHY)
        if finding is not None and not fails:
            fails, why = True, f"{finding.cause} {finding.name}"
        return Dependency(name="database", said=said, output=output, fails=fails, why=why, rests_on=("connection",),
                          refers_to=finding.cause if finding is not None else None)  # fmt: skip

    def _storage(self) -> Dependency:
        said, output = self._said(STORAGE)
        fails, why = self._probed("storage_clock", said=said)
        return Dependency(name="object storage", said=said, output=output, fails=fails, why=why,
                          rests_on=("storage_clock",), refers_to="V18" if fails else None)  # fmt: skip

    def _vendors(self) -> list[Dependency]:
        found = []
        for row in self.readings.rows("dependency_hosts") or []:
            host, status = str(row.get("host")), row.get("http_status")
            answered = bool(row.get("answered"))
            bad = not answered or (isinstance(status, int) and status >= 500)
            said, output = self._said(_vendor_pattern(host))
            why = str(row.get("reason") or "") if not answered else f"answered {status}"
            fails = None if row.get("code") == "URL" else bad
            found.append(Dependency(name=host, said=said, output=output, fails=fails, why=why,
                                    rests_on=("dependency_hosts",)))  # fmt: skip
        return found

    def _unknown_names(self, known: Sequence[Dependency]) -> list[str]:
        patterns = [DATABASE, REDIS, STORAGE, NO_DEPENDENCY, *(_vendor_pattern(d.name) for d in known[3:])]
        names = [str(c.get("name")) for c in self.checks if c.get("status") == "fail"]
        return [n for n in dict.fromkeys(names) if not any(p.search(n) for p in patterns)]

    def _by_name(self, name: str) -> Dependency:
        said, output = self._said(re.compile(re.escape(name)))
        return Dependency(name=name, said=said, output=output, fails=None, why="no probe of its own", rests_on=())


def _vendor_pattern(host: str) -> re.Pattern[str]:
    """A check that is called like a vendor's host, or like its domain: ``stripe`` for ``api.stripe.com``."""
    labels = [label for label in host.lower().split(".") if label not in ("api", "www", "com", "net", "org", "io")]
    words = [re.escape(label) for label in labels if len(label) > 2]
    return re.compile("|".join(words), re.IGNORECASE) if words else re.compile(r"(?!)")
