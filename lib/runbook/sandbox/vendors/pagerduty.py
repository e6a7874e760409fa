"""PagerDuty: incidents over REST, and the Events API v2 that opens and closes them.

In the real one the two live on two hosts; here they share a base path, as their paths differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field

from runbook.sandbox.vendors.base import (
    Facts,
    Route,
    Row,
    Vendor,
    instant,
    json_object,
    now,
    number,
    same,
    stamp,
    whole,
)

_CODES = {400: 2001, 401: 2006, 403: 2010, 404: 2100, 429: 2020, 500: 2000}
_WORDS = {
    400: "Invalid Input Provided",
    401: "Unauthorized",
    403: "Access Denied",
    404: "Not Found",
    429: "Rate Limit Exceeded",
}
Status = Literal["triggered", "acknowledged", "resolved"]
_EVENT_STATUS: Mapping[str, Status] = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}
_STATUSES: Mapping[Any, Status] = {status: status for status in _EVENT_STATUS.values()}
_MAXIMUM_EVENT_BYTES = 512 * 1024


class Incident(Row):
    """One incident."""

    number: int
    title: str
    status: Status = "triggered"
    urgency: Literal["high", "low"] = "high"
    created_at: AwareDatetime
    resolved_at: AwareDatetime | None = None
    service: str = "api"
    key: str = ""
    notes: list[str] = Field(default_factory=list)

    def become(self, status: Status) -> None:
        """Take that status from now on."""
        self.status = status
        self.resolved_at = now() if status == "resolved" else None

    @property
    def identity(self) -> str:
        """The id that PagerDuty would give it."""
        return f"Q{number(f'{self.number}'):08X}"


class PagerDutyFacts(Facts):
    """Incidents, and the events received."""

    incidents: list[Incident]
    events: list[dict[str, Any]]


class PagerDuty(Vendor[PagerDutyFacts]):
    """One account with one service."""

    name = "pagerduty"
    base = "/pagerduty"

    def healthy(self, at: datetime) -> PagerDutyFacts:
        """One incident, over for days."""
        begun = at - timedelta(days=5)
        past = Incident(
            number=118,
            title="Disk above 80 % on a worker",
            status="resolved",
            urgency="low",
            created_at=begun,
            resolved_at=begun + timedelta(hours=1),
        )
        return PagerDutyFacts(incidents=[past], events=[])

    def error(self, status: int) -> Any:
        """PagerDuty's error object."""
        return {"error": {"message": _WORDS.get(status, "Internal Server Error"), "code": _CODES.get(status, 2000)}}

    def headers(self) -> Mapping[str, str]:
        """What is left of the minute: always enough."""
        return {"ratelimit-limit": "960", "ratelimit-remaining": "959", "ratelimit-reset": "60"}

    def refusal(self, request: Request) -> Response | None:
        """``Token token=…`` or a bearer for REST; the Events API has its routing key in the body."""
        if request.url.path.startswith(f"{self.base}/v2/"):
            return None
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        given = value.removeprefix("token=") if scheme == "Token" else value if scheme == "Bearer" else ""
        return None if same(given, self.credentials.pagerduty) else self.said(401)

    def routes(self) -> list[Route]:
        """Incidents, their notes, events."""
        return [
            ("GET", "/incidents", self._incidents),
            ("GET", "/incidents/{id}", self._incident),
            ("PUT", "/incidents/{id}", self._update),
            ("GET", "/incidents/{id}/notes", self._notes),
            ("POST", "/incidents/{id}/notes", self._add_note),
            ("POST", "/v2/enqueue", self._enqueue),
            ("POST", "/v2/change/enqueue", self._enqueue_change),
        ]

    async def _incidents(self, request: Request) -> Response:
        asked = request.query_params
        since, until = instant(asked.get("since")), instant(asked.get("until"))
        statuses, urgencies = asked.getlist("statuses[]"), asked.getlist("urgencies[]")
        found = [
            incident
            for incident in sorted(self.facts.incidents, key=lambda one: one.created_at)
            if (since is None or incident.created_at >= since)
            and (until is None or incident.created_at < until)
            and (not statuses or incident.status in statuses)
            and (not urgencies or incident.urgency in urgencies)
            and asked.get("incident_key", incident.key) == incident.key
        ]
        if asked.get("sort_by", "").endswith(":desc"):
            found.reverse()
        limit = whole(asked.get("limit"), 25, most=100, least=1)
        offset = whole(asked.get("offset"), 0, most=10_000)
        page = {
            "incidents": [self._object(request, incident) for incident in found[offset : offset + limit]],
            "limit": limit,
            "offset": offset,
            "more": offset + limit < len(found),
            "total": len(found) if asked.get("total") == "true" else None,
        }
        return JSONResponse(page)

    async def _incident(self, request: Request) -> Response:
        incident = self._found(request)
        return JSONResponse({"incident": self._object(request, incident)}) if incident else self.said(404)

    async def _update(self, request: Request) -> Response:
        incident = self._found(request)
        if incident is None:
            return self.said(404)
        wanted = (await json_object(request)).get("incident")
        status = wanted.get("status", incident.status) if isinstance(wanted, dict) else None
        if not request.headers.get("from") or status not in _STATUSES:
            return self.said(400)
        incident.become(_STATUSES[status])
        return JSONResponse({"incident": self._object(request, incident)})

    async def _notes(self, request: Request) -> Response:
        incident = self._found(request)
        if incident is None:
            return self.said(404)
        return JSONResponse({"notes": [_note(incident, place) for place in range(len(incident.notes))]})

    async def _add_note(self, request: Request) -> Response:
        incident = self._found(request)
        if incident is None:
            return self.said(404)
        note = (await json_object(request)).get("note")
        content = note.get("content") if isinstance(note, dict) else None
        if not request.headers.get("from") or not isinstance(content, str) or not content:
            return self.said(400)
        incident.notes = [*incident.notes, content]
        return JSONResponse({"note": _note(incident, len(incident.notes) - 1)})

    async def _enqueue(self, request: Request) -> Response:
        event = await json_object(request)
        wrong = self._wrong_event(event, len(await request.body()))
        if wrong:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": wrong}
            return JSONResponse(body, status_code=400)
        action = event["event_action"]
        key = event.get("dedup_key") or f"{number(json.dumps(event, sort_keys=True)):032x}"
        self.facts.events.append(event)
        self._apply(action, key, event)
        return JSONResponse({"status": "success", "message": "Event processed", "dedup_key": key}, status_code=202)

    async def _enqueue_change(self, request: Request) -> Response:
        event = await json_object(request)
        summary = (event.get("payload") or {}).get("summary")
        if not same(str(event.get("routing_key", "")), self.credentials.pagerduty_routing) or not summary:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": ["payload"]}
            return JSONResponse(body, status_code=400)
        self.facts.events.append(event)
        return JSONResponse({"status": "success", "message": "Change event processed"}, status_code=202)

    def _wrong_event(self, event: Mapping[str, Any], size: int) -> list[str]:
        payload = event.get("payload") or {}
        action = event.get("event_action")
        wrong = []
        if not same(str(event.get("routing_key", "")), self.credentials.pagerduty_routing):
            wrong.append("'routing_key' is invalid")
        if action not in _EVENT_STATUS:
            wrong.append("'event_action' must be one of trigger, acknowledge, resolve")
        if action in ("acknowledge", "resolve") and not event.get("dedup_key"):
            wrong.append("'dedup_key' is missing or blank")
        if len(str(event.get("dedup_key", ""))) > 255:
            wrong.append("'dedup_key' is too long")
        if action == "trigger":
            wrong += [f"'payload.{key}' is missing or blank" for key in ("summary", "source") if not payload.get(key)]
            if payload.get("severity") not in ("critical", "error", "warning", "info"):
                wrong.append("'payload.severity' is invalid")
            if len(str(payload.get("summary", ""))) > 1024:
                wrong.append("'payload.summary' is too long")
        if size > _MAXIMUM_EVENT_BYTES:
            wrong.append("the event is larger than 512 KB")
        return wrong

    def _apply(self, action: str, key: str, event: Mapping[str, Any]) -> None:
        known = [one for one in self.facts.incidents if one.key == key and one.status != "resolved"]
        if action == "trigger" and not known:
            payload = event["payload"]
            incident = Incident(
                number=max((one.number for one in self.facts.incidents), default=0) + 1,
                title=payload["summary"],
                urgency="high" if payload["severity"] in ("critical", "error") else "low",
                created_at=now(),
                key=key,
            )
            self.facts.incidents.append(incident)
        for incident in known:
            if action != "trigger":
                incident.become(_EVENT_STATUS[action])

    def _found(self, request: Request) -> Incident | None:
        wanted = request.path_params["id"]
        return next((one for one in self.facts.incidents if wanted in (one.identity, str(one.number))), None)

    def _object(self, request: Request, incident: Incident) -> dict[str, Any]:
        site = f"{request.url.scheme}://{request.url.netloc}{self.base}"
        return {
            "id": incident.identity,
            "type": "incident",
            "summary": f"[#{incident.number}] {incident.title}",
            "self": f"{site}/incidents/{incident.identity}",
            "html_url": f"{site}/incidents/{incident.identity}",
            "incident_number": incident.number,
            "title": incident.title,
            "status": incident.status,
            "urgency": incident.urgency,
            "incident_key": incident.key or None,
            "created_at": stamp(incident.created_at),
            "updated_at": stamp(incident.resolved_at or incident.created_at),
            "resolved_at": stamp(incident.resolved_at),
            "service": {
                "id": f"P{number(incident.service):08X}",
                "type": "service_reference",
                "summary": incident.service,
                "self": None,
                "html_url": None,
            },
            "assignments": [],
            "acknowledgements": [],
            "teams": [],
            "priority": None,
            "alert_counts": {"all": 1, "triggered": int(incident.status == "triggered"), "resolved": 0},
        }


def _note(incident: Incident, place: int) -> dict[str, Any]:
    return {
        "id": f"{incident.identity}N{place}",
        "user": {"id": "PUSER01", "type": "user_reference", "summary": "On-call", "self": None, "html_url": None},
        "content": incident.notes[place],
        "created_at": stamp(now()),
    }
