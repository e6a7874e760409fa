"""Prometheus' HTTP API, and whatever speaks it: queries whose values are numbers or unknown, never text.

The PromQL comes from us or from a notebook's author, never from an alert.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from runbook.connectors.answers import inside, iso, number
from runbook.connectors.base import Context, Fetched
from runbook.connectors.http import Exchange, HttpConnector, Malformed, as_object, as_rows, shown
from runbook.result import Reading

MAX_ROWS = 5000
"""Rows of one reading; what lies beyond is said to be missing."""
MAX_POINTS = 11_000
"""Prometheus refuses a range of more steps."""
SESSIONS = "sum by (instance) (pg_stat_database_numbackends) or sum by (instance) (pg_stat_activity_count)"
"""Sessions of a PostgreSQL server as postgres_exporter counts them, one series a server."""
_REAL = 'fstype!~"tmpfs|ramfs|devtmpfs|overlay|nsfs|fuse.lxcfs|rootfs"'
_MEASURES = {
    "size": f"node_filesystem_size_bytes{{{_REAL}}}",
    "free": f"node_filesystem_free_bytes{{{_REAL}}}",
    "available": f"node_filesystem_avail_bytes{{{_REAL}}}",
    "available_before": f"node_filesystem_avail_bytes{{{_REAL}}} offset 1h",
    "least_available": f"min_over_time(node_filesystem_avail_bytes{{{_REAL}}}[1h])",
    "inodes": f"node_filesystem_files{{{_REAL}}}",
    "inodes_free": f"node_filesystem_files_free{{{_REAL}}}",
    "read_only": f"node_filesystem_readonly{{{_REAL}}}",
}
FILESYSTEMS = " or ".join(f'label_replace({text}, "measure", "{name}", "", "")' for name, text in _MEASURES.items())
"""Filesystems as node_exporter counts them, now and an hour ago: a series a filesystem and ``measure``."""
WEEKS = 8
_SAMPLE = "10m"
_SAMPLES_A_WEEK = 7 * 24 * 6
_COVERED = 0.8
"""Share of a week that must have been recorded: the peak of half a week would make the next one look like growth."""


class Prometheus(HttpConnector):
    """One metrics server."""

    source = "prometheus"

    def __init__(self, context: Context, url: str) -> None:
        super().__init__(context, url, lacking="" if url else "prometheus.url")

    def query(self, name: str, promql: str, at: datetime | None = None) -> Reading:
        """``promql`` at one time (now): a row a series, its labels and ``value``; ``None`` for NaN and infinity."""
        params = {"query": promql, "time": None if at is None else _seconds(at)}
        path = "/api/v1/query"
        return self.gather(name, shown(path, params), lambda exchange: _fetched(exchange.get(path, params).object))

    def range(self, name: str, promql: str, start: datetime, end: datetime, step_seconds: float) -> Reading:
        """``promql`` from ``start`` to ``end``: a row a series and step, its labels, ``at`` and ``value``."""
        params = _range(promql, start, end, step_seconds)
        path = "/api/v1/query_range"
        return self.gather(name, shown(path, params), lambda exchange: _fetched(exchange.get(path, params).object))

    def queue_week(self, queue: str) -> Reading:
        """``queue_metrics``: jobs of a queue over the last week, a row a state: ``most``, ``mean`` and ``now``.

        As BullMQ's own exporter counts them (``bullmq_job_count``), or bull_exporter (``bull_queue_waiting`` and the
        like); no rows where nobody counts them.
        """
        own = f"sum by (state) (bullmq_job_count{{queue={_quoted(queue)}}})"
        others = " or ".join(
            f'label_replace(sum(bull_queue_{state}{{queue={_quoted(queue)}}}), "state", "{state}", "", "")'
            for state in ("waiting", "active", "delayed", "failed")
        )
        counted = f"({own} or {others})"
        asked = {
            "now": counted,
            "most": f"max_over_time({counted}[1w:{_SAMPLE}])",
            "mean": f"avg_over_time({counted}[1w:{_SAMPLE}])",
        }
        path = "/api/v1/query"

        def take(exchange: Exchange) -> Fetched:
            found: dict[str, dict[str, Any]] = {}
            for name, promql in asked.items():
                for row in _fetched(exchange.get(path, {"query": promql}).object).value:
                    state = str(row.get("state"))
                    found.setdefault(state, {"state": state, "now": None, "most": None, "mean": None})
                    found[state][name] = row["value"]
            return Fetched(value=[found[state] for state in sorted(found)])

        return self.gather("queue_metrics", shown(path, {"query": asked["most"]}), take, limit_seconds=10)

    def filesystems(self, at: datetime | None = None) -> Reading:
        """``disk_history``: a row for each filesystem and ``measure`` (see :data:`FILESYSTEMS`), at one time (now)."""
        return self.query("disk_history", FILESYSTEMS, at)

    def alert_rules(self, name: str, about: str) -> Reading:
        """Alerting rules whose expression contains ``about``: ``{name, query, for_seconds, severity}``."""
        params = {"type": "alert"}
        path = "/api/v1/rules"

        def take(exchange: Exchange) -> Fetched:
            groups = as_rows(_grouped(exchange.get(path, params).object))
            rules = [rule for group in groups for rule in as_rows(group.get("rules") or [])]
            return Fetched(
                value=[
                    {"name": rule.get("name"), "query": rule.get("query"), "for_seconds": number(rule.get("duration")),
                     "severity": inside(rule, "labels", "severity")}
                    for rule in rules
                    if about in str(rule.get("query") or "")
                ][:MAX_ROWS]
            )  # fmt: skip

        return self.gather(name, shown(path, params), take)

    def weekly_peaks(self, promql: str = SESSIONS) -> Reading:
        """``trend``: the peak of each of the last weeks, oldest first, and how it grew.

        Rows ``{week_start, peak, weekly_growth}``; ``weekly_growth``, the same in each, is the median of the relative
        growth from week to week (0.05 = 5 %), ``None`` with fewer than three weeks. A week of which less than four
        fifths was recorded is left out. ``promql`` must give one series: of several servers, nobody knows which.
        """
        now = self.context.now()
        week = timedelta(weeks=1)
        window = f"(({promql})[1w:{_SAMPLE}])"
        peaks = _range(f"max_over_time{window}", now - (WEEKS - 1) * week, now, week.total_seconds())
        counts = peaks | {"query": f"count_over_time{window}"}
        path = "/api/v1/query_range"

        def take(exchange: Exchange) -> Fetched:
            series, covered = (as_rows(_data(exchange.get(path, asked).object)["result"]) for asked in (peaks, counts))
            if len(series) > 1:
                names = ", ".join(sorted(str(inside(one, "metric", "instance")) for one in series))
                return Fetched(value=None, partial=f"sessions of {len(series)} servers are recorded: {names}"[:300])
            recorded = {at: count for one in covered for at, count in _points(one)}
            whole_weeks = [
                (at - week.total_seconds(), peak)
                for one in series
                for at, peak in _points(one)
                if peak is not None and (recorded.get(at) or 0) >= _COVERED * _SAMPLES_A_WEEK
            ]
            return Fetched(value=_growing(whole_weeks))

        return self.gather("trend", shown(path, peaks), take, limit_seconds=10)


def _quoted(text: str) -> str:
    """A string of PromQL; its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _growing(weeks: list[tuple[float, float]]) -> list[dict[str, Any]]:
    steps = [
        now / before - 1
        for (at, before), (next_at, now) in pairwise(weeks)
        if before > 0 and next_at - at <= timedelta(weeks=1).total_seconds()
    ]
    growth = round(median(steps), 4) if len(steps) >= 2 else None
    return [{"week_start": iso(at), "peak": peak, "weekly_growth": growth} for at, peak in weeks]


