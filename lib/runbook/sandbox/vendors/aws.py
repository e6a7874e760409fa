"""AWS's public list of current events: one JSON array, in UTF-16 with the byte order mark, high byte first.

Undocumented by AWS; the shape follows what public clients of it read.
"""

from __future__ import annotations

import codecs
import json
from datetime import datetime
from typing import Any, Literal

from fastapi import Request, Response
from pydantic import AwareDatetime

from runbook.sandbox.vendors.base import Facts, Route, Row, Vendor, number

REGION_NAMES = {"us-east-1": "N. Virginia", "us-west-2": "Oregon", "eu-west-1": "Ireland", "eu-central-1": "Frankfurt"}


class Event(Row):
    """One event: ``0`` resolved, ``1`` informational, ``2`` degradation, ``3`` disruption."""

    #: Service code without its region, for instance ``s3``.
    service: str
    service_name: str = ""
    region: str = "us-east-1"
    status: Literal["0", "1", "2", "3"] = "2"
    summary: str = "Increased Error Rates"
    message: str = "We are investigating increased error rates."
    at: AwareDatetime
    end_time: AwareDatetime | None = None


class AwsFacts(Facts):
    """The events listed; resolved ones stay listed for a while."""

    events: list[Event]


class Aws(Vendor[AwsFacts]):
    """The list of current events."""

    name = "aws"
    base = "/aws"

    def healthy(self, at: datetime) -> AwsFacts:
        """Nothing listed: all well."""
        return AwsFacts(events=[])

    def error(self, status: int) -> Any:
        """What its edge says."""
        return {"message": f"{status}"}

    def routes(self) -> list[Route]:
        """The one document."""
        return [("GET", "/public/currentevents", self._current)]

    async def _current(self, request: Request) -> Response:
        text = json.dumps([_event(event) for event in self.facts.events], ensure_ascii=False)
        body = codecs.BOM_UTF16_BE + text.encode("utf-16-be")
        return Response(body, headers={"content-type": "application/json;charset=utf-16"})


def _event(event: Event) -> dict[str, Any]:
    code = f"{event.service}-{event.region}"
    name = event.service_name or event.service.upper()
    begun = int(event.at.timestamp())
    resolved = {"end_time": str(int(event.end_time.timestamp()))} if event.end_time else {}
    return {
        "date": str(begun),
        "arn": f"arn:aws:health:{event.region}::event/{event.service.upper()}/{number(event.summary)}",
        "region_name": REGION_NAMES.get(event.region, event.region),
        "status": event.status,
        "service": code,
        "service_name": name,
        "summary": event.summary if event.status != "0" else f"[RESOLVED] {event.summary}",
        "event_log": [{"summary": event.summary, "message": event.message, "status": event.status, "timestamp": begun}],
        "impacted_services": {code: {"service_name": name, "current": event.status, "max": event.status}},
        **resolved,
    }
