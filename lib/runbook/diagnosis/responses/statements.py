"""What the database spends its time on: statements, tables and waits, between two looks or over several samples.

With pg_stat_statements what was added between two looks counts; without it the sessions that were seen running tell how
the time is shared out, and the server's own count of it, from version 14 on, how much it is. Neither knows a
percentile. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from statistics import fmean
from typing import Any

from runbook.diagnosis import locks
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses.limits import Limits
from runbook.result import Reading

Row = Mapping[str, Any]

STATEMENTS, ACTIVITY, SCANS, HEADROOM, BLOCKERS = "statements", "activity", "scans", "headroom", "blockers"
CHURN = "churn"
MIN_SECONDS = 0.1
MIN_LOOKS = 2
"""One look at running sessions is no sample."""
UNSEEN = 200.0
"""Time in SQL, milliseconds a second, that looks at running sessions must not miss altogether."""
MIN_CALLS = 5
"""A mean of fewer calls than these is no mean."""
COMPLETE = 1000
"""A list of statements that is as long as this may have left some out."""
_OWN = re.compile(r"(?i)\b(?:pg_stat_|pg_catalog\.|pg_class\b|pg_locks\b|pg_settings\b|pg_database\b|pg_extension\b)")
_WORD = re.compile(r'"([^"]+)"|([A-Za-z_][A-Za-z0-9_$]*)')


def value(row: Row | None, key: str) -> float | None:
    """A number of a row, also where it came as text; ``None`` when it is not known."""
    found = (row or {}).get(key)
    if isinstance(found, bool) or found is None:
        return None
    try:
        return float(found)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement, as far as it was seen."""

    query_id: str | None
    query: str
    #: Of all time spent in SQL, 0–1.
    share: float
    #: Time in it in a second of the clock, milliseconds.
    milliseconds_per_second: float
    calls_per_second: float | None = None
    mean_ms: float | None = None
    #: Its mean before this run looked; ``None`` when there is no such.
    earlier_mean_ms: float | None = None
    #: Blocks a call now, as a multiple of before.
    blocks_ratio: float | None = None
    #: Its part of all calls now, as a multiple of its part before.
    calls_ratio: float | None = None
    longest_seconds: float | None = None
    source: str = STATEMENTS

    @property
    def mean_ratio(self) -> float | None:
        """Its mean as a multiple of before."""
        if self.mean_ms is None or not self.earlier_mean_ms:
            return None
        return round(self.mean_ms / self.earlier_mean_ms, 1)

    def mentions(self, relation: str) -> bool:
        """Whether its text has that relation's name in it."""
        return bare(relation).lower() in {(quoted or plain).lower() for quoted, plain in _WORD.findall(self.query)}


