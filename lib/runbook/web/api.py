"""The JSON interface: runs, their events, reports, alerts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from runbook.catalog import check_parameters
from runbook.dispatch.alert import iso
from runbook.dispatch.announce import report_url
from runbook.dispatch.documents import from_row
from runbook.dispatch.sources.body import checked, load
from runbook.errors import ArchiveError, InvalidParameter, NotFound, UnknownRunbook
from runbook.reporting.archive import RESULT
from runbook.store.ids import RUN_ID, new_run_id
from runbook.store.rows import NewRun, RunRow
from runbook.web.body import read_body
from runbook.web.site import Site

_POLL_SECONDS = 2.0

State = Literal["queued", "running", "succeeded", "failed", "interrupted", "cancelled"]
Fate = Literal["queued", "resolved", "unrouted"]
Limit = Query(default=100, ge=1, le=500)


class _Order(BaseModel):
    """The body of ``POST /api/runs``."""

    model_config = ConfigDict(extra="forbid")

    runbook: str = Field(max_length=64)
    parameters: dict[str, Any] = {}


def router(site: Site) -> APIRouter:
    """The routes under ``/api``."""
    routes = APIRouter(prefix="/api")
    reading = [Depends(site.access.needs("read"))]

    @routes.get("/runs", dependencies=reading)
    async def runs(state: State | None = None, limit: int = Limit) -> JSONResponse:
        rows = await site.store.runs.listed(state=state, limit=limit)
        return JSONResponse({"runs": [_listed(site, row) for row in rows]})

    @routes.post("/runs", dependencies=[Depends(site.access.needs("run"))])
    async def start(request: Request) -> JSONResponse:
        row = await _start(site, await read_body(request), request.headers.get("content-type", ""))
        return JSONResponse(from_row(row), status_code=202)

    @routes.get("/runs/{run_id}", dependencies=reading)
    async def run(run_id: str) -> JSONResponse:
        return JSONResponse(await document(site, await find(site, run_id)))

    @routes.get("/runs/{run_id}/events", dependencies=reading)
    async def events(run_id: str) -> StreamingResponse:
        row = await find(site, run_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(site, row.id), media_type="text/event-stream", headers=headers)

    @routes.get("/reports", dependencies=reading)
    async def reports(q: str = Query(default="", max_length=500), limit: int = Limit) -> JSONResponse:
        rows = await site.store.runs.search(q, limit=limit)
        return JSONResponse({"reports": [_listed(site, row) for row in rows]})

    @routes.get("/alerts", dependencies=reading)
    async def alerts(fate: Fate | None = None, limit: int = Limit) -> JSONResponse:
        rows = await site.store.alerts.listed(fate=fate, limit=limit)
        return JSONResponse({"alerts": [_plain(row) for row in rows]})

    return routes


async def find(site: Site, run_id: str) -> RunRow:
    """The row of a run. Raises :class:`NotFound`."""
    row = await site.store.runs.get(run_id) if RUN_ID.fullmatch(run_id) else None
    if row is None:
        raise NotFound("there is no such run", remedy="GET /api/runs lists them")
    return row


async def document(site: Site, row: RunRow) -> dict[str, Any]:
    """The result document of a run: the archived one when there is one, else what the store knows."""
    known = from_row(row)
    if not (row.finished and row.started_at and row.report):
        return known
    try:
        text = await asyncio.to_thread(site.archive.read, row.id, row.started_at, RESULT)
        archived: dict[str, Any] = json.loads(text)
    except (NotFound, ArchiveError, ValueError):
        return known
    # The row has the last word on how the run ended.
    return archived | {"state": row.state, "error": archived.get("error") or row.error}


async def _start(site: Site, body: bytes, content_type: str) -> RunRow:
    # A form on another site can send no JSON content type.
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send Content-Type: application/json")
    order = checked(_Order, load(body), called="a run to start")
    runbook = site.runbooks.get(order.runbook)
    if runbook is None:
        raise InvalidParameter(str(UnknownRunbook(order.runbook, list(site.runbooks))))
    parameters = check_parameters(runbook, order.parameters, site.settings)
    if site.redactor.value(parameters) != parameters:
        raise InvalidParameter("a parameter holds a secret", remedy="Put secrets in the settings, not in parameters")
    run_id = new_run_id()
    new = NewRun(
        id=run_id,
        key=run_id,
        runbook=runbook.name,
        parameters=parameters,
        title=runbook.title,
        severity=runbook.severity,
        service=str(parameters.get("service", "")),
    )
    async with site.store.transaction() as connection:
        await site.store.runs.insert(connection, [new])
        await site.queue.defer(connection, [run_id])
    return await find(site, run_id)


async def _events(site: Site, run_id: str) -> AsyncIterator[str]:
    """Server-sent events: ``state`` at first and when it changes, ``cell`` for each step, ``end`` as the last."""
    with site.feed.watch(run_id) as heard:
        row = await find(site, run_id)
        yield _event("state", {"run_id": run_id, "state": row.state, "progress": row.progress})
        state = row.state
        while not row.finished and not site.stopping.is_set():
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    event = await heard.get()
            except TimeoutError:
                event = {}
                yield ": still here\n\n"
            if event.pop("event", None) == "cell":
                yield _event("cell", event)
                continue
            row = await find(site, run_id)
            if row.state != state and not row.finished:
                yield _event("state", {"run_id": run_id, "state": row.state, "progress": row.progress})
            state = row.state
        if row.finished:
            yield _event("end", _listed(site, row))


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _listed(site: Site, row: RunRow) -> dict[str, Any]:
    """One line of a list of runs or reports."""
    return {
        "run_id": row.id,
        "runbook": row.runbook,
        "title": row.title,
        "severity": row.severity,
        "service": row.service,
        "state": row.state,
        "outcome": row.outcome,
        "causes": row.summary.get("causes", []),
        "incident_id": row.incident_id,
        "queued_at": iso(row.queued_at),
        "started_at": iso(row.started_at) if row.started_at else None,
        "finished_at": iso(row.finished_at) if row.finished_at else None,
        "report": report_url({"run_id": row.id, "report": {"html": row.report}}, site.settings) or None,
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: iso(value) if hasattr(value, "astimezone") else value for key, value in row.items()}
