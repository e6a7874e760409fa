"""What a Redis that lets us in tells of its clients, slow commands, configuration, refusals and latency, at one moment.

Two round trips on one connection. A user who may not ask one of these is refused that reading and no other. Arguments
of commands are people's data: of a slow command only its name and the number of its arguments is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from runbook.connectors.base import Fetched
from runbook.connectors.redis_session import Command, Session, answered, error_code

MAX_GROUPS = 50
MAX_LISTED = 10
"""Clients of a group that are listed one by one, the longest idle first."""
MAX_SLOW = 32
MAX_REFUSALS = 20
QUERIES: Mapping[str, str] = {
    "redis_clients": "CLIENT LIST",
    "redis_slowlog": f"SLOWLOG GET {MAX_SLOW}",
    "redis_config": "CONFIG GET …",
    "redis_refusals": f"ACL LOG {MAX_REFUSALS}",
    "redis_latency": "LATENCY LATEST",
    "redis_cluster": "CLUSTER INFO",
}
SETTINGS = (
    "maxclients", "timeout", "tcp-keepalive", "maxmemory", "maxmemory-policy", "save", "dir", "dbfilename",
    "appendonly", "stop-writes-on-bgsave-error", "min-replicas-to-write", "protected-mode",
    "client-output-buffer-limit", "lua-time-limit", "logfile", "replica-read-only",
)  # fmt: skip
_OURS = ("runbook",)
# In words of their own: the library would parse such answers, and fails on text that is decoded already.
_SLOWLOG: Command = ("SLOWLOG", "GET", MAX_SLOW)

Row = dict[str, Any]


def taken(session: Session, now: datetime) -> dict[str, Fetched | Exception]:
    """Every reading of this moment by its name, or the error that it was refused with."""
    commands: dict[str, Command] = {
        "redis_clients": ("CLIENT LIST",),
        "redis_slowlog": _SLOWLOG,
        "redis_refusals": ("ACL", "LOG", MAX_REFUSALS),
        "redis_latency": ("LATENCY LATEST",),
        **{f"config {name}": ("CONFIG GET", name) for name in SETTINGS},
        "info": ("INFO", "cluster"),
    }
    answers = dict(zip(commands, session.batch(list(commands.values())), strict=True))
    found: dict[str, Fetched | Exception] = {
        "redis_clients": _made(answers["redis_clients"], clients),
        "redis_slowlog": _made(answers["redis_slowlog"], lambda raw: slow(raw, now)),
        "redis_config": _config({name: answers[f"config {name}"] for name in SETTINGS}),
        "redis_refusals": _made(answers["redis_refusals"], lambda raw: refusals(raw, now)),
        "redis_latency": _made(answers["redis_latency"], lambda raw: latency(raw, now)),
    }
    return found | {"redis_cluster": _cluster(session, answers["info"])}


def slow_log(session: Session, now: datetime) -> Fetched:
    """The slow commands alone."""
    return Fetched(value=slow(answered(session.batch([_SLOWLOG])[0]), now))


def outcome(found: Fetched | Exception) -> Fetched:
    """What was found, or raise what it was refused with."""
    if isinstance(found, Exception):
        answered(found)
    assert isinstance(found, Fetched)
    return found


def _made(answer: Any, rows: Any) -> Fetched | Exception:
    return answer if isinstance(answer, Exception) else Fetched(value=rows(answer))


def _config(answers: Mapping[str, Any]) -> Fetched | Exception:
    refused = {name: answer for name, answer in answers.items() if isinstance(answer, Exception)}
    if len(refused) == len(answers):
        return next(iter(refused.values()))
    row: Row = dict.fromkeys(SETTINGS)
    for name, answer in answers.items():
        if not isinstance(answer, Exception):
            row[name] = _pairs(answer).get(name)
    denied = ", ".join(f"{name}: {error_code(error) or error}" for name, error in refused.items())
    return Fetched(value=row, partial=denied)


def _cluster(session: Session, info: Any) -> Fetched | Exception:
    """State of the cluster; a server that is part of none has one row that says so."""
    if isinstance(info, Exception):
        return info
    if not int(info.get("cluster_enabled") or 0):
        return Fetched(value={"enabled": False, "state": None})
    (answer,) = session.batch([("CLUSTER INFO",)])
    if isinstance(answer, Exception):
        return answer
    told = _pairs(answer)
    return Fetched(value={
        "enabled": True, "state": told.get("cluster_state"), "slots_ok": _int(told.get("cluster_slots_ok")),
        "slots_fail": _int(told.get("cluster_slots_fail")), "nodes": _int(told.get("cluster_known_nodes")),
    })  # fmt: skip


# -- rows -----------------------------------------------------------------------------------------------------------


def clients(listed: Sequence[Mapping[str, str]]) -> list[Row]:
    """Clients by name, host and user, the largest group first. We ourselves and replicas are left out of the groups."""
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for client in listed:
        if not client.get("name", "").startswith(_OURS) and "S" not in client.get("flags", ""):
            key = (client.get("name", ""), _host(client.get("addr", "")), client.get("user", ""))
            groups.setdefault(key, []).append(client)
    rows = [_group(key, members) for key, members in groups.items()]
    rows.sort(key=lambda row: (-row["connections"], row["name"], row["host"], row["user"]))
    return rows[:MAX_GROUPS]


def _group(key: tuple[str, str, str], members: Sequence[Mapping[str, str]]) -> Row:
    idle = [_int(m.get("idle")) or 0 for m in members]
    longest = sorted(members, key=lambda m: (-(_int(m.get("idle")) or 0), _int(m.get("id")) or 0))[:MAX_LISTED]
    commands = [m.get("cmd", "").partition("|")[0] for m in members]
    held = [m for m, command in zip(members, commands, strict=True) if _is_held_back(m, command)]
    return {
        "name": key[0], "host": key[1], "user": key[2], "connections": len(members),
        "idle_median_seconds": median(idle), "idle_max_seconds": max(idle),
        "age_max_seconds": max(_int(m.get("age")) or 0 for m in members),
        "subscribers": sum(1 for m in members if (_int(m.get("sub")) or 0) + (_int(m.get("psub")) or 0) > 0),
        "blocked": sum(1 for m in members if "b" in m.get("flags", "")),
        "held_back": len(held), "held_back_seconds": max((_int(m.get("idle")) or 0 for m in held), default=0),
        "commands": ", ".join(sorted(set(filter(None, commands)))[:8]),
        "output_bytes": sum(_int(m.get("omem")) or 0 for m in members),
        "longest_idle": [
            {"id": _int(m.get("id")), "addr": m.get("addr"), "idle_seconds": _int(m.get("idle")),
             "age_seconds": _int(m.get("age"))}
            for m in longest
        ],
    }  # fmt: skip


WAITING_COMMANDS = frozenset({
    "blpop", "brpop", "brpoplpush", "blmove", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup",
    "wait", "waitaof", "", "null"
})  # fmt: skip
"""Commands that wait by nature."""


def _is_held_back(client: Mapping[str, str], command: str) -> bool:
    """Whether the server lets it wait with a command that does not wait by nature, nor belongs to a module."""
    return "b" in client.get("flags", "") and command not in WAITING_COMMANDS and "." not in command


def slow(raw: Sequence[Sequence[Any]], now: datetime) -> list[Row]:
    """Slow commands, the slowest first; address and name of the client since 4.0."""
    rows = []
    for _, began, micros, *rest in raw:
        words = next((part for part in rest if isinstance(part, list)), [])
        client = [str(part) for part in rest if isinstance(part, str)]
        at = datetime.fromtimestamp(int(began), UTC)
        rows.append({
            "at": at.isoformat(timespec="seconds"), "seconds": round(int(micros) / 1e6, 3),
            "ago_seconds": round(max(0.0, (now - at).total_seconds()), 1),
            "command": str(words[0]).upper()[:40] if words else "", "arguments": max(0, len(words) - 1),
            "client": _host(client[0]) if client else "", "name": client[1] if len(client) > 1 else "",
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["seconds"])


def refusals(raw: Sequence[Any], now: datetime) -> list[Row]:
    """Who was refused what by the access control list; our own attempts are left out."""
    rows = []
    for entry in raw:
        told = _pairs(entry)
        info = dict(part.split("=", 1) for part in str(told.get("client-info") or "").split() if "=" in part)
        if str(info.get("name", "")).startswith(_OURS):
            continue
        age = float(told.get("age-seconds") or 0)
        rows.append({
            "reason": told.get("reason"), "object": str(told.get("object") or "")[:80], "user": told.get("username"),
            "count": _int(told.get("count")), "age_seconds": round(age, 1), "host": _host(info.get("addr", "")),
            "at": (now - timedelta(seconds=age)).isoformat(timespec="seconds"),
        })  # fmt: skip
    return rows


def latency(raw: Iterable[Sequence[Any]], now: datetime) -> list[Row]:
    """Latency events (none unless ``latency-monitor-threshold`` is set)."""
    return [
        {"event": str(event), "ago_seconds": round(max(0.0, now.timestamp() - float(at)), 1), "last_ms": int(last),
         "max_ms": int(most)}
        for event, at, last, most, *_ in raw
    ]  # fmt: skip


def _pairs(answer: Any) -> dict[str, Any]:
    """A flat list, a mapping, or lines ``name:value``, as a mapping."""
    if isinstance(answer, Mapping):
        return {str(key): value for key, value in answer.items()}
    if isinstance(answer, str):
        return dict(line.strip().split(":", 1) for line in answer.splitlines() if ":" in line)
    flat = list(answer or [])
    return {str(key): value for key, value in zip(flat[::2], flat[1::2], strict=False)}


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]") or address


def _int(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None