def bare(relation: str) -> str:
    """The name of a relation without its schema and quotes."""
    return relation.rpartition(".")[2].strip('"') if not relation.endswith('"') else relation.split('"')[-2]


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What happened to one table between two looks."""

    relation: str
    row: Row
    seconds: float
    whole_scans: int
    rows_read: int
    index_scans: int
    #: Its part of all scans now, as a multiple of its part before.
    scans_ratio: float | None = None

    @property
    def rows_per_scan(self) -> float | None:
        return self.rows_read / self.whole_scans if self.whole_scans else None


@dataclass(frozen=True)
class Database:
    """The database as this run saw it."""

    readings: Readings
    limits: Limits

    @cached_property
    def configured(self) -> bool:
        """Whether there is a database to be asked."""
        taken = [r for n in ("connection", HEADROOM) if (r := self.readings.last(n)) is not None]
        return any(r.state != "not_configured" for r in taken)

    @cached_property
    def sees_all(self) -> bool:
        """Whether other people's sessions are seen; if not, no count of them is known."""
        row = self.readings.row("connection")
        hidden = any(value(s, "hidden_rows") for s in self.readings.samples(HEADROOM))
        return row is None or (bool(row.get("sees_all", True)) and not hidden)

    # -- statements ---------------------------------------------------------------------------------------------------

    @cached_property
    def added(self) -> list[Statement] | None:
        """Statements by the time that they added between the first and the last look, the most first."""
        looks = [
            r for r in self.readings.series(STATEMENTS) if r.known and r.rows and "total_milliseconds" in r.rows[0]
        ]
        if len(looks) < MIN_LOOKS or not self.sees_all:
            return None
        first, last = looks[0], looks[-1]
        seconds = _between(first.rows[0].get("at"), last.rows[0].get("at"))
        if seconds is None or seconds < MIN_SECONDS:
            return None
        before = {_key(r): r for r in first.rows}
        added: list[tuple[Row, Row | None, float, float]] = []
        for row in last.rows:
            earlier = before.get(_key(row))
            if earlier is None and len(first.rows) >= COMPLETE:
                continue
            calls = (value(row, "calls") or 0) - (value(earlier, "calls") or 0)
            spent = (value(row, "total_milliseconds") or 0) - (value(earlier, "total_milliseconds") or 0)
            if calls < 0 or spent < 0:
                return None  # the statistics were reset between the looks
            if calls and not _OWN.search(str(row.get("query") or "")):
                added.append((row, earlier, calls, spent))
        whole = sum(spent for *_, spent in added)
        all_calls = sum(calls for _, _, calls, _ in added)
        earlier_calls = sum(value(r, "calls") or 0 for r in first.rows if not _OWN.search(str(r.get("query") or "")))
        made = [_statement(*one, whole, all_calls, earlier_calls, seconds) for one in added]
        return sorted(made, key=lambda s: (-s.milliseconds_per_second, s.query_id or ""))

    @cached_property
    def looks(self) -> list[Reading]:
        """Samples of what sessions run."""
        return [r for r in self.readings.series(ACTIVITY) if r.known] if self.sees_all else []

    @cached_property
    def seen(self) -> list[Statement] | None:
        """Statements by how many sessions were seen in them, the most first; ``None`` with too few looks."""
        if len(self.looks) < MIN_LOOKS:
            return None
        sessions: dict[tuple[str, str], float] = defaultdict(float)
        longest: dict[tuple[str, str], float] = defaultdict(float)
        for row in (row for look in self.looks for row in look.rows):
            query = str(row.get("query") or "")
            if _OWN.search(query):
                continue
            identity = str(row.get("query_id") or ""), "" if row.get("query_id") else query
            sessions[identity] += value(row, "sessions") or 0
            longest[identity] = max(longest[identity], value(row, "longest_seconds") or 0)
        texts = {str(r.get("query_id")): str(r.get("query") or "") for look in self.looks for r in look.rows}
        whole = sum(sessions.values())
        counted = self.counted
        if not whole and (counted or 0.0) >= UNSEEN:
            return None  # the looks fell between the statements
        spent = max(1000 * whole / len(self.looks), counted or 0.0)
        made = [
            Statement(
                query_id=identity or None, query=text or texts.get(identity, ""), share=round(count / whole, 3),
                milliseconds_per_second=spent * count / whole, longest_seconds=longest[identity, text],
                source=ACTIVITY,
            )
            for (identity, text), count in sessions.items()
        ]  # fmt: skip
        return sorted(made, key=lambda s: (-s.milliseconds_per_second, s.query_id or s.query))

    @cached_property
    def counted(self) -> float | None:
        """Time in SQL by the server's own count, ms a second, waits for locks apart; ``None`` before version 14.

        A statement that goes on is not in it yet.
        """
        looks = self.readings.samples(CHURN)
        if len(looks) < MIN_LOOKS:
            return None
        first, last = value(looks[0], "active_milliseconds"), value(looks[-1], "active_milliseconds")
        seconds = _between(looks[0].get("at"), looks[-1].get("at"))
        if first is None or last is None or last < first or not seconds or seconds < MIN_SECONDS:
            return None
        return max(0.0, (last - first) / seconds - 1000 * (self.lock_waiting or 0.0))

    @cached_property
    def statements(self) -> list[Statement] | None:
        """By the server's own statistics, else by what was seen running: a call that goes on is in no statistic."""
        reading = self.readings.last(STATEMENTS)
        if reading is not None and not reading.known and reading.state != "not_configured":
            return None  # there are statistics, and they could not be read: an estimate may say something else
        return self.added if self.added or self.seen is None else self.seen

    @cached_property
    def rests_on(self) -> tuple[str, ...]:
        """The readings that the statements come from."""
        return (STATEMENTS,) if self.added else (ACTIVITY, STATEMENTS)

    @cached_property
    def leading(self) -> Statement | None:
        """The statement with most of the time; ``None`` when none was seen or nothing is known."""
        return self.statements[0] if self.statements else None

    @cached_property
    def milliseconds_per_second(self) -> float | None:
        """Time in SQL in a second of the clock; by the sessions seen running where statistics are missing."""
        return None if self.statements is None else sum(s.milliseconds_per_second for s in self.statements)

    # -- tables -------------------------------------------------------------------------------------------------------

    @cached_property
    def scanned(self) -> list[Scanned] | None:
        """Tables by the rows that were read of them in whole between two looks."""
        looks = [r for r in self.readings.series(SCANS) if r.known and r.rows and "seq_tup_read" in r.rows[0]]
        if len(looks) < MIN_LOOKS:
            return None
        first, last = looks[0], looks[-1]
        seconds = _between(first.rows[0].get("at"), last.rows[0].get("at"))
        if not seconds:
            return None
        before = {str(r["relation"]): r for r in first.rows}
        rows = [r for r in last.rows if str(r["relation"]) in before]
        deltas = [(r, before[str(r["relation"])]) for r in rows]
        all_now, all_before = sum(_scans(r) - _scans(b) for r, b in deltas), sum(_scans(b) for _, b in deltas)
        found = [
            Scanned(
                relation=str(row["relation"]), row=row, seconds=seconds, whole_scans=_delta(row, old, "seq_scan"),
                rows_read=_delta(row, old, "seq_tup_read"), index_scans=_delta(row, old, "idx_scan"),
                scans_ratio=_part_ratio(_scans(row) - _scans(old), all_now, _scans(old), all_before),
            )
            for row, old in deltas
        ]  # fmt: skip
        return sorted(found, key=lambda s: (-s.rows_read, s.relation))

    def read_whole(self, statement: Statement | None) -> Scanned | None:
        """The large table that this statement reads in whole, again and again."""
        for table in self.scanned or []:
            large = table.rows_per_scan is not None and table.rows_per_scan >= self.limits.scan_rows
            if large and statement is not None and statement.mentions(table.relation):
                return table
        return None

    def stale(self, statement: Statement | None) -> Row | None:
        """A table of this statement whose statistics the planner should not trust any more."""
        for row in self.readings.rows(SCANS) or []:
            changed, live = value(row, "modified_since_analyze") or 0, value(row, "live_rows") or 0
            mentioned = statement is not None and statement.mentions(str(row.get("relation")))
            if mentioned and changed >= max(self.limits.scan_rows, 0.2 * live):
                return row
        return None

    # -- waits --------------------------------------------------------------------------------------------------------

    @cached_property
    def busy(self) -> list[Row]:
        """Samples of how many sessions run and wait."""
        return list(self.readings.samples(HEADROOM)) if self.sees_all else []

    @cached_property
    def lock_waiting(self) -> float | None:
        """Sessions that wait for a lock, averaged over the samples."""
        return fmean(value(s, "lock_waiting") or 0 for s in self.busy) if self.busy else None

    @cached_property
    def running(self) -> float | None:
        """Sessions that run a statement and wait for no lock, ours apart, averaged over the samples."""
        if not self.looks:
            return None
        return fmean(sum(value(row, "sessions") or 0 for row in look.rows) for look in self.looks)

    def waiting_for(self, *kinds: str) -> float | None:
        """Of the sessions seen running, those in a wait of this type, or of this event; ``None`` when none ran."""
        rows = [row for look in self.looks for row in look.rows]
        whole = sum(value(r, "sessions") or 0 for r in rows)
        wanted = [r for r in rows if r.get("wait_event_type") in kinds or r.get("wait_event") in kinds]
        return round(sum(value(r, "sessions") or 0 for r in wanted) / whole, 3) if whole else None

    @cached_property
    def tree(self) -> locks.Tree | None:
        """The largest tree of lock waits that any look caught."""
        trees = [
            tree
            for reading in self.readings.series(BLOCKERS)
            if reading.known and reading.rows and self.sees_all
            for tree in locks.forest(reading.rows).trees[:1]
        ]
        return max(trees, key=lambda t: len(t.waiters), default=None)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(k) for k in ("query_id", "database_id", "role_id", "toplevel"))


