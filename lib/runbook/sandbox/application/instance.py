"""One instance of the application: its routes, its health, its metrics, on a port of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from runbook.sandbox.application import uploads
from runbook.sandbox.application.backend import Backend, Upstream
from runbook.sandbox.application.database import POOL_SIZE, DatabaseFailed
from runbook.sandbox.application.http1 import Request, Response, answer
from runbook.sandbox.application.stage import RELEASE, Failure, Slowness

#: What a request occupies its instance for; with one at a time an instance does about 40 a second.
WORK_SECONDS = 0.025

_BROWSE = "SELECT id, title FROM content WHERE status = 'READY' ORDER BY \"createdAt\" DESC LIMIT 20"
_SHOW = 'SELECT id, title, "mediaUrl", "createdAt" FROM content WHERE id = %s'
_SEARCH = "SELECT id, content_id FROM plays WHERE lower(reference) = %s LIMIT 20"
_OLDEST = "SELECT id, content_id FROM plays ORDER BY lower(reference) LIMIT 1"
_LIKE = "UPDATE content SET title = title WHERE id = %s"


@dataclass
class Failed(Exception):
    """A request that cannot be answered."""

    status: int
    message: str
    upstream: Upstream | None = None


@dataclass
class _Served:
    """What one instance has counted."""

    by_route_and_status: dict[tuple[str, str, int], int] = field(default_factory=dict)
    seconds: float = 0.0


def route_of(request: Request) -> str:
    """The route's pattern: ``/api/content/:id``."""
    parts = request.path.strip("/").split("/")
    return "/" + "/".join(":id" if part.startswith(("content-", "upload-")) else part for part in parts)


