"""Finds runs that nobody looks after any more and brings them to an end, or back into the queue.

It runs in every worker, as part of it and not as a job: a job could be lost as well. An interrupted run is never
started again unless its notebook says that this is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from procrastinate.exceptions import ConnectorException

from runbook import catalog
from runbook.dispatch.cutshort import CutShort
from runbook.dispatch.documents import from_row
from runbook.dispatch.queue import Queue
from runbook.errors import RunbookError, StoreError
from runbook.store.rows import Claim
from runbook.store.store import Store

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 3
_UNANNOUNCED_SECONDS = 30.0


def may_run_again(claim: Claim) -> bool:
    """Whether an interrupted run may be started again by itself: its notebook says so, and not for ever."""
    with contextlib.suppress(RunbookError):
        return catalog.load(claim.runbook).idempotent and claim.attempts < MOST_ATTEMPTS
    return False


class Reaper:
    """Sweeps the runs of a store at intervals.

    Parameters
    ----------
    announce
        Told of the runs that it ends.
    lost_seconds
        A queued run without a job is deferred anew after this long.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        reports: CutShort,
        announce: Callable[[Mapping[str, Any]], Awaitable[None]],
        *,
        name: str,
        lease_seconds: float,
        lost_seconds: float | None = None,
    ) -> None:
        self._store = store
        self._queue = queue
        self._reports = reports
        self._announce = announce
        self._name = f"reaper of {name}"
        self._lease_seconds = lease_seconds
        self._lost_seconds = lease_seconds if lost_seconds is None else lost_seconds

    async def run(self) -> None:
        """Sweep until cancelled, a few times within a lease."""
        while True:
            try:
                await self.sweep()
            except (StoreError, ConnectorException) as error:
                log.warning("sweep failed, trying again", reason=str(error) or type(error.__cause__).__name__)
            await asyncio.sleep(self._lease_seconds / 4)

    async def sweep(self) -> None:
        """Settle runs whose lease is over, defer lost ones, announce what was left unannounced."""
        for claim in await self._store.runs.take_expired(worker=self._name, lease_seconds=self._lease_seconds):
            await self._settle(claim)
        async with self._store.transaction() as connection:
            lost = await self._store.runs.take_lost(connection, seconds=self._lost_seconds)
            if lost:
                log.warning("queued runs had no job; deferred again", runs=lost)
                await self._queue.defer(connection, lost)
        await self._queue.clear_stalled(seconds=max(30.0, self._lease_seconds))
        for run_id in await self._store.runs.unannounced(seconds=_UNANNOUNCED_SECONDS):
            row = await self._store.runs.get(run_id)
            if row is not None:
                await self._announce(from_row(row))

    async def _settle(self, claim: Claim) -> None:
        left = await self._reports.left_behind(claim)
        if left is not None and left["state"] in ("succeeded", "failed"):
            log.warning("worker lost after its run had ended", run_id=claim.run_id, runbook=claim.runbook)
            await self._end(claim, left)
            return
        if may_run_again(claim):
            async with self._store.transaction() as connection:
                if await self._store.runs.release(connection, claim):
                    await self._queue.defer(connection, [claim.run_id])
            log.warning("worker lost; run queued again", run_id=claim.run_id, runbook=claim.runbook)
            return
        log.warning("worker lost; run interrupted", run_id=claim.run_id, runbook=claim.runbook)
        message = "the worker that executed it was lost; it is not started again by itself"
        error = {"cell": None, "name": "WorkerLost", "message": message}
        if left is not None:
            await self._end(claim, left | {"state": "interrupted", "error": error})
        else:
            await self._end(claim, await self._reports.end(claim, "interrupted", name="WorkerLost", message=message))

    async def _end(self, claim: Claim, result: Mapping[str, Any]) -> None:
        if await self._store.runs.finish(claim, result):
            await self._announce(result)
