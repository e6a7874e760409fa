"""Child processes of the sandbox: Python modules that say on standard output, as one JSON line, when they are ready.

A process is ended by its pid, and only after it has been recognised by its command line; never by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from runbook.embedded import die_with_parent
from runbook.errors import SandboxError

_READY_SECONDS = 60.0
_END_SECONDS = 15.0


@dataclass(frozen=True)
class Child:
    """A started process and what it said when it was ready."""

    process: subprocess.Popen[bytes]
    greeting: Mapping[str, Any]

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """SIGTERM, then SIGKILL; reaps."""
        self.process.terminate()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(frozen=True)
class Launch:
    """A process that has been started and may still wait for its arguments.

    Several can be launched before any is waited for: what takes their time is importing.
    """

    module: str
    process: subprocess.Popen[bytes]
    log: Path | None

    def give(self, arguments: Mapping[str, Any]) -> Launch:
        """Hand over the arguments, once. They hold passwords, hence not on the command line."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(arguments).encode())
            self.process.stdin.close()
        return self

    def ready(self) -> Child:
        """Wait until it says that it is ready.

        Raises
        ------
        SandboxError
            It ended, or was not ready in time; the message ends with its last line.
        """
        greeting = _first_line(self.process)
        if greeting is None:
            self.abandon()
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:] if self.log else []
            said = " ".join(last) or "no word"
            raise SandboxError(f"{self.module} did not start: {said}", remedy="See the sandbox's logs")
        return Child(self.process, greeting)

    def abandon(self) -> None:
        """End it, whatever it does; reaps."""
        self.process.kill()
        self.process.wait()


def launch(module: str, *words: str, log: Path | None = None, owned: bool = True) -> Launch:
    """Start ``python -m module words``; what it complains of goes to ``log``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNBOOK_")}
    with open(log or os.devnull, "ab") as errors:  # noqa: PTH123 - os.devnull is no Path
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM) if owned else None,
        )
    return Launch(module, process, log)


def spawn(module: str, arguments: Mapping[str, Any], *words: str, log: Path | None = None, owned: bool = True) -> Child:
    """Launch ``module``, give it ``arguments`` and wait until it is ready; see :class:`Launch`."""
    return launch(module, *words, log=log, owned=owned).give(arguments).ready()


def arguments() -> dict[str, Any]:
    """In the child: the arguments that :func:`spawn` was given. Logs go to standard error from here on."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    given: dict[str, Any] = json.load(sys.stdin)
    return given


def ready(**greeting: Any) -> None:
    """In the child: say that it is ready, and what the parent should know."""
    sys.stdout.write(json.dumps(greeting) + "\n")
    sys.stdout.flush()


def end_with(owner: int) -> None:
    """In the child: end at once when that process has, whatever is done here; for a child that is not its own."""
    try:
        there = os.pidfd_open(owner)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        raise

    def watch() -> None:
        select.select([there], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="owner", daemon=True).start()


def is_running(pid: int | None, module: str) -> bool:
    """Whether that process lives and still is a Python process running ``module``."""
    if pid is None:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return module.encode() in words


def end(pid: int | None, module: str, *, how: signal.Signals = signal.SIGTERM, seconds: float = _END_SECONDS) -> None:
    """End that process if it still is the one meant; SIGKILL when it does not go by itself."""
    for signum in (how, signal.SIGKILL):
        if pid is None or not is_running(pid, module):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        if gone_within(pid, module, seconds):
            return


def gone_within(pid: int, module: str, seconds: float) -> bool:
    """Wait until that process has ended; reaps it where it is our own child."""
    deadline = time.monotonic() + seconds
    while is_running(pid, module):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    assert process.stdout is not None
    deadline = time.monotonic() + _READY_SECONDS
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        part = os.read(process.stdout.fileno(), 4096) if readable else b""
        if not part:
            return None
        line += part
    greeting: dict[str, Any] = json.loads(line)
    return greeting
