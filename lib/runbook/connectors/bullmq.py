"""One BullMQ queue of version 3 to 6, read from its keys in Redis with plain read-only commands.

What a queue looks like differs by version: a pause renames ``wait`` to ``paused`` up to 5 and moves nothing in 6; a
marker may stand among the waiting ids up to 4. The data of a job is never fetched, only its name, times and failure,
and nothing is ever asked whose cost grows with the queue (``KEYS``, ``SMEMBERS``).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.redis_server import CLIENT_NAME, Command, RedisConnector, Session, error_code
from runbook.result import Reading
from runbook.settings import Queue

MAX_ACTIVE = 50
MAX_FINISHED = 200
MAX_WORKERS = 50
MAX_SCANS = 100
"""Queues of other names are looked for among at most this many batches of :data:`SCAN_COUNT` keys."""
SCAN_COUNT = 1000
DELAY_SHIFT = 4096
"""The score of a delayed job is its due time in milliseconds times this, plus a counter."""
LEGACY = "Bull (legacy)"

NO_KEY = -2
"""What PTTL answers where there is no such key."""

Steps = Generator[Sequence[Command], list[Any], Fetched]
"""How a reading is put together: batches of commands out, their answers in, what was found at the end."""

_SETS = ("delayed", "prioritized", "failed", "completed", "waiting-children")
_JOB = ("name", "timestamp", "processedOn", "finishedOn", "failedReason", "atm", "attemptsMade", "ats", "stc",
        "stalledCounter", "pb", "opts")  # fmt: skip


class BullQueue(RedisConnector):
    """The queue that the settings name. Each reading takes two round trips, and :meth:`look` takes two for all."""

    source = "bullmq"

    def __init__(self, context: Context, redis_url: str | None, queue_section: Queue) -> None:
        super().__init__(context, redis_url, lacking="" if queue_section.name else "queue.name is not set")
        self._queue = queue_section

    def state(self, name: str = "queue_state") -> Reading:
        """One row: version, pause, counts by state, the oldest waiting job, the workers that are connected.

        Counts and ``limiter_ms`` are 0 where there is nothing; ``None`` is what could not be known. ``workers`` is
        ``None`` where the server does not show its clients, or not their names.
        """
        return self._one(name, self._state())

    def active(self) -> Reading:
        """``queue_active``: jobs in work, the longest first, at most :data:`MAX_ACTIVE`.

        ``lock_ms`` is what is left of a job's lock, ``None`` without one; a live worker renews it at half its time.
        """
        return self._one("queue_active", self._active())

    def failed(self, since: datetime) -> Reading:
        """``queue_failed``: jobs that failed at or after ``since``, newest first, at most :data:`MAX_FINISHED`."""
        return self._one("queue_failed", self._finished("failed", since))

    def completed(self, since: datetime) -> Reading:
        """``queue_completed``: jobs done at or after ``since``, newest first, at most :data:`MAX_FINISHED`."""
        return self._one("queue_completed", self._finished("completed", since))

    def look(self, since: datetime) -> list[Reading]:
        """``queue_state``, ``queue_active``, ``queue_failed`` and ``queue_completed`` of one moment."""
        steps = {
            "queue_state": self._state(),
            "queue_active": self._active(),
            "queue_failed": self._finished("failed", since),
            "queue_completed": self._finished("completed", since),
        }
        found: dict[str, Fetched | Exception] = {}

        def all_at_once(session: Session) -> Fetched:
            found.update(_together(session, steps))
            return _outcome(found["queue_state"])

        first = self.ask("queue_state", self._query("queue_state"), all_at_once)
        same = Failure(state=first.state, reason=first.reason, code=first.code)
        return [first, *(self._known_already(name, found.get(name), same) for name in list(steps)[1:])]

    def _known_already(self, name: str, outcome: Fetched | Exception | None, otherwise: Failure) -> Reading:
        if outcome is None:
            return self.missing(name, self._query(name), otherwise)
        return self.ask(name, self._query(name), lambda _: _outcome(outcome))

    def _one(self, name: str, steps: Steps) -> Reading:
        return self.ask(name, self._query(name), lambda session: _outcome(_together(session, {name: steps})[name]))

    def _query(self, name: str) -> str:
        what = {
            "queue_active": f"LRANGE active -{MAX_ACTIVE} -1, HMGET, PTTL",
            "queue_failed": f"ZREVRANGEBYSCORE failed LIMIT 0 {MAX_FINISHED}, HMGET",
            "queue_completed": f"ZREVRANGEBYSCORE completed LIMIT 0 {MAX_FINISHED}, HMGET",
        }
        return f"{self._key('*')} {what.get(name, 'HGETALL meta, LLEN, ZCARD, CLIENT LIST')}"

    def _key(self, last: str) -> str:
        return f"{self._queue.prefix}:{self._queue.name}:{last}"

    def _now_ms(self) -> float:
        return self.context.now().timestamp() * 1000

    # -- what is asked ------------------------------------------------------------------------------------------------

    def _state(self) -> Steps:
        now = self._now_ms()
        commands = self._state_commands(now)
        answers = dict(zip(commands, (yield list(commands.values())), strict=True))
        denied = {key: answer for key, answer in answers.items() if isinstance(answer, Exception)}
        if "meta" in denied:
            raise denied["meta"]
        known = {key: None if key in denied else answer for key, answer in answers.items()}
        row = {"queue": self._queue.name, "prefix": self._queue.prefix, **_counts(known), **_version(known)}
        row["oldest_waiting_seconds"] = _oldest((yield self._timestamps(known)), now)
        row |= _workers(known["clients"], self._client_names())
        others = (yield from self._others()) if row["exists"] is False else ([], "")
        row["other_queues"] = others[0]
        unseen = [f"{key}: {error_code(error) or error}" for key, error in denied.items()]
        return Fetched(value=[row], partial="; ".join([*unseen, *filter(None, others[1:])]))

    def _state_commands(self, now: float) -> dict[str, Command]:
        key = self._key
        return {
            "meta": ("HGETALL", key("meta")),
            "meta-paused": ("EXISTS", key("meta-paused")),
            "events": ("EXISTS", key("events")),
            "id": ("EXISTS", key("id")),
            **{name: ("LLEN", key(name)) for name in ("wait", "paused", "active")},
            **{name: ("ZCARD", key(name)) for name in _SETS},
            "overdue": ("ZCOUNT", key("delayed"), 0, f"{now * DELAY_SHIFT:.0f}"),
            "wait-tail": ("LRANGE", key("wait"), -2, -1),
            "paused-tail": ("LRANGE", key("paused"), -2, -1),
            "first": ("ZRANGE", key("prioritized"), 0, 0),
            "limiter": ("PTTL", key("limiter")),
            "clients": ("CLIENT LIST",),
        }

    def _timestamps(self, known: Mapping[str, Any]) -> list[Command]:
        """For the jobs at the far ends of what waits: the next one is at the tail of a list."""
        ends = [_jobs(known[tail])[-1:] for tail in ("wait-tail", "paused-tail")]
        ids = [job for end in [*ends, known["first"] or []] for job in end]
        return [("HMGET", self._key(job), *_JOB) for job in ids]

    def _active(self) -> Steps:
        now = self._now_ms()
        count, ids = yield [("LLEN", self._key("active")), ("LRANGE", self._key("active"), -MAX_ACTIVE, -1)]
        jobs = _jobs(_got(ids))
        commands: list[Command] = [("HMGET", self._key(job), *_JOB) for job in jobs]
        answers = yield [*commands, *(("PTTL", self._key(f"{job}:lock")) for job in jobs)]
        hashes, locks = answers[: len(jobs)], answers[len(jobs) :]
        rows = [
            _active_row(job, _hash(fields), lock, now) for job, fields, lock in zip(jobs, hashes, locks, strict=True)
        ]
        rows.sort(key=lambda row: -(row["running_seconds"] or 0))
        return Fetched(value=rows, partial=_more(_got(count), len(ids), MAX_ACTIVE))

    def _finished(self, state: str, since: datetime) -> Steps:
        lowest = f"{since.timestamp() * 1000:.0f}"
        count, pairs = yield [
            ("ZCOUNT", self._key(state), lowest, "+inf"),
            ("ZREVRANGEBYSCORE", self._key(state), "+inf", lowest, "LIMIT", 0, MAX_FINISHED),
        ]
        ids = list(_got(pairs))
        hashes = yield [("HMGET", self._key(job), *_JOB) for job in ids]
        row = _failed_row if state == "failed" else _completed_row
        rows = [row(job, _hash(fields)) for job, fields in zip(ids, hashes, strict=True)]
        return Fetched(value=rows, partial=_more(_got(count), len(ids), MAX_FINISHED))

    def _others(self) -> Generator[Sequence[Command], list[Any], tuple[list[str], str]]:
        """Queues that are there, as ``name`` under our prefix and ``prefix:name`` under another one."""
        found: set[str] = set()
        cursor: Any = 0
        for _ in range(MAX_SCANS):
            (answer,) = yield [("SCAN", cursor, "MATCH", "*:meta", "COUNT", SCAN_COUNT)]
            if isinstance(answer, Exception):
                return sorted(found), f"other queues: {error_code(answer) or answer}"
            cursor, keys = answer
            found |= {key.removesuffix(":meta").removeprefix(f"{self._queue.prefix}:") for key in keys}
            if not int(cursor):
                return sorted(found), ""
        return sorted(found), f"only the first {MAX_SCANS * SCAN_COUNT:,} keys were looked through for other queues"

    def _client_names(self) -> tuple[str, ...]:
        """How a worker of this queue names its connection; a worker with a name of its own adds ``:w:<name>``.

        BullMQ for Node writes the queue's name in base64, BullMQ for Python as it is.
        """
        encoded = base64.b64encode(self._queue.name.encode()).decode()
        return f"{self._queue.prefix}:{encoded}", f"{self._queue.prefix}:{self._queue.name}"


def _together(session: Session, steps: Mapping[str, Steps]) -> dict[str, Fetched | Exception]:
    """Take all these steps at once, one round trip for the batches that are due; each ends in what it found.

    An error of the server ends the steps that ran into it and not the others.
    """
    import redis

    found: dict[str, Fetched | Exception] = {}
    due: dict[str, list[Any] | None] = dict.fromkeys(steps)
    while due:
        batches: dict[str, Sequence[Command]] = {}
        for name, answers in due.items():
            try:
                batches[name] = next(steps[name]) if answers is None else steps[name].send(answers)
            except StopIteration as done:
                found[name] = done.value
            except redis.RedisError as error:
                found[name] = error
        answers = session.batch([command for batch in batches.values() for command in batch])
        due = {name: [answers.pop(0) for _ in batch] for name, batch in batches.items()}
    return found


def _outcome(found: Fetched | Exception) -> Fetched:
    if isinstance(found, Exception):
        raise found
    return found


# -- what the answers mean -------------------------------------------------------------------------------------------


def _got(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _jobs(ids: Sequence[str] | None) -> list[str]:
    """Ids without markers: up to version 4 an id that is none (``0:…``) may stand at the tail to wake a worker."""
    return [job for job in ids or () if not job.startswith("0:")]


def _hash(fields: Any) -> dict[str, str]:
    """The fields of a job that are there; none of a job that is gone, or that the server evicted."""
    if isinstance(fields, Exception):
        return {}
    return {name: value for name, value in zip(_JOB, fields, strict=True) if value is not None}


def _counts(known: Mapping[str, Any]) -> dict[str, Any]:
    markers = {
        name: len(known[f"{name}-tail"] or ()) - len(_jobs(known[f"{name}-tail"])) for name in ("wait", "paused")
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
        "concurrency": _int(meta.get("concurrency")),
        "limiter_ms": None if limiter is None else max(0, limiter),
    }


def _version(known: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the queue is there, and who wrote it. Bull, the predecessor, keeps no version and no ``events``."""
    meta = known["meta"]
    filled = any(known[name] for name in ("wait", "paused", "active", *_SETS))
    exists = bool(meta or known["events"] or known["id"] or known["meta-paused"] or filled)
    version = meta.get("version")
    if version is None and exists and known["events"] == 0:
        version = LEGACY
    major = re.search(r":(\d+)\.", version or "")
    return {"exists": exists, "version": version, "major": int(major[1]) if major else None}


