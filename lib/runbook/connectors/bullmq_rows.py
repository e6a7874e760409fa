"""What the answers of a BullMQ queue mean: hashes of jobs, counts and clients as rows of readings.

Pure. What is not there is ``None`` or left out by name, never 0; the data of a job and what it returned are not among
the fields that are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runbook.connectors.redis_server import CLIENT_NAME

LEGACY = "Bull (legacy)"
MAX_WORKERS = 50
NO_KEY = -2
"""What PTTL answers where there is no such key."""
DELAY_SHIFT = 4096
"""The score of a delayed job is its due time in milliseconds times this, plus a counter."""
SETS = ("delayed", "prioritized", "failed", "completed", "waiting-children")
JOB = ("name", "timestamp", "processedOn", "finishedOn", "failedReason", "atm", "attemptsMade", "ats", "stc",
       "stalledCounter", "pb", "opts", "priority")  # fmt: skip
"""Fields of a job's hash that are read."""

Row = dict[str, Any]


def got(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def job_ids(ids: Sequence[str] | None) -> list[str]:
    """Ids without markers: up to version 4 an id that is none (``0:…``) may stand at the tail to wake a worker."""
    return [job for job in ids or () if not job.startswith("0:")]


def with_scores(answer: Any) -> list[tuple[str, float]]:
    """Members of a sorted set with their scores, as the server sends them: one after the other."""
    flat = got(answer)
    return [(member, float(score)) for member, score in zip(flat[::2], flat[1::2], strict=True)]


def fields_of(fields: Any) -> dict[str, str] | None:
    """The fields of a job that are there; none of a job that is gone or evicted; ``None`` when they were refused."""
    if isinstance(fields, Exception):
        return None
    return {name: value for name, value in zip(JOB, fields, strict=True) if value is not None}


def counts(known: Mapping[str, Any]) -> dict[str, Any]:
    markers = {
        name: len(known[f"{name}-tail"] or ()) - len(job_ids(known[f"{name}-tail"])) for name in ("wait", "paused")
    }
    wait, paused = (None if known[name] is None else known[name] - markers[name] for name in ("wait", "paused"))
    limiter = known["limiter"]
    meta = known["meta"]
    return {
        "paused": "paused" in meta or bool(known["meta-paused"]),
        "waiting": None if wait is None or paused is None else wait + paused,
        "in_wait_list": wait,
        "in_paused_list": paused,
        "active": known["active"],
        "delayed": known["delayed"],
        "delayed_overdue": known["overdue"],
        "prioritized": known["prioritized"],
        "failed": known["failed"],
        "completed": known["completed"],
        "waiting_children": known["waiting-children"],
        "concurrency": integer(meta.get("concurrency")),
        "limiter_ms": None if limiter is None else max(0, limiter),
        "rate_max": integer(meta.get("max")),
        "rate_duration_ms": integer(meta.get("duration")),
        "added": integer(known["id"]) or (None if known["id"] else 0),
        "last_completed_at": _ended(known["completed-last"]),
        "last_failed_at": _ended(known["failed-last"]),
    }


def _ended(last: Sequence[Any] | None) -> str | None:
    """When the newest of a sorted set of finished jobs ended."""
    return iso(integer(last[1])) if last else None


def version(known: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the queue is there, and who wrote it. Bull, the predecessor, keeps no version and no ``events``."""
    meta = known["meta"]
    filled = any(known[name] for name in ("wait", "paused", "active", *SETS))
    exists = bool(meta or known["events"] or known["id"] or known["meta-paused"] or filled)
    named = meta.get("version")
    if named is None and exists and known["events"] == 0:
        named = LEGACY
    major = re.search(r":(\d+)\.", named or "")
    return {"exists": exists, "version": named, "major": int(major[1]) if major else None}


def workers(clients: Sequence[Mapping[str, str]] | None, names: Sequence[str]) -> dict[str, Any]:
    """The connections that workers wait on, one each. A list in which we do not find ourselves hides names."""
    if clients is None or not any(client.get("name") == CLIENT_NAME for client in clients):
        return {"workers": None, "worker_clients": []}
    theirs = tuple(f"{name}:w:" for name in names)
    named = [c for c in clients if (name := c.get("name", "")) in names or name.startswith(theirs)]
    rows = [
        {
            "id": integer(client.get("id")),
            "address": client.get("addr"),
            "name": client.get("name"),
            "age_seconds": integer(client.get("age")),
            "idle_seconds": integer(client.get("idle")),
        }
        for client in named[:MAX_WORKERS]
    ]
    return {"workers": len(named), "worker_clients": rows}


def oldest(hashes: Sequence[Any], now: float) -> float | None:
    """Age in seconds of the job that waits longest, what it was meant to wait not counted; ``None`` without one."""
    due = [at for fields in hashes if (at := due_ms(fields_of(fields) or {})) is not None]
    return seconds(now - min(due)) if due else None


def due_ms(job: Mapping[str, str]) -> float | None:
    """When the job was first to be run, in milliseconds. The delay it was given stays in its options."""
    at = integer(job.get("timestamp"))
    if at is None:
        return None
    try:
        delay = json.loads(job.get("opts", "{}")).get("delay") or 0
        return at + float(delay)
    except (ValueError, TypeError, AttributeError):
        return at


def _told(job: str, fields: Mapping[str, str] | None) -> Row:
    """What every row of a job begins with; ``has_hash`` is false for one whose name or time is gone."""
    lacking = None if fields is None else "name" not in fields or "timestamp" not in fields
    known = fields or {}
    return {
        "id": job,
        "job": known.get("name"),
        "has_hash": None if lacking is None else not lacking,
        "added_at": iso(integer(known.get("timestamp"))),
    }


def active_row(job: str, fields: Mapping[str, str] | None, lock: Any, now: float) -> Row:
    """A job in work and its lock."""
    known = fields or {}
    began = integer(known.get("processedOn"))
    lock_ms = None if isinstance(lock, Exception) or lock == NO_KEY else lock
    return _told(job, fields) | {
        "processed_at": iso(began),
        "running_seconds": None if began is None else seconds(now - began),
        "has_lock": None if isinstance(lock, Exception) else lock != NO_KEY,
        "lock_ms": lock_ms,
        **tries(known),
        "worker": known.get("pb"),
    }


def waiting_row(job: str, fields: Mapping[str, str] | None, place: str, now: float) -> Row:
    """A job that could run now, and where it waits: ``wait``, ``paused`` or ``prioritized``."""
    known = fields or {}
    due = due_ms(known)
    return _told(job, fields) | {
        "list": place,
        "waited_seconds": None if due is None else seconds(now - due),
        "priority": integer(known.get("priority")),
        **tries(known),
        "reason": known.get("failedReason"),
    }


def delayed_row(job: str, fields: Mapping[str, str] | None, score: float, now: float) -> Row:
    """A job that is to run later: ``reason`` is why its last try failed, for one that is tried again."""
    known = fields or {}
    due = score / DELAY_SHIFT
    return _told(job, fields) | {
        "due_at": iso(int(due)),
        "overdue_seconds": seconds(now - due),
        **tries(known),
        "reason": known.get("failedReason"),
    }


def failed_row(job: str, fields: Mapping[str, str] | None) -> Row:
    """A job that failed for good."""
    known = fields or {}
    return _told(job, fields) | {
        "failed_at": iso(integer(known.get("finishedOn"))),
        "reason": known.get("failedReason"),
        "ran_seconds": _ran(known),
        **tries(known),
    }


def completed_row(job: str, fields: Mapping[str, str] | None) -> Row:
    """``waited_seconds`` is ``None`` for a job tried more than once: how long its first try waited is not kept."""
    known = fields or {}
    due, began, done = due_ms(known), integer(known.get("processedOn")), integer(known.get("finishedOn"))
    first = (integer(known.get("ats")) or tries(known)["attempts"] or 0) <= 1
    return _told(job, fields) | {
        "finished_at": iso(done),
        "waited_seconds": seconds(began - due) if began is not None and due is not None and first else None,
        "ran_seconds": _ran(known),
        "stalled_count": tries(known)["stalled_count"],
    }


def parent_row(job: str, fields: Mapping[str, str] | None, left: Any, now: float) -> Row:
    """A job that waits for its children; which of them failed is added by whoever looked at them."""
    known = fields or {}
    at = integer(known.get("timestamp"))
    return _told(job, fields) | {
        "waited_seconds": None if at is None else seconds(now - at),
        "children_left": None if isinstance(left, Exception) else left,
    }


def failed_child(looked: Mapping[str, Any]) -> Row:
    """The child, of those looked at, that failed for good: it keeps its parent waiting."""
    for child, answer in sorted(looked.items()):
        if not isinstance(answer, Exception) and answer[0] is not None and answer[1] is not None:
            return {"failed_child": child, "child_reason": answer[1], "children_seen": len(looked)}
    unseen = any(isinstance(answer, Exception) for answer in looked.values())
    return {"failed_child": None, "child_reason": None, "children_seen": 0 if unseen else len(looked)}


def _ran(known: Mapping[str, str]) -> float | None:
    began, done = integer(known.get("processedOn")), integer(known.get("finishedOn"))
    return seconds(done - began) if began is not None and done is not None else None


def tries(fields: Mapping[str, str]) -> dict[str, Any]:
    """Attempts made and times stalled: short names since version 5, absent until there was one."""
    attempts = integer(fields.get("atm", fields.get("attemptsMade", "0")))
    stalled = integer(fields.get("stc", fields.get("stalledCounter", "0")))
    return {"attempts": attempts if fields else None, "stalled_count": stalled if fields else None}


def more(count: int, shown: int, most: int) -> str:
    return f"only {shown} of {count}" if shown >= most and count > shown else ""


def integer(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


def seconds(milliseconds: float) -> float:
    return round(max(0.0, milliseconds) / 1000, 1)


def iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):  # no time of this world
        return None
