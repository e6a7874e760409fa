"""Looks at one endpoint from one side, taken together: what most of them found.

A look that is not known to have come to an answer or to a failure says nothing. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from runbook.diagnosis.health.limits import Limits

Row = Mapping[str, Any]
REFUSED = "ECONNREFUSED"
LATE = ("TIMEOUT", "ETIMEDOUT")
WRONG_QUESTION = frozenset({300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 407, 410, 421, 426})
"""Answers that speak of the question, not of the health of who answers."""
OUR_WAY = frozenset({"ENETUNREACH", "EHOSTUNREACH", "EPERM", "EACCES", "EADDRNOTAVAIL", *LATE})
"""Codes with which a connection ends on the way, at a firewall or for want of a route: not an answer of the host."""


def number(row: Row | None, key: str) -> float | None:
    """A number of a row; anything else is unknown."""
    value = row.get(key) if row is not None else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, eq=False)
class Place:
    """One endpoint as seen from one side."""

    rows: Sequence[Row]
    limits: Limits

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def url(self) -> str:
        return str(self.first.get("url"))

    @property
    def instance(self) -> str:
        return str(self.first.get("instance"))

    @property
    def endpoint(self) -> str:
        return str(self.first.get("endpoint"))

    @property
    def expected(self) -> bool:
        """Whether anybody said that it answers 200 when all is well."""
        return self.endpoint != "root"

    @cached_property
    def port(self) -> int | None:
        try:
            parts = urlsplit(self.url)
            return parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        except ValueError:
            return None

    # -- what was found ---------------------------------------------------------------------------------------------

    @cached_property
    def looks(self) -> Sequence[Row]:
        """Looks that came to something."""
        return [r for r in self.rows if r.get("layer") not in ("url", None) and (r["layer"] or r.get("http_status"))]

    def share(self, holds: Sequence[bool]) -> float:
        return sum(holds) / len(holds) if holds else 0.0

    def most(self, holds: Sequence[bool]) -> bool:
        """Whether it holds in as many looks as it takes; of none at all in none."""
        return bool(holds) and self.share(holds) >= self.limits.failing_share

    def is_late(self, row: Row) -> bool:
        """An answer, and after the checker has given up."""
        total = number(row, "total_ms")
        return total is not None and row.get("http_status") is not None and total > 1000 * self.limits.checker_timeout

    def _fails(self, row: Row) -> bool:
        if row["layer"] == "http" and not self.expected and row.get("http_status") in WRONG_QUESTION:
            return False
        return bool(row["layer"]) or self.is_late(row)

    @cached_property
    def failing(self) -> float | None:
        """Share of the looks in which a checker would call it unhealthy.

        Unknown for a page of which nobody said that it tells of health, while it answers.
        """
        failing = [self._fails(r) for r in self.looks]
        return self.share(failing) if failing and (self.expected or any(failing)) else None

    @cached_property
    def bad(self) -> bool | None:
        """Whether it is unhealthy now."""
        return None if self.failing is None else self.failing >= self.limits.failing_share

    @property
    def passes(self) -> bool:
        """Whether it is known to be well."""
        return self.bad is False

    @cached_property
    def layer(self) -> str:
        """The first layer that fails, in most looks that fail; ``late`` for an answer that comes too late."""
        found = Counter(r["layer"] or "late" for r in self.looks if self._fails(r))
        return max(found, key=lambda layer: (found[layer], layer)) if found and self.bad else ""

    def _all(self, layer: str, codes: Sequence[str]) -> bool:
        return self.most([r["layer"] == layer and r.get("code") in codes for r in self.looks])

    @cached_property
    def refused(self) -> bool:
        """Nobody listens there."""
        return self._all("tcp", (REFUSED,))

    @cached_property
    def mute(self) -> bool:
        """Neither refused nor answered in any look; an answer, however late, is none of that."""
        waits = [r["layer"] in ("tcp", "tls", "http") and r.get("code") in LATE for r in self.looks]
        return self.most(waits) and not self.answers

    @cached_property
    def unconnected(self) -> bool:
        """Of those: not once a connection came about."""
        return self.mute and not any(r.get("tcp") == "ok" for r in self.looks)

    @cached_property
    def silent(self) -> bool:
        """It takes connections, at least at first, and not a byte comes."""
        return self.mute and not self.unconnected

    @cached_property
    def answers(self) -> bool:
        """Whether anything speaks HTTP there."""
        return any(r.get("http_status") is not None for r in self.looks)

    @cached_property
    def status(self) -> int | None:
        """The HTTP status of most looks; ``None`` where they differ or none has one."""
        found = Counter(r["http_status"] for r in self.looks if isinstance(r.get("http_status"), int))
        status = max(found, key=lambda one: (found[one], one), default=None)
        return status if self.most([r.get("http_status") == status for r in self.looks]) else None

    @cached_property
    def last(self) -> Row | None:
        """The latest look that answered, else the latest."""
        answered = [r for r in self.looks if r.get("http_status") is not None]
        looks = answered or list(self.looks)
        return looks[-1] if looks else None

    @property
    def typical(self) -> Row:
        """A look that is as most are: one that is well, or one that fails."""
        alike = [r for r in self.looks if self._fails(r) is bool(self.bad)]
        return alike[-1] if alike else self.last or {}

    @property
    def reason(self) -> str:
        """Why it fails, in words."""
        failing = [r for r in self.looks if self._fails(r)]
        if not failing:
            return ""
        row = failing[0]
        seconds = (number(row, "total_ms") or 0.0) / 1000
        own = self.certificate or {}
        if row["layer"] == "tls" and own.get("expired"):
            return f"its certificate expired at {own.get('not_after')}"
        return str(row.get("reason")) if row["layer"] else f"answered {row.get('http_status')} after {seconds:.1f} s"

    @property
    def certificate(self) -> Row | None:
        return next((r["certificate"] for r in self.looks if isinstance(r.get("certificate"), Mapping)), None)

    @property
    def release(self) -> str | None:
        return next((str(r["release"]) for r in reversed(self.looks) if r.get("release")), None)

    def checks(self, *statuses: str) -> list[Row]:
        """Parts of the body with one of these states."""
        return [c for c in (self.last or {}).get("checks") or [] if c.get("status") in statuses]
