"""A queue of the fault's own: jobs added by BullMQ itself, as long ago as the fault says, and forgotten when it heals.

That they were added earlier is the one thing that does not happen by itself: nobody waits ten minutes for a drill.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from runbook.sandbox.stack import PREFIX, QUEUE

if TYPE_CHECKING:
    from bullmq import Queue

    from runbook.sandbox.faults.scene import Scene

KEYS = f"{PREFIX}:{QUEUE}:"
V6 = "bullmq:6.7.0"
"""What BullMQ for Node leaves in the meta data of a queue that it works on."""
JOB = "thumbnail"
"""A kind of job that touches neither the provider nor a row."""
_WINDOW_MINUTES = 60


class Backlog:
    """The jobs of one fault."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._sandbox = scene.sandbox
        scene.production.quiet_queue()

    @contextmanager
    def redis(self) -> Iterator[Any]:
        """The queue's Redis."""
        with self._sandbox.redis() as opened:
            yield opened

    def add(
        self,
        count: int,
        oldest_minutes: float,
        newest_minutes: float = 0.0,
        *,
        data: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[str]:
        """``count`` jobs, added evenly from so long ago to so long ago; their ids."""
        now = time.time() * 1000
        step = 60_000 * (oldest_minutes - newest_minutes) / max(1, count - 1)
        first = now - 60_000 * oldest_minutes
        jobs = [
            {"name": JOB, "data": dict(data or {}), "opts": {"timestamp": int(first + step * n), **options}}
            for n in range(count)
        ]
        ids: list[str] = self._with_queue(lambda queue: self._add(queue, jobs))
        return ids

    @staticmethod
    async def _add(queue: Queue, jobs: Sequence[Any]) -> list[str]:
        return [str(job.id) for job in await queue.addBulk(list(jobs))]

    def _with_queue(self, do: Callable[[Queue], Any]) -> Any:
        async def opened() -> Any:
            from bullmq import Queue

            queue = Queue(QUEUE, {"connection": self._sandbox.settings()["redis"]["url"], "prefix": PREFIX})
            try:
                return await do(queue)
            finally:
                await queue.close()

        return asyncio.run(opened())

    def families(self, count: int, minutes: float) -> list[str]:
        """Parents with one child each, added so long ago; the parents' ids."""
        at = int(time.time() * 1000 - 60_000 * minutes)

        async def add() -> list[str]:
            from bullmq import FlowProducer

            flows = FlowProducer(self._sandbox.settings()["redis"]["url"], {"prefix": PREFIX})
            try:
                made = [
                    await flows.add({
                        "name": "album", "queueName": QUEUE, "data": {}, "opts": {"timestamp": at}, "prefix": PREFIX,
                        "children": [{"name": JOB, "queueName": QUEUE, "data": {}, "prefix": PREFIX}],
                    })
                    for _ in range(count)
                ]  # fmt: skip
                return [str(tree["job"].id) for tree in made if tree]
            finally:
                await flows.close()

        return asyncio.run(add())

    def past(self, count: int, per_minute: float, ran_seconds: float) -> None:
        """Jobs that were done before the window, at that pace, each in so many seconds: what is usual."""
        minutes = count / per_minute
        ids = self.add(count, _WINDOW_MINUTES + 5 + minutes, _WINDOW_MINUTES + 5)
        self._scene.production.jobs("completed", count)
        with self.redis() as redis:
            for job in ids:
                begun = int(str(redis.hget(f"{KEYS}{job}", "timestamp"))) + 200
                ended = begun + int(1000 * ran_seconds)
                redis.hset(f"{KEYS}{job}", mapping={"processedOn": begun, "finishedOn": ended})
                redis.zadd(f"{KEYS}completed", {job: ended})

    def wait_for(self, where: str, count: int) -> None:
        """Wait until that many jobs are ``wait``, ``active``, ``completed``, ``delayed`` or ``failed``."""

        def there() -> bool:
            with self.redis() as redis:
                key = f"{KEYS}{where}"
                found = redis.llen(key) if where in ("wait", "active", "paused") else redis.zcard(key)
            return int(str(found)) >= count

        self._scene.wait_until(there, f"{count} jobs to be {where}")

    def wait_for_no_lock(self) -> None:
        """Wait until no job in work has a lock any more."""

        def gone() -> bool:
            with self.redis() as redis:
                active = redis.lrange(f"{KEYS}active", 0, -1)
                return bool(active) and not any(redis.exists(f"{KEYS}{job}:lock") for job in active)

        self._scene.wait_until(gone, "the locks to lapse")

    def set_back(self, where: str, minutes: float) -> None:
        """Set the jobs of a list back by so many minutes."""
        with self.redis() as redis:
            for job in redis.lrange(f"{KEYS}{where}", 0, -1):
                for name in ("timestamp", "processedOn"):
                    if redis.hexists(f"{KEYS}{job}", name):
                        redis.hincrby(f"{KEYS}{job}", name, -int(60_000 * minutes))

    def meta(self, **values: Any) -> None:
        """What the queue's meta data say."""
        with self.redis() as redis:
            redis.hset(f"{KEYS}meta", mapping={name: str(value) for name, value in values.items()})

    def config(self, **values: Any) -> None:
        """Settings of Redis, put back when the fault heals."""
        with self.redis() as redis:
            for name, value in values.items():
                option = name.replace("_", "-")
                self._scene.undo(partial(self._set, option, redis.config_get(option)[option]))
                redis.config_set(option, value)

    def _set(self, option: str, value: str) -> None:
        with self.redis() as redis:
            redis.config_set(option, value)
