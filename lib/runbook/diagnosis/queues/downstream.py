"""What the jobs call, and what tells of it that it is slow: their reasons, our own calls, its own runbook, the log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.diagnosis import connections
from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.verdict import found
from runbook.result import Verdict

if TYPE_CHECKING:
    from runbook.diagnosis.queues.facts import Facts

DATABASE = "database"
PING = "redis_ping"
LOG = "the log"
_NAMES: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in (
        ("Mux", r"\bmux\b|mux\.com"),
        ("Cloudflare Stream", r"cloudflarestream|cloudflare stream|videodelivery\.net|api\.cloudflare\.com"),
        ("Stripe", r"\bstripe"),
        (DATABASE, r"prisma|postgres|psycopg|\bP(?:10\d\d|20\d\d)\b|\b(?:53300|57014|55P03|40P01|57P0[123])\b|"
                   r"statement timeout|lock timeout|connection pool|\bdatabase\b"),
        ("object storage", r"\bs3\b|amazonaws|r2\.cloudflarestorage|\bbucket\b|SlowDown|RequestTimeout\b|minio"),
        ("Redis", r"\bredis\b|ioredis"),
    )
}  # fmt: skip
_HOST = re.compile(
    r"(?i)\b(?:(?:ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN)[ :]+|https?://)([a-z0-9][a-z0-9.-]+\.[a-z]{2,})"
)
CALLS: Mapping[str, str] = {
    "mux_assets": "Mux",
    "stream_token": "Cloudflare Stream",
    "storage_clock": "object storage",
    "headroom": DATABASE,
}
"""Readings that are one small call of a dependency, timed by us."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A dependency that is told of, and by what."""

    name: str
    told_by: str


def named_in(texts: Iterable[str]) -> str | None:
    """The dependency that most of these texts name; a host as it stands where it is none that we know."""
    counted: Counter[str] = Counter()
    for text in texts:
        known = next((name for name, pattern in _NAMES.items() if pattern.search(text)), None)
        host = _HOST.search(text)
        if known or host:
            counted[known or (host[1] if host else "")] += 1
    return min(counted, key=lambda name: (-counted[name], name)) if counted else None


def names(facts: Facts) -> list[Named]:
    """Dependencies that are told to be slow, the best told first.

    By the jobs themselves, by a measurement, last by the log: who wrote a line of it may not be a job.
    """
    told = [
        (named_in(str(row.get("reason")) for row in facts.failing_rows or []), "reasons of failed jobs"),
        *slow_calls(facts),
    ]
    finding = database(facts)
    if finding is not None:
        told.append((DATABASE, f"{finding.cause} {finding.name}"))
    told.append((named_in(_logged(facts.readings)), LOG))
    found_: dict[str, str] = {}
    for name, how in told:
        if name:
            found_.setdefault(name, how)
    return [Named(name=name, told_by=how) for name, how in found_.items()]


def _logged(readings: Readings) -> list[str]:
    """Lines of the log about something that is slow or does not answer, as often as they were seen (at most 50)."""
    return [str(row.get("sample") or row.get("pattern")) for row in readings.rows("queue_log") or []
            for _ in range(min(50, int(number(row, "count"))))]  # fmt: skip


def slow_calls(facts: Facts) -> list[tuple[str, str]]:
    """Dependencies whose small call took us long, or did not end in time; none where everything takes us long.

    What Redis took to answer PING, and the calls of the others, tell whether it is we who are slow. Of several calls
    the fastest counts.
    """
    took = {
        name: min(r.duration_ms for r in series) / 1000
        for name in (*CALLS, PING)
        if (series := [r for r in facts.readings.series(name) if r.state != "not_configured"])
    }
    limit = facts.limits.slow_call_seconds
    slow = [name for name, seconds in took.items() if seconds >= limit]
    if took.get(PING, 0.0) >= limit / 4 or 2 * len(slow) > len(took):
        return []
    return [(CALLS[name], f"our own call took {took[name]:.1f} s") for name in slow]


def database(facts: Facts) -> Verdict | None:
    """What the rules of the connection runbook find on these readings, if anything."""
    if not facts.asked("headroom"):
        return None
    taken = [r for name in _DATABASE_READINGS for r in facts.readings.series(name)]
    verdicts = connections.diagnose(taken, {}).verdict
    return next((v for v in verdicts if found(v.tier) and v.cause != "P00"), None)


_DATABASE_READINGS = ("connection", "headroom", "activity", "sessions", "blockers")
