"""Sentry: issues, events, releases and outcomes over its API, and the address that SDKs report errors to.

Errors come from two sides: issues that a fault writes into the state, and what an application reports. Both are counted
over the window that is asked for, as the real one counts.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field

from runbook.sandbox.vendors import sentry_ingest, sentry_shapes
from runbook.sandbox.vendors.base import Facts, Route, Row, Vendor, instant, now, number, same, stamp, whole
from runbook.sandbox.vendors.credentials import ENVIRONMENT, ORGANIZATION, PROJECT, Credentials

_WORDS = {
    400: "Invalid request",
    401: "Invalid token",
    403: "You do not have permission to perform this action.",
    404: "The requested resource does not exist",
    429: "You are attempting to use this endpoint too frequently. Limit is 40 requests in 1 seconds",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST_POINTS = 10_000
PROJECT_ID = "1"


class Issue(Row):
    """One issue, as it shows over the window: ``count`` and ``users`` are of the window."""

    title: str
    id: str = ""
    short_id: str = ""
    culprit: str = ""
    level: Literal["debug", "info", "warning", "error", "fatal"] = "error"
    status: Literal["unresolved", "resolved", "ignored"] = "unresolved"
    substatus: Literal["new", "ongoing", "escalating", "regressed"] | None = "ongoing"
    count: int = 1
    users: int = 0
    first_seen: AwareDatetime
    last_seen: AwareDatetime
    first_release: str | None = None
    #: Release of its events; empty = the newest one.
    release: str = ""
    environment: str = ENVIRONMENT
    transaction: str = ""
    exception_type: str = ""
    exception_value: str = ""
    #: ``file:line in function``, innermost first.
    frames: list[str] = Field(default_factory=list)
    tags: dict[str, str] = Field(default_factory=dict)


class Deploy(Row):
    """One deploy of a release."""

    environment: str = ENVIRONMENT
    finished_at: AwareDatetime
    name: str | None = None


class Release(Row):
    """One release."""

    version: str
    created_at: AwareDatetime
    released_at: AwareDatetime | None = None
    new_issues: int = 0
    deploys: list[Deploy] = Field(default_factory=list)


class Point(Row):
    """Errors from one moment on."""

    at: AwareDatetime
    errors: int


class Outcome(Row):
    """What became of a number of events."""

    outcome: Literal[
        "accepted", "filtered", "rate_limited", "invalid", "abuse", "client_discard", "cardinality_limited"
    ]
    quantity: int


class ReleaseErrors(Row):
    """Events of one release."""

    release: str | None
    errors: int


class SentryFacts(Facts):
    """What one project shows."""

    issues: list[Issue]
    #: Newest first.
    releases: list[Release]
    #: ``None`` = worked out from the issues.
    curve: list[Point] | None = None
    #: ``None`` = all that was seen was accepted.
    outcomes: list[Outcome] | None = None
    #: ``None`` = worked out from the issues.
    by_release: list[ReleaseErrors] | None = None
    #: Events that an application reports are refused with 429 and counted as rate limited.
    over_quota: bool = False
    requests_left: int = Field(default=40, ge=0)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The time asked for."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Whether that moment lies within."""
        return self.start <= at <= self.end


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
        """What is left of the current second."""
        return {
            "x-sentry-rate-limit-limit": "40",
            "x-sentry-rate-limit-remaining": str(self.facts.requests_left),
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
        if asked.get("sort", "date") not in ("date", "freq", "inbox", "new", "recommended", "trends", "user"):
            return JSONResponse({"detail": "Invalid sort parameter"}, status_code=400)
        found = [issue for issue in self._seen(window, request) if _matches(issue, asked.get("query", "is:unresolved"))]
        found.sort(key=_ORDER.get(asked.get("sort", "date"), _ORDER["date"]), reverse=True)
        return self._page(request, [self._issue_object(request, issue) for issue in found], asked.get("limit"))

    async def _issue(self, request: Request) -> Response:
        issue = self._known(request)
        if issue is None:
            return self.said(404)
        release = next((one for one in self.facts.releases if one.version == issue.first_release), None)
        more: dict[str, Any] = {
            "firstRelease": sentry_shapes.release(release) if release else _named(issue.first_release),
            "lastRelease": _named(self._release_of(issue)),
            "tags": [],
        }
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
        seconds = _seconds(request.query_params.get("interval", "")) or _usual_interval(window)
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
        issues = [*self.facts.issues, *self._reported_issues(window)]
        return [
            issue
            for issue in issues
            if issue.last_seen >= window.start
            and issue.first_seen <= window.end
            and (not environments or issue.environment in environments)
        ]

    def _reported_issues(self, window: Window | None) -> list[Issue]:
        groups: dict[tuple[str, str], list[sentry_ingest.Reported]] = {}
        for one in self._reported:
            if one.accepted:
                groups.setdefault((one.title, one.culprit), []).append(one)
        found = []
        for events in groups.values():
            inside = [one for one in events if window is None or window.holds(one.at)]
            if not inside:
                continue
            last = inside[-1]
            found.append(
                Issue(
                    **last.described(),
                    count=len(inside),
                    users=len({one.user for one in inside if one.user}),
                    substatus="new" if now() - events[0].at < timedelta(days=1) else "ongoing",
                    first_seen=events[0].at,
                    last_seen=last.at,
                    first_release=events[0].release,
                )
            )
        return found

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
        issues = [*self.facts.issues, *self._reported_issues(None)]
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
        seconds = _seconds(asked.get("statsPeriod", default))
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


_ORDER: Mapping[str, Any] = {
    "date": lambda issue: issue.last_seen,
    "new": lambda issue: issue.first_seen,
    "freq": lambda issue: issue.count,
    "user": lambda issue: issue.users,
}


def issue_id(issue: Issue) -> str:
    """The number that stands for an issue."""
    return issue.id or str(number(f"{issue.title}\n{issue.culprit}"))


def short_id(issue: Issue) -> str:
    """The short name that people use for an issue."""
    return (
        issue.short_id or f"{PROJECT.upper()}-{int(issue_id(issue)) % 46656:X}" if issue_id(issue).isdecimal() else ""
    )


def _matches(issue: Issue, query: str) -> bool:
    for word in query.split():
        key, colon, value = word.partition(":")
        if colon and key == "is":
            if value != issue.status:
                return False
        elif colon and key in ("level", "release", "transaction", "environment"):
            if value.strip('"') != getattr(issue, key):
                return False
        elif not colon and word.lower() not in issue.title.lower():
            return False
    return True


def _named(version: str | None) -> dict[str, Any] | None:
    return {"version": version} if version else None


def _seconds(period: str) -> int | None:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", period)
    return int(match[1]) * _UNITS[match[2]] if match and int(match[1]) else None


def _usual_interval(window: Window) -> int:
    hours = (window.end - window.start).total_seconds() / 3600
    return 60 if hours <= 1 else 300 if hours <= 24 else 3600
