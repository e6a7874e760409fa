"""Actions over HTTP: what a run proposed, what a person orders, and the steps from plan to undo.

Ordering and acting need a token that may act.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse

from runbook.actions.plan import Order
from runbook.dispatch.desk import Desk, told
from runbook.dispatch.sources.body import checked, load
from runbook.errors import NotFound
from runbook.web.body import read_body
from runbook.web.site import Site

ACTION_ID = re.compile(r"[0-9A-Za-z-]{1,64}:[A-Za-z0-9_.:-]{1,120}")


class _Wish(BaseModel):
    """The body of ``POST /api/actions``: what a person orders about a run."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(max_length=64)
    kind: str = Field(max_length=64)
    targets: list[dict[str, Any]] = []
    title: str = ""


class _Approval(BaseModel):
    """The body of ``POST /api/actions/{id}/approve``."""

    model_config = ConfigDict(extra="forbid")

    #: Digest of the plan that was seen.
    plan: str = Field(pattern=r"^[0-9a-f]{64}$")


def router(site: Site) -> APIRouter:
    """The routes under ``/api/actions``."""
    routes = APIRouter(prefix="/api/actions")
    reading = [Depends(site.access.needs("read"))]
    acting = [Depends(site.access.needs("act"))]

    def desk() -> Desk:
        return Desk(site.settings, site.store, site.kernels)

    async def ordered(action: str) -> tuple[Desk, Order]:
        if not ACTION_ID.fullmatch(action):
            raise NotFound("there is no such action", remedy="GET /api/actions lists them")
        at = desk()
        return at, await at.order(action)

    @routes.get("", dependencies=reading)
    async def listed(run: str = Query(default="", max_length=64)) -> JSONResponse:
        at = desk()
        found = await at.orders_of(run) if run else await at.lately()
        return JSONResponse({"actions": [await _told(at, order) for order in found]})

    @routes.post("", dependencies=acting)
    async def order(request: Request) -> JSONResponse:
        body = checked(_Wish, load(await read_body(request)), called="an order")
        at = desk()
        made = await at.make(body.run, body.kind, body.targets, site.access.actor(request), title=body.title)
        return JSONResponse(await _told(at, made), 201)

    @routes.get("/{action}", dependencies=reading)
    async def one(action: str) -> JSONResponse:
        return JSONResponse(await _told(*await ordered(action)))

    @routes.post("/{action}/plan", dependencies=acting)
    async def plan(action: str, request: Request) -> JSONResponse:
        at, order = await ordered(action)
        return JSONResponse((await at.acting.plan(order, site.access.actor(request))).as_dict())

    @routes.post("/{action}/approve", dependencies=acting)
    async def approve(action: str, request: Request) -> JSONResponse:
        at, order = await ordered(action)
        body = checked(_Approval, load(await read_body(request)), called="an approval")
        await at.acting.approve(order.id, body.plan, site.access.actor(request))
        return JSONResponse(await _told(at, order))

    @routes.post("/{action}/apply", dependencies=acting)
    async def apply(action: str, request: Request) -> JSONResponse:
        at, order = await ordered(action)
        effects = await at.acting.apply(order, site.access.actor(request))
        return JSONResponse({"effects": [vars(effect) for effect in effects], **await _told(at, order)})

    @routes.post("/{action}/verify", dependencies=acting)
    async def verify(action: str, request: Request) -> JSONResponse:
        at, order = await ordered(action)
        return JSONResponse(await at.acting.verify(order, site.access.actor(request)))

    @routes.post("/{action}/undo", dependencies=acting)
    async def undo(action: str, request: Request) -> JSONResponse:
        at, order = await ordered(action)
        effects = await at.acting.undo(order, site.access.actor(request))
        return JSONResponse({"effects": [vars(effect) for effect in effects], **await _told(at, order)})

    return routes


async def _told(desk: Desk, order: Order) -> dict[str, Any]:
    return told(order, await desk.acting.standing(order.id))
