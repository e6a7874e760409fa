"""The broker over HTTP: a token for every request, a step a route, an error in one JSON line."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from runbook.broker.again import Wanted
from runbook.broker.desk import Concluded, Desk
from runbook.broker.orders import Wish
from runbook.broker.publish import Worked
from runbook.errors import InvalidParameter, NotFound, RunbookError

log = structlog.get_logger(__name__)


class Apply(BaseModel):
    """What a person confirms: this plan, by this name."""

    digest: str
    typed: str


def create_app(desk: Desk, token: str) -> FastAPI:
    """The ASGI application over ``desk``, for whoever knows ``token``."""

    async def known(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1", "replace"), token.encode()):
            raise HTTPException(401, "the broker serves only the JupyterLab that it was started with")

    app = FastAPI(title="runbook broker", openapi_url=None, docs_url=None, redoc_url=None,
                  dependencies=[Depends(known)])  # fmt: skip
    _routes(app, desk)
    _errors(app)
    return app


def _routes(app: FastAPI, desk: Desk) -> None:
    turns: dict[str, asyncio.Lock] = {}

    async def in_turn(action: str, step: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """One step of an action, and one run, at a time: a second click waits for the first one."""
        async with turns.setdefault(action, asyncio.Lock()):
            return await step()

    @app.get("/settings")
    async def settings(service: str = "") -> dict[str, Any]:
        return {"settings": desk.diagnosing(service)}

    @app.post("/runs")
    async def runs(concluded: Concluded) -> dict[str, Any]:
        return {"actions": await desk.offer(concluded)}

    @app.post("/orders")
    async def order(wish: Wish) -> dict[str, Any]:
        return await desk.order(wish)

    @app.post("/runs/{run_id}/open")
    async def open_run(run_id: str) -> dict[str, Any]:
        return await desk.open(run_id)

    @app.post("/publish")
    async def publish(worked: Worked) -> dict[str, Any]:
        return await desk.publish(worked)

    @app.post("/again")
    async def again(wanted: Wanted) -> dict[str, Any]:
        return await in_turn("again", lambda: desk.again(wanted))

    @app.get("/actions/{action}")
    async def told(action: str) -> dict[str, Any]:
        return await desk.told(action)

    @app.post("/actions/{action}/plan")
    async def plan(action: str) -> dict[str, Any]:
        return await in_turn(action, lambda: desk.plan(action))

    @app.post("/actions/{action}/apply")
    async def apply(action: str, body: Apply) -> dict[str, Any]:
        return await in_turn(action, lambda: desk.apply(action, digest=body.digest, typed=body.typed))

    @app.post("/actions/{action}/verify")
    async def verify(action: str) -> dict[str, Any]:
        return await in_turn(action, lambda: desk.verify(action))

    @app.post("/actions/{action}/undo")
    async def undo(action: str) -> dict[str, Any]:
        return await in_turn(action, lambda: desk.undo(action))


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RunbookError)
    async def ours(_: Request, error: RunbookError) -> JSONResponse:
        status = 404 if isinstance(error, NotFound) else 422 if isinstance(error, InvalidParameter) else 409
        return JSONResponse({"error": error.message, "remedy": error.remedy}, status)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail), "remedy": ""}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        where = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        return JSONResponse({"error": f"the request is not as it should be: {where}", "remedy": ""}, 422)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        # The message may hold anything; its name is enough for a card, the rest stands in the log of the broker.
        log.error("broker_failed", error=type(error).__name__)
        return JSONResponse({"error": f"the broker failed ({type(error).__name__})", "remedy": "See its output"}, 500)
