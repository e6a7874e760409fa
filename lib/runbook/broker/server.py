"""Where the broker listens: a Unix socket in a directory that nobody else can enter, for whoever has its token."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import secrets
import shutil
import socket
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn

from runbook.actions.acting import Acting
from runbook.broker.app import create_app
from runbook.broker.desk import Desk
from runbook.broker_client import SOCKET, TOKEN
from runbook.errors import StoreError
from runbook.execution.kernel import private_directory
from runbook.execution.remeasure import by_running
from runbook.reporting.archive import open_archive
from runbook.settings import data_dir
from runbook.store import open_store
from runbook.store.action_log import ActionLog

if TYPE_CHECKING:
    from runbook.execution.kernels import KernelPool
    from runbook.settings import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listening:
    """A broker that serves."""

    path: Path
    token: str
    desk: Desk
    #: Why nothing can be done here, where that is so.
    trouble: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a kernel is told, and all of it."""
        return {SOCKET: str(self.path), TOKEN: self.token}


@contextlib.asynccontextmanager
async def listening(settings: Settings, *, root: Path, pool: KernelPool | None = None) -> AsyncGenerator[Listening]:
    """A broker that serves the notebooks below ``root`` while the block lasts.

    Without a store it serves all the same, and acts on nothing.
    """
    async with contextlib.AsyncExitStack() as stack:
        acting, record, trouble, archive = None, None, "", open_archive(settings)
        try:
            store = await stack.enter_async_context(open_store(settings))
            record = store.runs.record
            remeasure = by_running(settings, archive, pool)
            acting = Acting(settings, ActionLog(store, settings), remeasure)
        except StoreError as error:
            trouble = error.message
            log.warning("nothing_can_be_done", reason=trouble)
        actor = f"person:{getpass.getuser()}"
        desk = Desk(settings, acting, archive, actor=actor, directory=data_dir() / "orders", root=root, trouble=trouble,
                    record=record, pool=pool)  # fmt: skip
        path, token = stack.enter_context(_private_path()), secrets.token_urlsafe(32)
        await stack.enter_async_context(_served(desk, path, token))
        finishing = asyncio.create_task(desk.finish(), name="finish")
        stack.push_async_callback(_ended, finishing)
        yield Listening(path=path, token=token, desk=desk, trouble=trouble)


@contextlib.contextmanager
def _private_path() -> Generator[Path]:
    """A path for a socket, in a new directory of mode 0700 with a name short enough for one."""
    directory = private_directory()
    try:
        yield directory / "broker"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _ended(task: asyncio.Task[list[str]]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(64)
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers: the process belongs to whoever started it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def _served(desk: Desk, path: Path, token: str) -> AsyncGenerator[None]:
    listener = _bound(path)
    server = _Server(
        uvicorn.Config(create_app(desk, token), log_config=None, access_log=False, server_header=False,
                       timeout_graceful_shutdown=2, lifespan="off")
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="broker")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()
