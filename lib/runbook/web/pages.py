"""Pages for people: runs, runbooks, archived reports. Text from outside is escaped; reports are sandboxed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, Response

from runbook.dispatch.alert import iso
from runbook.dispatch.announce import jupyter_url
from runbook.errors import NotFound
from runbook.reporting.archive import REPORT
from runbook.web.api import document, find
from runbook.web.site import Site

REPORT_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
PAGE_HEADERS = REPORT_HEADERS | {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
_RECENT = 50


def router(site: Site) -> APIRouter:
    """The routes of the pages."""
    routes = APIRouter(dependencies=[Depends(site.access.needs("read"))], default_response_class=HTMLResponse)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["moment"] = lambda value: iso(value.replace(microsecond=0)) if value else "–"

    def page(template: str, **facts: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(template).render(facts), headers=PAGE_HEADERS)

    @routes.get("/")
    async def recent() -> HTMLResponse:
        rows = await site.store.runs.listed(limit=_RECENT)
        unrouted = await site.store.alerts.listed(fate="unrouted", limit=_RECENT)
        return page("index.html", runs=rows, unrouted=unrouted, runbooks=site.runbooks.values())

    @routes.get("/runs/{run_id}")
    async def run(run_id: str) -> HTMLResponse:
        row = await find(site, run_id)
        link = jupyter_url(row.id, site.settings)
        return page("run.html", row=row, result=await document(site, row), jupyter_url=link)

    @routes.get("/runbooks/{name}")
    async def runbook(name: str) -> HTMLResponse:
        found = site.runbooks.get(name)
        if found is None:
            raise NotFound("there is no such runbook", remedy=f"Known: {', '.join(site.runbooks)}")
        return page("runbook.html", runbook=found)

    @routes.get("/reports/{run_id}")
    async def report(run_id: str) -> Response:
        row = await find(site, run_id)
        if not (row.started_at and row.report):
            raise NotFound(f"run {row.id} has no report ({row.state})", remedy=f"See /runs/{row.id}")
        html = await asyncio.to_thread(site.archive.read, row.id, row.started_at, REPORT)
        return HTMLResponse(html, headers=REPORT_HEADERS)

    return routes
