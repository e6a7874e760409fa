"""One instance of the application as a process of its own, or a front before several, that can fail as servers do.

``python -m runbook.sandbox.application.replica instance`` (or ``front``). Small, of the standard library, a thread a
request: it can be stopped, killed, made deaf or sent into a loop without harm to the demo application.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from runbook.embedded import die_with_parent
from runbook.sandbox import processes

Mode = Literal["ok", "slow", "loop", "deaf", "crash", "files", "starting", "failing", "moved"]
CHECK_SECONDS = 1.5
MOST_FILES = 48
READY, LIVE, DETAILED, DEPLOY = "/health/ready", "/health/live", "/api/health", "/deploy"


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How it was started."""

    mode: Mode = "ok"
    release: str = "api@1.41.0"
    #: A release that never gets ready.
    never_ready: str = ""
    #: What its readiness depends on; empty = not on that.
    redis_url: str = ""
    database_dsn: str = ""
    vendors: Mapping[str, str] | None = None
    #: A directory that it must be able to write to.
    scratch: str = ""
    #: Whether it stays ready, degraded, without what it depends on.
    tolerant: bool = False
    #: With mode ``slow``.
    seconds: float = 0.0
    #: Of a front: base URLs of what is behind it, and how long it waits for them.
    behind: tuple[str, ...] = ()
    wait_seconds: float = 5.0
    #: A certificate and its key in one file.
    certificate: str = ""


class Replica:
    """What it answers."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.began = time.monotonic()
        self._turn = itertools.cycle(orders.behind) if orders.behind else None
        self._lock = threading.Lock()

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a GET of ``target``."""
        if self._turn is not None:
            with self._lock:
                chosen = next(self._turn)
            return self._handed_on(chosen, target)
        path = target.partition("?")[0]
        if path == LIVE:
            return _json(200, {"status": "ok", "release": self.orders.release})
        if path not in (READY, DETAILED):
            return _json(404, {"error": "not found"})
        if self.orders.mode == "moved":
            return 301, {"location": "/healthz"}, b""
        time.sleep(self.orders.seconds)
        told = {"release": self.orders.release, "uptime": round(time.monotonic() - self.began, 1)}
        if self.orders.mode == "starting":
            return _json(503, {"status": "starting", "message": "migrations are running", **told})
        if self.orders.mode == "failing" or self.orders.release == self.orders.never_ready:
            return _json(503, {"status": "error", "message": "setting PAYMENTS_KEY is missing", **told})
        return self._ready(told)

    def deploy(self, version: str) -> tuple[int, dict[str, str], bytes]:
        """Run that version from now on; a front has everything behind it do so."""
        for base in self.orders.behind:
            parts = urlsplit(base)
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=self.orders.wait_seconds)
            try:
                connection.request("POST", DEPLOY, json.dumps({"version": version}))
                connection.getresponse().read()
            finally:
                connection.close()
        self.orders = replace(self.orders, release=f"{self.orders.release.partition('@')[0]}@{version}")
        return _json(200, {"release": self.orders.release})

    def _ready(self, told: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
        checks = {name: _check(name, where) for name, where in self._depends()}
        well = all(check["status"] == "up" for check in checks.values())
        if well:
            return _json(200, {"status": "ok", "details": checks, **told})
        if self.orders.tolerant:
            return _json(200, {"status": "degraded", "details": checks, **told})
        return _json(503, {"status": "error", "details": checks, **told})

    def _depends(self) -> list[tuple[str, str]]:
        own = self.orders
        found = [("redis", own.redis_url), ("database", own.database_dsn), ("disk", own.scratch)]
        return [*((name, where) for name, where in found if where), *(own.vendors or {}).items()]

    def _handed_on(self, base: str, target: str) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(base)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=self.orders.wait_seconds)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            named = ("content-type", "location")
            headers = {name: value for name in named if (value := response.headers.get(name))}
            return response.status, headers, response.read()
        except TimeoutError:
            return 504, {"content-type": "text/html"}, b"<h1>504 Gateway Time-out</h1>"
        except (OSError, HTTPException):
            return 502, {"content-type": "text/html"}, b"<h1>502 Bad Gateway</h1>"
        finally:
            connection.close()


def _json(status: int, value: Any) -> tuple[int, dict[str, str], bytes]:
    return status, {"content-type": "application/json"}, json.dumps(value).encode()


def _check(name: str, where: str) -> dict[str, str]:
    """One dependency, really asked."""
    try:
        if name == "redis":
            _ping(where)
        elif name == "database":
            _select(where)
        elif name == "disk":
            _write(Path(where))
        else:
            _get(where)
    except (OSError, HTTPException) as error:
        return {"status": "down", "message": f"{type(error).__name__}: {error}"}
    return {"status": "up"}


def _ping(url: str) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=CHECK_SECONDS) as connection:
        connection.settimeout(CHECK_SECONDS)
        connection.sendall(f"AUTH {parts.password}\r\nPING\r\n".encode())
        said = b""
        while b"PONG" not in said:
            part = connection.recv(256)
            if not part or len(said) > 1000:
                raise OSError(said.decode("utf-8", "replace").strip() or "closed without an answer")
            said += part


def _select(dsn: str) -> None:
    import psycopg

    try:
        with psycopg.connect(dsn, application_name="web-app", connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        raise OSError(str(error).strip().splitlines()[-1]) from None


def _write(directory: Path) -> None:
    path = directory / f"health-{os.getpid()}-{threading.get_ident()}"
    try:
        path.write_bytes(b"x" * 65_536)
    finally:
        path.unlink(missing_ok=True)


def _get(url: str) -> None:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=CHECK_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status >= 500:
        raise OSError(f"answered {status}")


class _Handler(BaseHTTPRequestHandler):
    replica: Replica

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length") or 0))
        self._write(self.replica.deploy(str(json.loads(text)["version"])), with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        self._write(self.replica.answer(self.path), with_body=with_body)

    def _write(self, answer: tuple[int, dict[str, str], bytes], *, with_body: bool) -> None:
        status, headers, body = answer
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _deaf() -> None:
    """Listens with the smallest queue there is, and never takes a connection out of it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        processes.ready(port=listening.getsockname()[1])
        threading.Event().wait()


def _use_up_files() -> None:
    """Open files up to a small limit: no further connection can be accepted (EMFILE)."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))
    with contextlib.suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)


def _restarted() -> None:
    """A supervisor with a process that ends half a second after each start, before it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        processes.ready(port=free.getsockname()[1])
    while True:
        child = os.fork()
        if child == 0:
            die_with_parent(signal.SIGKILL)()
            time.sleep(0.5)
            os._exit(1)
        os.waitpid(child, 0)


def main() -> None:
    """In the child: serve until it is ended."""
    given = processes.arguments()
    orders = Orders(**{**given, "behind": tuple(given.get("behind", ()))})
    if orders.mode == "crash":
        _restarted()
    if orders.mode == "deaf":
        _deaf()
        return
    handler = type("Handler", (_Handler,), {"replica": Replica(orders)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if orders.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(orders.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    if orders.mode == "files":
        _use_up_files()
    processes.ready(port=server.server_port)
    if orders.mode == "loop":
        while True:  # as a regular expression that never ends does it: nobody is answered, one processor is used up
            pass
    server.serve_forever()


if __name__ == "__main__":
    main()
