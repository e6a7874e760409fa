"""Runs the service: HTTP, worker, reaper and kernel pool in one process, or the worker alone.

Stopping is orderly: on SIGTERM no new request and no new run is taken, what is under way is finished or given back, and
nothing that was started here is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any

import structlog
import uvicorn

from runbook import catalog
from runbook.dispatch.announce import announce
from runbook.dispatch.executor import NotebookExecutor
from runbook.dispatch.intake import Intake
from runbook.dispatch.routing import check_routes
from runbook.dispatch.worker import CONCURRENCY, Executor, Worker
from runbook.execution.kernels import KernelPool
from runbook.redaction import Redactor
from runbook.reporting.archive import Archive, open_archive
from runbook.settings import Settings
from runbook.store import open_store
from runbook.store.store import Store
from runbook.web.access import Access, check_binding
from runbook.web.app import create_app
from runbook.web.site import Feed, Site

log = structlog.get_logger(__name__)

_CONNECTIONS_SECONDS = 5


def serve(
    settings: Settings,
    *,
    concurrency: int = CONCURRENCY,
    executor: Executor | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    concurrency
        Runs at the same time; 0 = take alerts in and leave the runs to ``runbook worker``.
    executor
        Executes a run; the notebook's execution when none is given.
    started
        Called with the service's URL once it accepts requests.

    Raises
    ------
    ConfigurationError
        No token and not on loopback, or a route to an unknown runbook.
    StoreError, ArchiveError
        The store or the archive cannot be used.
    """
    check_binding(settings)
    asyncio.run(_serve(settings, concurrency, executor, started))


def work(settings: Settings, *, concurrency: int = CONCURRENCY, executor: Executor | None = None) -> None:
    """Execute queued runs until SIGTERM or SIGINT; see :func:`serve` for the parameters."""
    asyncio.run(_work(settings, concurrency, executor))


async def _serve(
    settings: Settings, concurrency: int, executor: Executor | None, started: Callable[[str], None] | None
) -> None:
    runbooks = {runbook.name: runbook for runbook in catalog.load_all()}
    check_routes(runbooks, settings.routes)
    archive = open_archive(settings)
    archive.check()
    async with open_store(settings) as store, _worker(settings, store, archive, concurrency, executor) as worker:
        intake = Intake(store, worker.queue.defer)
        site = Site(
            settings=settings,
            store=store,
            queue=worker.queue,
            intake=intake,
            runbooks=runbooks,
            archive=archive,
            redactor=Redactor(settings.secrets()),
            access=Access(settings.server.tokens),
            feed=Feed(store),
        )
        feed = asyncio.create_task(site.feed.run(), name="feed")
        try:
            await _listen(site, started)
        finally:
            site.stopping.set()
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)
            await intake.close()


async def _listen(site: Site, started: Callable[[str], None] | None) -> None:
    server = _Server(
        uvicorn.Config(
            create_app(site),
            host=site.settings.server.host,
            port=site.settings.server.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CONNECTIONS_SECONDS,
        )
    )
    server.on_exit = site.stopping.set
    server.on_started = started
    await server.serve()


class _Server(uvicorn.Server):
    """uvicorn's server that says when it has begun, and when it is about to end."""

    on_exit: Callable[[], None]
    on_started: Callable[[str], None] | None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            log.info("serving", url=url)
            if self.on_started is not None:
                self.on_started(url)

    async def shutdown(self, sockets: Any = None) -> None:
        # Streams of events would otherwise be waited for.
        self.on_exit()
        await super().shutdown(sockets=sockets)


async def _work(settings: Settings, concurrency: int, executor: Executor | None) -> None:
    archive = open_archive(settings)
    archive.check()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with open_store(settings) as store, _worker(settings, store, archive, concurrency, executor):
        await stop.wait()


@contextlib.asynccontextmanager
async def _worker(
    settings: Settings, store: Store, archive: Archive, concurrency: int, executor: Executor | None
) -> AsyncGenerator[Worker]:
    """The worker with its kernels; they are gone when the block ends."""
    with contextlib.ExitStack() as kernels:
        if executor is None:
            pool = kernels.enter_context(KernelPool(concurrency)) if concurrency else None
            executor = NotebookExecutor(settings, archive, pool)
        tell = functools.partial(_tell, settings)
        async with Worker(store, executor, tell, concurrency=concurrency) as worker:
            yield worker


async def _tell(settings: Settings, result: Any) -> None:
    await announce(result, settings)
