"""Prevention, checked: which guards memory has. Source: reference fault model, runbook R6 (Prevent)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis.memory import scopes
from runbook.diagnosis.memory.limits import Limits
from runbook.diagnosis.memory.processes import number
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

Row = Mapping[str, Any]
_NODE = re.compile(r"^(\S*/)?(node|nodejs)\s")


def prevention(readings: Sequence[Reading], parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    taken, limits = Readings(readings), Limits.of(parameters or {})
    return [
        _headroom(taken, limits),
        _limits(taken),
        _heaps(taken),
        _alert(taken),
        _postgres(taken),
        _redis(taken),
        _row("kills can be dated", None if taken.last("oom_kills") is None else taken.known("oom_kills"),
             "the kernel's log is read" if taken.known("oom_kills") else taken.why_unknown(("oom_kills",)),
             "a counter without a time says nothing of today"),
    ]  # fmt: skip


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": value, "why": why}


def _headroom(taken: Readings, limits: Limits) -> dict[str, Any]:
    places = [s for s in (*scopes.hosts(taken, 0), *scopes.cgroups(taken, 0)) if s.percent is not None]
    fullest = max(places, key=lambda s: s.percent or 0.0, default=None)
    return _row(f"memory below {limits.warn_percent:g} %",
                None if fullest is None else (fullest.percent or 0.0) < limits.warn_percent,
                "not read" if fullest is None else f"{fullest.label}: {fullest.percent:g} %",
                "a burst needs room; the warning comes at 80 %")  # fmt: skip


def _limits(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("cgroup")
    limited = None if rows is None else [row for row in rows if number(row, "limit_bytes") is not None]
    return _row("a cgroup limits the service", None if limited is None else bool(limited),
                "not read" if limited is None else f"{len(limited)} cgroups with a limit",
                "without a limit, one leak takes the whole host along")  # fmt: skip


def _heaps(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("processes")
    nodes = [str(row.get("command")) for row in rows or [] if _NODE.match(str(row.get("command") or ""))]
    bare = [command for command in nodes if "max-old-space-size" not in command.replace("_", "-")]
    holds = None if rows is None or not nodes else not bare
    value = "not read"
    if rows is not None:
        value = f"{len(nodes) - len(bare)} of {len(nodes)} Node processes say it" if nodes else "no Node process here"
    return _row("Node's heap is limited (--max-old-space-size)", holds, value,
                "a heap that is limited below its cgroup fails with a stack trace, not with a kill")  # fmt: skip


def _alert(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("alert_rules")
    names = [str(row.get("alertname")) for row in rows or []]
    return _row("an alert on memory has fired in the last week, so there is one", bool(names) if names else None,
                ", ".join(names[:3]) if names else "none fired" if rows is not None else "not read",
                "80 % warns while there is time, 90 % wakes somebody")  # fmt: skip


def _postgres(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("memory_settings")
    found = {str(row.get("name")): number(row, "bytes") for row in rows or []}
    work, buffers, most = (found.get(n) for n in ("work_mem", "shared_buffers", "max_connections"))
    hosts = scopes.hosts(taken, 0)
    value, holds = "not read", None
    if work is not None and buffers is not None and most is not None:
        worst = buffers + work * most
        value = f"{worst / 2**30:.1f} GB if every session sorts once"
        if len(hosts) == 1 and hosts[0].total:
            holds = worst < hosts[0].total
    return _row("work_mem × max_connections fits", holds, value,
                "one statement takes work_mem several times, once a node")  # fmt: skip


def _redis(taken: Readings) -> dict[str, Any]:
    row = taken.row("redis_memory")
    most = number(row, "maxmemory")
    return _row("Redis has a limit (maxmemory)", None if row is None or most is None else most > 0,
                "not read" if row is None else f"{(most or 0) / 2**20:g} MB, {row.get('maxmemory_policy')}",
                "without one it grows until the kernel kills it; a queue's Redis wants noeviction")  # fmt: skip
