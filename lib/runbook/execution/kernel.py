"""One kernel process with a connected client, for one run: started, asked, killed. Never used twice.

All of its asynchronous work runs on an event loop of its own, which whoever holds the kernel may turn from any thread
(one at a time), so that no signal handler and no loop of the caller is touched.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from runbook.errors import RunbookError
from runbook.execution import provisioner
from runbook.execution.environment import kernel_environment

T = TypeVar("T")

_SPEAKS_TO_NOBODY = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
"""What a cell's own processes print past Jupyter would go to our terminal unredacted, and into ``--json``."""

START_SECONDS = 60.0
"""How long a cold kernel may take on a busy machine before it counts as broken."""

_ARGUMENTS = (
    "--HistoryManager.enabled=False",
    "--InteractiveShell.xmode=Minimal",
    "--InteractiveShell.colors=nocolor",
    "--InteractiveShellApp.ignore_cwd=True",
    # Each cell would sleep for its outputs to arrive before its reply; we wait for both anyway.
    "--Kernel._execute_sleep=0",
)
_SOCKET_PATH_LIMIT = 107


class KernelFailed(RunbookError):
    """A kernel did not start, does not answer, or refused what was asked of it."""

    exit_code = 3


class _OneSpec(KernelSpecManager):
    """Knows one kernelspec: this interpreter, whatever is installed for the user."""

    def __init__(self, spec: KernelSpec) -> None:
        super().__init__()
        self._spec = spec

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return self._spec


