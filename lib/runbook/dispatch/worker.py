"""Executes queued runs: claim, execute in a thread, keep the lease, write the end, announce it.

A worker's last word about a run counts only while its lease holds. When it is stopped it lets runs finish for a while,
then cuts them short; nothing that it started outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from runbook.dispatch.cutshort import CutShort
from runbook.dispatch.in_force import InForce
from runbook.dispatch.queue import Queue
from runbook.dispatch.reaper import Reaper, may_run_again
from runbook.dispatch.trouble import where
from runbook.errors import RunbookError, StoreError
from runbook.store.ids import new_id
from runbook.store.rows import Claim
from runbook.store.store import Store

log = structlog.get_logger(__name__)

CONCURRENCY = 2
LEASE_SECONDS = 30.0
GRACE_SECONDS = 20.0
"""How long a stopping worker lets its runs go on."""
_CUT_SECONDS = 20.0
_FINISH_SECONDS = 60.0
_TELL_EVERY_SECONDS = 0.2

Step = Mapping[str, Any]
Announce = Callable[[Mapping[str, Any]], Awaitable[None]]


class Executor(Protocol):
    """Executes one run, blocking, in a thread of the worker; its files are in the archive when it returns."""

    def __call__(
        self, claim: Claim, *, progress: Callable[[Step], None], cancel: threading.Event
    ) -> dict[str, Any]: ...


@dataclass
class _Held:
    """A run under way in this process."""

    cancel: threading.Event = field(default_factory=threading.Event)
    #: The lease was taken from us: whatever comes out of the run is not ours to write.
    lost: bool = False


class Worker:
    """One worker process' share of the queue; use as an asynchronous context manager.

    Parameters
    ----------
    in_force
        The settings.
    execute
        Executes a run; see :class:`Executor`.
    announce
        Told of every run that ended, as its result document.
    concurrency
        Runs at the same time; 0 = only look after the queue, execute nothing.
    lease_seconds
        How long a worker may be silent before its run is given up for lost.
    """

    def __init__(
        self,
        store: Store,
        in_force: InForce,
        execute: Executor,
        announce: Announce,
        *,
        concurrency: int = CONCURRENCY,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{new_id()[-4:]}"
        self.queue = Queue(store, self._handle)
        self._store = store
        self._reports = CutShort(in_force)
        self._execute = execute
        self._announce_result = announce
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._threads = ThreadPoolExecutor(max_workers=max(1, concurrency), thread_name_prefix="run")
        self._held: dict[str, _Held] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.reaper = Reaper(
            store, self.queue, self._reports, self._announce, name=self.name, lease_seconds=lease_seconds
        )

    async def __aenter__(self) -> Worker:
        await self.queue.__aenter__()
        self._tasks = [asyncio.create_task(self.reaper.run(), name="reaper")]
        if self._concurrency:
            work = self.queue.work(name=self.name, concurrency=self._concurrency)
            self._tasks.append(asyncio.create_task(work, name="queue"))
        log.info("worker started", worker=self.name, concurrency=self._concurrency)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Take no more runs, let those under way finish for ``grace_seconds``, then cut them short."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        self._stopping = True
        for held in self._held.values():
            held.cancel.set()
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=_CUT_SECONDS)
            if pending:
                log.error("runs do not end when told to", runs=sorted(self._held))
        self._tasks = []
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.queue.__aexit__()

    async def _handle(self, run_id: str) -> None:
        """One delivery from the queue."""
        with structlog.contextvars.bound_contextvars(run_id=run_id):
            try:
                claim = await self._store.runs.claim(run_id, worker=self.name, lease_seconds=self._lease_seconds)
                if claim is not None:
                    await self._run(claim)
            except StoreError as error:
                # Queued or held, the reaper finds it when the store is back.
                log.error("run left to the reaper", reason=error.message)

    async def _run(self, claim: Claim) -> None:
        held = self._held[claim.run_id] = _Held()
        steps: asyncio.Queue[Step | None] = asyncio.Queue()
        keeper = asyncio.create_task(self._keep_lease(claim, held))
        teller = asyncio.create_task(self._tell(claim, steps))
        try:
            result = await self._executed(claim, held, steps)
        finally:
            keeper.cancel()
            steps.put_nowait(None)
            await asyncio.gather(keeper, teller, return_exceptions=True)
            del self._held[claim.run_id]
        if held.lost:
            log.warning("lease lost; the run belongs to somebody else now")
            return
        if self._stopping and result["state"] == "cancelled":
            await self._give_back(claim, result)
        elif await self._finish(claim, result):
            await self._announce(result)

    async def _executed(self, claim: Claim, held: _Held, steps: asyncio.Queue[Step | None]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()

        def progress(step: Step) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, step)

        def call() -> dict[str, Any]:
            with structlog.contextvars.bound_contextvars(run_id=claim.run_id):
                return self._execute(claim, progress=progress, cancel=held.cancel)

        log.info("run started", runbook=claim.runbook, attempt=claim.attempts)
        try:
            result = await loop.run_in_executor(self._threads, call)
        except RunbookError as error:
            log.error("run failed before its report", reason=str(error))
            return await self._reports.end(claim, "failed", name=type(error).__name__, message=str(error))
        except Exception as error:  # noqa: BLE001 (the job's boundary: told to people as the run's end, and logged)
            log.error("run failed by an error of ours", trouble=where(error))
            message = "internal error; the worker's log says where"
            return await self._reports.end(claim, "failed", name=type(error).__name__, message=message)
        log.info("run ended", state=result["state"], outcome=result.get("outcome"))
        return result

    async def _keep_lease(self, claim: Claim, held: _Held) -> None:
        while not held.lost:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                if not await self._store.runs.extend(claim, lease_seconds=self._lease_seconds):
                    held.lost = True
                    held.cancel.set()
            except StoreError as error:
                # The store may be back before anybody else could take the run.
                log.warning("lease could not be extended", reason=error.message)

    async def _tell(self, claim: Claim, steps: asyncio.Queue[Step | None]) -> None:
        over = False
        while not over:
            batch = [await steps.get()]
            # People follow a run by eye; every cell on its own would cost the run itself a good part of its time.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TELL_EVERY_SECONDS):
                    while batch[-1] is not None:
                        batch.append(await steps.get())
            over = batch[-1] is None
            if told := [step for step in batch if step is not None]:
                try:
                    await self._store.runs.progress(claim, told)
                except StoreError as error:
                    log.warning("progress could not be told", reason=error.message)

    async def _finish(self, claim: Claim, result: Mapping[str, Any]) -> bool:
        """Write the end of the run, waiting for the store if need be; ``False`` when it is not ours any more."""
        deadline = asyncio.get_running_loop().time() + _FINISH_SECONDS
        while True:
            try:
                return await self._store.runs.finish(claim, result)
            except StoreError as error:
                if asyncio.get_running_loop().time() > deadline:
                    log.error("end of the run could not be written", reason=error.message)
                    return False
                await asyncio.sleep(1)

    async def _give_back(self, claim: Claim, result: dict[str, Any]) -> None:
        """We are stopping: another worker may start it anew if its notebook allows that, else it was interrupted."""
        if may_run_again(claim):
            async with self._store.transaction() as connection:
                if await self._store.runs.release(connection, claim):
                    await self.queue.defer(connection, [claim.run_id])
            log.info("run given back to the queue")
            return
        result = {**result, "state": "interrupted"}
        if await self._finish(claim, result):
            await self._announce(result)

    async def _announce(self, result: Mapping[str, Any]) -> None:
        """Announce a run that ended, once; no failure in that is a failure of the run."""
        try:
            if await self._store.runs.take_announcement(str(result["run_id"])):
                await self._announce_result(result)
        except Exception as error:  # noqa: BLE001 (announcing must never fail a run; it is logged)
            log.error("run could not be announced", run_id=result.get("run_id"), trouble=where(error))
