"""One BullMQ queue of version 3 to 6, read from its keys in Redis with plain read-only commands.

What a queue looks like differs by version: a pause renames ``wait`` to ``paused`` up to 5 and moves nothing in 6; a
marker may stand among the waiting ids up to 4. The data of a job is never fetched, only its name, times and failure,
and nothing is ever asked whose cost grows with the queue (``KEYS``, ``SMEMBERS``).
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from runbook.connectors import bullmq_rows as rows
from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.bullmq_rows import DELAY_SHIFT, JOB, SETS
from runbook.connectors.redis_server import Command, RedisConnector, Session, error_code
from runbook.result import Reading
from runbook.settings import Queue

MAX_ACTIVE = 50
MAX_FINISHED = 200
MAX_BEFORE = 100
"""Jobs completed before the window that are read, to know what is usual."""
MAX_NEWEST, MAX_OLDEST = 200, 50
"""Waiting jobs that are read at either end of a list."""
MAX_DELAYED = 100
MAX_PARENTS, MAX_CHILDREN = 20, 5
MAX_MINUTES = 240
"""Steps of a flow; a longer window has wider ones."""
MAX_SCANS = 100
"""Queues of other names are looked for among at most this many batches of :data:`SCAN_COUNT` keys."""
SCAN_COUNT = 1000
PRIORITY_SHIFT = 2**32
"""The score of a prioritized job is its priority times this, plus a counter."""

Steps = Generator[Sequence[Command], list[Any], Fetched]
"""How a reading is put together: batches of commands out, their answers in, what was found at the end."""


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
        return self._all({
            "queue_state": self._state(),
            "queue_active": self._active(),
            "queue_failed": self._finished("failed", since),
            "queue_completed": self._finished("completed", since),
        })  # fmt: skip

    def history(self, since: datetime) -> list[Reading]:
        """What waits, and what became of the others since ``since``, over one connection in a few round trips.

        ``queue_failed`` and ``queue_completed`` as above; ``queue_before``: the last jobs completed before that, by
        which the usual is known; ``queue_waiting``: jobs that could run now, those at either end of each list;
        ``queue_delayed``: jobs that are to run later, the next ones first, those between two tries among them;
        ``queue_parents``: jobs that wait for their children, with a child that failed; ``queue_flow``: a row a minute,
        how many completed and failed, of those that the queue keeps.
        """
        return self._all({
            "queue_failed": self._finished("failed", since),
            "queue_completed": self._finished("completed", since),
            "queue_before": self._before(since),
            "queue_waiting": self._waiting(),
            "queue_delayed": self._delayed(),
            "queue_parents": self._parents(),
            "queue_flow": self._flow(since),
        })  # fmt: skip

    def _all(self, steps: Mapping[str, Steps]) -> list[Reading]:
        """The readings of these steps; when the first cannot even connect, the others have its failure."""
        found: dict[str, Fetched | Exception] = {}
        leading, *others = steps

        def all_at_once(session: Session) -> Fetched:
            found.update(_together(session, steps))
            return _outcome(found[leading])

        first = self.ask(leading, self._query(leading), all_at_once)
        same = Failure(state=first.state, reason=first.reason, code=first.code)
        return [first, *(self._known_already(name, found.get(name), same) for name in others)]

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
            "queue_before": f"ZREVRANGEBYSCORE completed (before the window) LIMIT 0 {MAX_BEFORE}, HMGET",
            "queue_waiting": f"LRANGE wait and paused, {MAX_NEWEST} newest and {MAX_OLDEST} oldest, "
            f"ZRANGE prioritized, HMGET",
            "queue_delayed": f"ZRANGE delayed 0 {MAX_DELAYED - 1} WITHSCORES, HMGET",
            "queue_parents": f"ZRANGE waiting-children 0 {MAX_PARENTS - 1}, HMGET, SCARD and SRANDMEMBER dependencies",
            "queue_flow": "ZCOUNT completed and failed, a minute each",
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
        row = {"queue": self._queue.name, "prefix": self._queue.prefix, **rows.counts(known), **rows.version(known)}
        row |= yield from self._ages(known, now)
        row |= rows.workers(known["clients"], self._client_names())
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
            "id": ("GET", key("id")),
            **{name: ("LLEN", key(name)) for name in ("wait", "paused", "active")},
            **{name: ("ZCARD", key(name)) for name in SETS},
            **{f"{name}-last": ("ZREVRANGE", key(name), 0, 0, "WITHSCORES") for name in ("completed", "failed")},
            "overdue": ("ZCOUNT", key("delayed"), 0, f"{now * DELAY_SHIFT:.0f}"),
            "wait-tail": ("LRANGE", key("wait"), -2, -1),
            "paused-tail": ("LRANGE", key("paused"), -2, -1),
            "first": ("ZRANGE", key("prioritized"), 0, 0),
            "limiter": ("PTTL", key("limiter")),
            "clients": ("CLIENT LIST",),
        }

    def _ages(self, known: Mapping[str, Any], now: float) -> Generator[Sequence[Command], list[Any], rows.Row]:
        """How long the jobs wait that are next: at the tail of a list, at the head of what is prioritized."""
        ends = {
            "oldest_in_wait_seconds": rows.job_ids(known["wait-tail"])[-1:],
            "oldest_in_paused_seconds": rows.job_ids(known["paused-tail"])[-1:],
            "oldest_prioritized_seconds": list(known["first"] or []),
        }
        hashes = yield [self._job(job) for ids in ends.values() for job in ids]
        row: rows.Row = {"oldest_waiting_seconds": rows.oldest(hashes, now)}
        for name, ids in ends.items():
            row[name] = rows.oldest([hashes.pop(0) for _ in ids], now)
        row["next_id"] = next((ids[0] for ids in ends.values() if ids), None)
        return row

    def _job(self, job: str) -> Command:
        return ("HMGET", self._key(job), *JOB)

    def _active(self) -> Steps:
        now = self._now_ms()
        listing = ("LRANGE", self._key("active"), -MAX_ACTIVE, -1)
        count, ids = yield [("LLEN", self._key("active")), listing]
        jobs = rows.job_ids(rows.got(ids))
        answers = yield [*map(self._job, jobs), *(("PTTL", self._key(f"{job}:lock")) for job in jobs)]
        hashes, locks = answers[: len(jobs)], answers[len(jobs) :]
        found = [
            rows.active_row(job, rows.fields_of(fields), lock, now)
            for job, fields, lock in zip(jobs, hashes, locks, strict=True)
        ]
        found = yield from _lasting(found, [listing])
        found.sort(key=lambda row: -(row["running_seconds"] or 0))
        return Fetched(value=found, partial=rows.more(rows.got(count), len(ids), MAX_ACTIVE))

    def _finished(self, state: str, since: datetime) -> Steps:
        lowest = f"{since.timestamp() * 1000:.0f}"
        listing = ("ZREVRANGEBYSCORE", self._key(state), "+inf", lowest, "LIMIT", 0, MAX_FINISHED)
        count, pairs = yield [("ZCOUNT", self._key(state), lowest, "+inf"), listing]
        ids = list(rows.got(pairs))
        hashes = yield [self._job(job) for job in ids]
        row = rows.failed_row if state == "failed" else rows.completed_row
        found = [row(job, rows.fields_of(fields)) for job, fields in zip(ids, hashes, strict=True)]
        found = yield from _lasting(found, [listing])
        return Fetched(value=found, partial=rows.more(rows.got(count), len(ids), MAX_FINISHED))

    def _before(self, since: datetime) -> Steps:
        highest = f"({since.timestamp() * 1000:.0f}"
        (ids,) = yield [("ZREVRANGEBYSCORE", self._key("completed"), highest, "-inf", "LIMIT", 0, MAX_BEFORE)]
        jobs = list(rows.got(ids))
        hashes = yield [self._job(job) for job in jobs]
        return Fetched(value=[rows.completed_row(j, rows.fields_of(h)) for j, h in zip(jobs, hashes, strict=True)])

    def _waiting(self) -> Steps:
        now = self._now_ms()
        lists, prioritized = ("wait", "paused"), self._key("prioritized")
        listing: list[Command] = [
            *(("LRANGE", self._key(name), 0, MAX_NEWEST - 1) for name in lists),
            *(("LRANGE", self._key(name), -MAX_OLDEST, -1) for name in lists),
            ("ZRANGE", prioritized, 0, MAX_OLDEST - 1),
        ]
        ends = yield [
            *listing,
            *(("LLEN", self._key(name)) for name in lists),
            ("ZREVRANGE", prioritized, 0, MAX_OLDEST - 1, "WITHSCORES"),
            ("ZCARD", prioritized),
        ]
        *of_lists, first, waiting, paused, scored, ranked = map(rows.got, ends)
        last = rows.with_scores(scored)
        least = int(last[0][1]) // PRIORITY_SHIFT * PRIORITY_SHIFT if last else 0
        # The oldest of those that come last: whoever starves stands there.
        starved: list[Command] = [("ZRANGEBYSCORE", prioritized, least, "+inf", "LIMIT", 0, MAX_OLDEST)] if last else []
        starving = yield starved
        places: dict[str, str] = {}
        for name, ids in zip((*lists, *lists), of_lists, strict=True):
            places |= dict.fromkeys(rows.job_ids(ids), name)
        newest = {job for ids in of_lists[:2] for job in ids}
        in_order = [*first, *(job for job, _ in last), *(job for ids in starving for job in rows.got(ids))]
        places |= dict.fromkeys(in_order, "prioritized")
        hashes = yield [self._job(job) for job in places]
        found = [
            rows.waiting_row(job, rows.fields_of(fields), place, now) | {"at_head": job in newest}
            for (job, place), fields in zip(places.items(), hashes, strict=True)
        ]
        unseen = waiting + paused + ranked - len(found)
        found = yield from _lasting(found, [*listing, *starved, ("ZREVRANGE", prioritized, 0, MAX_OLDEST - 1)])
        found.sort(key=lambda row: -(row["waited_seconds"] or 0))
        some = f"only {len(found)} of {len(found) + unseen}"
        return Fetched(value=found, partial=some if unseen > len(lists) else "")

    def _delayed(self) -> Steps:
        now = self._now_ms()
        count, pairs = yield [
            ("ZCARD", self._key("delayed")),
            ("ZRANGE", self._key("delayed"), 0, MAX_DELAYED - 1, "WITHSCORES"),
        ]
        scored = rows.with_scores(pairs)
        hashes = yield [self._job(job) for job, _ in scored]
        found = [
            rows.delayed_row(job, rows.fields_of(fields), score, now)
            for (job, score), fields in zip(scored, hashes, strict=True)
        ]
        found = yield from _lasting(found, [("ZRANGE", self._key("delayed"), 0, MAX_DELAYED - 1)])
        return Fetched(value=found, partial=rows.more(rows.got(count), len(scored), MAX_DELAYED))

    def _parents(self) -> Steps:
        """A child is looked for at random, as many as :data:`MAX_CHILDREN` a parent: its set may be of any size."""
        now = self._now_ms()
        (count, ids) = yield [
            ("ZCARD", self._key("waiting-children")),
            ("ZRANGE", self._key("waiting-children"), 0, MAX_PARENTS - 1),
        ]
        jobs = list(rows.got(ids))
        answers = yield [
            command
            for job in jobs
            for command in (
                self._job(job),
                ("SCARD", self._key(f"{job}:dependencies")),
                ("SRANDMEMBER", self._key(f"{job}:dependencies"), MAX_CHILDREN),
            )
        ]
        parents = [answers[n : n + 3] for n in range(0, len(answers), 3)]
        children = [list(drawn) if not isinstance(drawn, Exception) else [] for _, _, drawn in parents]
        states = iter((yield [("HMGET", child, "finishedOn", "failedReason") for drawn in children for child in drawn]))
        found = []
        for job, (fields, left, _), drawn in zip(jobs, parents, children, strict=True):
            looked = {child: next(states) for child in drawn}
            found.append(rows.parent_row(job, rows.fields_of(fields), left, now) | rows.failed_child(looked))
        return Fetched(value=found, partial=rows.more(rows.got(count), len(jobs), MAX_PARENTS))

    def _flow(self, since: datetime) -> Steps:
        now = self.context.now()
        step = max(60.0, (now - since).total_seconds() / MAX_MINUTES)
        begins = [since + timedelta(seconds=step * n) for n in range(int((now - since).total_seconds() // step) + 1)]
        answers = yield [
            ("ZCOUNT", self._key(state), f"{begin.timestamp() * 1000:.0f}", f"({(begin.timestamp() + step) * 1000:.0f}")
            for begin in begins
            for state in ("completed", "failed")
        ]
        ended = [rows.got(answer) for answer in answers]
        return Fetched(value=[
            {"at": begin.isoformat(timespec="seconds"), "seconds": round(step, 1), "completed": completed,
             "failed": failed}
            for begin, completed, failed in zip(begins, ended[::2], ended[1::2], strict=True)
        ])  # fmt: skip

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


def _lasting(
    found: list[rows.Row], listing: Sequence[Command]
) -> Generator[Sequence[Command], list[Any], list[rows.Row]]:
    """The rows, without those whose job ended between the list and its hash, which went with it.

    A job that is listed again, and has no hash still, lost it otherwise.
    """
    if all(row["has_hash"] is not False for row in found):
        return found
    again = yield listing
    there = {job for ids in again for job in rows.got(ids)}
    return [row for row in found if row["has_hash"] is not False or row["id"] in there]


def _outcome(found: Fetched | Exception) -> Fetched:
    if isinstance(found, Exception):
        raise found
    return found
