"""Causes in the database: a slow statement, waits for locks, statements in a loop, replicas, bloat.

Source of every rule: reference fault model, runbook R4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbook.diagnosis import locks
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.responses.facts import LATENCY, Facts
from runbook.diagnosis.responses.statements import (
    ACTIVITY,
    BLOCKERS,
    HEADROOM,
    SCANS,
    STATEMENTS,
    Scanned,
    Statement,
    named,
    value,
)  # fmt: skip
from runbook.diagnosis.verdict import Cause
from runbook.result import Evidence

ALREADY_GREW = 3.0
ROUND_TRIP_MS = 0.3
"""Least time on the way to a database and back: next door and over TLS."""
REPLICAS, HORIZON = "replicas", "horizon"
MIN_WAITING = 0.3
"""Sessions waiting for a lock, averaged over the looks, from which on somebody waits all the time."""


def slow_statement(facts: Facts) -> Cause:
    """L01: one statement takes the time, for want of an index or by a plan that went wrong.

    Gate: one statement has half of all time spent in SQL, between two looks at pg_stat_statements or, without it, of
    the sessions seen running. Clauses: that is a fifth of the slow requests' time (refutes otherwise); sessions run and
    do not wait for locks (refutes otherwise, L02); its mean has reached three times what it was, or it was seen running
    for half of what a request may take; it reads a large table in whole, or on statistics that are stale.
    """
    bench, database = Bench("L01", facts.readings), facts.database
    leading, on = database.leading, database.rests_on
    part = facts.part_of(leading)
    table, stale = database.read_whole(leading), database.stale(leading)
    slower = _slower(facts, leading)
    unseen = leading is None and database.statements is not None
    return Cause(
        id="L01",
        name="slow statement or plan",
        applicable=database.configured,
        gate=facts.gate(bench, "statement", "of the time spent in SQL, that of one statement",
                        None if lock_share(facts) is None else 0.0 if unseen else leading.share
                        if leading is not None else None, share=True,
                        at_least=facts.limits.statement_share, rests_on=on, reason=_not_told(facts)),
        clauses=(
            bench.weigh("part", "of the slow requests' time, that statement's", part, share=True,
                        at_least=facts.limits.material_share, otherwise="refutes", rests_on=(*on, LATENCY),
                        reason=_no_part(facts)),
            _not_locks(bench, facts),
            slower.at(bench, on),
            bench.fact("plan", "it reads a large table in whole, or on stale statistics",
                       None if leading is None or database.scanned is None else table is not None or stale is not None,
                       value=_plan(table, stale), rests_on=(SCANS,)),
        ),
        share=0.0 if _waits(facts) else _share(facts, part, slower=slower.holds),
        details=_statement_details(facts, leading, table) if leading is not None else {},
    )  # fmt: skip


class _Slower:
    """Whether a statement has become slower, or is slow by itself."""

    def __init__(self, label: str, shown: Any, *, holds: bool | None, reason: str = "") -> None:
        self.label, self.shown, self.holds, self.reason = label, shown, holds, reason

    def at(self, bench: Bench, on: tuple[str, ...]) -> Evidence:
        return bench.fact("slower", self.label, self.holds, value=self.shown, rests_on=on, reason=self.reason)


def _slower(facts: Facts, leading: Statement | None) -> _Slower:
    times, half = facts.limits.mean_ratio, facts.limits.threshold_ms / 2
    if leading is None:
        return _Slower("it has become slower", None, holds=None)
    if leading.source == STATEMENTS:
        label = f"its mean is {times:g} times what it was, or half of what a request may take"
        by_itself = leading.mean_ms is not None and leading.mean_ms >= half
        ratio = leading.mean_ratio
        shown = f"{leading.mean_ms:g} ms" + (f", {ratio:g} times as before" if ratio is not None else "")
        return _Slower(label, shown, holds=by_itself or (ratio is not None and ratio >= times))
    table = facts.database.read_whole(leading)
    estimate = None
    if table is not None:  # so much time in it, so many scans: what one of them takes
        estimate = leading.milliseconds_per_second * table.seconds / table.whole_scans
    longest = max(1000 * (leading.longest_seconds or 0.0), estimate or 0.0)
    label = f"it was seen running for {half:g} ms and more, or takes so long by its scans"
    # A look catches a statement somewhere in its course: one that was seen short may be long.
    reason = f"seen for {longest:.0f} ms at most, in a sample"
    return _Slower(label, f"{longest:.0f} ms", holds=True if longest >= half else None, reason=reason)


def _waits(facts: Facts) -> bool:
    """Whether statements wait for a lock or for a standby, most of the time: then they are not slow by themselves."""
    return max(lock_share(facts) or 0.0, facts.database.waiting_for("SyncRep") or 0.0) >= 0.5


def _share(facts: Facts, part: float | None, *, slower: bool | None) -> float:
    """Its part; where only a p95 is known, half of its part in SQL, when it has become slower."""
    leading = facts.database.leading
    if part is not None or facts.slow is not None:
        return part or 0.0
    return 0.5 * leading.share if leading is not None and slower else 0.0


def _not_told(facts: Facts) -> str:
    database = facts.database
    if not database.sees_all:
        return "the diagnosing role sees only its own sessions (needs pg_monitor)"
    return "" if database.statements is not None else "neither statistics of statements nor two looks at what runs"


def _no_part(facts: Facts) -> str:
    return "only a p95 is known, not how long requests took" if facts.slow_ms_per_second is None else ""


def _not_locks(bench: Bench, facts: Facts) -> Evidence:
    share = lock_share(facts)
    return bench.fact("not_locks", "sessions run, and do not wait for locks", None if share is None else share < 0.5,
                      value=None if share is None else f"{round(100 * share)} % wait for locks", otherwise="refutes",
                      rests_on=(HEADROOM, ACTIVITY))  # fmt: skip


def lock_share(facts: Facts) -> float | None:
    """Of the sessions that are at work, those that wait for a lock; ``None`` when sessions are not known."""
    waiting, running = facts.database.lock_waiting, facts.database.running
    if waiting is None or running is None:
        return None
    return waiting / (waiting + running) if waiting else 0.0


def _plan(table: Scanned | None, stale: Any) -> str | None:
    if table is not None:
        scans = f"{table.whole_scans} scans of {table.rows_per_scan or 0:.0f} rows"
        return f"{table.relation}: {scans} in {table.seconds:.1f} s"
    if stale is not None:
        return f"{stale['relation']}: {stale['modified_since_analyze']} rows changed since its statistics"
    return None


def _statement_details(facts: Facts, leading: Statement, table: Scanned | None) -> dict[str, Any]:
    more: dict[str, Any] = {"table": table.relation, "rows_per_scan": round(table.rows_per_scan or 0)} if table else {}
    invalid = table.row.get("invalid_indexes") if table is not None else None
    if invalid:
        more["invalid_indexes"] = invalid
    return named(leading) | more


def lock_waits(facts: Facts) -> Cause:
    """L02: statements wait for locks, and are not slow by themselves. Refers to the runbook of connections (R2).

    Gate: sessions wait for a lock in the looks. Clauses: of the sessions at work half do (refutes below a fifth); what
    they wait is a fifth of the slow requests' time; the root of the wait is known.
    """
    bench, database = Bench("L02", facts.readings), facts.database
    waiting, share, tree = database.lock_waiting, lock_share(facts), database.tree
    part = None if waiting is None else facts.part_of_sql(1000 * waiting, share or 0.0)
    part = facts.not_vendors(part)
    return Cause(
        id="L02",
        name="waits for locks",
        applicable=database.configured,
        gate=facts.gate(bench, "waiting", "sessions that wait for a lock, averaged over the looks", waiting,
                        at_least=MIN_WAITING, rests_on=(HEADROOM,), reason=_not_told(facts)),
        clauses=(
            bench.weigh("share", "of the sessions at work, those that wait for a lock", share, share=True,
                        at_least=0.5, otherwise="refutes" if share is not None and share < 0.2 else "neutral",
                        rests_on=(HEADROOM, ACTIVITY)),
            bench.weigh("part", "of the slow requests' time, waits for locks", part, share=True,
                        at_least=facts.limits.material_share, rests_on=(HEADROOM, LATENCY), reason=_no_part(facts)),
            bench.fact("root", "who holds the lock is known", None if tree is None else True,
                       value=_root(tree), rests_on=(BLOCKERS,), reason="no look caught a wait"),
        ),
        share=part or (0.5 * (share or 0.0) if facts.slow is None else 0.0),
        details=_tree_details(tree) if tree is not None else {},
    )  # fmt: skip


def _root(tree: locks.Tree | None) -> str | None:
    if tree is None:
        return None
    return "a prepared transaction" if tree.root == locks.PREPARED else f"pid {tree.root}"


def _tree_details(tree: locks.Tree) -> dict[str, Any]:
    row = tree.row
    found = {
        "refers_to": tree.kind, "pid": tree.root or None, "application_name": row.get("application_name"),
        "state": row.get("state"), "waiters": len(tree.waiters), "query": str(row.get("query") or "")[:160] or None,
        "backend_start": row.get("backend_start"), "state_change": row.get("state_change"),
        "query_start": row.get("query_start"), "superuser": row.get("superuser"), "replication": row.get("replication"),
        "backend_type": row.get("backend_type"),
        "transaction_seconds": row.get("transaction_seconds"), "relation": _waited_for(tree),
    }  # fmt: skip
    return {key: item for key, item in found.items() if item is not None}


def _waited_for(tree: locks.Tree) -> Any:
    return tree.amplifier.get("relation") if tree.amplifier is not None else tree.row.get("relation")


def in_a_loop(facts: Facts) -> Cause:
    """L10: one statement is run many times for one request (N+1), each of them quick.

    Gate: ten calls a request and more, by statistics of statements or by scans of one table. Clauses: its part of all
    calls has grown three times (refutes otherwise: an application that always asks much is not slow by that); with a
    short way there and back each, its calls are a fifth of the slow requests' time (refutes otherwise); each call is
    quick, a tenth of what a request may take at most (refutes otherwise, then it is L01).
    """
    bench, database = Bench("L10", facts.readings), facts.database
    rate = facts.requests_per_second
    statement = max((s for s in database.added or []), key=lambda s: s.calls_per_second or 0, default=None)
    table = max((t for t in database.scanned or []), key=lambda t: t.index_scans + t.whole_scans, default=None)
    known = database.statements is not None and (database.added is not None or database.scanned is not None)
    if statement is not None:
        calls, grew, mean = statement.calls_per_second, statement.calls_ratio, statement.mean_ms
    elif table is not None and known:
        calls = (table.index_scans + table.whole_scans) / table.seconds
        grew = table.scans_ratio
        seen = [s for s in database.seen or [] if s.mentions(table.relation)]
        mean = sum(s.milliseconds_per_second for s in seen) / calls if calls and database.seen is not None else None
    else:
        calls, grew, mean = (0.0 if known else None), None, None
    on: tuple[str, ...] = (STATEMENTS,) if statement is not None else (SCANS, STATEMENTS)
    a_request = round(calls / rate, 1) if calls is not None and rate else None
    if a_request is not None and mean is None and calls:
        a_request = None  # how long one takes could not be read: then it may as well be L01
    # What statistics know is the time in the server: each call is a way there and back besides.
    spent = calls * (mean + ROUND_TRIP_MS) if a_request is not None and calls and mean is not None else None
    part = facts.not_vendors(facts.part(spent)) if a_request else 0.0 if calls == 0 else None
    many = a_request is not None and a_request >= facts.limits.calls_per_request
    route = facts.top("route")
    return Cause(
        id="L10",
        name="statements in a loop (N+1)",
        applicable=database.configured,
        gate=facts.gate(bench, "calls", "calls of one statement a request", a_request,
                        at_least=facts.limits.calls_per_request, rests_on=on),
        clauses=(
            bench.weigh("grew", "its part of all calls, against before", grew, at_least=ALREADY_GREW, unit="times",
                        otherwise="refutes", rests_on=on, reason="too few calls before to compare with"),
            bench.weigh("part", f"of the slow requests' time, its calls with {ROUND_TRIP_MS:g} ms on the way each",
                        part, share=True, at_least=facts.limits.material_share, otherwise="refutes",
                        rests_on=(*on, LATENCY), reason=_no_part(facts)),
            bench.weigh("quick", "time of one call", None if mean is None else round(mean, 3), unit="ms",
                        below=facts.limits.threshold_ms / 10, otherwise="refutes", rests_on=on),
        ),
        share=_share_of_loop(facts, part) if many else 0.0,
        details={"calls_per_request": a_request, "route": route.value if route is not None else None,
                 **(named(statement) if statement is not None else {"table": table.relation if table else None})}
        if many else {},
    )  # fmt: skip


def _share_of_loop(facts: Facts, part: float | None) -> float:
    """What its calls are known to take; where that matters, what is slow in the route that has most of it."""
    route = facts.top("route")
    if part is None or part < facts.limits.material_share or route is None:
        return part or 0.0
    return max(part, facts.not_vendors(route.share) or 0.0)


def replica_lag(facts: Facts) -> Cause:
    """L14: a standby is behind, and who commits waits for it.

    Gate: a standby is five seconds behind, or this server is one and is. Clause: a fifth of the running sessions wait
    for the answer of a standby; a lag that nobody waits for shows old data and slows nothing.
    """
    bench, database = Bench("L14", facts.readings), facts.database
    rows = facts.readings.rows(REPLICAS)
    worst = max(rows or [], key=_behind, default=None)
    waits = database.waiting_for("SyncRep")
    waits = 0.0 if waits is None and database.looks else waits
    part = facts.part_of_sql(1000 * (waits or 0.0) * (database.running or 0.0), waits or 0.0)
    return Cause(
        id="L14",
        name="replica lag",
        applicable=database.configured,
        gate=facts.gate(bench, "lag", "how far the worst standby is behind",
                        None if rows is None else _behind(worst) if worst is not None else 0.0, unit="s",
                        at_least=facts.limits.replica_lag_seconds, rests_on=(REPLICAS,)),
        clauses=(
            bench.weigh("waits", "of the running sessions, those that wait for a standby", waits, share=True,
                        at_least=facts.limits.material_share, otherwise="refutes", rests_on=(ACTIVITY,)),
        ),
        share=part or 0.0,
        details={"standby": worst.get("application_name"), "sync_state": worst.get("sync_state")} if worst else {},
    )  # fmt: skip


def _behind(row: Mapping[str, Any]) -> float:
    return max(value(row, "replay_seconds") or 0.0, value(row, "own_seconds") or 0.0)


def bloat(facts: Facts) -> Cause:
    """L17: dead rows that nobody can remove have to be passed over.

    Gate: of a table of the leading statement a fifth of the rows is dead, and many are. Clauses: somebody's old
    snapshot keeps them from being removed; that statement is a fifth of the slow requests' time.
    """
    bench, database = Bench("L17", facts.readings), facts.database
    leading, rows = database.leading, facts.readings.rows(SCANS)
    table = _bloated(facts)
    holder = _holder(facts)
    part = facts.part_of(leading) if table is not None else 0.0
    known = rows is not None and database.statements is not None
    percent = value(table, "dead_percent") if table is not None else 0.0
    return Cause(
        id="L17",
        name="bloat or a held snapshot",
        applicable=database.configured,
        gate=facts.gate(bench, "dead", "dead rows of a table that the leading statement reads",
                        percent if known else None, unit="%", at_least=facts.limits.dead_percent,
                        rests_on=(SCANS, *database.rests_on)),
        clauses=(
            bench.fact("held", "an old snapshot, slot or prepared transaction keeps them",
                       None if facts.readings.rows(HORIZON) is None else holder is not None,
                       value=_held(holder), rests_on=(HORIZON,)),
            bench.weigh("part", "of the slow requests' time, that of the statement that reads it", part, share=True,
                        at_least=facts.limits.material_share, otherwise="refutes",
                        rests_on=(*database.rests_on, LATENCY), reason=_no_part(facts)),
        ),
        share=part or 0.0,
        details={"table": table.get("relation"), "dead_rows": table.get("dead_rows"), "dead_percent": percent,
                 **named(leading), **({"holder": holder.get("holder"), "name": holder.get("name"),
                                       "application_name": holder.get("application_name"),
                                       "seconds": holder.get("seconds")} if holder is not None else {})}
        if table is not None else {},
    )  # fmt: skip


def _bloated(facts: Facts) -> Any:
    """The table with most dead rows of those that the leading statement reads."""
    leading, limits = facts.database.leading, facts.limits
    if leading is None:
        return None
    ill = [
        r for r in facts.readings.rows(SCANS) or []
        if (value(r, "dead_percent") or 0) >= limits.dead_percent and (value(r, "dead_rows") or 0) >= limits.dead_rows
        and leading.mentions(str(r.get("relation")))
    ]  # fmt: skip
    return max(ill, key=lambda r: value(r, "dead_rows") or 0, default=None)


def _holder(facts: Facts) -> Any:
    """Who holds the oldest snapshot, and has for a while; not somebody in the midst of a short statement."""
    rows = facts.readings.rows(HORIZON) or []
    old = [r for r in rows if r.get("holder") != "session" or (r.get("state") or "") != "active"
           or (value(r, "seconds") or 0) >= 60]  # fmt: skip
    return max(old, key=lambda r: value(r, "xmin_age") or 0, default=None)


def _held(holder: Any) -> str | None:
    if holder is None:
        return None
    return f"{holder.get('holder')} {holder.get('name')} ({holder.get('application_name') or '-'})"
