"""Runs the service: HTTP, worker, reaper and kernel pool in one process, or the worker alone.

Stopping is orderly: on SIGTERM no new request and no new run is taken, what is under way is finished or given back, and
nothing that was started here is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

import structlog
import uvicorn

from runbook import catalog
from runbook.dispatch.announce import announce
from runbook.dispatch.executor import NotebookExecutor
from runbook.dispatch.in_force import InForce
from runbook.dispatch.intake import Intake
from runbook.dispatch.policy import act_by_policy, verify_unfinished
from runbook.dispatch.routing import check_routes
from runbook.dispatch.worker import CONCURRENCY, Executor, Worker
from runbook.errors import ConfigurationError
from runbook.execution.execute import prepare
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import open_archive
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
    stop, in_force = _stop_signals(), _read_again_on_hangup(settings)
    runbooks = {runbook.name: runbook for runbook in catalog.load_all()}
    check_routes(runbooks, settings.routes)
    archive = open_archive(settings)
    archive.check()
    with (
        contextlib.closing(_bound(settings)) as listening,
        contextlib.ExitStack() as kernels,
    ):
        pool = None if executor else _pool(concurrency, kernels)
        execute = executor or NotebookExecutor(in_force, archive, pool)
        async with open_store(settings) as store, _worker(in_force, store, execute, concurrency, pool) as worker:
            site = Site(
                in_force=in_force,
                store=store,
                queue=worker.queue,
                intake=Intake(store, worker.queue.defer),
                runbooks=runbooks,
                archive=archive,
                access=Access(settings.server.tokens),
                feed=Feed(store),
                kernels=pool,
                stopping=stop,
            )
            feed = asyncio.create_task(site.feed.run(), name="feed")
            unfinished = asyncio.create_task(verify_unfinished(settings, store, pool), name="unfinished")
            try:
                await _Server(site, started).serve(sockets=[listening])
            finally:
                for task in (feed, unfinished):
                    task.cancel()
                await asyncio.gather(feed, unfinished, return_exceptions=True)
                await site.intake.close()


class _Server(uvicorn.Server):
    """uvicorn's server, stopped by the site's event instead of by signals that it would raise again afterwards."""

    def __init__(self, site: Site, tell: Callable[[str], None] | None) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(site),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_CONNECTIONS_SECONDS,
            )
        )
        self._stopping = site.stopping
        self._tell = tell

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to whoever owns the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and say where."""
        await super().startup(sockets=sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("serving", url=url)
        if self._tell is not None:
            self._tell(url)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        return await super().on_tick(counter) or self._stopping.is_set()


def _bound(settings: Settings) -> socket.socket:
    server = settings.server
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        listening = socket.create_server((server.host, server.port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {server.host} port {server.port}: {error.strerror or error}",
            remedy="Choose another server.host or server.port, or stop what listens there",
        ) from None
    # asyncio sets this only on sockets made with an explicit protocol; without it every answer waits for an ACK, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _stop_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _read_again_on_hangup(settings: Settings) -> InForce:
    """The settings, read again on every SIGHUP."""
    in_force = InForce(settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, in_force.read_again)
    return in_force


async def _work(settings: Settings, concurrency: int, executor: Executor | None) -> None:
    stop, in_force = _stop_signals(), _read_again_on_hangup(settings)
    archive = open_archive(settings)
    archive.check()
    with contextlib.ExitStack() as kernels:
        pool = None if executor else _pool(concurrency, kernels)
        execute = executor or NotebookExecutor(in_force, archive, pool)
        async with open_store(settings) as store, _worker(in_force, store, execute, concurrency, pool):
            await stop.wait()


def _pool(concurrency: int, kernels: contextlib.ExitStack) -> KernelPool | None:
    """Warm kernels, gone when ``kernels`` closes; what the first run would have to import is imported meanwhile."""
    if not concurrency:
        return None
    threading.Thread(target=prepare, name="prepare", daemon=True).start()
    return kernels.enter_context(KernelPool(concurrency))


def _worker(in_force: InForce, store: Store, execute: Executor, concurrency: int, pool: KernelPool | None) -> Worker:
    async def tell(result: Mapping[str, Any]) -> None:
        await announce(result, in_force.settings)
        await act_by_policy(result, in_force.settings, store, worker=socket.gethostname(), pool=pool)

    return Worker(store, in_force, execute, tell, concurrency=concurrency)