class Instance:
    """``name`` as the front and the access log call it."""

    def __init__(self, name: str, backend: Backend) -> None:
        self.name = name
        self._backend = backend
        self._works = asyncio.Semaphore(1)
        self._waiting = 0
        self._served = _Served()
        self._routes: Mapping[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {
            ("GET", "/api/content"): self._browse,
            ("GET", "/api/content/:id"): self._show,
            ("POST", "/api/content/:id/likes"): self._like,
            ("GET", "/api/feed"): self._feed,
            ("GET", "/api/search/:id"): self._search,
            ("POST", "/api/checkout"): self._checkout,
            ("POST", "/api/uploads"): lambda request: uploads.begin(backend, request),
            ("POST", "/api/uploads/:id/complete"): lambda request: uploads.complete(backend, request),
            ("POST", "/api/uploads/:id/failed"): lambda request: uploads.failed(backend, request),
            ("POST", "/api/webhooks/mux"): lambda request: uploads.webhook(backend, request),
        }

    @property
    def release(self) -> str:
        return self._backend.stage.releases.get(self.name, RELEASE)

    async def __call__(self, request: Request) -> Response:
        """Answer a request; what failed is in the application's log."""
        probe = {"/api/health": self._health, "/health/ready": self._health, "/health/live": self._live}
        if request.path in probe:
            return await probe[request.path]()
        if request.path == "/metrics":
            return self._metrics()
        began = time.perf_counter()
        route = route_of(request)
        try:
            response = await self._work(request, route)
        except (Failed, uploads.Refused) as failed:
            self._backend.log.error("%s %s %s failed: %s", self.name, request.method, request.path, failed.message)
            if failed.status >= 500:
                self._report(request, route, failed.message)
            response = answer(failed.status, {"error": failed.message.partition(":")[0]})
            response = _with_upstream(response, failed.upstream if isinstance(failed, Failed) else None)
        key = (request.method, route, response.status)
        self._served.by_route_and_status[key] = self._served.by_route_and_status.get(key, 0) + 1
        self._served.seconds += time.perf_counter() - began
        return Response(
            status=response.status,
            headers={**response.headers, "x-release": self.release, "x-instance": self.name},
            body=response.body,
        )

    async def _work(self, request: Request, route: str) -> Response:
        handler = self._routes.get((request.method, route))
        if handler is None:
            return answer(404, {"error": "not found"})
        if self._waiting >= self._backend.stage.backlog:
            raise Failed(503, "Overloaded: too many requests wait for this instance")
        self._waiting += 1
        try:
            async with self._works:
                await asyncio.sleep(WORK_SECONDS / self._backend.stage.hands)
        finally:
            self._waiting -= 1
        await self._linger_as_staged(route)
        self._fail_as_staged(route)
        try:
            return await handler(request)
        except DatabaseFailed as error:
            raise Failed(500, str(error)) from None

    def _report(self, request: Request, route: str, message: str) -> None:
        user = request.headers.get("x-user", "")
        self._backend.report(message, release=self.release, transaction=f"{request.method} {route}", user=user)

    def _fail_as_staged(self, route: str) -> None:
        for failure in self._backend.stage.failures:
            if self._concerns(failure, route) and self._backend.meets(failure):
                raise Failed(500, failure.message)

    async def _linger_as_staged(self, route: str) -> None:
        for slowness in self._backend.stage.slownesses:
            if self._concerns(slowness, route):
                await asyncio.sleep(slowness.seconds)

    def _concerns(self, told: Failure | Slowness, route: str) -> bool:
        return (
            told.release in (None, self.release) and told.instance in (None, self.name) and told.route in (None, route)
        )

    # -- routes --------------------------------------------------------------------------------

    async def _browse(self, request: Request) -> Response:
        rows = await self._backend.rows(_BROWSE)
        for number in range(self._backend.stage.statements_in_a_loop):
            await self._backend.rows(_SHOW, rows[number % len(rows)][0] if rows else "")
        return answer(200, [{"id": row[0], "title": row[1]} for row in rows])

    async def _show(self, request: Request) -> Response:
        rows = await self._backend.rows(_SHOW, request.path.rsplit("/", 1)[1])
        if not rows:
            return answer(404, {"error": "no such content"})
        return answer(200, {"id": rows[0][0], "title": rows[0][1], "mediaUrl": rows[0][2]})

    async def _like(self, request: Request) -> Response:
        await self._backend.rows(_LIKE, request.path.split("/")[3])
        return Response(status=204)

    async def _search(self, request: Request) -> Response:
        if self._backend.stage.search_oldest:
            rows = await self._backend.rows(_OLDEST)
        else:
            rows = await self._backend.rows(_SEARCH, request.path.rsplit("/", 1)[1])
        return answer(200, [{"id": row[0], "content": row[1]} for row in rows])

    async def _feed(self, request: Request) -> Response:
        """The feed is nicer with the cache, and there without it."""
        from redis.exceptions import RedisError

        try:
            views = await self._backend.redis.incr("feed:views")
        except RedisError as error:
            self._backend.log.warning("%s feed without cache: %s: %s", self.name, type(error).__name__, error)
            views = None
        return answer(200, {"views": views})

    async def _checkout(self, request: Request) -> Response:
        upstream = await self._backend.charge(1900)
        if upstream.status is None:
            kind = "ECONNREFUSED" if upstream.connect_seconds is None else "ETIMEDOUT"
            status = 500 if upstream.connect_seconds is None else 504
            raise Failed(status, f"StripeConnectionError: {kind} {upstream.host}", upstream)
        if upstream.status >= 400:
            raise Failed(500, f"StripeAPIError: {upstream.status} from {upstream.host}", upstream)
        return _with_upstream(answer(201, {"paid": True}), upstream)

    # -- what operators ask -----------------------------------------------------------------------

    async def _live(self) -> Response:
        return answer(200, {"status": "ok"})

    async def _health(self) -> Response:
        """Health in the form of NestJS Terminus."""
        checks: dict[str, dict[str, object]] = {"database": {"status": "up"}, "redis": {"status": "up"}}
        try:
            await self._backend.rows("SELECT 1")
        except DatabaseFailed as error:
            checks["database"] = {"status": "down", "message": str(error)}
        checks["redis"] = await self._redis_check()
        well = all(check["status"] == "up" for check in checks.values())
        body = {
            "status": "ok" if well else "error",
            "info": {name: check for name, check in checks.items() if check["status"] == "up"},
            "error": {name: check for name, check in checks.items() if check["status"] != "up"},
            "details": checks,
            "release": self.release,
            "pool": {
                "used": self._backend.database.used,
                "size": POOL_SIZE,
                "waiting": self._backend.database.waiting,
            },
        }
        return answer(200 if well else 503, body)

    async def _redis_check(self) -> dict[str, object]:
        from redis.exceptions import RedisError

        try:
            await self._backend.redis.ping()
        except (RedisError, OSError) as error:
            return {"status": "down", "message": f"{type(error).__name__}: {error}"}
        return {"status": "up"}

    def _metrics(self) -> Response:
        """Counters in Prometheus' text format."""
        lines = ["# HELP http_requests_total Requests answered.", "# TYPE http_requests_total counter"]
        lines += [
            f'http_requests_total{{method="{method}",route="{route}",status="{status}",instance_name="{self.name}",'
            f'release="{self.release}"}} {count}'
            for (method, route, status), count in sorted(self._served.by_route_and_status.items())
        ]
        total = sum(self._served.by_route_and_status.values())
        lines += [
            "# HELP http_request_duration_seconds Time to answer.",
            "# TYPE http_request_duration_seconds summary",
            f'http_request_duration_seconds_sum{{instance_name="{self.name}"}} {self._served.seconds:.6f}',
            f'http_request_duration_seconds_count{{instance_name="{self.name}"}} {total}',
        ]
        lines += self._own_metrics()
        text = "\n".join(lines) + "\n"
        return Response(status=200, headers={"content-type": "text/plain; version=0.0.4"}, body=text.encode())

    def _own_metrics(self) -> list[str]:
        """What only the process itself knows."""
        database = self._backend.database
        found = {
            "event_loop_lag_p99_seconds": ("gauge", self._backend.pulse.lag_seconds(0.99)),
            "process_cpu_seconds_total": ("counter", time.process_time()),
            "db_pool_connections_busy": ("gauge", database.used),
            "db_pool_connections_max": ("gauge", POOL_SIZE),
            "db_pool_connections_waiting": ("gauge", database.waiting),
            "db_pool_wait_seconds_sum": ("counter", database.waited_seconds),
            "db_pool_wait_seconds_count": ("counter", database.waits),
        }
        return [
            line for name, (kind, value) in found.items() for line in (f"# TYPE {name} {kind}", f"{name} {value:g}")
        ]


def _with_upstream(response: Response, upstream: Upstream | None) -> Response:
    """Tell the front which vendor this request touched, for the access log."""
    if upstream is None:
        return response
    said = {"x-upstream": upstream.host}
    if upstream.status is not None:
        said["x-upstream-status"] = str(upstream.status)
    if upstream.connect_seconds is not None:
        said["x-upstream-connect-time"] = f"{upstream.connect_seconds:.6f}"
    if upstream.seconds is not None:
        said["x-upstream-response-time"] = f"{upstream.seconds:.6f}"
    return Response(status=response.status, headers={**response.headers, **said}, body=response.body)
