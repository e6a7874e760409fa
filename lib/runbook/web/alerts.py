"""``POST /alerts/{source}``: verify, parse, route, keep, and only then 202."""

from __future__ import annotations

import time

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from runbook.dispatch.incidents import prepare
from runbook.dispatch.sources import SOURCES, parse
from runbook.web.body import read_body
from runbook.web.site import Site


def router(site: Site) -> APIRouter:
    """The routes of alert sources."""
    routes = APIRouter()

    async def receive(request: Request) -> JSONResponse:
        began = time.perf_counter()
        source = request.path_params["source"]
        site.access.check(request, "alerts")
        if source not in SOURCES:
            raise HTTPException(404, f"unknown alert source; known: {', '.join(SOURCES)}")
        alerts = parse(source, await read_body(request))
        arrivals = [prepare(alert, site.runbooks, site.settings, site.redactor) for alert in alerts]
        receipts = await site.intake.submit(arrivals)
        site.metrics.taken_in(source, receipts, time.perf_counter() - began)
        return JSONResponse({"alerts": [receipt.as_dict() for receipt in receipts]}, status_code=202)

    # A plain route: nothing of the body or the query is for FastAPI to look at.
    routes.add_route("/alerts/{source}", receive, methods=["POST"])
    return routes
