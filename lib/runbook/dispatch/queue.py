"""The queue: Procrastinate delivers a run's id to a worker, and nothing else is left to it.

The ``runs`` row decides who may run what, so Procrastinate's own locks are not used, and a job that is delivered twice
or for a run that is no longer queued simply does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import procrastinate
import structlog
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status

from runbook.errors import StoreError

if TYPE_CHECKING:
    from runbook.store.store import Connection, Store

log = structlog.get_logger(__name__)

QUEUE = "runs"
TASK = "runbook.run"
_POLL_SECONDS = 2.0
_RESTART_SECONDS = 2.0

# It tells of every lost connection with a traceback for each of its tasks; we tell of it in a line.
logging.getLogger("procrastinate").setLevel(logging.CRITICAL)


class Queue:
    """The queue of a store.

    Parameters
    ----------
    handle
        Called with a run's id for each delivery; ``None`` where this process only defers.
    """

    def __init__(self, store: Store, handle: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._app: Any = procrastinate.App(connector=procrastinate.PsycopgConnector())
        self._store = store
        self._handle = handle
        self._task = self._app.task(self._deliver, name=TASK, queue=QUEUE)

    async def __aenter__(self) -> Queue:
        await self._app.open_async(self._store.pool)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._app.close_async()

    async def defer(self, connection: Connection, run_ids: Sequence[str]) -> None:
        """Put jobs for these runs into the queue, inside the transaction of ``connection``."""
        try:
            jobs = self._task.configure(connection=connection)
            await jobs.batch_defer_async(*({"run_id": run_id} for run_id in run_ids))
        except ConnectorException as error:
            raise StoreError("the queue refused the jobs", remedy="See the log of the store's server") from (
                error.__cause__ or error
            )

    async def work(self, *, name: str, concurrency: int) -> None:
        """Deliver jobs until cancelled; then wait for those under way.

        A worker whose connection is lost ends; it is started again until the store is back.
        """
        while True:
            try:
                await self._app.run_worker_async(
                    queues=[QUEUE],
                    name=name,
                    concurrency=concurrency,
                    fetch_job_polling_interval=_POLL_SECONDS,
                    install_signal_handlers=False,
                    # The runs table is the history.
                    delete_jobs="always",
                )
            except ConnectorException as error:
                log.warning("queue connection lost, trying again", reason=type(error.__cause__ or error).__name__)
            else:
                log.warning("queue worker ended by itself, starting it again")
            await asyncio.sleep(_RESTART_SECONDS)

    async def clear_stalled(self, *, seconds: float) -> int:
        """Remove jobs whose worker has been silent for ``seconds``; their runs are the reaper's business."""
        stalled = list(await self._app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=seconds))
        for job in stalled:
            # Another process may clear the same job at the same time.
            with contextlib.suppress(ConnectorException):
                await self._app.job_manager.finish_job(job, Status.FAILED, delete_job=True)
        return len(stalled)

    async def _deliver(self, run_id: str) -> None:
        if self._handle is not None:
            await self._handle(run_id)
