"""Causes that are databases: PostgreSQL's sessions and Redis' data (M07, M08)."""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.memory.growth import MANY_NAMED, RESTS_ON, explains, short
from runbook.diagnosis.memory.processes import Process, megabytes, number, total
from runbook.diagnosis.memory.scopes import Scope
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

PRIVATE_SHARE = 0.5
FRAGMENTED = 1.5
BUFFERS_SHARE = 0.3


def postgres(facts: Facts, scope: Scope | None) -> Cause:
    """M07: PostgreSQL holds the memory: work_mem times nodes times sessions, or buffers that are too large.

    Gate: its processes hold ``owner_share`` of the memory in use, each shared page counted once. Clauses: memory is
    short there; half of it or more is the sessions' own (work_mem), not shared buffers. Source: R6, M07.
    """
    bench = Bench("M07", facts.readings)
    owned = None if scope is None else facts.owned(scope)
    found = owned["postgres"] if owned is not None else []
    size = total(found)
    hidden = "processes were not read" if scope is None else facts.hidden(scope)
    part = round(scope.share(size), 3) if scope is not None and scope.used else None
    if hidden and (part or 0.0) < facts.limits.owner_share:
        part = None
    private = [p for p in found if p.anonymous is not None]
    own = sum(p.anonymous or 0.0 for p in private)
    settings = {str(row.get("name")): row.get("setting") for row in facts.readings.rows("memory_settings") or []}
    kind = "work_mem" if own >= PRIVATE_SHARE * size else "shared_buffers"
    tight = short(bench, facts, scope)
    largest = sorted(found, key=lambda p: -p.size)[:MANY_NAMED]
    return Cause(
        id="M07",
        name="PostgreSQL",
        gate=bench.gate("hold", "PostgreSQL's processes, of the memory in use", part, share=True,
                        at_least=facts.limits.owner_share, rests_on=RESTS_ON, reason=hidden),
        clauses=(
            tight,
            bench.weigh("private", "the sessions' own memory, of that", min(1.0, own / size) if size and private
                        else None, at_least=PRIVATE_SHARE, share=True, rests_on=("processes",),
                        reason="" if found else "there is none"),
        ),
        share=explains(part, tight),
        details={**scope.facts(), "kind": kind, "processes": len(found), "mb": megabytes(size),
                 "largest": [p.facts() for p in largest], **settings} if found and scope is not None else {},
    )  # fmt: skip


def redis(facts: Facts, scope: Scope | None) -> Cause:
    """M08: Redis holds the memory, by its own limit or by its host's.

    Gate: it uses ``threshold_percent`` of ``maxmemory`` where it refuses writes at that (``noeviction``; a cache that
    evicts is full by design), or its process holds ``owner_share`` of the memory in use. Clause: that is short: the
    limit is reached, or memory is. Hints say what for: clients' buffers, fragmentation (only above
    ``fragmentation_mb``), a copy while it saves. Source: R6, M08.
    """
    bench, limits = Bench("M08", facts.readings), facts.limits
    row, own_limit = facts.readings.row("redis_memory"), facts.redis_percent
    owned = None if scope is None else facts.owned(scope)
    found = owned["redis"] if owned is not None else []
    part = round(scope.share(total(found)), 3) if found and scope is not None else None
    at_limit = own_limit is not None and own_limit >= limits.threshold_percent
    holds: bool | None = at_limit or (part is not None and part >= limits.owner_share)
    if not holds and row is None and not found:
        holds = None
    hidden = "" if scope is None else facts.hidden(scope)
    if not holds and not found and hidden and row is not None and own_limit is None:
        holds = None
    tight = True if at_limit else None if scope is None else facts.short(scope)
    kinds = _kinds(bench, row, limits.fragmentation_mb)
    asked = facts.readings.last("redis_memory")
    return Cause(
        id="M08",
        name="Redis",
        applicable=bool(found) or (asked is not None and asked.state != "not_configured"),
        gate=bench.fact("hold", "of its own limit (maxmemory)" if at_limit else "Redis, of the memory in use", holds,
                        value=own_limit if at_limit else None if part is None else round(100 * part, 1),
                        unit="%" if at_limit or part is not None else "", rests_on=("redis_memory", *RESTS_ON),
                        otherwise="refutes", reason=hidden),
        clauses=(
            bench.fact("tight", "the limit is reached, or memory is short", tight, otherwise="refutes",
                       value=own_limit if at_limit else None, unit="%" if at_limit else "",
                       rests_on=("redis_memory", "memory")),
        ),
        hints=kinds if holds else (),
        share=1.0 if at_limit else 0.0 if tight is False else part or 0.0,
        details=_told(row, found, own_limit, kinds, scope) if holds else {},
    )  # fmt: skip


def _kinds(bench: Bench, row: dict[str, Any] | None, fragmentation_mb: float) -> tuple[Evidence, ...]:
    """What it uses the memory for, as far as that is out of the ordinary."""
    used, resident = number(row, "used_memory"), number(row, "used_memory_rss")
    if row is None or not used:
        return ()
    found = []
    if resident is not None and resident >= FRAGMENTED * used and resident - used >= 2**20 * fragmentation_mb:
        found.append(("fragmentation", "lost to fragmentation", resident - used))
    buffers = sum(number(row, key) or 0.0 for key in ("mem_clients_normal", "mem_clients_slaves"))
    if buffers >= BUFFERS_SHARE * used:
        found.append(("buffers", "buffers of clients", buffers))
    saving = any(number(row, key) for key in ("rdb_bgsave_in_progress", "aof_rewrite_in_progress"))
    if saving and (copied := number(row, "current_cow_size")):
        found.append(("copy", "copied while it saves", copied))
    return tuple(
        bench.fact(slug, label, True, value=megabytes(size), unit="MB", weight=WEAK, rests_on=("redis_memory",))
        for slug, label, size in found
    )


def _told(row: dict[str, Any] | None, found: list[Process], own_limit: float | None, kinds: tuple[Evidence, ...],
          scope: Scope | None) -> dict[str, Any]:  # fmt: skip
    told: dict[str, Any] = {"kind": [item.id.rpartition(".")[2] for item in kinds] or ["data"]}
    if row is not None:
        told |= {"used_mb": megabytes(number(row, "used_memory")), "maxmemory_mb": megabytes(number(row, "maxmemory")),
                 "policy": row.get("maxmemory_policy"), "percent_of_maxmemory": own_limit}  # fmt: skip
    asked = [process for process in found if row is not None and process.pid == row.get("process_id")]
    found = asked or found  # several may run there: the one that was asked is meant
    if found and scope is not None:
        told |= {**scope.facts(), "pids": [p.pid for p in found], "process_mb": megabytes(total(found))}
    return told