def _workers(clients: Sequence[Mapping[str, str]] | None, names: Sequence[str]) -> dict[str, Any]:
    """The connections that workers wait on, one each. A list in which we do not find ourselves hides names."""
    if clients is None or not any(client.get("name") == CLIENT_NAME for client in clients):
        return {"workers": None, "worker_clients": []}
    theirs = tuple(f"{name}:w:" for name in names)
    named = [c for c in clients if (name := c.get("name", "")) in names or name.startswith(theirs)]
    rows = [
        {
            "id": _int(client.get("id")),
            "address": client.get("addr"),
            "name": client.get("name"),
            "age_seconds": _int(client.get("age")),
            "idle_seconds": _int(client.get("idle")),
        }
        for client in named[:MAX_WORKERS]
    ]
    return {"workers": len(named), "worker_clients": rows}


def _oldest(hashes: Sequence[Any], now: float) -> float | None:
    """Age in seconds of the job that waits longest, what it was meant to wait not counted; ``None`` without one."""
    due = [at for fields in hashes if (at := _due(_hash(fields))) is not None]
    return _seconds(now - min(due)) if due else None


def _due(job: Mapping[str, str]) -> float | None:
    """When the job was first to be run, in milliseconds. The delay it was given stays in its options."""
    at = _int(job.get("timestamp"))
    if at is None:
        return None
    try:
        delay = json.loads(job.get("opts", "{}")).get("delay") or 0
        return at + float(delay)
    except (ValueError, TypeError, AttributeError):
        return at


