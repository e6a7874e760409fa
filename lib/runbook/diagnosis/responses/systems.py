"""What pools, the application's own process, Redis and the hosts say of waiting. ``None`` anywhere means *unknown*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from statistics import fmean, median
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses.limits import Limits

Row = Mapping[str, Any]

METRICS, HEALTH, POOLS, APP_WAITS = "app_metrics", "health", "pools", "app_waits"
PING, SLOWLOG, REDIS_LOAD = "redis_ping", "redis_slowlog", "redis_load"
LOAD, PRESSURE, CGROUP, MEMORY = "load", "pressure", "cgroup", "memory"
MIN_LOOKUPS = 50
MIN_TICKS = 50
"""Half a second of one processor: of less, nobody can tell a share."""
"""Fewer lookups in Redis than these are no hit ratio."""


def number(row: Row | None, key: str) -> float | None:
    """A number of a row; ``None`` when it is not known."""
    value = (row or {}).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _seconds(first: Row, last: Row) -> float:
    try:
        return (
            datetime.fromisoformat(str(last.get("at"))) - datetime.fromisoformat(str(first.get("at")))
        ).total_seconds()
    except (TypeError, ValueError):
        return 0.0


@dataclass(frozen=True, kw_only=True)
class PoolWait:
    """Requests that wait for a connection of a pool."""

    #: ``PgBouncer`` or ``the application``.
    where: str
    #: Cause of the runbook of connections.
    refers_to: str
    reading: str
    #: How many wait on average; ``None`` = some, nobody tells how many.
    waiting: float | None
    #: How long one waits, milliseconds, where it is told.
    milliseconds: float | None
    size: float | None


@dataclass(frozen=True)
class Systems:
    """Everything beside the database and the requests themselves."""

    readings: Readings
    limits: Limits

    def configured(self, *names: str) -> bool:
        """Whether one of these readings was taken from something that is configured."""
        taken = [r for n in names if (r := self.readings.last(n)) is not None]
        return any(r.state != "not_configured" for r in taken)

    # -- pools --------------------------------------------------------------------------------------------------------

    @cached_property
    def pool(self) -> PoolWait | None:
        """The pool that requests wait for; ``None`` when none is known to be waited for."""
        found = [wait for wait in (self._pgbouncer, self._of_metrics, self._of_health) if wait is not None]
        return found[0] if found else None

    @cached_property
    def pool_known(self) -> bool:
        """Whether a pool could be looked at, so that *nobody waits* means just that."""
        figures = any("pool_waiting" in r or "pool_wait_seconds_total" in r for r in self.readings.rows(METRICS) or [])
        healthy = any(isinstance(r.get("pool"), Mapping) for r in self.readings.rows(HEALTH) or [])
        return figures or healthy or bool(self.readings.rows(POOLS))

    @cached_property
    def pool_size(self) -> float | None:
        """Connections that the application's pool may have, all instances that told together."""
        sizes = [v for r in self.readings.rows(METRICS) or [] if (v := number(r, "pool_size")) is not None]
        return max(sizes, default=None)

    @cached_property
    def _pgbouncer(self) -> PoolWait | None:
        rows = [r for s in self.readings.series(POOLS) if s.known for r in s.rows if number(r, "cl_waiting")]
        if not rows:
            return None
        worst = max(rows, key=lambda r: number(r, "cl_waiting") or 0)
        longest = 1000 * (number(worst, "maxwait") or 0) + (number(worst, "maxwait_us") or 0) / 1000
        if longest < self.limits.pool_wait_ms:
            return None
        return PoolWait(where="PgBouncer", refers_to="P10", reading=POOLS, waiting=number(worst, "cl_waiting"),
                        milliseconds=longest, size=number(worst, "pool_size"))  # fmt: skip

    @cached_property
    def scrapes(self) -> list[list[dict[str, Any]]]:
        """The application's metrics, look by look."""
        return [r.rows for r in self.readings.series(METRICS) if r.known and r.rows]

    def figure(self, name: str) -> float | None:
        """The largest value of a figure over instances, by the median of the looks."""
        looks = [
            max(values) for rows in self.scrapes if (values := [v for r in rows if (v := number(r, name)) is not None])
        ]
        return median(looks) if looks else None

    def rate(self, name: str) -> float | None:
        """What a running total grew by in a second, at the instance where it grew most."""
        rates = []
        for row in self.scrapes[-1] if len(self.scrapes) > 1 else []:
            first = next((r for r in self.scrapes[0] if r.get("instance") == row.get("instance")), None)
            if first is None or number(first, name) is None or number(row, name) is None:
                continue
            seconds, grown = _seconds(first, row), (number(row, name) or 0) - (number(first, name) or 0)
            if seconds >= 0.2 and grown >= 0:
                rates.append(grown / seconds)
        return max(rates, default=None)

    @cached_property
    def _of_metrics(self) -> PoolWait | None:
        waiting, waits = self.figure("pool_waiting"), self.rate("pool_waits_total")
        waited = self.rate("pool_wait_seconds_total")
        mean = 1000 * waited / waits if waits and waited is not None else None
        # A figure of one moment says little where the time is told: a short queue is what a pool is for.
        if mean < self.limits.pool_wait_ms if mean is not None else not waiting:
            return None
        return PoolWait(where="the application", refers_to="P11", reading=METRICS,
                        waiting=max(waiting or 0.0, waited or 0.0), milliseconds=mean, size=self.pool_size)  # fmt: skip

    @cached_property
    def _of_health(self) -> PoolWait | None:
        rows = [r["pool"] for s in self.readings.series(HEALTH) if s.known for r in s.rows
                if isinstance(r.get("pool"), Mapping)]  # fmt: skip
        full = [r for r in rows if (number(r, "used") or 0) >= (number(r, "size") or 1) and number(r, "waiting")]
        if not full or 2 * len(full) < len(rows):
            return None
        return PoolWait(where="the application", refers_to="P11", reading=HEALTH,
                        waiting=fmean(number(r, "waiting") or 0 for r in full), milliseconds=None,
                        size=number(full[-1], "size"))  # fmt: skip

    @cached_property
    def pool_timeouts(self) -> int | None:
        """Pool time-outs in the application's log within the window; ``None`` when it was not read."""
        rows = self.readings.rows(APP_WAITS)
        return (
            None if rows is None else sum(int(number(r, "count") or 0) for r in rows if "pool" in str(r.get("pattern")))
        )

    # -- the process --------------------------------------------------------------------------------------------------

    @cached_property
    def loop_lag_ms(self) -> float | None:
        """Event loop lag of the worst instance, 99th percentile where it is exported."""
        p99 = self.figure("event_loop_lag_p99_ms")
        return p99 if p99 is not None else self.figure("event_loop_lag_ms")

    @cached_property
    def live_ms(self) -> float | None:
        """How long the endpoint that depends on nothing takes to answer, milliseconds, by the median of the looks."""
        looks = [
            max(times)
            for s in self.readings.series(HEALTH)
            if s.known and (times := [m for r in s.rows if r.get("endpoint") == "live"
                                      and (m := number(r, "milliseconds")) is not None])
        ]  # fmt: skip
        return median(looks) if looks else None

    @cached_property
    def cores_used(self) -> float | None:
        """Cores that the busiest instance's process uses."""
        rate = self.rate("cpu_seconds_total")
        return None if rate is None else round(rate, 2)

    # -- Redis --------------------------------------------------------------------------------------------------------

    @cached_property
    def redis_ms(self) -> float | None:
        """Redis' answer to PING, milliseconds: the mean of the looks, since it is slow by turns."""
        pings = [m for s in self.readings.samples(PING) if (m := number(s, "milliseconds")) is not None]
        return round(fmean(pings), 1) if pings else None

    @cached_property
    def slow_commands(self) -> list[dict[str, Any]] | None:
        """Commands that Redis logged as slow within the window, the longest first."""
        rows = self.readings.rows(SLOWLOG)
        if rows is None:
            return None
        recent = [r for r in rows if (number(r, "ago_seconds") or 0) <= self.window_seconds + 1]
        return sorted(recent, key=lambda r: -(number(r, "seconds") or 0))

    @cached_property
    def window_seconds(self) -> float:
        return number(self.readings.row("latency"), "window_seconds") or 300.0

    @cached_property
    def redis_busy(self) -> float | None:
        """Share of the time in which Redis, that does one thing at a time, worked: by its counters, and its slow log.

        A command that blocks for long is counted when it ends, so that the slow log may know more.
        """
        by_log = None
        if self.slow_commands is not None:
            by_log = sum(number(r, "seconds") or 0 for r in self.slow_commands) / self.window_seconds
        known = [share for share in (by_log, self._redis_counted) if share is not None]
        return round(min(1.0, max(known)), 3) if known else None

    @cached_property
    def _redis_looks(self) -> tuple[Row, Row, float] | None:
        looks = self.readings.samples(REDIS_LOAD)
        if len(looks) < 2:
            return None
        seconds = _seconds(looks[0], looks[-1])
        return (looks[0], looks[-1], seconds) if seconds >= 0.2 else None

    @cached_property
    def _redis_counted(self) -> float | None:
        if self._redis_looks is None:
            return None
        first, last, seconds = self._redis_looks
        now, before = number(last, "busy_ms"), number(first, "busy_ms")
        return None if now is None or before is None or now < before else (now - before) / (1000 * seconds)

    @cached_property
    def hit_ratio(self) -> tuple[float, float] | None:
        """Hits of all lookups now, and since Redis started; ``None`` with too few lookups to tell."""
        if self._redis_looks is None:
            return None
        first, last, _ = self._redis_looks
        hits, misses = ((number(last, k) or 0) - (number(first, k) or 0) for k in ("hits", "misses"))
        had = [number(first, k) or 0 for k in ("hits", "misses")]
        if hits < 0 or misses < 0 or hits + misses < MIN_LOOKUPS or sum(had) < 10 * MIN_LOOKUPS:
            return None
        return round(hits / (hits + misses), 3), round(had[0] / sum(had), 3)

    # -- hosts --------------------------------------------------------------------------------------------------------

    def pressure(self, resource: str, scope: str = "some") -> float | None:
        """Pressure of a resource on the host where it is highest, percent of the last seconds."""
        rows = self.readings.rows(PRESSURE)
        found = [v for r in rows or [] if r.get("resource") == resource and r.get("scope") == scope
                 and (v := number(r, "avg10")) is not None]  # fmt: skip
        return max(found, default=None)

    @cached_property
    def run_queue(self) -> tuple[float, float] | None:
        """Runnable threads, the median of the looks, and cores, of the host with most of them a core."""
        series: dict[str, list[float]] = {}
        cores: dict[str, float] = {}
        for row in (row for s in self.readings.series(LOAD) if s.known for row in s.rows):
            host, runnable, has = str(row.get("host")), number(row, "runnable"), number(row, "cores")
            if runnable is not None and has:
                series.setdefault(host, []).append(max(0.0, runnable - 1))  # who asks runs as well
                cores[host] = has
        if not series:
            return None
        worst = max(sorted(series), key=lambda h: median(series[h]) / cores[h])
        return median(series[worst]), cores[worst]

    @cached_property
    def idle_share(self) -> float | None:
        """Share of the processors' time in which they had nothing to do between two looks, of the busiest host."""
        looks: dict[str, list[Row]] = {}
        for row in (row for s in self.readings.series(LOAD) if s.known for row in s.rows):
            looks.setdefault(str(row.get("host")), []).append(row)
        found = []
        for first, *_, last in (rows for rows in looks.values() if len(rows) > 1):
            every, idle = ((number(last, k) or 0) - (number(first, k) or 0) for k in ("all_ticks", "idle_ticks"))
            if every >= MIN_TICKS and 0 <= idle <= every:
                found.append(round(idle / every, 3))
        return min(found, default=None)

    @cached_property
    def throttled(self) -> tuple[float, Row] | None:
        """The cgroup whose quota was used up in most of its periods between two looks, and in what share of them."""
        looks = [s.rows for s in self.readings.series(CGROUP) if s.known]
        if len(looks) < 2:
            return None
        before = {(r.get("host"), r.get("path")): r for r in looks[0]}
        found: list[tuple[float, Row]] = []
        for row in looks[-1]:
            old = before.get((row.get("host"), row.get("path")))
            periods = (number(row, "cpu_periods") or 0) - (number(old, "cpu_periods") or 0)
            used_up = (number(row, "cpu_throttled") or 0) - (number(old, "cpu_throttled") or 0)
            if old is not None and row.get("cpu_quota_cores") is not None and periods > 0 and used_up >= 0:
                found.append((round(used_up / periods, 3), row))
        return max(found, key=lambda f: (f[0], str(f[1].get("path"))), default=None)

    @cached_property
    def other_quotas(self) -> list[str]:
        """Cgroups with a quota on the host of the throttled one, those above and below it apart: whose is it?"""
        if self.throttled is None:
            return []
        host, path = self.throttled[1].get("host"), str(self.throttled[1].get("path"))
        last = [s.rows for s in self.readings.series(CGROUP) if s.known][-1]
        limited = [r for r in last if r.get("host") == host and r.get("cpu_quota_cores") is not None]
        others = (str(r.get("path")) for r in limited)
        return sorted(other for other in others if not _one_above_the_other(other, path))

    @cached_property
    def quotas_known(self) -> bool:
        """Whether cgroups were looked at twice."""
        return sum(s.known for s in self.readings.series(CGROUP)) >= 2


def _one_above_the_other(one: str, other: str) -> bool:
    first, second = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return first.startswith(second) or second.startswith(first)