def _between(since: Any, until: Any) -> float | None:
    try:
        return (datetime.fromisoformat(str(until)) - datetime.fromisoformat(str(since))).total_seconds()
    except (TypeError, ValueError):
        return None


def _statement(row: Row, earlier: Row | None, calls: float, spent: float, whole: float, all_calls: float,
               earlier_calls: float, seconds: float) -> Statement:  # fmt: skip
    had = value(earlier, "calls") or 0
    mean = spent / calls
    earlier_mean = (value(earlier, "total_milliseconds") or 0) / had if had >= MIN_CALLS else None
    blocks = ((value(row, "blocks") or 0) - (value(earlier, "blocks") or 0)) / calls
    earlier_blocks = (value(earlier, "blocks") or 0) / had if had >= MIN_CALLS else None
    identity = row.get("query_id")
    return Statement(
        query_id=str(identity) if identity is not None else None, query=str(row.get("query") or ""),
        share=round(spent / whole, 3) if whole else 0.0, milliseconds_per_second=spent / seconds,
        calls_per_second=calls / seconds, mean_ms=round(mean, 3),
        earlier_mean_ms=round(earlier_mean, 3) if earlier_mean is not None else None,
        blocks_ratio=round(blocks / earlier_blocks, 1) if earlier_blocks else None,
        calls_ratio=_part_ratio(calls, all_calls, had, earlier_calls),
    )  # fmt: skip


