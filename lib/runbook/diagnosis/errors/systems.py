"""What the application's own log, the database and the health endpoints say about the failing requests.

An error line of the log stands for at most one failing request. Whether the database is short of connections is told by
the rules of the connection runbook, on the same readings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from runbook.diagnosis import connections
from runbook.diagnosis.connections.facts import Facts as Slots
from runbook.diagnosis.connections.limits import Limits as SlotLimits
from runbook.diagnosis.errors.facts import REQUESTS, Facts, Row, count
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import found
from runbook.result import Evidence, Verdict

LOG = "app_errors"
Kind = Literal["redis", "connections", "down", "read_only", "full", "auth", "schema", "disk", "memory", "tls"]
KINDS: Mapping[Kind, re.Pattern[str]] = {
    "redis": re.compile(r"(?i)redis|MISCONF|NOAUTH|WRONGPASS|OOM command|\bREADONLY\b|\bLOADING\b|max number of c"),
    "connections": re.compile(r"(?i)53300|P2024|P2037|\bpool|too many (?:clients|connections)|connection slots"),
    "read_only": re.compile(r"(?i)25006|read-only transaction"),
    "full": re.compile(r"53100"),
    "auth": re.compile(r"(?i)28P01|28000|P1000|P1010|password authentication failed"),
    "down": re.compile(r"(?i)57P0[123]|080(?:00|01|03|04|06)|P1001|P1002|P1017|(?:postgres|database).*refused"),
    "schema": re.compile(r"42703|42P01|42883|P2021|P2022"),
    "tls": re.compile(r"(?i)certificate|\bCERT_|self.signed"),
    "disk": re.compile(r"(?i)ENOSPC|no space left|EDQUOT|ENOINODE"),
    "memory": re.compile(r"(?i)\bOOM|out of memory|heap limit|ENOMEM|exit(?: code)? 137"),
}  # fmt: skip
"""What a pattern of the ``app_errors`` reading speaks of; the first that fits."""

ANSWERED_NO = frozenset({"ECONNREFUSED", "ENOENT", "57P01", "57P02", "57P03"})
"""Codes with which a database itself, or its host, says that it does not serve."""


def any_sign(signs: Sequence[bool | None]) -> bool | None:
    """Whether any of several signs is there; ``None`` when none is and one is unknown, or there is none to ask."""
    if any(signs):
        return True
    return None if not signs or None in signs else False


def is_configured(facts: Facts, name: str) -> bool:
    """Whether a reading could be had; one that was not taken at all could have been."""
    reading = facts.readings.last(name)
    return reading is None or reading.state != "not_configured"


@dataclass(frozen=True)
class Log:
    """Error lines of the application's log, by what they speak of."""

    facts: Facts

    @cached_property
    def configured(self) -> bool:
        return is_configured(self.facts, LOG)

    @cached_property
    def rows(self) -> list[dict[str, Any]] | None:
        return self.facts.readings.rows(LOG)

    def of(self, *kinds: Kind) -> list[Row]:
        """Rows that speak of one of these."""
        return [r for r in self.rows or [] if kind_of(r) in kinds and lines(r) > 0]

    def lines(self, *kinds: Kind) -> int | None:
        """Lines in the rate window that speak of one of these; ``None`` when the log is unknown."""
        return None if self.rows is None else sum(lines(r) for r in self.of(*kinds))

    def has(self, *kinds: Kind) -> bool | None:
        """Whether there are more than a chance few of such lines."""
        seen = self.lines(*kinds)
        return None if seen is None else seen >= self.facts.limits.min_lines

    def share(self, *kinds: Kind) -> float | None:
        """Such lines as a share of the failing requests, 0–1."""
        seen = self.lines(*kinds)
        return None if seen is None or not self.facts.errors else min(1.0, seen / self.facts.errors)

    def leading(self, *kinds: Kind) -> Row | None:
        """The most frequent such row."""
        return max(self.of(*kinds), key=lambda r: (lines(r), str(r.get("pattern"))), default=None)

    def details(self, *kinds: Kind) -> dict[str, Any]:
        """The most frequent such row as it stands in a verdict."""
        row = self.leading(*kinds)
        if row is None:
            return {}
        shown = {"pattern": row.get("pattern"), "lines": self.lines(*kinds), "last": row.get("last"),
                 "log": row.get("log"), "sample": str(row.get("sample") or "")[:200]}  # fmt: skip
        return {k: v for k, v in shown.items() if v}


