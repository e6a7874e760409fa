"""Sentry's ways of asking: windows of time, search words, orders, and the names that issues go by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runbook.sandbox.vendors.base import number
from runbook.sandbox.vendors.credentials import PROJECT
from runbook.sandbox.vendors.sentry_facts import Issue

SORTS = ("date", "freq", "inbox", "new", "recommended", "trends", "user")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


_ORDER: Mapping[str, Callable[[Issue], Any]] = {
    "date": lambda issue: issue.last_seen,
    "new": lambda issue: issue.first_seen,
    "freq": lambda issue: issue.count,
    "user": lambda issue: issue.users,
}


@dataclass(frozen=True, kw_only=True)
class Window:
    """The time asked for."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Whether that moment lies within."""
        return self.start <= at <= self.end


def order(sort: str) -> Callable[[Issue], Any]:
    """What issues are sorted by, most first; what has no number here goes by the last time seen."""
    return _ORDER.get(sort, _ORDER["date"])


def issue_id(issue: Issue) -> str:
    """The number that stands for an issue."""
    return issue.id or str(number(f"{issue.title}\n{issue.culprit}"))


def short_id(issue: Issue) -> str:
    """The short name that people use for an issue."""
    return issue.short_id or f"{PROJECT.upper()}-{number(issue_id(issue)) % 46656:X}"


def matches(issue: Issue, query: str) -> bool:
    """Whether every word of a search fits: ``is:``, some ``key:value``, and words of the title."""
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


def seconds_of(period: str) -> int | None:
    """``90m`` → 5400; ``None`` for what is no period."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", period)
    return int(match[1]) * _UNITS[match[2]] if match and int(match[1]) else None


def usual_interval(window: Window) -> int:
    """Seconds between two points where none are asked for."""
    hours = (window.end - window.start).total_seconds() / 3600
    return 60 if hours <= 1 else 300 if hours <= 24 else 3600
