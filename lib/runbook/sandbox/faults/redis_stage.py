"""A Redis of the scene's own, which application and diagnosis use for the time of a fault; it is gone when that heals.

One address for every fault of a sandbox, so that one service serves all drills. What a fault does to the server it does
at run time, so that several faults can be done to one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from runbook.embedded import die_with_parent
from runbook.sandbox.faults.state import OTHER_REDIS
from runbook.sandbox.redis_server import free_port, program

if TYPE_CHECKING:
    from runbook.sandbox.faults.scene import Scene

_LINES = 4
"""Lines of the application's log after which it is seen to suffer."""


class RedisStage:
    """The server, its clients, and the application beside it; made by :func:`of` at the first touch."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._sandbox = scene.sandbox
        self._log_from = self._sandbox.app_log.stat().st_size
        self.port, self.password = _address(self._sandbox.directory)
        self.directory = self._sandbox.directory / OTHER_REDIS
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []
        # The application's log is marked before anything is done to it.
        self._production = scene.production
        scene.undo(self.stop)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    # -- the server ---------------------------------------------------------------------------------------------------

    def start(self, *options: str) -> RedisStage:
        """Start it, with these lines of configuration besides; once."""
        if self._process is not None:
            return self
        self.directory.mkdir(mode=0o700, exist_ok=True)
        lines = (
            "bind 127.0.0.1", f"port {self.port}", f"requirepass {self.password}", f"dir {self.directory}", 'save ""',
            f"logfile {self.directory / 'log'}", "lua-time-limit 100", *options,
        )  # fmt: skip
        configuration = self.directory / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [str(program()), str(configuration)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip
        self.pid = self._process.pid
        self._scene.wait_until(self._accepts, "the other Redis to listen", seconds=10)
        return self

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        """End it at once, with all that it kept."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self, *options: str) -> None:
        """End it and start it anew in the directory that it had."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self.start(*options)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    # -- its clients --------------------------------------------------------------------------------------------------

    def ask(self, *command: Any) -> Any:
        """One command of an administrator."""
        import redis

        with redis.Redis.from_url(self.url, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)

    def lets_in(self) -> bool:
        """Whether it has a slot for one client more."""
        import redis

        with contextlib.suppress(redis.ConnectionError):
            return bool(self.ask("PING"))
        return False

    def send(self, *command: Any, name: str = "") -> socket.socket:
        """A client that sends a command and reads nothing; it stays until the fault heals."""
        sock = socket.create_connection(("127.0.0.1", self.port), 5)
        self._sockets.append(sock)
        sock.sendall(_packed("AUTH", self.password))
        sock.recv(64)
        if name:
            sock.sendall(_packed("CLIENT", "SETNAME", name))
            sock.recv(64)
        sock.sendall(_packed(*command))
        return sock

    def hold(self, count: int, *, name: str = "") -> None:
        """That many clients which connect, are answered once, and do nothing more."""
        for _ in range(count):
            self.send("PING", name=name).recv(64)

    def stir(self) -> None:
        """Each client that is held sends one command more."""
        for sock in self._sockets:
            sock.sendall(_packed("PING"))
            sock.recv(64)

    def come_and_go(self, *, every: float) -> None:
        """From now on one of the clients that are held leaves now and then, and a moment later another comes."""

        def change() -> None:
            if self._sockets:
                self._sockets.pop(0).close()
            time.sleep(every / 2)
            with contextlib.suppress(OSError):
                self.hold(1)

        self.again_and_again(change, every=every / 2)

    def again_and_again(self, work: Callable[[], object], *, every: float) -> None:
        """Do ``work`` until the fault heals, on a thread of its own."""
        from redis import RedisError

        ended = threading.Event()

        def go() -> None:
            while not ended.wait(every):
                with contextlib.suppress(RedisError, OSError):
                    work()

        thread = threading.Thread(target=go, name="redis-fault", daemon=True)
        thread.start()
        self._scene.undo(thread.join)
        self._scene.undo(ended.set)

    # -- the application ----------------------------------------------------------------------------------------------

    def configure(self, url: str = "", *, application: str = "") -> None:
        """Point the diagnosis to ``url`` and the application to ``application``; default: this server."""
        self._scene.settings["redis"] = {"url": url or self.url, "action_url": self.url}
        self._production.change(redis_url=application or url or self.url)

    def felt(self, pattern: str) -> None:
        """Wait until the application's log has lines of that pattern, later than the fault began."""
        found = re.compile(pattern)

        def seen() -> bool:
            with self._sandbox.app_log.open("rb") as log:
                log.seek(self._log_from)
                return len(found.findall(log.read().decode(errors="replace"))) >= _LINES

        self._scene.wait_until(seen, f"the application to log {pattern}", seconds=15)

    def works(self) -> None:
        """Wait until the application uses it."""
        self._scene.wait_until(partial(self.ask, "GET", "feed:views"), "the application to use the other Redis")


_STAGES: WeakKeyDictionary[Scene, RedisStage] = WeakKeyDictionary()


def of(scene: Scene) -> RedisStage:
    """The scene's Redis; the faults of a compound share it."""
    if scene not in _STAGES:
        _STAGES[scene] = RedisStage(scene)
    return _STAGES[scene]


def _address(directory: Path) -> tuple[int, str]:
    """Port and password for this sandbox, chosen once."""
    file = directory / "other-redis.json"
    if not file.exists():
        chosen = {"port": free_port(), "password": secrets.token_urlsafe(18)}
        file.touch(mode=0o600)
        file.write_text(json.dumps(chosen))
    known = json.loads(file.read_text())
    return int(known["port"]), str(known["password"])


def _packed(*words: Any) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