def _part_ratio(part: float, whole: float, earlier_part: float, earlier_whole: float) -> float | None:
    """A part of the whole now as a multiple of the same part before; odds, so that a large part can grow as well."""
    if earlier_whole < 100 or whole <= 0:
        return None
    odds = (part + 0.5) / (max(0.0, whole - part) + 0.5)
    before = (earlier_part + 0.5) / (max(0.0, earlier_whole - earlier_part) + 0.5)
    return round(odds / before, 2)


def _delta(row: Row, old: Row, key: str) -> int:
    return max(0, int((value(row, key) or 0) - (value(old, key) or 0)))


def _scans(row: Row) -> float:
    return (value(row, "seq_scan") or 0) + (value(row, "idx_scan") or 0)


def named(statement: Statement | None) -> dict[str, Any]:
    """What a verdict says of a statement; never a percentile."""
    if statement is None:
        return {}
    found = {
        "query_id": statement.query_id, "query": statement.query[:160],
        "share_of_sql_time": statement.share, "mean_ms": statement.mean_ms,
        "mean_ms_before": statement.earlier_mean_ms, "calls_per_second": _rounded(statement.calls_per_second),
        "seen_in": statement.source,
    }  # fmt: skip
    return {key: item for key, item in found.items() if item is not None}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)
