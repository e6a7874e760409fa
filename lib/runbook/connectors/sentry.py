"""Sentry's API: which errors are most frequent, since when, in which release, and how many it did not count.

Sentry is sampled and drops events over quota, so its numbers rank and never measure. People's data in an event (user,
request, variables) is not taken over.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from runbook.connectors.answers import (
    fetched,
    first_line,
    inside,
    instant,
    iso,
    number,
    objects,
    prose,
    text,
    together,
    unread,
    whole,
)
from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.http import Answer, Exchange, HttpConnector, Params, Refused, as_object, as_rows, segment, shown
from runbook.redaction import kept_labels
from runbook.result import Reading
from runbook.settings import Sentry as Section

TOP_ISSUES = 25
DETAILED_ISSUES = 5
"""Issues whose first release is asked for; each takes a request."""
RELEASES = 10
RELEASES_WITH_DEPLOYS = 2
FRAMES = 8
TAGS = frozenset(
    {
        "browser.name", "dist", "handled", "http.status_code", "level", "logger", "mechanism", "os.name", "region",
        "release", "runtime", "runtime.name", "server_name", "status_code", "transaction", "upstream",
    }
)  # fmt: skip
"""Tags whose values are kept beside those of :data:`~runbook.redaction.KEPT_LABELS`; others may name a person."""


class Sentry(HttpConnector):
    """One organization's Sentry, narrowed to the configured project and environment where they are set."""

    source = "sentry"
    statements = ("title", "culprit", "exception_value")

    def __init__(self, context: Context, section: Section) -> None:
        token = section.token.get_secret_value() if section.token else ""
        super().__init__(
            context,
            section.base_url,
            headers={"Authorization": f"Bearer {token}"},
            lacking="" if token and section.organization else "sentry.organization" if token else "sentry.token",
        )
        self._root = f"/api/0/organizations/{segment(section.organization)}"
        self._environment = section.environment or None
        self._slug = section.project
        #: What requests name: the setting, or the number that an older server wants for it.
        self._project = section.project or None

    def issues(self, window_minutes: float) -> Reading:
        """``sentry_issues``: the most frequent unresolved issues of the window, at most :data:`TOP_ISSUES`.

        ``count`` is of the window. ``first_release`` is asked for the first :data:`DETAILED_ISSUES` and ``None`` for
        the others.
        """
        path = f"{self._root}/issues/"
        params = self._scope(window_minutes) | {"query": "is:unresolved", "sort": "freq", "limit": TOP_ISSUES}
        edge = self.context.now() - timedelta(minutes=window_minutes)

        def take(exchange: Exchange) -> Fetched:
            issues = as_rows(self._ask(exchange, path, params).value)
            first = issues[:DETAILED_ISSUES]
            details = together(self, first, lambda issue: self._first_release(exchange, issue))
            releases = [None if isinstance(release, Failure) else release for release in details]
            rows = [_issue(issue, edge) for issue in issues]
            for row, release in zip(rows, releases, strict=False):
                row["first_release"] = release
            return fetched(rows, unread(details, "first release"))

        return self.gather("sentry_issues", shown(path, params), take)

    def latest_event(self, issue_id: str) -> Reading:
        """``sentry_event``: the newest event of one issue: where it was thrown, in which release."""
        path = f"{self._root}/issues/{segment(issue_id)}/events/latest/"
        return self.get("sentry_event", path, {"environment": self._environment},
                        parse=lambda value: _event(issue_id, as_object(value)))  # fmt: skip

    def error_curve(self, window_minutes: float) -> Reading:
        """``sentry_curve``: events by time, oldest first; the last step may be incomplete and says so."""
        path = f"{self._root}/events-timeseries/"
        params = self._scope(window_minutes) | {"dataset": "errors", "yAxis": "count()"}
        return self._one("sentry_curve", path, params, _curve)

    def releases(self) -> Reading:
        """``sentry_releases``: the newest releases, with the deploys of the first :data:`RELEASES_WITH_DEPLOYS`.

        ``deploys`` of the others, and of one that did not answer, are ``None``.
        """
        path = f"{self._root}/releases/"
        params: dict[str, Any] = {
            "project": self._project, "environment": self._environment, "per_page": RELEASES,
        }  # fmt: skip

        def take(exchange: Exchange) -> Fetched:
            rows = [_release(item) for item in as_rows(self._ask(exchange, path, params).value)]
            newest = [row for row in rows if row["version"]][:RELEASES_WITH_DEPLOYS]
            results = together(self, newest, lambda row: self._deploys(exchange, row["version"]))
            for row, deploys in zip(newest, results, strict=True):
                row["deploys"] = None if isinstance(deploys, Failure) else deploys
            return fetched(rows, unread(results, "deploys"))

        return self.gather("sentry_releases", shown(path, params), take)

    def outcomes(self, window_minutes: float) -> Reading:
        """``sentry_outcomes``: what became of the events that were sent: accepted, rate limited, filtered …

        Sentry counts them by the hour: ``hours`` is the time that the quantities cover.
        """
        hours = max(1, math.ceil(window_minutes / 60))
        path = f"{self._root}/stats_v2/"
        params: dict[str, Any] = {
            "project": self._project, "statsPeriod": f"{hours}h", "interval": "1h", "category": "error",
            "field": "sum(quantity)", "groupBy": "outcome",
        }  # fmt: skip
        return self._one("sentry_outcomes", path, params, lambda value: _outcomes(value, hours))

    def by_release(self, window_minutes: float) -> Reading:
        """``sentry_by_release``: events of the window by release, most first; release ``None`` = none was given."""
        path = f"{self._root}/events/"
        params = self._scope(window_minutes) | {
            "dataset": "errors", "field": ["release", "count()"], "sort": "-count()", "per_page": TOP_ISSUES,
        }  # fmt: skip
        return self._one("sentry_by_release", path, params, _by_release)

    def _scope(self, window_minutes: float) -> dict[str, Any]:
        period = f"{max(1, round(window_minutes))}m"
        return {"project": self._project, "environment": self._environment, "statsPeriod": period}

    def _one(self, name: str, path: str, params: dict[str, Any], parse: Any) -> Reading:
        return self.gather(
            name, shown(path, params),
            lambda exchange: Fetched(value=parse(as_object(self._ask(exchange, path, params).value))),
        )  # fmt: skip

    def _ask(self, exchange: Exchange, path: str, params: Params) -> Answer:
        """One request; older servers take a project's number only and answer 400 to its slug."""
        try:
            return exchange.get(path, {**params, "project": self._project})
        except Refused as refused:
            if refused.failure.code != "400" or not self._project or self._project.lstrip("-").isdigit():
                raise
            projects = as_rows(exchange.get(f"{self._root}/projects/", {"query": self._slug}).value)
            found = next((text(project.get("id")) for project in projects if project.get("slug") == self._slug), None)
            if found is None:
                raise  # there is none of that name; what was answered says best what is wrong
        self._project = found
        return exchange.get(path, {**params, "project": found})

    def _first_release(self, exchange: Exchange, issue: dict[str, Any]) -> str | None:
        path = f"{self._root}/issues/{segment(issue.get('id'))}/"
        return text(inside(exchange.get(path).object, "firstRelease", "version"))

    def _deploys(self, exchange: Exchange, version: str) -> list[dict[str, Any]]:
        path = f"{self._root}/releases/{segment(version)}/deploys/"
        return [
            {
                "environment": text(deploy.get("environment")),
                "finished_at": iso(deploy.get("dateFinished")),
                "name": text(deploy.get("name")),
            }
            for deploy in as_rows(exchange.get(path).value)
        ]


