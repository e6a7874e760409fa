"""What the readings say about requests that are slow: how many, whether that is enough to judge, where they are.

``None`` anywhere means *unknown*. Requests that are long by their nature were left out when they were counted. Shares
are shares of the slow requests of the window, each counted once, or of their time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses.limits import Limits
from runbook.diagnosis.responses.statements import Database, Statement
from runbook.diagnosis.responses.systems import Systems
from runbook.result import Evidence

Row = Mapping[str, Any]

LATENCY = "latency"
SPLITS = "latency_splits"
BASELINE = "latency_baseline"
PROBES = "dependency_hosts"
MIN_BASELINE = 50
"""Fewer requests than these are no baseline."""
MIN_GROUP = 5
"""A route or instance with fewer requests than these says nothing."""
EVERYWHERE = 0.9
"""Slow everywhere: routes with so much of the traffic are slow."""
NAMELESS = frozenset({"", "-", "none", "null", "unknown", "anonymous", "(none)"})
_STATIC = re.compile(
    r"(?i)\.(?:m?js|css|map|png|jpe?g|gif|svg|ico|woff2?|ttf|webp|avif|txt|html?)\Z|/(?:static|assets|_next)/"
)
_PRIVATE = re.compile(r"(?i)\A(?:localhost|[\d.]+|\[?[0-9a-f:]+\]?|[^.]+|.*\.(?:local|internal|svc|cluster|lan))\Z")


def number(row: Row | None, key: str) -> float | None:
    """A number of a row; ``None`` when it is not known."""
    value = (row or {}).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def count(row: Row | None, key: str) -> int:
    """A count of a row; 0 when the row does not have it."""
    return int(number(row, key) or 0)


@dataclass(frozen=True, kw_only=True)
class Group:
    """One value of a split, beside all the others of that split."""

    value: str
    row: Row
    requests: int
    slow: int
    #: Of the slow requests, 0–1.
    share: float
    #: Of all requests, 0–1.
    share_of_requests: float
    #: How many times as often it is slow as the others are; ``None`` when there are no others.
    ratio: float | None
    #: How many values the split has.
    values: int

    @property
    def percent(self) -> float:
        """Percent of its requests that are slow."""
        return round(100 * self.slow / self.requests, 1) if self.requests else 0.0

    @property
    def p95_ms(self) -> float | None:
        return number(self.row, "p95_ms")


@dataclass(frozen=True)
class Facts:
    """The traffic as this run saw it."""

    readings: Readings
    limits: Limits

    @cached_property
    def database(self) -> Database:
        return Database(self.readings, self.limits)

    @cached_property
    def systems(self) -> Systems:
        return Systems(self.readings, self.limits)

    def lost(self, *names: str) -> bool:
        """Whether one of these is there to be read, and could not be."""
        taken = [r for n in names if (r := self.readings.last(n)) is not None]
        return any(not r.known and r.state != "not_configured" for r in taken)

    def unless_lost(self, holds: bool, *names: str) -> bool | None:
        """Something that was seen, or not: not seen is unknown while one of the sources that could show it failed."""
        return holds or (None if self.lost(*names) else False)

    # -- the symptom --------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[Row]:
        """Measures of the window in which there were requests with a duration."""
        return [s for s in self.readings.samples(LATENCY) if count(s, "requests") > 0]

    @cached_property
    def now(self) -> Row | None:
        """The measure that the splits were taken with, so that shares are of the same requests; else the last."""
        return self.readings.beside(LATENCY, SPLITS, "requests")

    @cached_property
    def total(self) -> int:
        """Requests of the window whose duration is known; 0 when there were none or nobody could tell."""
        return count(self.now, "requests")

    @cached_property
    def slow(self) -> int | None:
        """Requests of the window that took as long as the threshold; ``None`` when only a p95 is known."""
        return None if number(self.now, "slow") is None else count(self.now, "slow")

    @cached_property
    def p95_ms(self) -> float | None:
        """95th percentile as last measured, milliseconds."""
        return number(self.samples[-1], "p95_ms") if self.samples else None

    @cached_property
    def sufficient(self) -> bool | None:
        """Whether there are requests enough for a p95; ``None`` when there are none at all."""
        return None if self.now is None else self.total >= self.limits.min_requests

    @cached_property
    def breached(self) -> bool | None:
        """Whether two of three samples are above the threshold; ``None`` when there are too few requests to tell."""
        enough = [s for s in self.samples if count(s, "requests") >= self.limits.min_requests]
        judged = [p95 for s in enough if (p95 := number(s, "p95_ms")) is not None]
        if not judged or not self.sufficient:
            return None
        return 3 * sum(p95 > self.limits.threshold_ms for p95 in judged) >= 2 * len(judged)

    @cached_property
    def peak_ms(self) -> float | None:
        """Highest p95 that the window shows, milliseconds."""
        rows = [r for r in self.readings.rows("latency_curve") or [] if count(r, "requests") >= 20]
        enough = [s for s in self.samples if count(s, "requests") >= self.limits.min_requests]
        return max((p for r in (*rows, *enough) if (p := number(r, "p95_ms")) is not None), default=None)

    @cached_property
    def peaked(self) -> bool:
        """Whether it was above the threshold in any stretch that the run saw."""
        return self.peak_ms is not None and self.peak_ms > self.limits.threshold_ms

    # -- whether the slow requests can be split -----------------------------------------------------------------------

    @cached_property
    def splittable(self) -> bool | None:
        """Whether what is slow is enough to ask why; ``None`` when that is unknown."""
        if self.now is None or not self.sufficient:
            return None
        if self.slow is None:
            return self.breached
        return self.slow >= max(self.limits.min_slow, 0.025 * self.total)

    @cached_property
    def why_not(self) -> str:
        """Why the slow requests cannot be judged; empty when the readings themselves tell."""
        if self.now is None:
            samples = self.readings.samples(LATENCY)
            if any(count(s, "without_duration") for s in samples):
                return "the lines of the access log carry no duration"
            return "no request in the window" if samples else ""
        if not self.sufficient:
            return f"{self.total} requests: too few for a p95 (at least {self.limits.min_requests})"
        return "no p95 is known"

    def gate(self, bench: Bench, slug: str, label: str, value: Any, *, rests_on: Sequence[str], **how: Any) -> Evidence:
        """A gate on what is slow: unknown while nothing can be judged, refuted while next to nothing is slow."""
        return self._barred(bench, slug, label) or bench.gate(
            slug, label, value, rests_on=tuple(dict.fromkeys((*rests_on, LATENCY))), **how
        )

    def fact_gate(
        self, bench: Bench, slug: str, label: str, holds: bool | None, *, rests_on: Sequence[str], **how: Any
    ) -> Evidence:
        """The same for something that holds or does not."""
        return self._barred(bench, slug, label) or bench.fact(
            slug, label, holds, rests_on=tuple(dict.fromkeys((*rests_on, LATENCY))), otherwise="refutes", **how
        )

    def _barred(self, bench: Bench, slug: str, label: str) -> Evidence | None:
        if self.splittable is None:
            return bench.fact(slug, label, None, rests_on=(LATENCY,), reason=self.why_not)
        if self.splittable:
            return None
        seen = f"{self.slow or 0} of {self.total} requests are slow: nothing to explain"
        return bench.fact(slug, label, False, value=seen, rests_on=(LATENCY,), otherwise="refutes")

    # -- time ---------------------------------------------------------------------------------------------------------

    @cached_property
    def slow_ms_per_second(self) -> float | None:
        """Time that slow requests take in a second of the clock, milliseconds: how many of them are under way × 1000.

        What is added to the usual duration, where half of the requests have one.
        """
        total, window = number(self.now, "slow_total_ms"), number(self.now, "window_seconds")
        if total is None or not window or not self.slow:
            return None
        half = number(self.now, "p50_ms") or 0.0
        usual = half if half < self.limits.threshold_ms / 2 else 0.0
        return max(1.0, total - usual * self.slow) / window

    def part(self, milliseconds_per_second: float | None) -> float | None:
        """A layer's time as part of the slow requests' time, at most 1."""
        whole = self.slow_ms_per_second
        if milliseconds_per_second is None or whole is None:
            return None
        return round(min(1.0, milliseconds_per_second / whole), 3)

    @cached_property
    def pool_busy(self) -> float:
        """Part of the connections that requests wait for which are at work in the database, 0–1: running, or locked."""
        pool, database = self.systems.pool, self.database
        busy = (database.running or 0.0) + (database.lock_waiting or 0.0)
        return min(1.0, busy / pool.size) if pool is not None and pool.size else 0.0

    @cached_property
    def behind_sql(self) -> bool:
        """Whether requests wait for a pool most of whose connections are busy: what they wait for is SQL."""
        return self.pool_busy >= 0.5

    def part_of_sql(self, milliseconds_per_second: float | None, share_of_sql: float) -> float | None:
        """A part of the time in SQL as part of the slow requests' time, with what waits for the connections it keeps.

        Who waits for a pool waits for those who have its connections, for each as much as it has of them.
        """
        part, pool = self.part(milliseconds_per_second), self.systems.pool
        if part is None or pool is None:
            return part
        if self.behind_sql:
            return max(part, share_of_sql)
        behind = self.part(1000 * (pool.waiting or 0.0) * share_of_sql * self.pool_busy)
        return round(min(1.0, part + (behind or 0.0)), 3)

    def part_of(self, statement: Statement | None) -> float | None:
        """A statement's part of the slow requests' time, less what a vendor is known to have had of it."""
        if statement is None:
            return None
        return self.not_vendors(self.part_of_sql(statement.milliseconds_per_second, statement.share))

    @cached_property
    def sql_part(self) -> float | None:
        """All of SQL as part of the slow requests' time; ``None`` when it is not known."""
        return self.part_of_sql(self.database.milliseconds_per_second, 1.0)

    def not_vendors(self, part: float | None) -> float | None:
        """A part, at most what vendors are not known to have had; ``None`` while that is unknown."""
        if part is None or self.vendor_share is None:
            return None
        return round(max(0.0, min(part, 1.0 - self.vendor_share)), 3)

    @cached_property
    def vendor_share(self) -> float | None:
        """Of the slow requests' time, what vendors are known to have had of it; ``None`` when that could not be read.

        Where nothing could tell it, by the settings or by the log, it is 0: nothing is *known*.
        """
        if self.vendors is None:
            return None if self.lost(SPLITS) else 0.0
        shares = [known_share(self, g) for g in self.vendors]
        return None if any(s is None for s in shares) else min(1.0, sum(s or 0.0 for s in shares))

    @cached_property
    def remaining(self) -> float | None:
        """Of the slow requests' time, what no vendor, no lock and not the leading statement is known to have had.

        ``None`` when one of them could not be read.
        """
        if self.vendor_share is None:
            return None
        sql = self.leading_part
        locks = self.part(1000 * (self.database.lock_waiting or 0.0)) if self.slow_ms_per_second is not None else 0.0
        if self.database.configured and self.database.lock_waiting is None:
            return None
        return None if sql is None else round(max(0.0, 1.0 - self.vendor_share - sql - (locks or 0.0)), 3)

    @cached_property
    def leading_part(self) -> float | None:
        """The leading statement's part of the slow requests' time; 0 without a database, ``None`` while unknown."""
        database = self.database
        if not database.configured or (database.statements is not None and database.leading is None):
            return 0.0
        leading = database.leading
        return None if leading is None else self.part_of_sql(leading.milliseconds_per_second, leading.share)

    # -- splits -------------------------------------------------------------------------------------------------------

    def carries(self, by: str) -> bool:
        """Whether the log carries the field of that split; ``True`` while that is unknown."""
        return not any(r.get("by") == by and r.get("missing") for r in self.readings.rows(SPLITS) or [])

    def split(self, by: str) -> list[Group] | None:
        """The values of a split that name somebody, the one with most slow requests first.

        ``None`` when the splits are unknown or the log does not carry the field.
        """
        rows = self.readings.rows(SPLITS)
        if rows is None or not self.carries(by):
            return None
        mine = [r for r in rows if r.get("by") == by and str(r.get("value")).strip().lower() not in NAMELESS]
        at_once = by == "release_overlap"
        requests = sum(count(r, "requests") for r in mine) if at_once else self.total
        slow = sum(count(r, "slow") for r in mine) if at_once else (self.slow or 0)
        groups = [
            Group(
                value=str(r["value"]),
                row=r,
                requests=count(r, "requests"),
                slow=count(r, "slow"),
                share=min(1.0, count(r, "slow") / slow) if slow else 0.0,
                share_of_requests=min(1.0, count(r, "requests") / requests) if requests else 0.0,
                ratio=_times(count(r, "slow"), count(r, "requests"), slow, requests),
                values=max(len(mine), count(r, "values")),
            )
            for r in mine
        ]
        return sorted(groups, key=lambda g: (-g.slow, -g.requests, g.value))

    def top(self, by: str) -> Group | None:
        """The value of a split with most slow requests."""
        groups = self.split(by)
        return groups[0] if groups else None

    def apart(self, by: str) -> Group | None:
        """The one of several values that has nearly all slow requests and is slow far more often than the others."""
        top = self.top(by)
        if top is None or top.values < 2 or top.ratio is None or top.slow < MIN_GROUP:
            return None
        far = top.ratio >= self.limits.release_ratio
        return top if far and top.share >= self.limits.place_share else None

    @cached_property
    def everywhere(self) -> bool | None:
        """Whether every route, instance and release is slow; ``None`` when it cannot be told."""
        routes = [g for g in self.split("route") or [] if self._tells(g)]
        if len(routes) < 2 or not self.splittable:
            return None if self.splittable is not False else False
        for by in ("route", "instance", "release"):
            groups = [g for g in self.split(by) or [] if self._tells(g)]
            whole = sum(g.requests for g in groups)
            ill = sum(g.requests for g in groups if (g.p95_ms or 0.0) >= self.limits.threshold_ms)
            if groups and ill < EVERYWHERE * whole:
                return False
        return True

    @staticmethod
    def _tells(group: Group) -> bool:
        """Whether it has requests enough, and is not a file that the proxy serves by itself."""
        return group.requests >= MIN_GROUP and _STATIC.search(group.value) is None

    @cached_property
    def well_places(self) -> str:
        """What is not slow, in words: it speaks against causes that slow everything."""
        for by in ("route", "instance", "release"):
            well = [g for g in self.split(by) or [] if self._tells(g)
                    and (g.p95_ms or 0.0) < self.limits.threshold_ms]  # fmt: skip
            if well:
                best = max(well, key=lambda g: g.requests)
                return f"{by} {best.value} is well (p95 {best.p95_ms:g} ms)"
        return ""

    @cached_property
    def vendors(self) -> list[Group] | None:
        """Hosts outside that requests were passed to; ``None`` when the log does not tell."""
        groups = self.split("upstream")
        return None if groups is None else [g for g in groups if is_vendor(g)]

    # -- before -------------------------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Row | None:
        """The same service earlier and well: the same hour of last week where known, else the time before.

        A stretch that was slow itself is no measure of what is usual.
        """
        rows = {str(r.get("window")): r for r in self.readings.rows(BASELINE) or []}
        known = [r for w in ("last_week", "before") if (r := rows.get(w)) and count(r, "requests") >= MIN_BASELINE]
        return next((r for r in known if (number(r, "p95_ms") or 0.0) <= self.limits.threshold_ms), None)

    @cached_property
    def surge(self) -> float | None:
        """Requests a second now, as a multiple of before."""
        now, before = number(self.now, "requests_per_second"), number(self.before, "requests_per_second")
        return round(now / before, 2) if now is not None and before else None

    @cached_property
    def requests_per_second(self) -> float | None:
        return number(self.now, "requests_per_second")


