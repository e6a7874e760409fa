"""Just enough HTTP/1.1 over asyncio for a few hundred small requests a second on part of a core.

Server and client of the demo application only: bodies are read whole, and nothing here faces anybody but the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

_IDLE_SECONDS = 30.0
FAILURES = (OSError, EOFError, asyncio.TimeoutError, ValueError)
"""What a request can end in instead of an answer."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as the server read it; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def json(self) -> Any:
        """The body as JSON; an empty one is an empty object."""
        return json.loads(self.body or b"{}")


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer, on either side; header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Seconds that connecting took; 0 on a connection kept open, ``None`` on the server's side.
    connect_seconds: float | None = None


Handler = Callable[[Request], Awaitable[Response]]


def answer(status: int, value: Any, **headers: str) -> Response:
    """A JSON answer; ``x_name="v"`` becomes the header ``x-name: v``."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(
        status=status, headers={"content-type": "application/json"} | named, body=json.dumps(value).encode()
    )


async def serve(handler: Handler, port: int = 0) -> asyncio.Server:
    """Listen on loopback; port 0 = a free one."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*FAILURES):
            while (request := await _read_request(reader)) is not None:
                response = await handler(request)
                writer.write(_head(response, request) + response.body)
                await writer.drain()
                if request.headers.get("connection") == "close":
                    break
        writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", port, backlog=512)


def port_of(server: asyncio.Server) -> int:
    """The port on which a server listens."""
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    first = await reader.readline()
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = await _read_headers(reader)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method=method, target=target, headers=headers, body=body)


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _head(response: Response, request: Request) -> bytes:
    with_body = "" if request.method == "HEAD" else f"content-length: {len(response.body)}\r\n"
    fields = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    phrase = HTTPStatus(response.status).phrase
    return f"HTTP/1.1 {response.status} {phrase}\r\n{fields}{with_body}\r\n".encode("latin-1")


class Client:
    """Requests over connections that are kept open."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]]]
        self._idle = defaultdict(list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = 10.0,
    ) -> Response:
        """Send one request; raises one of :data:`FAILURES` when no answer comes within ``seconds``."""
        parts = urlsplit(url)
        where = (parts.hostname or "", parts.port or 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = {"host": parts.netloc, "content-length": str(len(body)), **(headers or {})}
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        async with asyncio.timeout(seconds):
            kept = self._kept(where)
            if kept is not None:
                # A server may have closed the connection in the meantime: then the request has not been heard.
                with contextlib.suppress(EOFError, ConnectionError):
                    return await self._exchange(where, *kept, f"{head}\r\n".encode("latin-1") + body, method, 0.0)
            began = time.perf_counter()
            reader, writer = await asyncio.open_connection(*where)
            took = time.perf_counter() - began
            return await self._exchange(where, reader, writer, f"{head}\r\n".encode("latin-1") + body, method, took)

    def _kept(self, where: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle[where]:
            reader, writer, since = self._idle[where].pop()
            if not reader.at_eof() and time.monotonic() - since < _IDLE_SECONDS:
                return reader, writer
            writer.close()
        return None

    async def _exchange(
        self,
        where: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        message: bytes,
        method: str,
        connect_seconds: float,
    ) -> Response:
        keep = False
        try:
            writer.write(message)
            await writer.drain()
            status = int((await reader.readexactly(12))[9:12])
            await reader.readline()
            headers = await _read_headers(reader)
            body, keep = await _read_body(reader, headers, method, status)
            keep = keep and headers.get("connection", "").lower() != "close"
        finally:
            if keep:
                self._idle[where].append((reader, writer, time.monotonic()))
            else:
                writer.close()
        return Response(status=status, headers=headers, body=body, connect_seconds=connect_seconds)


async def _read_body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], method: str, status: int
) -> tuple[bytes, bool]:
    """The body, and whether the connection can carry another request."""
    if method == "HEAD" or status in (204, 304):
        return b"", True
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body, True
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"])), True
    return await reader.read(), False