def _issue(issue: dict[str, Any], edge: datetime) -> dict[str, Any]:
    # What is limited to an environment or a window begins anew there; the issue's own life does not.
    first = instant(inside(issue, "lifetime", "firstSeen")) or instant(issue.get("firstSeen"))
    return {
        "id": text(issue.get("id")),
        "short_id": text(issue.get("shortId")),
        "title": first_line(issue.get("title")),
        "culprit": text(issue.get("culprit")),
        "level": text(issue.get("level")),
        "count": whole(issue.get("count")),
        "users": whole(issue.get("userCount")),
        "first_seen": iso(first),
        "last_seen": iso(issue.get("lastSeen")),
        "first_release": None,
        "is_new": None if first is None else first >= edge,
        "substatus": text(issue.get("substatus")),
        "url": text(issue.get("permalink")),
    }


def _event(issue_id: str, event: dict[str, Any]) -> dict[str, Any]:
    pairs = ((tag.get("key"), tag.get("value")) for tag in objects(event.get("tags")))
    tags = {key: value for key, value in pairs if isinstance(key, str) and isinstance(value, str)}
    thrown = next((values[-1] for entry in objects(event.get("entries")) if entry.get("type") == "exception"
                   and (values := objects(inside(entry, "data", "values")))), {})  # fmt: skip
    frames = objects(inside(thrown, "stacktrace", "frames"))
    release = event.get("release")
    return {
        "issue_id": issue_id,
        "event_id": text(event.get("eventID")),
        "title": first_line(event.get("title")),
        "at": iso(event.get("dateCreated")),
        "release": text(release.get("version") if isinstance(release, dict) else release) or text(tags.get("release")),
        "environment": text(tags.get("environment")),
        "transaction": text(tags.get("transaction")),
        "exception_type": text(thrown.get("type") or inside(event, "metadata", "type")),
        "exception_value": prose(thrown.get("value") or inside(event, "metadata", "value")),
        "frames": [_frame(frame) for frame in reversed(frames[-FRAMES:])],
        # A URL is full of people's data, and the transaction says which route it was.
        "tags": kept_labels({key: value for key, value in tags.items() if key != "url"}, also=TAGS),
    }


def _frame(frame: dict[str, Any]) -> str:
    file = text(frame.get("filename") or frame.get("module") or frame.get("absPath")) or "?"
    line = whole(frame.get("lineNo"))
    function = text(frame.get("function"))
    return file + (f":{line}" if line is not None else "") + (f" in {function}" if function else "")


def _curve(value: dict[str, Any]) -> list[dict[str, Any]]:
    series = objects(value.get("timeSeries"))
    points = objects(series[0].get("values")) if series else []
    rows = [
        {
            "at": iso(point.get("timestamp")),
            "errors": number(point.get("value")),
            "incomplete": point.get("incomplete") is True,
        }
        for point in points
    ]
    return sorted((row for row in rows if row["at"] is not None), key=lambda row: str(row["at"]))


def _release(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": text(item.get("version")),
        "created_at": iso(item.get("dateCreated")),
        "released_at": iso(item.get("dateReleased")),
        "new_issues": whole(item.get("newGroups")),
        "deploys": None,
    }


def _outcomes(value: dict[str, Any], hours: int) -> list[dict[str, Any]]:
    return [
        {
            "outcome": text(inside(group, "by", "outcome")) or "unknown",
            "quantity": whole(inside(group, "totals", "sum(quantity)")),
            "hours": hours,
        }
        for group in objects(value.get("groups"))
    ]


def _by_release(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"release": text(row.get("release")), "errors": whole(row.get("count()"))} for row in objects(value.get("data"))
    ]
