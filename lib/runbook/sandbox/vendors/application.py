"""All vendors in one application, and the control side that changes them.

Before the routes stands one piece that knows whose path is asked for, whether that vendor fails just now and whether
the credential is right, and that writes the request down. The control side takes the token that the process was
started with; no vendor's credential opens it.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from runbook.sandbox.vendors.aws import Aws
from runbook.sandbox.vendors.base import Endpoint, Vendor, now, same, stamp
from runbook.sandbox.vendors.control_side import ControlSide
from runbook.sandbox.vendors.credentials import STATUS_PAGES, Credentials
from runbook.sandbox.vendors.discord import Discord
from runbook.sandbox.vendors.failures import Receive, Send
from runbook.sandbox.vendors.github import GitHub
from runbook.sandbox.vendors.mux import Mux
from runbook.sandbox.vendors.pagerduty import PagerDuty
from runbook.sandbox.vendors.sentry import Sentry
from runbook.sandbox.vendors.statuspage import StatusPage
from runbook.sandbox.vendors.stream import Stream
from runbook.sandbox.vendors.stripe import Stripe

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_REFUSED = JSONResponse({"detail": "the control side takes the simulator's own token"}, status_code=401)


def create_app(token: str) -> ASGIApp:
    """Every vendor under its base path, and ``/control`` for who holds ``token``."""
    credentials = Credentials.of(token)
    vendors: list[Vendor[Any]] = [
        cls(credentials) for cls in (Sentry, GitHub, Mux, Stream, PagerDuty, Discord, Stripe, Aws)
    ]
    vendors += [StatusPage(credentials, page) for page in STATUS_PAGES]
    app = FastAPI(openapi_url=None)
    for vendor in vendors:
        for method, path, endpoint in vendor.routes():
            app.router.add_route(vendor.base + path, endpoint, methods=[method])
        app.router.add_route(vendor.base + "{rest:path}", _unknown(vendor), methods=_METHODS)
    for method, path, endpoint in ControlSide({vendor.name: vendor for vendor in vendors}).routes():
        app.router.add_route(path, endpoint, methods=[method])
    return _Front(app, vendors, token)


def _unknown(vendor: Vendor[Any]) -> Endpoint:
    async def answer(request: Request) -> Response:
        return vendor.said(404)

    return answer


class _Front:
    """Whose path, may they, does it fail just now; and a note of each request."""

    def __init__(self, app: ASGIApp, vendors: Sequence[Vendor[Any]], token: str) -> None:
        self._app = app
        self._vendors = vendors
        self._token = token

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith("/control"):
            given = Request(scope).headers.get("authorization", "")
            known = same(given, f"Bearer {self._token}")
            await (self._app if known else _REFUSED)(scope, receive, send)
            return
        vendor = next((vendor for vendor in self._vendors if f"{path}/".startswith(f"{vendor.base}/")), None)
        if vendor is None:
            await self._app(scope, receive, send)
        else:
            await self._ask(vendor, scope, receive, send)

    async def _ask(self, vendor: Vendor[Any], scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        below = scope["path"].removeprefix(vendor.base) or "/"
        query = scope["query_string"].decode("latin-1")
        note = {"method": scope["method"], "path": below, "query": query, "status": None, "at": stamp(now())}
        vendor.requests.append(note)

        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                note["status"] = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                more = ((name.lower().encode(), value.encode()) for name, value in vendor.headers().items())
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in more if name not in present),
                ]
            await send(message)

        async def ordinary(receive: Receive, send: Send) -> None:
            await (vendor.refusal(Request(scope)) or self._app)(scope, receive, send)

        failure = vendor.failure_now(below)
        try:
            if failure is None:
                await ordinary(receive, watched)
            else:
                await failure.answer(vendor.error, ordinary, receive, watched)
        except ClientDisconnect:
            # Whoever asked was tired of waiting; that is no trouble of the simulator's.
            note["status"] = None
