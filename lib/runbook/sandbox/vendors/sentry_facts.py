"""What the simulated Sentry shows: issues, releases, the curve of errors, and what became of events.

A time in here carries its zone; a count of an issue is of the window that is looked at.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from runbook.sandbox.vendors.base import Facts, Row
from runbook.sandbox.vendors.credentials import ENVIRONMENT


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
