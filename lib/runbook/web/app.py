"""Puts the routes together, turns errors into one JSON line, and logs every request without what could be secret."""

from __future__ import annotations

import time

import structlog
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runbook.actions.plan import Refused
from runbook.dispatch.alert import MalformedAlert, UnreadableBody
from runbook.dispatch.trouble import where
from runbook.errors import InvalidParameter, NotFound, RunbookError, StoreError
from runbook.store.action_log import Moved
from runbook.web import actions, alerts, api, pages
from runbook.web.site import Site

log = structlog.get_logger(__name__)

_STATUS: tuple[tuple[type[RunbookError], int], ...] = (
    (UnreadableBody, 400),
    (MalformedAlert, 422),
    (InvalidParameter, 422),
    (NotFound, 404),
    (Refused, 409),
    (Moved, 409),
    (StoreError, 503),
)
_RETRY_SECONDS = "5"


def create_app(site: Site) -> FastAPI:
    """The ASGI application over ``site``."""
    app = FastAPI(title="runbook", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(alerts.router(site))
    app.include_router(api.router(site))
    app.include_router(actions.router(site))
    app.include_router(pages.router(site))

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok\n"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz() -> str:
        await site.store.check()
        pool = site.kernels
        return "ready\n" if pool is None else f"ready\nwarm kernels: {pool.ready} of {pool.size}\n"

    @app.get("/metrics", dependencies=[Depends(site.access.needs("read"))])
    async def metrics() -> Response:
        text = site.metrics.exposition(await site.store.runs.counts())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def answer(request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        if request.url.path.startswith("/alerts/"):
            site.metrics.refused(status)
        return JSONResponse({"error": " ".join(site.redactor.text(text).split())}, status, headers)

    async def ours(request: Request, error: Exception) -> JSONResponse:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        if status == 500:
            log.error("request failed", error=type(error).__name__, reason=site.redactor.text(str(error)))
        return answer(request, status, str(error), {"Retry-After": _RETRY_SECONDS} if status == 503 else None)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return answer(request, error.status_code, str(error.detail), dict(error.headers or {}))

    async def query(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()[:3])
        return answer(request, 422, f"the query does not fit: {problems}")

    app.add_exception_handler(RunbookError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, query)
    app.add_middleware(_Log)
    return app


class _Log:
    """The access log, and the last resort for errors: no query, no header, no body gets into either."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def note(event: Message) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
            await send(event)

        try:
            await self._app(scope, receive, note)
        except Exception as error:  # noqa: BLE001 (the service's boundary: answered, and logged)
            log.error("request failed by an error of ours", trouble=where(error))
            if not status:
                await JSONResponse({"error": "internal error; see the service's log"}, 500)(scope, receive, note)
        finally:
            log.info(
                "request",
                method=scope["method"],
                route=_route(scope),
                status=status,
                duration_ms=round((time.perf_counter() - began) * 1000, 1),
            )


def _route(scope: Scope) -> str:
    """The route that a request took; a path that is none of ours may hold anything, so it is not named."""
    if route := getattr(scope.get("route"), "path", ""):
        return str(route)
    return "/alerts/{source}" if "source" in scope.get("path_params", {}) else "(none)"
