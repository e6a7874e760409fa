"""What the readings say about the requests that fail: how many, whether that is enough to judge, and how they split.

``None`` anywhere means *unknown*. Counts come from the access log or the metrics server alone; Sentry is sampled and
drops what is over its quota, so that it ranks and never counts. Every share is a share of the failing requests of the
rate window, each counted once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.errors.limits import Limits
from runbook.diagnosis.errors.rates import times, wilson_low
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import Readings
from runbook.result import Evidence

Row = Mapping[str, Any]

REQUESTS = "requests"
SPLITS = "splits"
MOST_VALUES = 20
"""A split lists no more values than these."""
NAMELESS = frozenset({"", "-", "none", "null", "unknown", "anonymous", "(none)"})
"""Values of a split that name nobody."""


def count(row: Row | None, key: str) -> int:
    """A count of a row; 0 when the row does not have it."""
    value = (row or {}).get(key)
    return int(float(value)) if isinstance(value, int | float | str) and str(value).strip() else 0


def number(row: Row | None, key: str) -> float | None:
    """A number of a row; ``None`` when it is not known."""
    value = (row or {}).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_named(value: Any) -> bool:
    """Whether a value of a split names somebody."""
    return value is not None and str(value).strip().lower() not in NAMELESS


def _with_requests(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, REQUESTS)))


@dataclass(frozen=True, kw_only=True)
class Group:
    """One value of a split, beside all the others of that split."""

    value: str
    row: Row
    requests: int
    errors: int
    #: Of the failing requests, 0–1.
    share: float
    #: Of all requests, 0–1.
    share_of_requests: float
    #: How many times as often it fails as the others do; ``None`` when there are no others.
    ratio: float | None
    #: How many values the split has.
    values: int

    @property
    def percent(self) -> float:
        """Percent of its requests that fail."""
        return round(100 * self.errors / self.requests, 1) if self.requests else 0.0


@dataclass(frozen=True)
class Facts:
    """The traffic as this run saw it."""

    readings: Readings
    limits: Limits

    # -- the symptom --------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[Row]:
        """Measures of the rate window in which there were requests."""
        return [s for s in self.readings.samples(REQUESTS) if count(s, "requests") > 0]

    @cached_property
    def now(self) -> Row | None:
        """The measure that the splits were taken with, so that shares are of the same requests; else the last."""
        return self.readings.beside(REQUESTS, SPLITS, "requests")

    @cached_property
    def total(self) -> int:
        """Requests in the rate window; 0 when there were none or nobody could tell."""
        return count(self.now, "requests")

    @cached_property
    def errors(self) -> int:
        """Requests answered 5xx in the rate window."""
        return count(self.now, "errors")

    @cached_property
    def percent(self) -> float | None:
        """Percent of the requests that failed, as last measured."""
        return self.percent_of(self.samples[-1]) if self.samples else None

    @staticmethod
    def percent_of(sample: Row) -> float:
        """Percent of a sample's requests that were answered 5xx."""
        return round(100.0 * count(sample, "errors") / count(sample, "requests"), 2)

    @staticmethod
    def low_percent(sample: Row) -> float:
        """What that percentage is at least, by Wilson's lower bound."""
        return round(100.0 * wilson_low(count(sample, "errors"), count(sample, "requests")), 2)

    @cached_property
    def sufficient(self) -> bool | None:
        """Whether the requests are enough to tell the rate from chance; ``None`` when there are none at all."""
        if self.now is None:
            return None
        return self.total >= self.limits.min_requests and self.breached is not None

    @cached_property
    def breached(self) -> bool | None:
        """Whether two of three samples are above the threshold by their lower bound; ``None`` when too few to tell."""
        judged = [s for s in self.samples if count(s, "requests") >= self.limits.min_requests]
        if not judged or self.total < self.limits.min_requests:
            return None
        least = self.limits.threshold_percent
        if 3 * sum(self.low_percent(s) > least for s in judged) >= 2 * len(judged):
            return True
        above = 3 * sum(self.percent_of(s) > least for s in judged) >= 2 * len(judged)
        return None if above else False

    @cached_property
    def peak_percent(self) -> float | None:
        """Highest rate that the window shows, by minute."""
        seen = [p for s in self.samples if (p := number(s, "peak_percent")) is not None]
        seen += [
            100.0 * count(r, "errors") / count(r, "requests")
            for r in self.readings.rows("request_curve") or []
            if count(r, "requests") >= 20
        ]
        seen += [self.percent_of(s) for s in self.samples if count(s, "requests") >= self.limits.min_requests]
        return round(max(seen), 2) if seen else None

    @cached_property
    def peaked(self) -> bool:
        """Whether the rate was above the threshold, and not by chance, in any stretch that the run saw."""
        stretches = [*(self.readings.rows("request_curve") or []), *self.samples]
        return any(self.low_percent(row) > self.limits.threshold_percent for row in stretches)

    # -- whether the failing requests can be split --------------------------------------------------------------------

    @cached_property
    def splittable(self) -> bool | None:
        """Whether what fails is enough to be split; ``None`` when that is unknown or could as well be chance."""
        if self.now is None or not self.sufficient:
            return None
        return self.errors >= self.limits.min_errors and self.low_percent(self.now) > self.limits.warn_percent

    @cached_property
    def why_not(self) -> str:
        """Why the failing requests cannot be judged; empty when the readings themselves tell."""
        if self.now is None:
            return "no request in the window" if self.readings.samples(REQUESTS) else ""
        return f"{self.errors} of {self.total} requests failed: too few to tell from chance"

    def gate(self, bench: Bench, slug: str, label: str, value: Any, *, rests_on: Sequence[str], **how: Any) -> Evidence:
        """A gate on what fails: unknown while nothing can be judged, refuted while next to nothing fails."""
        barred = self._barred(bench, slug, label)
        return barred or bench.gate(slug, label, value, rests_on=_with_requests(rests_on), **how)

    def fact_gate(
        self, bench: Bench, slug: str, label: str, holds: bool | None, *, rests_on: Sequence[str], **how: Any
    ) -> Evidence:
        """The same for something that holds or does not."""
        barred = self._barred(bench, slug, label)
        return barred or bench.fact(slug, label, holds, rests_on=_with_requests(rests_on), otherwise="refutes", **how)

    def _barred(self, bench: Bench, slug: str, label: str) -> Evidence | None:
        if self.splittable is None:
            return bench.fact(slug, label, None, rests_on=(REQUESTS,), reason=self.why_not)
        if self.splittable:
            return None
        seen = f"{self.errors} of {self.total} requests fail: nothing to split"
        return bench.fact(slug, label, False, value=seen, rests_on=(REQUESTS,), otherwise="refutes")

    # -- splits -------------------------------------------------------------------------------------------------------

    def carries(self, by: str) -> bool:
        """Whether the log carries the field of that split; ``True`` while that is unknown."""
        return not any(r.get("by") == by and r.get("missing") for r in self.readings.rows(SPLITS) or [])

    def split(self, by: str) -> list[Group] | None:
        """The values of a split that name somebody, the one with most failing requests first.

        ``None`` when the splits are unknown or the log does not carry the field.
        """
        rows = self.readings.rows(SPLITS)
        if rows is None or not self.carries(by):
            return None
        mine = [r for r in rows if r.get("by") == by and is_named(r.get("value"))]
        requests, errors = sum(count(r, "requests") for r in mine), sum(count(r, "errors") for r in mine)
        if len(mine) >= MOST_VALUES:  # the others are not listed
            requests, errors = max(requests, self.total), max(errors, self.errors)
        groups = [
            Group(
                value=str(r["value"]),
                row=r,
                requests=count(r, "requests"),
                errors=count(r, "errors"),
                share=min(1.0, count(r, "errors") / self.errors) if self.errors else 0.0,
                share_of_requests=min(1.0, count(r, "requests") / self.total) if self.total else 0.0,
                ratio=self._ratio(count(r, "errors"), count(r, "requests"), errors, requests),
                values=len(mine),
            )
            for r in mine
        ]
        return sorted(groups, key=lambda g: (-g.errors, -g.requests, g.value))

    @staticmethod
    def _ratio(errors: int, requests: int, all_errors: int, all_requests: int) -> float | None:
        return times(errors, requests, max(0, all_errors - errors), max(0, all_requests - requests))

    def top(self, by: str) -> Group | None:
        """The value of a split with most failing requests."""
        groups = self.split(by)
        return groups[0] if groups else None

    # -- before -------------------------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Row | None:
        """The same service earlier: the same hour of last week where known, else the time before the window."""
        rows = {str(r.get("window")): r for r in self.readings.rows("traffic_baseline") or []}
        known = [rows[w] for w in ("last_week", "before") if number(rows.get(w), "requests_per_second") is not None]
        return known[0] if known else None

    @cached_property
    def surge(self) -> float | None:
        """Requests a second now, as a multiple of before."""
        now, before = number(self.now, "requests_per_second"), number(self.before, "requests_per_second")
        return round(now / before, 2) if now is not None and before else None

    @cached_property
    def slower(self) -> float | None:
        """p95 now, as a multiple of before."""
        now, before = number(self.now, "p95_ms"), number(self.before, "p95_ms")
        return round(now / before, 2) if now is not None and before else None
