"""A small threaded HTTP server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from runbook.connectors.base import Context
from runbook.redaction import Redactor
from runbook.result import Reading

SECRET = "s3cretTokenOfTheStub42"
"""The credential that connectors under test are given."""


class Asked:
    """One request as it came in."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        self.raw_path = parts.path
        self.path = unquote(parts.path)
        self.query = parse_qs(parts.query, keep_blank_values=True)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}

    def first(self, name: str) -> str | None:
        return self.query.get(name, [None])[0]


Answer = Callable[[Asked], Any]
"""Gives the JSON value of an answer; or ``(status, value, headers)``."""


class Stub(ThreadingHTTPServer):
    """Routes are exact, decoded paths; a value stands for itself, a function is called, anything else is a 404.

    ``behaviour`` takes over every request: it writes whatever it likes to the handler.
    """

    daemon_threads = True

    def __init__(
        self,
        routes: Mapping[str, Any] | None = None,
        behaviour: Callable[[BaseHTTPRequestHandler], None] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = dict(routes or {})
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [request.path for request in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = Asked(self)
        self.server.asked.append(asked)
        with contextlib.suppress(ConnectionError):
            if self.server.behaviour is not None:
                self.close_connection = True
                self.server.behaviour(self)
            else:
                self._routed(asked)

    def _routed(self, asked: Asked) -> None:
        route = self.server.routes.get(asked.path, (404, {"message": "no such route"}, {}))
        found = route(asked) if callable(route) else route
        status, value, headers = found if isinstance(found, tuple) else (200, found, {})
        respond(self, status, value, headers)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def respond(handler: BaseHTTPRequestHandler, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
    """Write an answer: bytes as they are, anything else as JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    for name, text in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(
    routes: Mapping[str, Any] | None = None, behaviour: Callable[[BaseHTTPRequestHandler], None] | None = None
) -> Iterator[Stub]:
    """A stub that is up for the block."""
    stub = Stub(routes, behaviour)
    threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield stub
    finally:
        stub.stopping.set()
        stub.shutdown()
        stub.server_close()


def context(**kwargs: Any) -> Context:
    """A context that knows :data:`SECRET`."""
    return Context(redactor=Redactor([SECRET]), **kwargs)


def rows(reading: Reading, state: str = "ok") -> list[dict[str, Any]]:
    """Rows of a reading that must be in that state."""
    if reading.state != state:
        pytest.fail(f"{reading.name} is {reading.state}: {reading.reason}")
    return reading.rows


def row(reading: Reading, state: str = "ok") -> dict[str, Any]:
    """The one row of a reading that must be in that state."""
    (only,) = rows(reading, state)
    return only
