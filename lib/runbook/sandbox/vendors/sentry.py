"""Sentry: issues, events, releases and outcomes over its API, and the address that SDKs report errors to.

Errors come from two sides: issues that a fault writes into the state, and what an application reports. Both are counted
over the window that is asked for, as the real one counts.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from runbook.sandbox.vendors import sentry_ingest, sentry_shapes
from runbook.sandbox.vendors.base import Route, Vendor, instant, now, same, stamp, whole
from runbook.sandbox.vendors.credentials import ORGANIZATION, PROJECT, Credentials
from runbook.sandbox.vendors.sentry_facts import Deploy, Issue, Release, SentryFacts
from runbook.sandbox.vendors.sentry_queries import (
    SORTS,
    Window,
    issue_id,
    matches,
    order,
    seconds_of,
    short_id,
    usual_interval,
)

_WORDS = {
    400: "Invalid request",
    401: "Invalid token",
    403: "You do not have permission to perform this action.",
    404: "The requested resource does not exist",
    429: "You are attempting to use this endpoint too frequently. Limit is 40 requests in 1 seconds",
}
_MOST_POINTS = 10_000
PROJECT_ID = "1"


class Sentry(Vendor[SentryFacts]):
    """One organization with one project."""

    name = "sentry"
    base = "/sentry"

    def __init__(self, credentials: Credentials) -> None:
        self._reported: deque[sentry_ingest.Reported] = deque(maxlen=50_000)
        super().__init__(credentials)

    def healthy(self, at: datetime) -> SentryFacts:
        """Two releases, and an old issue that comes up now and then."""
        begun = at - timedelta(days=19)
        issue = Issue(
            title="TimeoutError: no answer from the thumbnail service",
            culprit="thumbnails in render",
            level="warning",
            count=2,
            users=2,
            first_seen=begun,
            last_seen=at - timedelta(minutes=23),
            first_release="api@1.40.2",
            transaction="/api/thumbnails",
            exception_type="TimeoutError",
            exception_value="no answer from the thumbnail service",
            frames=["src/thumbnails.ts:88 in render", "src/http.ts:41 in request"],
        )
        releases = [
            Release(
                version=version,
                created_at=at - timedelta(days=days, minutes=20),
                released_at=at - timedelta(days=days),
                deploys=[Deploy(finished_at=at - timedelta(days=days), name="deploy")],
            )
            for version, days in (("api@1.41.0", 2), ("api@1.40.2", 9))
        ]
        return SentryFacts(issues=[issue], releases=releases)

    def reset(self) -> None:
        """Forget what applications reported, too."""
        self._reported.clear()
        super().reset()

    def error(self, status: int) -> Any:
        """``detail``."""
        return {"detail": _WORDS.get(status, "Internal Error")}

    def headers(self) -> Mapping[str, str]:
        """What is left of the current second: always enough."""
        return {
            "x-sentry-rate-limit-limit": "40",
            "x-sentry-rate-limit-remaining": "39",
            "x-sentry-rate-limit-reset": str(int(now().timestamp()) + 1),
            "x-sentry-rate-limit-concurrentlimit": "25",
            "x-sentry-rate-limit-concurrentremaining": "24",
        }

    def refusal(self, request: Request) -> Response | None:
        """A bearer for the API; what SDKs send carries the project's public key instead."""
        path = request.url.path.removeprefix(self.base)
        if not path.startswith("/api/0/"):
            return None
        given = request.headers.get("authorization", "")
        if not given:
            return JSONResponse({"detail": "Authentication credentials were not provided."}, status_code=401)
        if not same(given, f"Bearer {self.credentials.sentry}"):
            return self.said(401)
        organization = f"/api/0/organizations/{ORGANIZATION}/"
        return None if path.startswith(organization) else self.said(404)

    def routes(self) -> list[Route]:
        """The organization's endpoints, and the two that SDKs know."""
        root = "/api/0/organizations/{organization}"
        return [
            ("GET", f"{root}/issues/", self._issues),
            ("GET", f"{root}/issues/{{id}}/", self._issue),
            ("GET", f"{root}/issues/{{id}}/events/", self._issue_events),
            ("GET", f"{root}/issues/{{id}}/events/{{event}}/", self._event),
            ("GET", f"{root}/events/", self._events),
            ("GET", f"{root}/events-timeseries/", self._timeseries),
            ("GET", f"{root}/releases/", self._releases),
            ("GET", f"{root}/releases/{{version}}/deploys/", self._deploys),
            ("GET", f"{root}/projects/", self._projects),
            ("GET", f"{root}/stats_v2/", self._stats),
            ("POST", "/api/{project}/store/", self._store),
            ("POST", "/api/{project}/envelope/", self._envelope),
        ]

    # -- issues and events -----------------------------------------------------------------------

    async def _issues(self, request: Request) -> Response:
        window, wrong = self._window(request, "14d")
        if window is None:
            return wrong
        asked = request.query_params
        sort = asked.get("sort", "date")
        if sort not in SORTS:
            return JSONResponse({"detail": "Invalid sort parameter"}, status_code=400)
        found = [issue for issue in self._seen(window, request) if matches(issue, asked.get("query", "is:unresolved"))]
        found.sort(key=order(sort), reverse=True)
        return self._page(request, [self._issue_object(request, issue) for issue in found], asked.get("limit"))

    async def _issue(self, request: Request) -> Response:
        issue = self._known(request)
        if issue is None:
            return self.said(404)
        first = next((one for one in self.facts.releases if one.version == issue.first_release), None)
        more = sentry_shapes.details(
            sentry_shapes.release(first) if first else _named(issue.first_release), _named(self._release_of(issue))
        )
        return JSONResponse(self._issue_object(request, issue) | more)

    async def _issue_events(self, request: Request) -> Response:
        issue = self._known(request)
        if issue is None:
            return self.said(404)
        event = sentry_shapes.event(issue, self._release_of(issue))
        return self._page(request, [sentry_shapes.short_event(event)], request.query_params.get("per_page"))

    async def _event(self, request: Request) -> Response:
        issue = self._known(request)
        wanted = request.path_params["event"]
        if issue is None:
            return self.said(404)
        event = sentry_shapes.event(issue, self._release_of(issue))
        named = ("latest", "oldest", "recommended", event["eventID"])
        return JSONResponse(event) if wanted in named else self.said(404)

    async def _events(self, request: Request) -> Response:
        window, wrong = self._window(request, "14d")
        if window is None:
            return wrong
        fields = request.query_params.getlist("field")
        if not fields:
            return JSONResponse({"detail": "No columns selected"}, status_code=400)
        groups: Counter[tuple[str | None, ...]] = Counter()
        plain = [field for field in fields if "(" not in field]
        if plain == ["release"] and self.facts.by_release is not None:
            groups.update({(row.release,): row.errors for row in self.facts.by_release})
        else:
            for issue in self._seen(window, request):
                groups[tuple(self._field(issue, field) for field in plain)] += issue.count
        rows = [dict(zip(plain, key, strict=True)) | {"count()": count} for key, count in groups.most_common()]
        kinds = {field: "integer" if "(" in field else "string" for field in fields}
        page = self._page(request, rows, request.query_params.get("per_page"))
        meta = {"fields": kinds, "units": dict.fromkeys(fields), "dataset": "errors", "isMetricsData": False}
        return JSONResponse({"data": sentry_shapes.rows_of(page), "meta": meta}, headers={"link": page.headers["link"]})

    async def _timeseries(self, request: Request) -> Response:
        window, wrong = self._window(request, "14d")
        if window is None:
            return wrong
        seconds = seconds_of(request.query_params.get("interval", "")) or usual_interval(window)
        if (window.end - window.start).total_seconds() / seconds > _MOST_POINTS:
            return JSONResponse({"detail": "Your interval and date range would create too many results."}, 400)
        first = int(window.start.timestamp() // seconds)
        last = int(window.end.timestamp() // seconds)
        counts: Counter[int] = Counter()
        for at, errors in self._moments(window, request):
            counts[int(at.timestamp() // seconds)] += errors
        values = [
            {"timestamp": place * seconds * 1000, "value": counts[place], "incomplete": place == last}
            for place in range(first, last + 1)
        ]
        series = {
            "yAxis": "count()",
            "values": values,
            "meta": {"interval": seconds * 1000, "valueType": "integer", "valueUnit": None},
        }
        start, end = window.start.timestamp() * 1000, window.end.timestamp() * 1000
        return JSONResponse({"timeSeries": [series], "meta": {"dataset": "errors", "start": start, "end": end}})

    # -- releases, projects, outcomes ------------------------------------------------------------

    async def _releases(self, request: Request) -> Response:
        wrong = self._wrong_project(request)
        found = [sentry_shapes.release(release) for release in self.facts.releases]
        return wrong or self._page(request, found, request.query_params.get("per_page"))

    async def _deploys(self, request: Request) -> Response:
        wanted = request.path_params["version"]
        release = next((release for release in self.facts.releases if release.version == wanted), None)
        if release is None:
            return self.said(404)
        return self._page(request, [sentry_shapes.deploy(deploy) for deploy in release.deploys], None)

    async def _projects(self, request: Request) -> Response:
        return self._page(request, [sentry_shapes.project(PROJECT_ID, PROJECT)], request.query_params.get("per_page"))

    async def _stats(self, request: Request) -> Response:
        window, wrong = self._window(request, "1h")
        if window is None:
            return wrong
        asked = request.query_params
        if asked.get("field") != "sum(quantity)" or asked.getlist("groupBy") != ["outcome"]:
            return JSONResponse({"detail": "Invalid field or groupBy"}, status_code=400)
        if asked.get("category", "error") not in ("error", "transaction", "attachment", "session"):
            return JSONResponse({"detail": "Invalid category"}, status_code=400)
        quantities = self._outcomes(window, request)
        groups = [
            {
                "by": {"outcome": outcome},
                "totals": {"sum(quantity)": quantity},
                "series": {"sum(quantity)": [quantity]},
            }
            for outcome, quantity in quantities.items()
        ]
        start, end = stamp(window.start), stamp(window.end)
        return JSONResponse({"start": start, "end": end, "intervals": [start], "groups": groups})

    def _outcomes(self, window: Window, request: Request) -> dict[str, int]:
        if self.facts.outcomes is not None:
            return {row.outcome: row.quantity for row in self.facts.outcomes}
        quantities = Counter(accepted=sum(errors for _, errors in self._moments(window, request)))
        quantities["rate_limited"] += sum(not one.accepted for one in self._reported if window.holds(one.at))
        return {outcome: quantity for outcome, quantity in quantities.items() if quantity}

    # -- what SDKs send --------------------------------------------------------------------------

    async def _store(self, request: Request) -> Response:
        return await self._receive(request, sentry_ingest.single)

    async def _envelope(self, request: Request) -> Response:
        return await self._receive(request, sentry_ingest.events_of_envelope)

    async def _receive(self, request: Request, read: sentry_ingest.Reader) -> Response:
        if not same(sentry_ingest.public_key(request), self.credentials.sentry_ingest):
            return JSONResponse({"detail": "bad sentry DSN public key"}, status_code=403)
        try:
            events = read(sentry_ingest.plain(await request.body(), request.headers.get("content-encoding", "")))
        except ValueError as error:
            return JSONResponse({"detail": f"invalid event: {error}"}, status_code=400)
        accepted = not self.facts.over_quota
        self._reported.extend(sentry_ingest.Reported.of(event, now(), accepted=accepted) for event in events)
        if not accepted:
            headers = {"retry-after": "60", "x-sentry-rate-limits": "60:error:project"}
            return JSONResponse({"detail": "Sentry dropped data due to a quota"}, status_code=429, headers=headers)
        return JSONResponse({"id": events[0].get("event_id") if events else None})

    # -- helpers ---------------------------------------------------------------------------------

    def _seen(self, window: Window, request: Request) -> list[Issue]:
        """Issues of the window in the environments asked for, reported errors counted into issues."""
        environments = request.query_params.getlist("environment")
        issues = [*self.facts.issues, *sentry_ingest.issues_of(self._reported, window)]
        return [
            issue
            for issue in issues
            if issue.last_seen >= window.start
            and issue.first_seen <= window.end
            and (not environments or issue.environment in environments)
        ]

    def _moments(self, window: Window, request: Request) -> Iterator[tuple[datetime, int]]:
        """Errors by time: as the curve says, else each issue's spread evenly over its part of the window."""
        if self.facts.curve is not None:
            yield from ((point.at, point.errors) for point in self.facts.curve if window.holds(point.at))
        else:
            known = {id(issue) for issue in self.facts.issues}
            for issue in self._seen(window, request):
                if id(issue) in known:
                    first, last = max(issue.first_seen, window.start), min(issue.last_seen, window.end)
                    step = (last - first) / max(1, issue.count)
                    yield from ((first + step * place, 1) for place in range(issue.count))
        yield from ((one.at, 1) for one in self._reported if one.accepted and window.holds(one.at))

    def _known(self, request: Request) -> Issue | None:
        wanted = request.path_params["id"]
        issues = [*self.facts.issues, *sentry_ingest.issues_of(self._reported, None)]
        return next((issue for issue in issues if wanted in (issue_id(issue), short_id(issue))), None)

    def _issue_object(self, request: Request, issue: Issue) -> dict[str, Any]:
        site = f"{request.url.scheme}://{request.url.netloc}{self.base}/organizations/{ORGANIZATION}"
        project = {"id": PROJECT_ID, "name": PROJECT, "slug": PROJECT, "platform": "node"}
        return sentry_shapes.issue(issue, issue_id(issue), short_id(issue), site, project)

    def _release_of(self, issue: Issue) -> str | None:
        newest = self.facts.releases[0].version if self.facts.releases else None
        return issue.release or newest

    def _field(self, issue: Issue, field: str) -> str | None:
        if field == "release":
            return self._release_of(issue)
        known = {"issue": short_id(issue), "issue.id": issue_id(issue), "title": issue.title}
        known |= {"transaction": issue.transaction, "environment": issue.environment, "level": issue.level}
        return known.get(field, issue.tags.get(field))

    def _window(self, request: Request, default: str) -> tuple[Window | None, Response]:
        asked = request.query_params
        wrong = self._wrong_project(request)
        if wrong is not None:
            return None, wrong
        start, end = instant(asked.get("start")), instant(asked.get("end"))
        if start is not None and end is not None:
            return Window(start=start, end=end), self.said(400)
        seconds = seconds_of(asked.get("statsPeriod", default))
        if seconds is None:
            return None, JSONResponse({"detail": f"Invalid statsPeriod: {asked.get('statsPeriod')!r}"}, 400)
        return Window(start=now() - timedelta(seconds=seconds), end=now()), self.said(400)

    def _wrong_project(self, request: Request) -> Response | None:
        asked = request.query_params.getlist("project")
        return None if all(one in (PROJECT, PROJECT_ID, "-1") for one in asked) else self.said(403)

    def _page(self, request: Request, found: list[dict[str, Any]], limit: str | None) -> JSONResponse:
        """One page, with both links; the next one is always there and says whether it has results."""
        size = whole(limit, 100, most=100, least=1)
        cursor = re.fullmatch(r"\d+:(\d+):[01]", request.query_params.get("cursor", ""))
        offset = int(cursor[1]) if cursor else 0
        url = request.url.remove_query_params("cursor")
        links = []
        for rel, place, results in (
            ("previous", max(0, offset - size), offset > 0),
            ("next", offset + size, offset + size < len(found)),
        ):
            value = f"0:{place}:{int(rel == 'previous')}"
            link = url.include_query_params(cursor=value)
            links.append(f'<{link}>; rel="{rel}"; results="{str(results).lower()}"; cursor="{value}"')
        return JSONResponse(found[offset : offset + size], headers={"link": ", ".join(links)})


def _named(version: str | None) -> dict[str, Any] | None:
    return {"version": version} if version else None
