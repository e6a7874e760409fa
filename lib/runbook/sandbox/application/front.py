"""The front: hands requests to the instances in turn, limits what one client may ask, and writes the access log."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from runbook.sandbox.application.backend import Backend
from runbook.sandbox.application.http1 import FAILURES, Client, Request, Response, answer

_BURST = 20
_UPSTREAM_SECONDS = 8.0
_UNLOGGED = ("/api/health", "/health/live", "/health/ready", "/metrics")
_QUIET_SECONDS = 10.0


class AccessLog:
    """One JSON object a line, with the fields that the settings expect by default."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @property
    def is_empty(self) -> bool:
        return os.fstat(self._file).st_size == 0

    def write(self, text: str) -> None:
        """Append whole lines."""
        os.write(self._file, text.encode())

    def cut(self, length: int) -> None:
        """Forget what was written after that many bytes."""
        os.ftruncate(self._file, length)


class Front:
    """What stands before the instances.

    Parameters
    ----------
    backend
        For the stage: limits and how many instances cannot be reached.
    instances
        Base URLs by name.
    """

    def __init__(self, backend: Backend, instances: Mapping[str, str], log: AccessLog) -> None:
        self._backend = backend
        self._turn = itertools.cycle(instances.values())
        self._client = Client()
        self._log = log
        self._numbers = itertools.count(1)
        self._allowance: dict[str, tuple[float, float]] = {}
        self._running: dict[int, float] = {}
        self._lately: deque[tuple[float, bool]] = deque(maxlen=2000)
        self.requests = 0
        self.errors = 0

    async def __call__(self, request: Request) -> Response:
        number = next(self._numbers)
        began = self._running[number] = time.perf_counter()
        try:
            response = await self._answer(request, number)
        finally:
            del self._running[number]
        if request.path not in _UNLOGGED:
            failed = response.status >= 500
            self.requests += 1
            self.errors += failed
            self._lately.append((time.perf_counter(), failed))
            self._log.write(_line(request, response, (time.perf_counter() - began) * 1000))
        return response

    def lately(self) -> dict[str, int]:
        """Requests and errors of the last second."""
        since = time.perf_counter() - 1
        failed = [failed for at, failed in self._lately if at >= since]
        return {"requests": len(failed), "errors": sum(failed)}

    async def quiet(self) -> None:
        """Return when every request that runs now has ended."""
        before = time.perf_counter()
        while any(began <= before for began in self._running.values()):
            if time.perf_counter() > before + _QUIET_SECONDS:
                return
            await asyncio.sleep(0.02)

    async def _answer(self, request: Request, number: int) -> Response:
        if not self._allowed(request.headers.get("x-forwarded-for", "")):
            return answer(503, {"error": "limit reached"})
        share = self._backend.stage.unreachable_share
        if share and int(number * share) > int((number - 1) * share):
            return answer(502, {"error": "bad gateway"})
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "connection")}
        try:
            return await self._client.request(
                request.method,
                next(self._turn) + request.target,
                headers=headers,
                body=request.body,
                seconds=_UPSTREAM_SECONDS,
            )
        except TimeoutError:
            return answer(504, {"error": "gateway timeout"})
        except FAILURES:
            return answer(502, {"error": "bad gateway"})

    def _allowed(self, client: str) -> bool:
        """A token bucket for each client."""
        limit = self._backend.stage.client_limit
        now = time.monotonic()
        left, then = self._allowance.get(client, (_BURST, now))
        left = min(_BURST, left + (now - then) * limit)
        self._allowance[client] = (left - 1 if left >= 1 else left, now)
        return left >= 1


def _line(request: Request, response: Response, milliseconds: float) -> str:
    said = response.headers
    status = said.get("x-upstream-status")
    connect, took = said.get("x-upstream-connect-time"), said.get("x-upstream-response-time")
    return line(
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        method=request.method,
        path=request.target,
        status=response.status,
        duration_ms=round(milliseconds, 1),
        bytes=len(response.body),
        client=request.headers.get("x-forwarded-for"),
        user=request.headers.get("x-user"),
        release=said.get("x-release"),
        instance=said.get("x-instance"),
        upstream=said.get("x-upstream"),
        upstream_status=int(status) if status else None,
        upstream_connect_time=float(connect) if connect else None,
        upstream_response_time=float(took) if took else None,
    )


def line(**fields: object) -> str:
    """One line of the access log."""
    return json.dumps(fields, separators=(",", ":")) + "\n"
