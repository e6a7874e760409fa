"""Status pages as Statuspage v2 serves them: one vendor's components, incidents and planned maintenance.

An indicator that no fault sets is worked out from what stands on the page, as the real pages do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime

from runbook.sandbox.vendors.base import Facts, Route, Row, Vendor, now, number
from runbook.sandbox.vendors.credentials import Credentials

Indicator = Literal["none", "minor", "major", "critical", "maintenance"]
ComponentStatus = Literal["operational", "degraded_performance", "partial_outage", "major_outage", "under_maintenance"]

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "stripe": ("API", "Dashboard", "Checkout", "Stripe.js", "Webhooks", "Payment methods"),
    "mux": ("API", "Video Delivery", "Video Encoding", "Live Streaming", "Dashboard"),
    "cloudflare": ("CDN/Cache", "Stream", "R2", "DNS", "API", "Dashboard"),
    "github": ("Git Operations", "API Requests", "Webhooks", "Actions", "Pull Requests"),
    "discord": ("API", "Gateway", "Media Proxy", "Push Notifications"),
}
_TITLES = {"stripe": "Stripe", "mux": "Mux", "cloudflare": "Cloudflare", "github": "GitHub", "discord": "Discord"}
#: Some pages tell times in a zone of their own.
_ZONES: Mapping[str, tuple[str, timezone]] = {
    "stripe": ("America/Los_Angeles", timezone(timedelta(hours=-8))),
    "discord": ("America/Los_Angeles", timezone(timedelta(hours=-8))),
}
_DESCRIPTIONS: Mapping[str, str] = {
    "none": "All Systems Operational",
    "minor": "Minor Service Outage",
    "major": "Partial System Outage",
    "critical": "Major Service Outage",
    "maintenance": "Service Under Maintenance",
}
_WORST: Mapping[str, Indicator] = {
    "operational": "none",
    "under_maintenance": "maintenance",
    "degraded_performance": "minor",
    "partial_outage": "major",
    "major_outage": "critical",
}
_ORDER: tuple[Indicator, ...] = ("none", "maintenance", "minor", "major", "critical")


class Component(Row):
    """One component and how it fares; those not named fare well."""

    name: str
    status: ComponentStatus = "operational"


class Incident(Row):
    """One incident, resolved or not."""

    name: str
    status: Literal["investigating", "identified", "monitoring", "resolved", "postmortem"] = "investigating"
    impact: Literal["none", "minor", "major", "critical"] = "major"
    created_at: AwareDatetime
    resolved_at: AwareDatetime | None = None
    body: str = "We are looking into it."

    @property
    def is_over(self) -> bool:
        """Whether the page no longer lists it as unresolved."""
        return self.status in ("resolved", "postmortem")


class Maintenance(Row):
    """Planned work."""

    name: str
    status: Literal["scheduled", "in_progress", "verifying", "completed"] = "scheduled"
    scheduled_for: AwareDatetime
    scheduled_until: AwareDatetime


class PageFacts(Facts):
    """What one page shows."""

    #: ``None`` = worked out from components, incidents and maintenance.
    indicator: Indicator | None = None
    description: str | None = None
    components: list[Component]
    incidents: list[Incident]
    maintenances: list[Maintenance]


class StatusPage(Vendor[PageFacts]):
    """The page of one vendor."""

    def __init__(self, credentials: Credentials, page: str) -> None:
        self.page = page
        self.name = f"status.{page}"
        self.base = f"/status/{page}"
        self._zone = _ZONES.get(page, ("Etc/UTC", UTC))
        super().__init__(credentials)

    def healthy(self, at: datetime) -> PageFacts:
        """All green, and one old incident in the history."""
        begun = at - timedelta(days=12)
        old = Incident(
            name="Elevated error rates",
            status="resolved",
            impact="minor",
            created_at=begun,
            resolved_at=begun + timedelta(minutes=42),
            body="This incident has been resolved.",
        )
        return PageFacts(components=[], incidents=[old], maintenances=[])

    def error(self, status: int) -> Any:
        """A short sentence: these pages stand behind a cache that answers for them."""
        return {"error": f"{status}"}

    def headers(self) -> Mapping[str, str]:
        """The edge in front of the page keeps answers for a while."""
        return {"cache-control": "max-age=0, private, must-revalidate", "x-cache": "Hit from edge"}

    def routes(self) -> list[Route]:
        """The eight documents."""
        documents: Mapping[str, tuple[str, ...]] = {
            "summary": ("components", "incidents", "scheduled_maintenances", "status"),
            "status": ("status",),
            "components": ("components",),
        }
        found: list[Route] = [
            ("GET", f"/api/v2/{name}.json", self._document(parts)) for name, parts in documents.items()
        ]
        for path, over in (("incidents", True), ("incidents/unresolved", False)):
            found.append(("GET", f"/api/v2/{path}.json", self._incidents_document(with_resolved=over)))
        for path, states in (
            ("scheduled-maintenances", ("scheduled", "in_progress", "verifying", "completed")),
            ("scheduled-maintenances/upcoming", ("scheduled",)),
            ("scheduled-maintenances/active", ("in_progress", "verifying")),
        ):
            found.append(("GET", f"/api/v2/{path}.json", self._maintenance_document(states)))
        return found

    def _document(self, parts: tuple[str, ...]) -> Any:
        async def answer(request: Request) -> Response:
            whole = {
                "components": self._components(),
                "incidents": self._incidents(with_resolved=False),
                "scheduled_maintenances": self._maintenances(("scheduled", "in_progress", "verifying")),
                "status": self._status(),
            }
            return JSONResponse({"page": self._page(request), **{part: whole[part] for part in parts}})

        return answer

    def _incidents_document(self, *, with_resolved: bool) -> Any:
        async def answer(request: Request) -> Response:
            incidents = self._incidents(with_resolved=with_resolved)
            return JSONResponse({"page": self._page(request), "incidents": incidents})

        return answer

    def _maintenance_document(self, states: tuple[str, ...]) -> Any:
        async def answer(request: Request) -> Response:
            return JSONResponse({"page": self._page(request), "scheduled_maintenances": self._maintenances(states)})

        return answer

    @property
    def _page_id(self) -> str:
        return f"page-{self.page}"

    def _page(self, request: Request) -> dict[str, Any]:
        url = f"{request.url.scheme}://{request.url.netloc}{self.base}"
        title = _TITLES[self.page]
        return {
            "id": self._page_id,
            "name": title,
            "url": url,
            "time_zone": self._zone[0],
            "updated_at": self._stamp(now()),
        }

    def _stamp(self, moment: datetime | None) -> str | None:
        if moment is None:
            return None
        return moment.astimezone(self._zone[1]).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _status(self) -> dict[str, Any]:
        facts = self.facts
        seen: list[Indicator] = [_WORST[component.status] for component in facts.components]
        seen += [incident.impact for incident in facts.incidents if not incident.is_over]
        seen += ["maintenance" for item in facts.maintenances if item.status in ("in_progress", "verifying")]
        worst: Indicator = max(seen, key=_ORDER.index, default="none")
        indicator = facts.indicator or worst
        return {"indicator": indicator, "description": facts.description or _DESCRIPTIONS[indicator]}

    def _components(self) -> list[dict[str, Any]]:
        fares = dict.fromkeys(COMPONENTS[self.page], "operational")
        fares |= {component.name: component.status for component in self.facts.components}
        group = {"id": f"{self._page_id}-group", "name": "Services", "group": True, "group_id": None}
        members = [
            {"id": f"{self._page_id}-{number(name)}", "name": name, "group": False, "group_id": group["id"]}
            for name in fares
        ]
        group["components"] = [member["id"] for member in members]
        worst = max((_WORST[status] for status in fares.values()), key=_ORDER.index)
        group_status = next(status for status, indicator in _WORST.items() if indicator == worst)
        old = "2020-01-01T00:00:00.000Z"
        return [
            {
                **item,
                "status": fares.get(str(item["name"]), group_status) if not item["group"] else group_status,
                "created_at": old,
                "updated_at": old,
                "position": position,
                "description": None,
                "showcase": False,
                "start_date": None,
                "page_id": self._page_id,
                "only_show_if_degraded": False,
            }
            for position, item in enumerate([group, *members], start=1)
        ]

    def _incidents(self, *, with_resolved: bool) -> list[dict[str, Any]]:
        found = [incident for incident in self.facts.incidents if with_resolved or not incident.is_over]
        newest_first = sorted(found, key=lambda incident: incident.created_at, reverse=True)
        return [self._incident(incident) for incident in newest_first[:50]]

    def _incident(self, incident: Incident) -> dict[str, Any]:
        identity = f"incident-{number(incident.name + str(self._stamp(incident.created_at)))}"
        touched = self._stamp(incident.resolved_at or incident.created_at)
        update = {
            "id": f"{identity}-update",
            "status": incident.status,
            "body": incident.body,
            "incident_id": identity,
            "created_at": touched,
            "updated_at": touched,
            "display_at": touched,
            "affected_components": None,
            "deliver_notifications": True,
            "custom_tweet": None,
            "tweet_id": None,
        }
        return {
            "id": identity,
            "name": incident.name,
            "status": incident.status,
            "impact": incident.impact,
            "created_at": self._stamp(incident.created_at),
            "updated_at": touched,
            "monitoring_at": None,
            "resolved_at": self._stamp(incident.resolved_at),
            "started_at": self._stamp(incident.created_at),
            "shortlink": f"https://stspg.example/{identity}",
            "page_id": self._page_id,
            "incident_updates": [update],
            "components": [],
            "reminder_intervals": None,
        }

    def _maintenances(self, states: tuple[str, ...]) -> list[dict[str, Any]]:
        return [
            {
                "id": f"maintenance-{number(item.name)}",
                "name": item.name,
                "status": item.status,
                "impact": "maintenance",
                "created_at": self._stamp(item.scheduled_for - timedelta(days=3)),
                "updated_at": self._stamp(item.scheduled_for - timedelta(days=3)),
                "monitoring_at": None,
                "resolved_at": self._stamp(item.scheduled_until) if item.status == "completed" else None,
                "started_at": self._stamp(item.scheduled_for),
                "shortlink": f"https://stspg.example/{number(item.name)}",
                "page_id": self._page_id,
                "incident_updates": [],
                "components": [],
                "reminder_intervals": None,
                "scheduled_for": self._stamp(item.scheduled_for),
                "scheduled_until": self._stamp(item.scheduled_until),
            }
            for item in self.facts.maintenances
            if item.status in states
        ]