def private_directory() -> Path:
    """A new directory that nobody else can enter, with a name short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="runbook-k-"))
    if len(str(path)) > _SOCKET_PATH_LIMIT - len("/kernel-000000-5"):
        path.rmdir()
        path = Path(tempfile.mkdtemp(prefix="runbook-k-", dir="/tmp"))
    return path


def python_spec(zygote_socket: Path | None = None) -> KernelSpec:
    """The kernelspec of this interpreter; with a socket, its process is forked by the zygote there."""
    metadata: dict[str, Any] = {}
    if zygote_socket is not None:
        config = {"socket": str(zygote_socket)}
        metadata["kernel_provisioner"] = {"provisioner_name": provisioner.NAME, "config": config}
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", *_ARGUMENTS]
    return KernelSpec(argv=argv, display_name="Python", language="python", metadata=metadata)


class Kernel:
    """A started kernel. A context manager that kills it.

    Attributes
    ----------
    manager, client
        The Jupyter kernel manager, and a client whose shell, iopub and control channels are open.
    warm
        Whether it came from the zygote.
    why_cold
        The reason why it did not, for the log and the report; empty for a warm one.
    """

    def __init__(self, manager: AsyncKernelManager, *, warm: bool, directory: Path | None = None) -> None:
        self.manager = manager
        self.client: Any = None
        self.loop = asyncio.new_event_loop()
        self.warm = warm
        self.why_cold = ""
        self.language_info: dict[str, Any] = {}
        self.on_close: Callable[[Kernel], None] | None = None
        self._directory = directory
        self._closed = False

    @classmethod
    def launch(
        cls, spec: KernelSpec, env: Mapping[str, str], stem: Path, *, warm: bool, directory: Path | None = None
    ) -> Kernel:
        """Start the process of ``spec`` over sockets that are called ``stem`` and a number; not yet connected.

        Parameters
        ----------
        directory
            Removed with the kernel.
        """
        manager = AsyncKernelManager(
            kernel_spec_manager=_OneSpec(spec),
            transport="ipc",
            ip=str(stem),
            connection_file=f"{stem}.json",
            autorestart=False,
        )
        kernel = cls(manager, warm=warm, directory=directory)
        try:
            kernel.run(manager.start_kernel(env=dict(env), **_SPEAKS_TO_NOBODY))
        except BaseException:
            kernel.close()
            raise
        return kernel

    @classmethod
    def cold(cls, environ: Mapping[str, str] | None = None, *, why: str = "") -> Kernel:
        """A new kernel process with the scrubbed environment of the driver, not yet connected.

        Connect it when the work that can be done meanwhile is done.
        """
        directory = private_directory()
        env = kernel_environment(os.environ if environ is None else environ, ipython_dir=directory / "ipython")
        kernel = cls.launch(python_spec(), env, directory / "kernel", warm=False, directory=directory)
        kernel.why_cold = why
        return kernel

    @classmethod
    def of_spec(cls, name: str) -> Kernel:
        """The kernel that Jupyter knows by ``name``, with our environment: what plain papermill would start."""
        directory = private_directory()
        manager = AsyncKernelManager(
            kernel_name=name,
            transport="ipc",
            ip=str(directory / "kernel"),
            connection_file=str(directory / "kernel.json"),
            autorestart=False,
        )
        kernel = cls(manager, warm=False, directory=directory)
        try:
            kernel.run(
                manager.start_kernel(extra_arguments=["--HistoryManager.hist_file=:memory:"], **_SPEAKS_TO_NOBODY)
            )
        except BaseException:
            kernel.close()
            raise
        return kernel

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Turn this kernel's event loop until ``work`` is done; on another thread where a loop is running here."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.loop.run_until_complete(work)
        with ThreadPoolExecutor(1, thread_name_prefix="kernel") as elsewhere:
            return elsewhere.submit(self.loop.run_until_complete, work).result()

    @property
    def pid(self) -> int:
        pid: int = self.manager.provisioner.pid
        return pid

    def alive(self) -> bool:
        process = self.manager.provisioner and self.manager.provisioner.process
        return process is not None and process.poll() is None

    def how_it_ended(self) -> str:
        """In words: exit code or signal of a kernel that is not alive any more."""
        process = self.manager.provisioner and self.manager.provisioner.process
        code = process.poll() if process is not None else None
        if code is None:
            return "the kernel does not answer"
        if code >= 0:
            return f"the kernel process ended with exit code {code}"
        hint = ", out of memory or killed by hand" if code == -9 else ""
        return f"the kernel process was killed by signal {-code}{hint}"

    def connect(self, seconds: float = START_SECONDS) -> Kernel:
        """Open the channels and wait until the kernel answers on them.

        Raises
        ------
        KernelFailed
            It ended, or did not answer in time.
        """
        if self.client is None:
            self.client = self.manager.client()
            # Messages that the driver is too slow for would be dropped at 1000, the one that ends a cell among them.
            self.client.context.rcvhwm = 100_000
            # The kernel opens its sockets a moment after us; at the default we would look again after 100 ms.
            self.client.context.reconnect_ivl = 5
            self.client.start_channels(stdin=False, hb=False)
            self.client.allow_stdin = False
            self.run(self._ready(seconds))
        return self

    def answers(self, seconds: float = 2.0) -> bool:
        """Whether it is alive and replies to a request."""
        try:
            self.run(self._ready(seconds))
        except KernelFailed:
            return False
        return True

    def ask(self, code: str, seconds: float = 30.0) -> None:
        """Execute ``code`` silently: no output, no history, no execution count.

        Raises
        ------
        KernelFailed
            It raised; names the exception, and not the code, which may hold secrets.
        """
        reply = self.run(self._ask(code, seconds))
        if reply.get("status") != "ok":
            raise KernelFailed(f"the kernel could not take the run: {reply.get('ename')}: {reply.get('evalue')}")

    def close(self) -> None:
        """Kill the process and remove its sockets and files; does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        try:
            self.run(self._close())
        finally:
            self.loop.close()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
            if self.on_close is not None:
                self.on_close(self)

    async def _ready(self, seconds: float) -> None:
        """Ask for the kernel's information until reply *and* status have come: then both channels are connected.

        ``KernelClient.wait_for_ready`` does the same and then waits for 0.2 s of silence, which is a third of a run.
        """
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            asked = self.client.kernel_info()
            reply = await self._message(self.client.shell_channel, asked, "kernel_info_reply", 1.0)
            if reply and await self._message(self.client.iopub_channel, asked, "status", 0.2, execution_state="idle"):
                self.language_info = reply["content"]["language_info"]
                return
            if not self.alive():
                raise KernelFailed(f"no kernel: {self.how_it_ended()}")
        raise KernelFailed(f"the kernel did not answer for {seconds:g} s")

    async def _ask(self, code: str, seconds: float) -> dict[str, Any]:
        asked = self.client.execute(code, silent=True, store_history=False, allow_stdin=False)
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            reply = await self._message(self.client.shell_channel, asked, "execute_reply", 1.0)
            if reply:
                await self._message(self.client.iopub_channel, asked, "status", 1.0, execution_state="idle")
                content: dict[str, Any] = reply["content"]
                return content
            if not self.alive():
                break
        raise KernelFailed(f"the kernel could not take the run: {self.how_it_ended()}")

    async def _message(
        self, channel: Any, asked: str, kind: str, seconds: float, **content: str
    ) -> dict[str, Any] | None:
        """The first message of ``kind`` that answers ``asked``; others are dropped, nobody waits for them."""
        give_up_at = time.monotonic() + seconds
        while (left := give_up_at - time.monotonic()) > 0:
            try:
                message: dict[str, Any] = await channel.get_msg(timeout=left)
            except Empty:
                return None
            fits = message["parent_header"].get("msg_id") == asked and message["msg_type"] == kind
            if fits and content.items() <= message["content"].items():
                return message
        return None

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        launched = self.manager.provisioner
        if launched is not None and launched.process is not None:
            await launched.kill()
            launched.process.wait(10)
        if self.client is not None:
            # stop_channels() would first connect the channels that we never opened.
            for channel in (self.client.shell_channel, self.client.iopub_channel, self.client.control_channel):
                channel.stop()
            self.client.context.destroy(linger=0)
        await self.manager.cleanup_resources()