def _range(promql: str, start: datetime, end: datetime, step_seconds: float) -> dict[str, Any]:
    steps = (end - start).total_seconds() / step_seconds
    if steps > MAX_POINTS:
        raise ValueError(f"{steps:.0f} steps are more than Prometheus gives ({MAX_POINTS})")
    return {"query": promql, "start": _seconds(start), "end": _seconds(end), "step": f"{step_seconds:g}"}


def _seconds(at: datetime) -> str:
    return f"{at.timestamp():.3f}"


def _data(value: dict[str, Any]) -> dict[str, Any]:
    data = as_object(value.get("data"))
    if "result" not in data:
        raise Malformed("an answer of Prometheus has a result")
    return data


def _grouped(value: dict[str, Any]) -> Any:
    data = as_object(value.get("data"))
    if "groups" not in data:
        raise Malformed("an answer of Prometheus has groups of rules")
    return data["groups"]


def _fetched(value: dict[str, Any]) -> Fetched:
    rows: list[dict[str, Any]] = []
    missing = "; ".join(str(warning) for warning in value.get("warnings") or ())
    for row in _rows(_data(value)):
        if len(rows) == MAX_ROWS:
            missing = "; ".join(filter(None, (missing, f"only the first {MAX_ROWS} points are kept")))
            break
        rows.append(row)
    return Fetched(value=rows, partial=missing)


def _rows(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    result, kind = data["result"], data.get("resultType")
    if kind in ("scalar", "string"):
        yield {"value": number(result[1]) if isinstance(result, list) and len(result) == 2 else None}
        return
    for series in as_rows(result):
        labels = {("label_" + k if k in ("at", "value") else k): v for k, v in (series.get("metric") or {}).items()}
        if kind == "matrix":
            for at, value in _points(series):
                yield {**labels, "at": iso(at), "value": value}
        else:
            point = series.get("value")
            # A native histogram has no one value.
            yield {**labels, "value": number(point[1]) if isinstance(point, list) and len(point) == 2 else None}


def _points(series: dict[str, Any]) -> Iterator[tuple[float, float | None]]:
    for point in series.get("values") or ():
        if isinstance(point, list) and len(point) == 2 and (at := number(point[0])) is not None:
            yield at, number(point[1])
    for point in series.get("histograms") or ():
        if isinstance(point, list) and point and (at := number(point[0])) is not None:
            yield at, None
