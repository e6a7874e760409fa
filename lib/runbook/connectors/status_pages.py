"""What vendors say of themselves on their status pages: Statuspage v2, and the public events of AWS.

A page that does not answer is *unknown*, never *down*; one that is green proves little, since pages lag.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from runbook.connectors.answers import first_line, inside, instant, iso, known, objects, prose, text, together
from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.http import Exchange, HttpConnector, Malformed, shown
from runbook.result import Reading

PAGE_SECONDS = 5.0
RECENT = timedelta(hours=24)
"""Incidents that were resolved within this time are listed as well: they may be on the incident's time line."""
MAX_COMPONENTS = 50
MAX_INCIDENTS = 20
_INDICATORS = {name: name for name in ("none", "minor", "major", "critical", "maintenance")}
_IMPACTS = {"0": "none", "1": "minor", "2": "major", "3": "critical"}
_CONDITIONS = {"1": "informational", "2": "degraded_performance", "3": "major_outage"}


class StatusPages(HttpConnector):
    """Several vendors' pages at once.

    Parameters
    ----------
    pages
        Vendor name → the page's address (``https://www.stripestatus.com``), or that of AWS's public events.
    """

    source = "status_pages"

    def __init__(self, context: Context, pages: Mapping[str, str]) -> None:
        super().__init__(context, "", lacking="" if pages else "status_pages")
        self.target = ", ".join(pages)
        self._pages = {vendor: _Page(context, vendor, url) for vendor, url in pages.items()}

    def all(self) -> Reading:
        """``vendor_status``: one row a vendor; ``partial`` names those that did not answer."""

        def take(_: Exchange) -> Fetched:
            pages = list(self._pages.values())
            deadline = time.monotonic() + PAGE_SECONDS
            results = together(self, pages, lambda page: page.row(deadline), within_seconds=PAGE_SECONDS + 0.5)
            rows = [_silent(page, result) if isinstance(result, Failure) else result
                    for page, result in zip(pages, results, strict=True)]  # fmt: skip
            silent = [row["vendor"] for row in rows if not row["answered"]]
            return Fetched(value=rows, partial=f"no answer from {', '.join(silent)}" if silent else "")

        query = "; ".join(f"{page.vendor}: {shown(page.url)}" for page in self._pages.values())
        return self.gather("vendor_status", query, take, limit_seconds=PAGE_SECONDS + 1)


class _Page(HttpConnector):
    """One vendor's page."""

    source = "status_pages"

    def __init__(self, context: Context, vendor: str, url: str) -> None:
        base = url.rstrip("/").removesuffix("/api/v2/summary.json")
        self._exact = base.endswith("/currentevents")
        super().__init__(context, base)
        self.vendor = vendor
        self.url = base if self._exact else f"{base}/api/v2/summary.json"

    def row(self, deadline: float) -> dict[str, Any]:
        exchange = Exchange(self, deadline)
        edge = self.context.now() - RECENT
        answered = {"vendor": self.vendor, "url": self.url, "answered": True, "reason": ""}
        if self._exact:
            return answered | _aws(exchange.get(self.url).value, edge)
        paths = ("/api/v2/summary.json", "/api/v2/incidents.json")
        summary, history = together(self, paths, lambda path: exchange.get(path).object)
        if isinstance(summary, Failure):
            return _silent(self, summary)
        past = [] if isinstance(history, Failure) else objects(history.get("incidents"))
        missing = f"resolved incidents not read: {history.reason}" if isinstance(history, Failure) else ""
        return answered | _statuspage(summary, past, edge) | {"reason": missing}


def _silent(page: _Page, failure: Failure) -> dict[str, Any]:
    return {
        "vendor": page.vendor,
        "url": page.url,
        "answered": False,
        "reason": f"{failure.state.replace('_', ' ')}: {failure.reason}",
        "indicator": "unknown",
        "description": None,
        "components": [],
        "incidents": [],
    }


def _statuspage(summary: dict[str, Any], past: list[dict[str, Any]], edge: datetime) -> dict[str, Any]:
    if not isinstance(summary.get("status"), dict):
        raise Malformed("a status page's summary has a status")
    # Groups repeat the state of their members.
    components = [item for item in objects(summary.get("components")) if item.get("group") is not True]
    recent = [item for item in past if (resolved := instant(item.get("resolved_at"))) and resolved >= edge]
    incidents = {text(item.get("id")): _incident(item) for item in [*objects(summary.get("incidents")), *recent]}
    return {
        "indicator": known(inside(summary, "status", "indicator"), _INDICATORS, "unknown"),
        "description": prose(inside(summary, "status", "description")),
        "components": [
            {"name": text(item.get("name")), "status": text(item.get("status")) or "unknown"}
            for item in components
            if item.get("status") != "operational"
        ][:MAX_COMPONENTS],
        "incidents": list(incidents.values())[:MAX_INCIDENTS],
    }


def _incident(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": first_line(item.get("name")),
        "status": text(item.get("status")) or "unknown",
        "impact": known(item.get("impact"), _INDICATORS, "unknown"),
        "created_at": iso(item.get("started_at")) or iso(item.get("created_at")),
        "resolved_at": iso(item.get("resolved_at")),
        "url": text(item.get("shortlink")),
    }


def _aws(value: Any, edge: datetime) -> dict[str, Any]:
    """AWS lists what is going on everywhere, and for a while what is over. Its form is documented nowhere."""
    if not isinstance(value, list):
        raise Malformed("AWS's public events are a list")
    events = [_aws_event(item) for item in objects(value)]
    current = [event for event in events if event["resolved_at"] is None and event["status"] != "resolved"]
    recent = [event for event in events if event not in current and (event["resolved_at"] or "") >= (iso(edge) or "")]
    components = {part["name"]: part for event in current for part in event["components"]}
    impact = max((event["impact"] for event in current), key=list(_IMPACTS.values()).index, default="none")
    return {
        "indicator": impact,
        "description": f"{len(current)} current events" if current else "no current events",
        "components": list(components.values())[:MAX_COMPONENTS],
        "incidents": [{k: v for k, v in event.items() if k != "components"} for event in [*current, *recent]][
            :MAX_INCIDENTS
        ],
    }


def _aws_event(item: dict[str, Any]) -> dict[str, Any]:
    summary = first_line(item.get("summary")) or first_line(item.get("typeCode")) or "event"
    level = str(item.get("status", "1"))
    ended = instant(item.get("end_time")) or instant(item.get("endTime"))
    over = level == "0" or summary.upper().startswith("[RESOLVED]") or ended is not None
    log = objects(item.get("event_log") or inside(item, "metadata", "EVENT_LOG"))
    if over and ended is None and log:
        ended = max((at for entry in log if (at := instant(entry.get("timestamp")))), default=None)
    region = text(item.get("region_name")) or text(item.get("region")) or ""
    services = item.get("impacted_services")
    parts = services if isinstance(services, dict) and services else {str(item.get("service")): item}
    return {
        "name": summary,
        "status": "resolved" if over else "investigating",
        "impact": known(level, _IMPACTS, "minor"),
        "created_at": iso(item.get("date")) or iso(item.get("startTime")),
        "resolved_at": iso(ended) if over else None,
        "url": None,
        "components": [
            {
                "name": f"{text(inside(part, 'service_name')) or code} ({region})" if region else code,
                "status": known(str(inside(part, "current") or level), _CONDITIONS, "unknown"),
                "code": code,
            }
            for code, part in parts.items()
            if inside(part, "current") != "0"
        ],
    }
