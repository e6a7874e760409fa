"""The zygote: a small process with the libraries imported, which forks a kernel on request.

Started by :class:`runbook.execution.zygote.Zygote` as ``python -m runbook.execution.zygote_main DIRECTORY FD``. It
never holds a zmq context, an event loop, a connection or a secret, and refuses to serve when a library has started a
native thread, because a fork then may copy a held lock. It ends, with every kernel that it forked, when the other
side of the lifeline (``FD``) is closed, however its owner ended.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import random
import selectors
import shutil
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PRELOAD = (
    "ipykernel.debugger",  # costs more than everything else that a forked kernel would have to import
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "IPython.core.completer",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "matplotlib_inline.backend_inline",
    "numpy",
    "pandas",
    "psycopg",
    "runbook.magics",
    "runbook.reporting.charts",
    "runbook.reporting.fragment",
    "runbook.reporting.readings",
    "runbook.run",
    "tornado.platform.asyncio",
)
PRELOAD_PACKAGES = {"runbook.connectors": "", "runbook.diagnosis": "", "runbook.reporting": "_chart"}
"""Of these every module that ends so: a runbook uses few, and nobody has to remember a list when one is added."""

SOCKET_NAME = "zygote.sock"
REQUEST_LIMIT = 1 << 20
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def native_threads() -> list[str]:
    """Names of this process's native threads, the main one first."""
    tasks = sorted(Path("/proc/self/task").iterdir(), key=lambda task: int(task.name))
    return [(task / "comm").read_text().strip() for task in tasks]


class Server:
    """Answers fork requests, one at a time, until the lifeline closes."""

    def __init__(self, listener: socket.socket, lifeline: socket.socket) -> None:
        self._listener = listener
        self._lifeline = lifeline
        self._pid = os.getpid()
        #: Kernel's process id → the connection that asked for it, told when the kernel ends.
        self._kernels: dict[int, socket.socket] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def serve(self) -> None:
        """Returns when the lifeline is closed."""
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            for watched in (self._listener, self._lifeline, self._wake_read):
                selector.register(watched, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake_read in ready:
                    with suppress(BlockingIOError):
                        self._wake_read.recv(4096)
                    self._bury()
                if self._lifeline in ready and not self._lifeline.recv(1):
                    return
                if self._listener in ready:
                    self._answer(selector)

    def _bury(self) -> None:
        """Take leave of kernels that ended: whatever they started is killed first, while their pid is still theirs."""
        while self._kernels:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            connection = self._kernels.pop(ended.si_pid, None)
            if connection is not None:
                with connection, suppress(OSError):
                    connection.sendall(json.dumps({"returncode": os.waitstatus_to_exitcode(status)}).encode())

    def _answer(self, selector: selectors.BaseSelector) -> None:
        connection, _ = self._listener.accept()
        try:
            request = _read_request(connection)
        except (OSError, ValueError) as error:
            connection.close()
            sys.stderr.write(f"fork request refused: {error}\n")
            return
        pid = os.fork()
        if pid == 0:
            selector.close()
            self._become_kernel(connection, request)
        pidfd = os.pidfd_open(pid)  # before anything is waited for, so the number cannot be another process's
        self._kernels[pid] = connection
        with suppress(OSError):
            socket.send_fds(connection, [json.dumps({"pid": pid}).encode()], [pidfd])
        os.close(pidfd)

    def _become_kernel(self, connection: socket.socket, request: dict[str, Any]) -> NoReturn:
        """In the forked child: shed what is the zygote's, become an IPython kernel, never return."""
        code = 1
        try:
            os.setsid()
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self._pid:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            held = (connection, self._listener, self._lifeline, self._wake_read, self._wake_write)
            for inherited in (*held, *self._kernels.values()):
                inherited.close()
            os.environ.clear()
            os.environ.update(request["env"])
            os.chdir(request["cwd"])
            random.seed()
            import numpy
            from ipykernel.kernelapp import IPKernelApp

            numpy.random.seed()
            gc.enable()
            IPKernelApp.launch_instance(request["argv"])
            code = 0
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else 1
        except Exception:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)

    def end(self) -> None:
        """Kill every kernel and what it started."""
        for pid in self._kernels:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._kernels:
            os.waitpid(pid, 0)


def _read_request(connection: socket.socket) -> dict[str, Any]:
    """One line of JSON: ``{argv, env, cwd}``, from a process of our own user."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.geteuid():
        raise ValueError(f"asked by user {uid}")
    connection.settimeout(5)
    received = b""
    while not received.endswith(b"\n"):
        chunk = connection.recv(65536)
        if not chunk or len(received) > REQUEST_LIMIT:
            raise ValueError("incomplete or too long")
        received += chunk
    request: dict[str, Any] = json.loads(received)
    return request


def preload() -> None:
    """Import what notebooks use."""
    for module in PRELOAD:
        importlib.import_module(module)
    for package, ending in PRELOAD_PACKAGES.items():
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            if found.name.endswith(ending):
                importlib.import_module(found.name)


def main() -> None:
    """Preload, rehearse, say ``ready`` on the lifeline, serve, clean up."""
    from runbook.execution.rehearsal import rehearse

    directory, lifeline = Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    gc.disable()  # so that freezing leaves no holes in the pages that kernels share
    preload()
    rehearse()
    gc.freeze()
    threads = native_threads()
    if len(threads) > 1:
        lifeline.sendall(f"a library started native threads: {', '.join(threads[1:])}\n".encode())
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / SOCKET_NAME))
    listener.listen(64)
    server = Server(listener, lifeline)
    lifeline.sendall(b"ready\n")
    try:
        server.serve()
    finally:
        server.end()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