def is_vendor(group: Group) -> bool:
    """Whether a host that requests are passed to is somebody else's, and not an instance of ours."""
    if group.row.get("known_host"):
        return True
    name = group.value.partition(":")[0] if group.value.count(":") < 2 else group.value
    return not _PRIVATE.match(name) and group.share_of_requests < EVERYWHERE


def span_share(facts: Facts, group: Group) -> float | None:
    """A host's own time as part of the slow requests' time; ``None`` where the log does not tell it."""
    spent, slow = number(group.row, "span_ms"), number(facts.now, "slow_total_ms")
    if spent is None or not slow or 2 * count(group.row, "spans") < group.requests:
        return None
    return round(min(1.0, spent / slow), 3)


def answers_slowly(facts: Facts, group: Group) -> bool | None:
    """Whether somebody else than the slow requests saw that host being slow: our own probe of it.

    Unknown without a probe; one that is answered fast says nothing of what asks with a credential.
    """
    rows = [r for r in facts.readings.rows(PROBES) or [] if same_host(r.get("host"), group.value)]
    if not rows:
        return None
    if any(r.get("code") == "TIMEOUT" for r in rows):
        return True
    took = [ms for r in rows if (ms := number(r, "answer_ms")) is not None]
    return True if took and max(took) >= 0.5 * facts.limits.threshold_ms else None


def same_host(one: Any, other: str) -> bool:
    return str(one).partition(":")[0].lower() == other.partition(":")[0].lower()


def known_share(facts: Facts, group: Group) -> float | None:
    """Of the slow requests' time, what a host is known to have had: by its spans, else by our own slow probe of it.

    ``None`` when only a probe could tell, and failed.
    """
    spans = span_share(facts, group)
    if spans is not None:
        return spans
    if facts.lost(PROBES):
        return None
    return group.share if answers_slowly(facts, group) else 0.0


def _times(slow: int, requests: int, all_slow: int, all_requests: int) -> float | None:
    """How many times as often these requests are slow as the others are, by Laplace's rule where the others are few."""
    others = max(0, all_requests - requests)
    if not others or not requests:
        return None
    return round((slow / requests) / ((max(0, all_slow - slow) + 0.5) / (others + 1)), 2)
