"""Many alerts at once: what arrives while one transaction runs goes into the next, together.

A commit waits for the disk, and PostgreSQL lets only one transaction that notifies a queue commit at a time. Taken
one by one, a storm would wait in that line; in batches it costs a commit for many. A caller still gets its answer only
after its own alerts are durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import psycopg
import structlog

from runbook.dispatch.incidents import Arrival, Defer, accept
from runbook.errors import StoreError
from runbook.store.rows import Receipt
from runbook.store.store import Store

log = structlog.get_logger(__name__)

BATCH = 256
"""Alerts in one transaction, unless a single message brings more."""
WAITING = 10_000
"""Alerts that may wait; beyond that the sender is asked to come back."""
_TRIES = 3
_TRANSIENT = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


class Intake:
    """Takes alerts in for one process."""

    def __init__(self, store: Store, defer: Defer) -> None:
        self._store = store
        self._defer = defer
        self._waiting: deque[tuple[Sequence[Arrival], asyncio.Future[list[Receipt]]]] = deque()
        self._alerts_waiting = 0
        self._draining: asyncio.Task[None] | None = None

    async def submit(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        """Receipts for these alerts, once they are durable.

        Raises
        ------
        StoreError
            They were not kept.
        """
        if not arrivals:
            return []
        if self._alerts_waiting + len(arrivals) > WAITING:
            raise StoreError("too many alerts are waiting to be stored", remedy="Send them again in a moment")
        answer: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrivals, answer))
        self._alerts_waiting += len(arrivals)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="alert intake")
        # The alerts are taken in even when the sender hangs up meanwhile.
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """Wait until what was submitted is answered."""
        if self._draining is not None:
            await self._draining

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    await self._take_in(batch)
                finally:
                    for _, answer in batch:
                        if not answer.done():
                            answer.cancel()
        finally:
            self._draining = None

    def _next_batch(self) -> list[tuple[Sequence[Arrival], asyncio.Future[list[Receipt]]]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= BATCH:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        self._alerts_waiting -= size
        return batch

    async def _take_in(self, batch: list[tuple[Sequence[Arrival], asyncio.Future[list[Receipt]]]]) -> None:
        try:
            receipts = await self._accepted([arrival for arrivals, _ in batch for arrival in arrivals])
        except StoreError as error:
            if len(batch) > 1 and isinstance(error.__cause__, psycopg.DataError):
                # One message holds something that PostgreSQL will not keep: the others shall not suffer for it.
                for entry in batch:
                    await self._take_in([entry])
                return
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        position = 0
        for arrivals, answer in batch:
            if not answer.done():
                answer.set_result(receipts[position : position + len(arrivals)])
            position += len(arrivals)

    async def _accepted(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        for attempt in range(1, _TRIES + 1):
            try:
                return await accept(self._store, self._defer, arrivals)
            except StoreError as error:
                if not isinstance(error.__cause__, _TRANSIENT) or attempt == _TRIES:
                    log.error("alerts could not be stored", alerts=len(arrivals), reason=error.message)
                    raise
        raise AssertionError("unreachable")
