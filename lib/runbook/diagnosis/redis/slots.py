"""Causes among the clients: no slot left, a leak of connections, an output buffer that ran over.

Source of every rule: reference fault model, runbook R8.
"""

from __future__ import annotations

import re
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.redis.facts import Facts, number
from runbook.diagnosis.redis.signs import CLIENT_READINGS, Signs
from runbook.diagnosis.verdict import Cause

Row = dict[str, Any]


def no_slot(facts: Facts) -> Cause:
    """K05: the server has no slot left for another client.

    Gate: "max number of clients reached" at most of our attempts (decisive), or clients that it rejected between two
    looks, or the application's log says so, or as many are connected as it takes. Clauses, without an own refusal: the
    others of these. It is no K01: what answers is the server itself.
    """
    bench = Bench("K05", facts.readings)
    rejected, used = facts.grown("rejected_connections"), facts.used_percent
    if rejected is None and used is not None and used < facts.limits.clients_percent:
        rejected = 0  # one look alone, and plenty of room
    refused = facts.refused("MAXCLIENTS")
    full = None if rejected is None and used is None else bool(rejected) or (used or 0.0) >= 100.0
    signs = Signs(facts=facts, bench=bench, label="no slot left for another client", refused=refused,
                  figures=False if refused else full, kinds=("maxclients",), rests_on=("redis_info",))  # fmt: skip
    group = largest(facts)
    details: Row = {}
    if signs.holds:
        told = {"maxclients": facts.slots, "connected": facts.figure("connected_clients"), "rejected": rejected,
                "largest_group": _words(group) if group else None,
                "said": facts.refusal.detail if refused and facts.refusal is not None else None}  # fmt: skip
        details = {key: value for key, value in told.items() if value is not None}
    value = (
        f"{rejected} rejected between two looks, {used:g} % of the slots in use" if full and used is not None else None
    )
    return Cause(
        id="K05", name="no client slot left (maxclients)", applicable=facts.configured, gate=signs.gate(value),
        clauses=signs.clauses(), share=signs.share, details=details,
    )  # fmt: skip


def leak(facts: Facts) -> Cause:
    """K06: one application holds the slots with connections that do nothing.

    Gate: the clients of one name, host and user hold ``leak_share`` of the slots, half of them idle for
    ``leak_idle_seconds``; subscribers and clients that wait for a job are not idle in this sense. Clause: slots are
    short. Without CLIENT LIST it is unknown.
    """
    bench, limits = Bench("K06", facts.readings), facts.limits
    group, slots = largest(facts), facts.slots
    share: float | None = None
    if group is not None and slots:
        idle = (number(group.get("idle_median_seconds")) or 0.0) >= limits.leak_idle_seconds
        share = round((number(group.get("connections")) or 0.0) / slots, 3) if idle else 0.0
    elif facts.clients is not None:
        share = 0.0 if slots else None
    holds = share is not None and share >= limits.leak_share
    rejected, used = facts.grown("rejected_connections"), facts.used_percent
    short = None if used is None else used >= limits.clients_percent or bool(rejected)
    connected = facts.figure("connected_clients")
    details: Row = {}
    if holds and group is not None:
        details = {
            "name": group.get("name") or "(no name)", "host": group.get("host"), "user": group.get("user"),
            "connections": group.get("connections"), "idle_median_seconds": group.get("idle_median_seconds"),
            "maxclients": slots, "longest_idle": list(group.get("longest_idle") or [])[:5],
        }  # fmt: skip
    return Cause(
        id="K06",
        name=f"leak of clients: {details['name']} at {details['host']}" if details else "leak of clients",
        applicable=facts.configured,
        gate=bench.gate("idle", "slots held by idle clients of one application", share, at_least=limits.leak_share,
                        share=True, rests_on=CLIENT_READINGS),
        clauses=(bench.fact("short", "slots are short", short, value=f"{used:g} %" if used is not None else None,
                            rests_on=("redis_info",)),),
        share=min(1.0, (number((group or {}).get("connections")) or 0.0) / connected) if holds and connected else 0.0,
        details=details,
    )  # fmt: skip


def buffers(facts: Facts) -> Cause:
    """K21: the server closes clients that do not read their answers, since their output buffer runs over.

    Gate: it counts such disconnections between two looks (7.2 and later tell), or its own log says so lately. Clause:
    the application's log has connections that were closed. Before 7.2, and without the log, it is unknown.
    """
    bench = Bench("K21", facts.readings)
    counted, said = facts.grown("client_output_buffer_limit_disconnections"), facts.server_log("output_buffer")
    read = facts.readings.known("redis_log")
    ago = number((said or {}).get("ago_seconds"))
    lately = None if not read else said is not None and (ago is None or ago <= facts.limits.recent_seconds)
    holds = True if counted or lately else False if counted == 0 or lately is False else None
    applicable = facts.configured and (holds is not None or not facts.readings.known("redis_info")
                                       or facts.asked("redis_log"))  # fmt: skip
    closed = facts.logged("closed", "timeout", "other")
    limit = facts.setting("client-output-buffer-limit")
    return Cause(
        id="K21", name="clients closed for their output buffer", applicable=applicable,
        gate=bench.fact("closed", "clients closed for overcoming the output buffer limit", holds, otherwise="refutes",
                        value=f"{(said or {}).get('count') or counted} times" if holds else None,
                        rests_on=("redis_info", "redis_log"),
                        reason="" if applicable else "this version does not count them, and its log is not at hand"),
        clauses=(
            bench.fact("both", "said by its log with the limit that was passed, or counted again and again",
                       bool(lately) or (counted or 0) > 1 if holds else None, rests_on=("redis_log", "redis_info")),
        ),
        hints=(bench.weigh("felt", "recent lines of the application's log with closed connections", closed, at_least=1,
                           rests_on=("app_errors",), weight=1),) if facts.asked("app_errors") else (),
        share=1.0 if holds else 0.0,
        details=_closed(said, limit) if holds else {},
    )  # fmt: skip


def _closed(said: Row | None, limit: str | None) -> Row:
    """Who was closed, as far as the server's log names it."""
    text = str((said or {}).get("sample") or "")
    known = {key: found[1] for key in ("name", "addr", "cmd", "omem") if (found := re.search(rf"\b{key}=(\S+)", text))}
    return {"limit": limit, "count": (said or {}).get("count"), **known}


def largest(facts: Facts) -> Row | None:
    """The largest group of clients that neither subscribe nor wait for a job; ``None`` = none, or unknown."""

    def count(row: Row, key: str) -> float:
        return number(row.get(key)) or 0.0

    idle = [
        r for r in facts.clients or [] if 2 * (count(r, "subscribers") + count(r, "blocked")) < count(r, "connections")
    ]
    return max(idle, key=lambda r: (count(r, "connections"), str(r.get("name"))), default=None)


def _words(group: Row) -> str:
    return (f"{group.get('connections')} of {group.get('name') or '(no name)'} at {group.get('host')}, "
            f"idle {number(group.get('idle_median_seconds')) or 0:g} s")  # fmt: skip