def lines(row: Row) -> int:
    """Lines of a pattern in the rate window; where the log was read over a longer one only, in that."""
    return count(row, "recent" if row.get("recent") is not None else "count")


def kind_of(row: Row) -> Kind | None:
    """What a row of the log's error patterns speaks of."""
    pattern = str(row.get("pattern") or "")
    return next((kind for kind, known in KINDS.items() if known.search(pattern)), None)


@dataclass(frozen=True)
class Database:
    """The database as the connection runbook's rules see it."""

    facts: Facts

    @cached_property
    def slots(self) -> Slots:
        return Slots(self.facts.readings, SlotLimits())

    @cached_property
    def configured(self) -> bool:
        return is_configured(self.facts, "connection")

    @cached_property
    def finding(self) -> Verdict | None:
        """The main finding of the connection runbook on these readings, if any."""
        if not self.configured:
            return None
        taken = [r for name in _SLOT_READINGS for r in self.facts.readings.series(name)]
        verdicts = connections.diagnose(taken, {}).verdict
        return next((v for v in verdicts if found(v.tier) and v.cause != "P00"), None)

    @cached_property
    def refused(self) -> bool | None:
        """Whether the server refuses ordinary roles for want of a connection slot."""
        return self.slots.refused_for_slots

    @cached_property
    def short(self) -> bool | None:
        """Whether connections are short: slots used up, a limit reached, clients waiting at the pooler."""
        if self.refused or self.finding is not None:
            return True
        return self.slots.short_of_slots

    @cached_property
    def not_serving(self) -> bool | None:
        """Whether the server, or its host, says that it does not serve; silence is unknown, since it may be our way."""
        reading = self.facts.readings.last("connection")
        if reading is None:
            return None
        if reading.known or reading.code == "53300":  # full, so it serves those whom it has let in
            return False
        return True if reading.code in ANSWERED_NO else None

    @cached_property
    def read_only(self) -> bool | None:
        """Whether the database takes no writes: a standby, or read-only by default for somebody."""
        row = self.facts.readings.row("database_state")
        if row is None:
            return None
        return bool(row.get("standby")) or str(row.get("read_only")).lower() == "on" or bool(row.get("read_only_for"))

    @cached_property
    def unhealthy(self) -> Row | None:
        return failing_check(self.facts, re.compile(r"(?i)database|postgres|prisma|\bdb\b|sql"))


_SLOT_READINGS = (
    "connection", "headroom", "activity", "sessions", "blockers", "prepared", "limits", "churn", "sessions_after",
    "pools", "pooler_databases", "pooler_config",
)  # fmt: skip


def failing_check(facts: Facts, name: re.Pattern[str]) -> Row | None:
    """The failing component of that name that a health endpoint reports."""
    for row in facts.readings.rows("health") or []:
        for check in row.get("checks") or []:
            if name.search(str(check.get("name"))) and check.get("status") == "fail":
                return {"name": check.get("name"), "output": str(check.get("output") or "")[:200],
                        "instance": row.get("instance")}  # fmt: skip
    return None


def sign_gate(
    bench: Bench,
    facts: Facts,
    label: str,
    *,
    logged: bool | None,
    seen: bool | None,
    value: Any,
    rests_on: Sequence[str],
) -> Evidence:
    """A gate that the application's log or our own look at a system opens.

    While the traffic is too little to judge, only our own look counts. ``logged`` and ``seen`` are ``None`` when
    unknown; a source that is not configured is left out by the caller through ``rests_on``.
    """
    if facts.splittable is None:
        holds = True if seen else None
        reason = facts.why_not or bench.readings.why_unknown((REQUESTS,))
        return bench.fact("signs", label, holds, value=value if holds else None, rests_on=rests_on, reason=reason)
    if not facts.splittable:
        return facts.gate(bench, "signs", label, None, rests_on=rests_on)
    signs = [s for s, name in ((logged, LOG), (seen, "")) if not name or name in rests_on]
    holds = any_sign(signs)
    return bench.fact("signs", label, holds, value=value if holds else None, rests_on=rests_on, otherwise="refutes")
