"""Prevention, checked: which guards this Redis has. Source: reference fault model, runbook R8 (Prevent)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.redis.facts import Facts, number
from runbook.diagnosis.redis.limits import Limits
from runbook.result import Reading


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    taken = Readings(readings)
    facts = Facts(taken, Limits())
    info = facts.info
    policy = None if info is None else info.get("maxmemory_policy")
    limit = facts.figure("maxmemory")
    aof = facts.figure("aof_enabled")
    queue = (taken.row("queue_state") or {}).get("exists")
    timeout, keepalive = number(facts.setting("timeout")), number(facts.setting("tcp-keepalive"))
    status = None if info is None else info.get("rdb_last_bgsave_status")
    named = None if facts.clients is None else sum(1 for row in facts.clients if row.get("name"))
    total = len(facts.clients or [])
    return [
        _row("a Redis that holds a queue never evicts",
             None if policy is None else policy == "noeviction" or queue is False, policy,
             "an evicted job is a lost job; a cache belongs into a Redis of its own"),
        _row("memory has a limit", None if limit is None else limit > 0, limit or "none",
             "without maxmemory the kernel decides who is killed"),
        _row("changes survive a restart (append-only file)", None if aof is None else aof > 0,
             None if aof is None else "on" if aof else "off", "what is only in memory is gone with the process"),
        _row("the last snapshot was written", None if status is None else status == "ok", status,
             "after one that fails, writes are refused"),
        _row("room for clients", None if facts.used_percent is None else facts.used_percent < 50.0,
             None if facts.used_percent is None else f"{facts.used_percent:g} % of {facts.slots:g} in use",
             "pools × instances × deploys at once must fit below maxclients, and that below the limit of open files"),
        _row("dead clients are noticed", None if keepalive is None and timeout is None else bool(keepalive or timeout),
             f"tcp-keepalive {keepalive:g} s, timeout {timeout or 0:g} s" if keepalive is not None else None,
             "a client whose host is gone keeps its slot until then"),
        _row("clients have names", None if named is None or not total else named == total,
             None if named is None else f"{named} of {total} groups", "a leak without a name is nobody's"),
        _row("BullMQ's clients retry without end (maxRetriesPerRequest: null)", None, "not seen from here",
             "a client that gives up stays lost after the server is back"),
    ]  # fmt: skip


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": "not read" if value is None else value, "why": why}