def _active_row(job: str, fields: Mapping[str, str], lock: Any, now: float) -> dict[str, Any]:
    began = _int(fields.get("processedOn"))
    lock_ms = None if isinstance(lock, Exception) or lock == NO_KEY else lock
    return {
        "id": job,
        "job": fields.get("name"),
        "processed_at": _iso(began),
        "running_seconds": None if began is None else _seconds(now - began),
        "has_lock": None if isinstance(lock, Exception) else lock != NO_KEY,
        "lock_ms": lock_ms,
        **_tries(fields),
        "worker": fields.get("pb"),
    }


def _failed_row(job: str, fields: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": job,
        "job": fields.get("name"),
        "failed_at": _iso(_int(fields.get("finishedOn"))),
        "reason": fields.get("failedReason"),
        **_tries(fields),
    }


def _completed_row(job: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """``waited_seconds`` is ``None`` for a job tried more than once: how long its first try waited is not kept."""
    due, began, done = _due(fields), _int(fields.get("processedOn")), _int(fields.get("finishedOn"))
    first = (_int(fields.get("ats")) or _tries(fields)["attempts"] or 0) <= 1
    return {
        "id": job,
        "job": fields.get("name"),
        "finished_at": _iso(done),
        "waited_seconds": _seconds(began - due) if began is not None and due is not None and first else None,
        "ran_seconds": _seconds(done - began) if began is not None and done is not None else None,
    }


def _tries(fields: Mapping[str, str]) -> dict[str, Any]:
    """Attempts made and times stalled: short names since version 5, absent until there was one."""
    attempts = _int(fields.get("atm", fields.get("attemptsMade", "0")))
    stalled = _int(fields.get("stc", fields.get("stalledCounter", "0")))
    return {"attempts": attempts if fields else None, "stalled_count": stalled if fields else None}


def _more(count: int, shown: int, most: int) -> str:
    return f"only {shown} of {count}" if shown >= most and count > shown else ""


def _int(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


def _seconds(milliseconds: float) -> float:
    return round(max(0.0, milliseconds) / 1000, 1)


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):  # no time of this world
        return None
