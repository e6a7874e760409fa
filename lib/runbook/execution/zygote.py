"""The driver's side of the zygote: starting it, asking it for a kernel process, ending it.

The process itself is :mod:`runbook.execution.zygote_main`. Nothing here may be inherited by other processes: the
lifeline is what tells the zygote that its owner is gone, however it went.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from runbook.errors import RunbookError
from runbook.execution.zygote_main import SOCKET_NAME


class ZygoteUnavailable(RunbookError):
    """The zygote could not be started, or answers no more; kernels are started cold then."""


class ForkedProcess:
    """A kernel process that the zygote forked, with the part of :class:`subprocess.Popen` that Jupyter uses.

    It is the zygote's child, not ours, so it is watched and signalled through a pidfd: its number may be given to
    another process at any time after it ended.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, pidfd: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._connection = connection

    def poll(self) -> int | None:
        """``None`` while it runs, else its exit code, negative for a signal."""
        if self.returncode is None and self._ended(0):
            self._bury()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; raises :class:`subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not self._ended(timeout):
                raise subprocess.TimeoutExpired("kernel", timeout or 0)
            self._bury()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Signal the process; does nothing when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def kill(self) -> None:
        """SIGKILL; the zygote then kills what the process started."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout: float | None) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))

    def _bury(self) -> None:
        """Learn the exit code from the zygote; a zygote that ended as well took the kernel along by SIGKILL."""
        self.returncode = -signal.SIGKILL
        with self._connection:
            self._connection.settimeout(1)
            with suppress(OSError, ValueError):
                self.returncode = json.loads(self._connection.recv(4096))["returncode"]
        os.close(self._pidfd)


def fork(socket_path: str | Path, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> ForkedProcess:
    """A new kernel process of the zygote that listens at ``socket_path``.

    Parameters
    ----------
    argv
        Arguments of the IPython kernel application.
    env
        Its whole environment.

    Raises
    ------
    ZygoteUnavailable
        Nobody listens there, or the request was refused.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(10)
        connection.connect(str(socket_path))
        connection.sendall(json.dumps({"argv": list(argv), "env": dict(env), "cwd": cwd}).encode() + b"\n")
        answer, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        pid = int(json.loads(answer)["pid"])
        (pidfd,) = descriptors
    except (OSError, ValueError) as error:
        connection.close()
        raise ZygoteUnavailable(f"the zygote does not answer ({error})") from None
    return ForkedProcess(pid, pidfd, connection)


class Zygote:
    """A running zygote process, serving at :attr:`socket` in a directory of its own.

    Parameters
    ----------
    directory
        An existing directory that nobody else can enter; removed by the zygote when it ends.
    env
        The whole environment of the zygote, and the one that kernels start from.
    patience_seconds
        How long its imports may take.

    Raises
    ------
    ZygoteUnavailable
        It ended, or refused to serve, or took too long; says what it said.
    """

    def __init__(self, directory: Path, env: Mapping[str, str], *, patience_seconds: float = 60) -> None:
        self.socket = directory / SOCKET_NAME
        self._log = directory / "zygote.log"
        self._lifeline, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "runbook.execution.zygote_main", str(directory), str(theirs.fileno())],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C in the driver's terminal is the driver's to handle
            )
        self._await_ready(patience_seconds)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it and every kernel that it forked; returns when they are gone."""
        self._lifeline.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_ready(self, patience_seconds: float) -> None:
        said, give_up_at = b"", time.monotonic() + patience_seconds
        try:
            while not said.endswith(b"\n"):
                self._lifeline.settimeout(max(0.001, give_up_at - time.monotonic()))
                chunk = self._lifeline.recv(4096)
                if not chunk:
                    break
                said += chunk
        except TimeoutError:
            said = f"not ready after {patience_seconds:g} s\n".encode()
        if said != b"ready\n":
            reason = said.decode(errors="replace").strip() or self._last_words()
            self.close()
            raise ZygoteUnavailable(f"the zygote did not start: {reason}")

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else "it said nothing"
        return "it said nothing"
