"""Causes behind the application: database connections, database, schema, Redis and queue, disk and memory.

Each belongs to a runbook of its own, which its details name. Source of every rule: reference fault model, runbook R1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from runbook.diagnosis import redis
from runbook.diagnosis.errors.changes import Changes
from runbook.diagnosis.errors.facts import Facts
from runbook.diagnosis.errors.systems import LOG, Database, Kind, Log, failing_check, is_configured, sign_gate
from runbook.diagnosis.errors.vendors import explained_by_vendors
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

DOWN: tuple[Kind, ...] = ("down", "read_only", "full", "auth")
OURS = ("auth_failed", "permission_denied", "not_configured", "timeout")
"""States that speak of our way in and not of what the application meets."""
_REDIS_CHECK = re.compile(r"(?i)redis|cache|bull|queue")
_REDIS_CAUSES = (
    ("ECONNREFUSED", "K01"), ("TIMEOUT", "K02"), ("DNS", "K02"), ("NOAUTH", "K03"), ("WRONGPASS", "K03"),
    ("NOPERM", "K04"), ("max number of clients", "K05"), ("maxclients", "K05"), ("OOM command", "K07"),
    ("MISCONF", "K08"), ("READONLY", "K09"), ("LOADING", "K10"), ("BUSY", "K11"),
)  # fmt: skip
"""How Redis says what is wrong with it → cause of the Redis runbook. Source: reference fault model, R8."""


def _sources(log: Log, others: Sequence[str]) -> tuple[str, ...]:
    """The readings that a sign rests on, those that are not configured apart."""
    return (*((LOG,) if log.configured else ()), *others)


def _lines(bench: Bench, facts: Facts, log: Log, *kinds: Kind) -> tuple[Evidence, ...]:
    """The clause that error lines stand for enough of the failing requests; none where no log is configured."""
    if not log.configured:
        return ()
    return (
        bench.weigh("lines", "error lines that say so, of the failing requests", log.share(*kinds),
                    at_least=facts.limits.log_share, rests_on=(LOG,), share=True),
    )  # fmt: skip


def _share(facts: Facts, log: Log, *kinds: Kind) -> float:
    """Of the failing requests, by the lines of the log; without a log, what no vendor explains.

    A log that could not be read leaves it at 0, so that its loss raises nothing.
    """
    if not facts.splittable:
        return 0.0
    if log.configured:
        return log.share(*kinds) or 0.0
    return 1.0 - explained_by_vendors(facts)


def database_connections(facts: Facts) -> Cause:
    """E03: requests fail because they get no database connection.

    Gate: the log says so (SQLSTATE 53300, Prisma P2024, pool time-outs), or the server refuses us for want of a slot.
    Clauses: such lines stand for a fifth of the failing requests; the connection runbook finds connections short, or
    PostgreSQL quiet while the application's pool times out (then it is that pool). Refers to the connection runbook's
    cause.
    """
    bench, log, database = Bench("E03", facts.readings), Log(facts), Database(facts)
    logged = log.has("connections")
    pooled = re.search(r"(?i)P2024|pool", str((log.leading("connections") or {}).get("pattern", ""))) is not None
    own_pool = pooled and database.short is False
    confirmed = True if own_pool else database.short
    finding = database.finding
    names = _sources(log, ("connection",) if database.configured else ())
    value = f"{log.lines('connections')} lines" if logged else "the server refuses ordinary roles"
    return Cause(
        id="E03",
        name="database connections used up",
        applicable=bool(names),
        gate=sign_gate(bench, facts, "no database connection to be had: in the log, or refused to us", logged=logged,
                       seen=database.refused if database.configured else False, value=value,
                       rests_on=names or (LOG, "connection")),
        clauses=(
            *_lines(bench, facts, log, "connections"),
            *((bench.fact("short", "the connection runbook's rules find connections short", confirmed,
                          value=f"{finding.cause} {finding.name}" if finding is not None else None,
                          rests_on=("headroom", "connection"), reason=database.slots.blind),)
              if database.configured else ()),
        ),
        share=_share(facts, log, "connections"),
        details=log.details("connections") | _refers(finding, own_pool),
    )  # fmt: skip


def _refers(finding: Any, own_pool: bool) -> dict[str, Any]:
    if finding is not None:
        keys = ("application_name", "role", "pid", "database")
        return {"refers_to": finding.cause, "database_finding": finding.name} | {
            k: finding.details[k] for k in keys if finding.details.get(k)
        }
    return {"refers_to": "P11", "database_finding": "application-side pool used up"} if own_pool else {}


def database_down(facts: Facts) -> Cause:
    """E04: the database is down, read-only, full, or refuses the application's credentials.

    Gate: the log says so (SQLSTATE 57P03, 25006, 53100, 28P01 and their like), the server tells us that it does not
    serve, it takes no writes, or a health endpoint reports it as failing. Clauses: such lines stand for a fifth of the
    failing requests; our own look confirms it (not to be had for a full disk or a refused password).
    """
    bench, log, database = Bench("E04", facts.readings), Log(facts), Database(facts)
    kind = _down_kind(log, database)
    unhealthy = database.unhealthy is not None and not database.short
    own = [database.not_serving, unhealthy] if database.configured else [unhealthy]
    names = _sources(log, ("connection",) if database.configured else ())
    seen = True if any(own) else (False if None not in own else None)
    confirmed = database.read_only if kind == "read_only" else seen
    own_clause = bench.fact("now", "it is so now, as we see it ourselves", confirmed, value=_own_words(database),
                            rests_on=("connection", "database_state", "health"))  # fmt: skip
    return Cause(
        id="E04",
        name="database down, read-only, full or refusing",
        applicable=bool(names),
        gate=sign_gate(bench, facts, "the database does not serve: in the log, or as it tells us",
                       logged=log.has(*DOWN), seen=seen, rests_on=names or (LOG, "connection"),
                       value=f"{log.lines(*DOWN)} lines" if log.has(*DOWN) else _own_words(database)),
        clauses=(
            *_lines(bench, facts, log, *DOWN),
            *((own_clause,) if kind in ("down", "read_only", None) and database.configured else ()),
        ),
        share=_share(facts, log, *DOWN),
        details={"kind": kind} | log.details(*DOWN) | _read_only_for(database) if kind else {},
    )  # fmt: skip


def _down_kind(log: Log, database: Database) -> Kind | None:
    found: list[Kind] = [kind for kind in DOWN if log.has(kind)]
    if found:
        return max(found, key=lambda k: (log.lines(k) or 0, k))
    return "down" if database.not_serving else None


def _own_words(database: Database) -> str | None:
    if database.not_serving:
        reading = database.facts.readings.last("connection")
        return reading.reason or reading.code if reading is not None else None
    if database.read_only:
        return "takes no writes"
    return f"health: {database.unhealthy['name']} fails" if database.unhealthy is not None else None


def _read_only_for(database: Database) -> dict[str, Any]:
    row = database.facts.readings.row("database_state") or {}
    return {"read_only_for": row["read_only_for"]} if row.get("read_only_for") else {}


def schema_drift(facts: Facts, changes: Changes) -> Cause:
    """E05: code and schema do not fit: a column or table is missing.

    Gate: SQLSTATE 42703 or 42P01 in the log (Prisma P2021, P2022). Clause: such lines stand for a fifth of the failing
    requests. Hints: a migration between the two newest deployments, a change near the onset.
    """
    bench, log = Bench("E05", facts.readings), Log(facts)
    compare = facts.readings.row("compare")
    migrations = list(compare.get("migrations") or []) if compare else []
    near = changes.near([*(changes.rollouts or []), *(changes.others or [])], changes.onset)
    has_log = log.has("schema")
    return Cause(
        id="E05",
        name="schema drift",
        applicable=log.configured,
        gate=sign_gate(bench, facts, "missing columns or tables in the log", logged=has_log, seen=False,
                       value=f"{log.lines('schema')} lines", rests_on=(LOG,)),
        clauses=_lines(bench, facts, log, "schema"),
        hints=(
            bench.fact("migration", "a migration came with the last deployment",
                       bool(migrations) if compare is not None else None, value=", ".join(migrations[:3]) or None,
                       rests_on=("compare",), weight=WEAK),
            bench.fact("change", "a change just before the onset",
                       near is not None if changes.deployments is not None else None,
                       value=near.what if near is not None else None, rests_on=("deployments",), weight=WEAK),
        ),
        share=(log.share("schema") or 0.0) if facts.splittable and log.configured else 0.0,
        details=log.details("schema") | ({"migrations": migrations[:5]} if migrations else {}) if has_log else {},
    )  # fmt: skip


def redis_or_queue(facts: Facts) -> Cause:
    """E14: Redis or the queue behind it fails requests.

    Gate: Redis errors in the log, Redis itself says no, or a health endpoint reports it as failing. Clauses: such lines
    stand for a fifth of the failing requests; it is so now, as we see it ourselves. Refers to runbooks R8 and R9.
    """
    bench, log = Bench("E14", facts.readings), Log(facts)
    configured = is_configured(facts, "redis_ping")
    answer, check = _redis_answer(facts), failing_check(facts, _REDIS_CHECK)
    own = [answer is not None if facts.readings.known("redis_ping") or answer else None] if configured else []
    seen = True if any([*own, check is not None]) else (None if None in own else False)
    names = _sources(log, ("redis_ping",) if configured else ())
    words = answer or (f"health: {check['name']} fails" if check is not None else None)
    return Cause(
        id="E14",
        name="Redis or queue",
        applicable=bool(names),
        gate=sign_gate(bench, facts, "Redis fails: in the log, or as it tells us", logged=log.has("redis"), seen=seen,
                       value=f"{log.lines('redis')} lines" if log.has("redis") else words,
                       rests_on=names or (LOG, "redis_ping")),
        clauses=(
            *_lines(bench, facts, log, "redis"),
            *((bench.fact("now", "it is so now, as we see it ourselves", seen, value=words,
                          rests_on=("redis_ping", "redis_info", "health")),) if configured else ()),
        ),
        share=_share(facts, log, "redis"),
        details=({"refers_to": _redis_cause(facts, log, answer, check), "answer": answer} | log.details("redis"))
        if log.has("redis") or answer or check else {},
    )  # fmt: skip


def _redis_answer(facts: Facts) -> str | None:
    """What Redis says is wrong with it; ``None`` when it answers as it should, or nothing is known."""
    reading = facts.readings.last("redis_ping")
    if reading is None:
        return None
    if reading.code and reading.state not in OURS:
        return f"{reading.code}: {reading.reason}"[:200]
    row = reading.rows[0] if reading.rows else {}
    answer = str(row.get("answer") or "")
    if answer and answer.upper() not in ("PONG", "TRUE"):
        return answer[:200]
    info = facts.readings.row("redis_info") or {}
    if info.get("loading"):
        return "LOADING"
    if info.get("rdb_last_bgsave_status") not in (None, "", "ok"):
        return "MISCONF: the last snapshot failed"
    return None


def _redis_cause(facts: Facts, log: Log, answer: str | None, check: Any) -> str:
    """The finding of the runbook of Redis on these readings; where it has none, what the words point at."""
    found_there = redis.finding(facts.readings)
    if found_there is not None:
        return found_there.cause
    for said in (answer or "", str((log.leading("redis") or {}).get("pattern") or "")):
        found = next((cause for words, cause in _REDIS_CAUSES if words.lower() in said.lower()), None)
        if found:
            return found
    return "R9" if check is not None and re.search(r"(?i)bull|queue", str(check["name"])) else "R8"


def disk_or_memory(facts: Facts) -> Cause:
    """E15: a full disk or want of memory fails requests.

    Gate: ENOSPC or out-of-memory errors in the application's log. Clauses: such lines stand for a fifth of the failing
    requests; a filesystem that is full, or kernel OOM kills, on the hosts that we can look at (left out where there are
    none). Refers to runbooks R5 and R6.
    """
    bench, log = Bench("E15", facts.readings), Log(facts)
    kinds: tuple[Kind, ...] = ("disk", "memory")
    leading = max(kinds, key=lambda k: (log.lines(k) or 0, k))
    full = _fullest(facts)
    name = "worker_disk" if leading == "disk" else "worker_memory"
    confirmed = (full is not None) if leading == "disk" else _oom_kills(facts)
    return Cause(
        id="E15",
        name="disk or memory",
        applicable=log.configured,
        gate=sign_gate(bench, facts, "no space or no memory: in the log", logged=log.has(*kinds), seen=False,
                       value=f"{log.lines(*kinds)} lines", rests_on=(LOG,)),
        clauses=(
            *_lines(bench, facts, log, *kinds),
            *((bench.fact("now", "a filesystem is full" if leading == "disk" else "the kernel has killed for memory",
                          confirmed if facts.readings.known(name) else None,
                          value=f"{full.get('mount')} on {full.get('host')}" if full and leading == "disk" else None,
                          rests_on=(name,)),) if is_configured(facts, name) else ()),
        ),
        share=(log.share(*kinds) or 0.0) if facts.splittable and log.configured else 0.0,
        details={"refers_to": "R5" if leading == "disk" else "R6"} | log.details(leading)
        | ({"mount": full.get("mount"), "host": full.get("host")} if full else {}) if log.has(*kinds) else {},
    )  # fmt: skip


def _fullest(facts: Facts) -> Any:
    rows = [r for r in facts.readings.rows("worker_disk") or [] if r.get("mount") and not r.get("state")]
    used = {id(r): max(_percent(r, "used_percent"), _percent(r, "inodes_percent")) for r in rows}
    full = [r for r in rows if used[id(r)] >= facts.limits.disk_percent]
    return max(full, key=lambda r: (used[id(r)], str(r.get("mount"))), default=None)


def _percent(row: Any, key: str) -> float:
    text = str(row.get(key) if row.get(key) is not None else "").strip().rstrip("%")
    return float(text) if re.fullmatch(r"\d+(?:\.\d+)?", text) else 0.0


def _oom_kills(facts: Facts) -> bool | None:
    told = [str(r.get("oom_kills", "")) for r in facts.readings.rows("worker_memory") or []]
    known = [int(text) for text in told if text.isdigit()]
    return any(known) if known else None
