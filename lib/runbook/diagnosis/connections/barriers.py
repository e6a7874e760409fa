"""Causes that keep sessions out or waiting: lock pile-ups, limits, poolers, walsenders, growth.

Source of every rule: reference fault model, runbook R2.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from runbook.diagnosis.connections.facts import Facts, Row, seconds
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.locks import Tree
from runbook.diagnosis.verdict import Cause

LOCKS = ("blockers", "connection")
PILE_UPS = {
    "P02": "lock pile-up",
    "P02a": "lock pile-up amplified by DDL",
    "P02b": "lock pile-up behind a prepared transaction",
    "P02c": "lock pile-up behind anti-wraparound autovacuum",
}


def lock_pile_up(facts: Facts, kind: str) -> Cause:
    """P02 and its kinds: sessions queue behind a lock.

    Gate: three waiters and more behind a root of this kind. Clauses: the root is named, the wait lasts over the
    samples, and what makes the kind: a waiting strong table lock that holds up others (P02a), a prepared transaction
    that locks what is waited for (P02b), an autovacuum that cannot yield (P02c). Waiters look *active*; they are never
    slow queries.
    """
    bench, forest = Bench(kind, facts.readings), facts.forest
    trees = forest.of_kind(kind) if forest is not None else []
    tree = trees[0] if trees else None
    lasting = facts.mostly(lambda s: int(s["lock_waiting"]) >= facts.limits.blocked_sessions)
    kinds = {"P02a": _amplified, "P02b": _prepared, "P02c": _wraparound}
    own_clauses, own_details = kinds[kind](bench, facts, tree) if kind in kinds else ((), {})
    root: Row = tree.row if tree else {}
    return Cause(
        id=kind,
        name=PILE_UPS[kind],
        gate=bench.gate("blocked", "sessions that wait behind the largest root of this kind",
                        (len(tree.waiters) if tree else 0) if forest is not None else None,
                        at_least=facts.limits.blocked_sessions, rests_on=LOCKS, reason=facts.blind),
        clauses=(
            bench.fact("root", "the root is named", tree is not None if forest is not None else None,
                       value=_named(root) if tree else None, rests_on=LOCKS, reason=facts.blind),
            bench.fact("lasting", "the wait lasts over the samples", lasting, rests_on=("headroom",),
                       value=", ".join(str(s["lock_waiting"]) for s in facts.samples) + " waiting" if facts.samples
                       else None, reason=facts.blind),
            *own_clauses,
        ),
        share=_pile_up_share(facts, trees),
        details=_root_details(tree) | own_details if tree else {},
    )  # fmt: skip


def _pile_up_share(facts: Facts, trees: Sequence[Tree]) -> float:
    """Of the slots in use while slots are short; else of all who wait, since then waiting is the symptom."""
    blocked = sum(len(t.waiters) for t in trees)
    if facts.short_of_slots or facts.forest is None or not facts.forest.waiters:
        return facts.of_used(blocked + sum(1 for t in trees if t.root))
    return blocked / len(facts.forest.waiters)


def _named(row: Row) -> str:
    if not row.get("pid"):
        return "a prepared transaction (no session)"
    return f"pid {row['pid']} {row.get('application_name')} {row.get('state') or row.get('backend_type')}"


def _root_details(tree: Tree) -> dict[str, Any]:
    row = tree.row
    return {
        "pid": tree.root,
        "application_name": str(row.get("application_name") or ""),
        "role": row.get("role"),
        "state": row.get("state") or row.get("backend_type"),
        "transaction_seconds": seconds(row, "transaction_seconds"),
        "backend_start": row.get("backend_start"),
        "state_change": row.get("state_change"),
        "query_start": row.get("query_start"),
        "query": str(row.get("query") or "")[:200],
        "superuser": bool(row.get("superuser")),
        "replication": bool(row.get("replication")),
        "blocked": len(tree.waiters),
        "waiters": sorted(tree.waiters)[:50],
    }


def _amplifier_details(tree: Tree | None) -> dict[str, Any]:
    if tree is None or tree.amplifier is None:
        return {}
    row = tree.amplifier
    keys = ("pid", "application_name", "role", "relation", "mode", "backend_start", "state_change", "query_start",
            "query", "superuser", "replication")  # fmt: skip
    return {"amplifier": {k: row.get(k) for k in keys} | {"amplified": tree.amplified}}


def _amplified(bench: Bench, facts: Facts, tree: Tree | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    amplified = (tree.amplified if tree else 0) if facts.forest is not None else None
    clause = bench.weigh("amplified", "waiters that only the queued table lock holds up", amplified, at_least=3,
                         rests_on=LOCKS, reason=facts.blind)  # fmt: skip
    return (clause,), _amplifier_details(tree)


def _prepared(bench: Bench, facts: Facts, tree: Tree | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rows = facts.readings.rows("prepared")
    wanted = set()
    if tree is not None and facts.forest is not None:
        wanted = {str(facts.forest.rows[w].get("relation")) for w in tree.waiters} - {"None"}
    held = [r for r in rows or [] if not wanted or wanted & set(r.get("relations") or [])] or (rows or [])
    row = held[0] if held else None
    clause = bench.fact("gid", "a prepared transaction locks what they wait for",
                        (row is not None) if rows is not None else None, value=row["gid"] if row else None,
                        rests_on=("prepared", *LOCKS))  # fmt: skip
    details = {
        "gid": row["gid"], "owner": row.get("owner"), "database": row.get("database"),
        "age_seconds": row.get("age_seconds"), "relations": row.get("relations"),
    } if row else {}  # fmt: skip
    return (clause,), details | _amplifier_details(tree)


def _wraparound(bench: Bench, facts: Facts, tree: Tree | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    clause = bench.fact("autovacuum", "the root is an autovacuum to prevent wraparound, which does not yield",
                        (tree is not None) if facts.forest is not None else None, rests_on=LOCKS,
                        reason=facts.blind)  # fmt: skip
    return (clause,), _amplifier_details(tree)


def limit_reached(facts: Facts, kind: str) -> Cause:
    """P06 (role) and P07 (database): a CONNECTION LIMIT below max_connections is used up.

    Gate: used reaches the limit (a limit of 0 closes on purpose and does not count). Clause: the server as a whole has
    room, less than 95 % in use.
    """
    ids = {"role": ("P06", "role connection limit"), "database": ("P07", "database connection limit")}
    cause, name = ids[kind]
    bench = Bench(cause, facts.readings)
    rows = facts.readings.rows("limits") if facts.sees_all else None
    limited = [r for r in rows or [] if r["kind"] == kind and int(r["connection_limit"]) > 0]
    worst = max(limited, key=lambda r: (int(r["used"]) / int(r["connection_limit"]), int(r["used"]), r["name"]),
                default=None)  # fmt: skip
    ratio = int(worst["used"]) / int(worst["connection_limit"]) if worst else 0.0
    alone = facts.short_of_slots is False and facts.forest is not None and not facts.forest.sessions
    return Cause(
        id=cause,
        name=name,
        gate=bench.gate("used", f"used of the limit of {kind} {worst['name']}" if worst else f"{kind} limits in use",
                        ratio if rows is not None else None, at_least=1.0, rests_on=("limits", "connection"),
                        share=True, reason=facts.blind),
        clauses=(
            bench.weigh("room", "share of usable slots in use on the whole server", facts.used_share, below=0.95,
                        rests_on=("headroom",), otherwise="refutes", reason=facts.blind, share=True),
        ),
        hints=(
            bench.fact("refused", "our own role was refused at this database and let in at another",
                       facts.refused_at_database, weight=1,
                       rests_on=("connection",)),
        ) if kind == "database" else (),
        share=(1.0 if alone else facts.of_used(int(worst["used"]))) if worst else 0.0,
        details={kind: worst["name"], "limit": worst["connection_limit"], "used": worst["used"]} if worst else {},
    )  # fmt: skip


def pooler_full(facts: Facts) -> Cause:
    """P10: clients wait at PgBouncer while PostgreSQL is quiet.

    Gate: clients wait there. Clauses: the pool is used up, or paused, or the client limit is reached; the wait lasts
    beyond a second; PostgreSQL has half of its slots free.
    """
    bench = Bench("P10", facts.readings)
    pools = facts.readings.rows("pools")
    reading = facts.readings.last("pools")
    databases = {str(r["name"]): r for r in facts.readings.rows("pooler_databases") or []}
    config = {str(r["key"]): str(r["value"]) for r in facts.readings.rows("pooler_config") or []}
    waiting = [r for r in pools or [] if int(r["cl_waiting"]) > 0]
    worst = max(waiting, key=lambda r: (int(r["cl_waiting"]), str(r["database"])), default=None)
    used_up: bool | None = None
    details: dict[str, Any] = {}
    if worst is not None and databases:
        database = databases.get(str(worst["database"]), {})
        size, active = int(database.get("pool_size") or 0), int(worst["sv_active"])
        paused = bool(int(database.get("paused") or 0))
        clients = sum(int(r["cl_active"]) + int(r["cl_waiting"]) for r in pools or [])
        full = clients >= int(config.get("max_client_conn") or 0) > 0
        used_up = paused or full or active >= size > 0
        details = {"database": worst["database"], "user": worst["user"], "pool_size": size, "server_active": active,
                   "clients_waiting": int(worst["cl_waiting"]), "longest_wait_seconds": _wait(worst), "paused": paused,
                   "client_limit_reached": full}  # fmt: skip
    return Cause(
        id="P10",
        name="PgBouncer full, PostgreSQL idle",
        applicable=reading is not None and reading.state != "not_configured",
        gate=bench.gate("waiting", "clients waiting at PgBouncer",
                        sum(int(r["cl_waiting"]) for r in waiting) if pools is not None else None, at_least=1,
                        rests_on=("pools",)),
        clauses=(
            bench.fact("used_up", "the pool is used up, paused, or the client limit is reached", used_up,
                       rests_on=("pools", "pooler_databases")),
            bench.weigh("longest", "longest wait", _wait(worst) if worst is not None else None, at_least=1.0, unit="s",
                        rests_on=("pools",)),
            bench.weigh("quiet", "share of usable slots in use in PostgreSQL", facts.used_share,
                        below=facts.limits.quiet_share, rests_on=("headroom",), reason=facts.blind, share=True),
        ),
        share=1.0 if waiting else 0.0,
        details=details,
    )  # fmt: skip


def _wait(row: Row) -> float:
    return float(row.get("maxwait") or 0) + float(row.get("maxwait_us") or 0) / 1e6


def application_pool(facts: Facts) -> Cause:
    """P11: the application's own pool is used up.

    Gate: pool time-outs in the application's log within the window. Clauses: PostgreSQL is quiet (refutes otherwise:
    then the pool is empty because the database is the matter), and so is PgBouncer where there is one.
    """
    bench = Bench("P11", facts.readings)
    rows, reading = facts.readings.rows("app_pool"), facts.readings.last("app_pool")
    pools = facts.readings.rows("pools")
    waiters = facts.mostly(lambda s: int(s["lock_waiting"]) >= facts.limits.blocked_sessions)
    busy = None if facts.short_of_slots is None or waiters is None else bool(facts.short_of_slots or waiters)
    quiet_pooler = sum(int(r["cl_waiting"]) for r in pools) == 0 if pools is not None else None
    configured = (pooler := facts.readings.last("pools")) is not None and pooler.state != "not_configured"
    count = sum(int(r.get("timeouts") or 0) for r in rows) if rows is not None else None
    top = max(rows or [], key=lambda r: int(r.get("timeouts") or 0), default={})
    unseen = "time-outs are logged, and whether PostgreSQL is quiet could not be seen" if count and busy is None else ""
    return Cause(
        id="P11",
        name="application-side pool used up",
        applicable=reading is not None and reading.state != "not_configured",
        gate=bench.gate("timeouts", "pool time-outs in the application's log within the window",
                        None if unseen else count, at_least=facts.limits.pool_timeouts, rests_on=("app_pool",),
                        reason=unseen),
        clauses=(
            bench.fact("quiet", "PostgreSQL quiet: slots free, no pile-up", None if busy is None else not busy,
                       value=facts.used_percent[-1] if facts.used_percent else None, unit="%",
                       rests_on=("headroom",), otherwise="refutes", reason=facts.blind),
            *((bench.fact("pooler", "nobody waits at PgBouncer", quiet_pooler, rests_on=("pools",),
                          otherwise="refutes"),) if configured else ()),
        ),
        share=1.0 if count else 0.0,
        details={"pattern": top.get("pattern"), "timeouts": count, "last": top.get("last"), "log": top.get("log")}
        if count else {},
    )  # fmt: skip


def genuine_growth(facts: Facts, *, others: bool | None) -> Cause:
    """P12: nothing is wrong but that there is more of everything.

    Gate: the peak of sessions has grown for weeks (history of the metrics server). Clause: slots are short and no other
    cause is found; ``others`` is ``None`` when one of them could not be checked.
    """
    bench = Bench("P12", facts.readings)
    reading, row = facts.readings.last("trend"), facts.readings.row("trend")
    growth = float(row["weekly_growth"]) if row and row.get("weekly_growth") is not None else None
    levels = facts.used_percent
    return Cause(
        id="P12",
        name="genuine growth",
        applicable=reading is not None and reading.state != "not_configured",
        gate=bench.gate("trend", "growth of the weekly peak of sessions, median of the weeks", growth, at_least=0.05,
                        rests_on=("trend",)),
        clauses=(
            bench.fact("alone", "slots are short and no other cause is found",
                       None if facts.short_of_slots is None or others is None else facts.short_of_slots and not others,
                       rests_on=("headroom",), otherwise="refutes", reason=facts.blind),
        ),
        share=1.0 if others is False else 0.0,
        details={"weekly_growth": growth, "median_percent": median(levels)} if growth and levels else {},
    )  # fmt: skip


def walsenders_used_up(facts: Facts) -> Cause:
    """P13: only replication is refused.

    Gate: walsenders reach ``max_wal_senders``. Clauses: a replication start-up is refused for it, and ordinary connects
    are not (refutes otherwise).
    """
    bench, sample = Bench("P13", facts.readings), facts.headroom
    limit = int(sample["max_wal_senders"]) if sample else 0
    count = int(sample["walsenders"]) if sample else None
    startup = facts.readings.row("replication_startup")
    asked = facts.readings.last("replication_startup") is not None
    refused = bool(startup["refused"]) and startup["code"] == "53300" if startup else None
    return Cause(
        id="P13",
        name="max_wal_senders used up",
        gate=bench.gate("walsenders", f"walsenders of {limit} allowed", count, at_least=max(1, limit),
                        rests_on=("headroom", "connection"), reason=facts.blind),
        clauses=(
            bench.fact("refused", "a replication start-up is refused for want of a walsender",
                       refused if asked else None, rests_on=("replication_startup",)),
            bench.fact("only", "ordinary connects are let in",
                       None if facts.refused_for_slots is None else not facts.refused_for_slots,
                       rests_on=("connection",), otherwise="refutes"),
        ),
        share=1.0 if sample and limit and count == limit else 0.0,
        details={"walsenders": count, "limit": limit} if count else {},
    )  # fmt: skip
