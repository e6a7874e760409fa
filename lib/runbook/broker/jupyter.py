"""``runbook jupyter``: the broker and JupyterLab side by side, until one of them is ended."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runbook import catalog
from runbook.broker.lab import Lab
from runbook.broker.server import listening
from runbook.broker.working_copy import WORK, working_copy
from runbook.embedded import free_port
from runbook.errors import ConfigurationError
from runbook.execution.kernel import private_directory
from runbook.execution.kernels import KernelPool
from runbook.execution.zygote_main import SOCKET_NAME
from runbook.reporting.archive import open_archive
from runbook.settings import data_dir

if TYPE_CHECKING:
    from runbook.settings import Settings

AS_ROOT = (
    "you are root, and so are the broker and every kernel: cells read every file and process of this host, actions on "
    "its workers and files are done as root, and nothing keeps a notebook from what the broker knows. "
    "A user of your own is enough for everything else"
)
"""What root adds."""

RUNBOOKS = "runbooks"
"""How JupyterLab shows the directory of the runbooks."""
_PR_SET_DUMPABLE = 4

Say = Callable[[str], None]


def jupyter(settings: Settings, run_id: str = "", *, port: int = 0, browser: bool = True, say: Say) -> None:
    """Open the notebooks, or the working copy of one run, with a broker beside them; returns when that is over.

    Raises
    ------
    RunbookError
        There is no such run, or JupyterLab does not start.
    """
    notebook = working_copy(run_id, open_archive(settings)) if run_id else None
    root = _root()
    _keep_to_itself()
    if os.geteuid() == 0:
        say(AS_ROOT)
    name = notebook.relative_to(root).as_posix() if notebook is not None else RUNBOOKS
    asyncio.run(_beside(settings, root, name, port or _agreed_port(settings), browser, say))


def _keep_to_itself() -> None:
    """Nobody's process but root's may look into this one, not even one of the same user, as every kernel is."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _root() -> Path:
    """What JupyterLab shows: the working copies of all runs, and among them a link to the runbooks.

    One root, so that a run which is begun here, or to which a message leads, opens beside what is open.
    """
    found = catalog.directories()
    if not found:
        raise ConfigurationError("there are no notebooks", remedy="Name their directory in RUNBOOK_NOTEBOOKS")
    root = data_dir() / WORK
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = root / RUNBOOKS
    if not link.is_symlink() or link.readlink() != found[0].resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(found[0].resolve())
    return root


def _agreed_port(settings: Settings) -> int:
    """The port to which links lead, if they lead to this machine and it is free; else 0."""
    where = urlsplit(settings.jupyter.url)
    if where.hostname not in ("127.0.0.1", "localhost") or not where.port:
        return 0
    with socket.socket() as tried, contextlib.suppress(OSError):
        tried.bind(("127.0.0.1", where.port))
        return where.port
    return 0


async def _beside(settings: Settings, root: Path, name: str, port: int, browser: bool, say: Say) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        scratch, nursery = stack.enter_context(_private()), stack.enter_context(_private())
        # One zygote for the kernels of JupyterLab, and for the runs that the broker makes itself.
        pool = KernelPool(1, nursery=nursery)
        stack.push_async_callback(asyncio.to_thread, pool.close)
        broker = await stack.enter_async_context(listening(settings, root=root, pool=pool))
        if broker.trouble:
            say(f"nothing can be done from a notebook, only read: {broker.trouble}")
        lab = Lab(root=root, scratch=scratch, kernel=broker.environment, port=port or free_port())
        stack.callback(lab.end)
        lab.start(zygote=nursery / SOCKET_NAME, open_at=name, browser=browser)
        await asyncio.to_thread(lab.wait_until_it_answers)
        say(f"JupyterLab: {lab.url(name)}")
        say("Ctrl-C ends it and the broker")
        while not stop.is_set() and not lab.ended():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)


@contextlib.contextmanager
def _private() -> Generator[Path]:
    directory = private_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
