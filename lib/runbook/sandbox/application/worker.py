"""The transcoding worker: a BullMQ worker in a process of its own, which can go wrong in the ways that workers do."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bullmq import Job, Worker

from runbook.sandbox import processes
from runbook.sandbox.application import http1
from runbook.sandbox.application.backend import basic
from runbook.sandbox.application.database import WORKER_NAME, Database, DatabaseFailed

Mode = Literal["ok", "hang", "block", "crash", "fail", "full_disk", "no_database", "slow", "poison"]
CONCURRENCY = 2

_PROCESSING = """UPDATE content SET status = 'PROCESSING', "updatedAt" = timezone('UTC', now())
                 WHERE id = %s AND status = 'UPLOADING'"""
_FAILED = """UPDATE content SET status = 'FAILED', "updatedAt" = timezone('UTC', now())
             WHERE id = %s AND status IN ('UPLOADING', 'PROCESSING')"""

log = logging.getLogger("worker")


class TranscodingFailed(Exception):
    """The job fails; the message becomes its ``failedReason``."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How the worker was started."""

    redis_url: str
    queue: str
    prefix: str
    database_dsn: str
    mux_url: str
    mux_token_id: str
    mux_token_secret: str
    log: str
    #: A lock lives this long and is renewed at half.
    lock_seconds: float
    mode: Mode = "ok"
    #: With mode ``slow``: how long each job takes.
    seconds: float = 1.0
    #: ``{max, duration}``: at most so many jobs in so many milliseconds.
    limiter: Mapping[str, int] | None = None
    #: With mode ``fail``.
    reason: str = "Error: transcoding failed"
    #: Process that it ends with, where that is not the one that started it; ``None`` = it stays.
    owner: int | None = None


class Transcoder:
    """Does one job after the other in the mode that it was ordered."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._client = http1.Client()
        self._database = Database(orders.database_dsn, application_name=WORKER_NAME)
        self._modes: Mapping[str, Callable[[], Awaitable[None]]] = {
            "hang": _hang,
            "block": _block,
            "crash": _crash,
            "fail": self._fail,
            "full_disk": _fill_disk,
            "slow": self._take_time,
        }

    async def __call__(self, job: Job, token: str) -> str:
        """Hand the object to the transcoder; the webhook ends what begins here."""
        data = job.data if isinstance(job.data, dict) else json.loads(job.data)
        if self._orders.mode == "poison" and data.get("poison"):
            await _crash()
        if "contentId" not in data:  # housekeeping, which touches neither the provider nor a row
            await self._modes.get(self._orders.mode, _nothing)()
            return "done"
        identity = str(data["contentId"])
        try:
            await self._modes.get(self._orders.mode, _nothing)()
            asset = await self._create_asset(identity, data)
        except (TranscodingFailed, OSError) as error:
            log.error("job %s for %s failed: %s", job.id, identity, error)
            await self._set(_FAILED, identity)
            raise
        await self._set(_PROCESSING, identity)
        return asset

    async def _create_asset(self, identity: str, data: Mapping[str, Any]) -> str:
        orders = self._orders
        headers = {
            "authorization": basic(orders.mux_token_id, orders.mux_token_secret),
            "content-type": "application/json",
        }
        body = {
            "inputs": [{"url": str(data["url"])}],
            "playback_policies": ["public"],
            "passthrough": identity,
            "meta": {"creator_id": str(data["creatorId"])},
        }
        try:
            response = await self._client.request(
                "POST",
                f"{orders.mux_url}/video/v1/assets",
                headers=headers,
                body=json.dumps(body).encode(),
                seconds=3.0,
            )
        except TimeoutError:
            raise TranscodingFailed("Error: ETIMEDOUT api.mux.com did not answer within 3000 ms") from None
        except http1.FAILURES as error:
            raise TranscodingFailed(f"Error: connect ECONNREFUSED api.mux.com ({type(error).__name__})") from None
        if response.status >= 300:
            raise TranscodingFailed(f"Error: Mux API answered {response.status}")
        return str(json.loads(response.body)["data"]["id"])

    async def _set(self, statement: str, identity: str) -> None:
        """A row that cannot be written is logged and forgotten, as careless code does."""
        try:
            if self._orders.mode == "no_database":
                raise DatabaseFailed("ReadTimeout: the statement was not sent")
            await self._database.rows(statement, (identity,))
        except DatabaseFailed as error:
            log.error("row of %s was not written: %s", identity, error)

    async def _take_time(self) -> None:
        await asyncio.sleep(self._orders.seconds)

    async def _fail(self) -> None:
        raise TranscodingFailed(self._orders.reason)


async def _nothing() -> None:
    return


async def _hang() -> None:
    """Wait for something that never comes; the lock is renewed all the while."""
    await asyncio.Event().wait()


async def _block() -> None:
    """Keep the event loop, so that nothing else happens in this process: no renewal either."""
    while True:
        time.sleep(1)  # noqa: ASYNC251 - that is the fault


async def _crash() -> None:
    """End as the kernel's OOM killer ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


async def _fill_disk() -> None:
    """Write a temporary file where there is no room."""
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123, ASYNC230 - one byte to a device
        full.write(b"0")


async def _work(orders: Orders) -> None:
    options: Any = {
        "connection": orders.redis_url,
        "prefix": orders.prefix,
        "concurrency": CONCURRENCY,
        "lockDuration": int(1000 * orders.lock_seconds),
        "stalledInterval": int(1000 * orders.lock_seconds),
        "name": "transcoder",
    }
    if orders.limiter is not None:
        options["limiter"] = orders.limiter
    worker: Any = Worker(orders.queue, Transcoder(orders), options)
    # BullMQ on Node encodes the queue in the name of its connections, its port to Python does not; backends run Node.
    encoded = base64.b64encode(orders.queue.encode()).decode()
    worker.clientName = f"{orders.prefix}:{encoded}:w:{options['name']}"
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await worker.client.ping()
    processes.ready()
    await stopped.wait()
    await worker.close(force=True)


def main() -> None:
    """In the child: work until SIGTERM."""
    orders = Orders(**processes.arguments())
    if orders.owner is not None:
        processes.end_with(orders.owner)
    handler = logging.FileHandler(orders.log)
    handler.setFormatter(logging.Formatter("%(asctime)sZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    logging.Formatter.converter = time.gmtime
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    asyncio.run(_work(orders))
    sys.exit(0)


if __name__ == "__main__":
    main()
