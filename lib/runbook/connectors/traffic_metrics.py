"""The readings of :mod:`runbook.connectors.traffic` for a service that is known by its HTTP metrics only.

The usual names of request counters are looked for and the first that has data is taken, so that a request which an
ingress and the application both count is counted once. A label that is not there is said to be missing.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runbook.connectors.base import Failure, Unavailable
from runbook.connectors.http import Exchange, HttpConnector, Malformed, as_object, as_rows
from runbook.connectors.traffic_counts import CURVE_POINTS, MAX_VALUES, Measured, Row, iso, percent, wilson_low

COUNTERS = (
    "http_requests_total",
    "http_server_requests_seconds_count",
    "http_server_request_duration_seconds_count",
    "http_request_duration_seconds_count",
    "http_request_duration_ms_count",
    "http_request_duration_milliseconds_count",
    "http_server_duration_milliseconds_count",
    "flask_http_request_total",
    "http_requests_count",
    "nginx_ingress_controller_requests",
    "istio_requests_total",
    "envoy_http_downstream_rq_xx",
    "envoy_cluster_upstream_rq_xx",
    "traefik_service_requests_total",
    "haproxy_backend_http_responses_total",
)
"""Counters of requests, those of the application first: they have the labels that tell most."""
STATUSES = (
    "status", "code", "status_code", "statusCode", "http_status", "http_status_code", "http_response_status_code",
    "response_code", "status_class", "envoy_response_code", "envoy_response_code_class",
)  # fmt: skip
"""Labels that hold the status or its class, ``503`` or ``5xx``; where there are several the first one counts."""
SPLITS = {
    "release": ("release", "version", "app_version", "destination_version", "service_version"),
    "instance": ("pod", "kubernetes_pod_name", "instance", "host"),
    "route": ("route", "handler", "path", "uri", "http_route", "endpoint", "url", "ingress"),
    "method": ("method", "http_method", "http_request_method", "verb", "request_method"),
}
_NEVER = ("user", "client", "upstream", "upstream_status", "release_overlap")
_WEEK = 7 * 86_400

Counted = list[tuple[dict[str, str], float]]
"""Labels and value of each series."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One counter with the labels that it has."""

    name: str
    status: str
    labels: dict[str, str]
    #: The histogram's buckets, and what makes milliseconds of them; empty = there are none.
    buckets: str = ""
    milliseconds: float = 1000.0


class Metrics:
    """HTTP metrics of a Prometheus."""

    def __init__(self, prometheus: HttpConnector) -> None:
        self._prometheus = prometheus

    def measured(self, window: float, long: float | None, at: float, *, limit_seconds: float) -> Measured:
        """All rows from one family of counters.

        Raises
        ------
        Unavailable
            There is no such counter, or Prometheus does not answer.
        """
        asking = _Asking(Exchange(self._prometheus, time.monotonic() + limit_seconds), at)
        family = asking.family()
        counted = asking.vector(f"sum by ({family.status}) (increase({family.name}[{_span(window)}]))")
        row = _rate(family, counted, window, at) | {"p95_ms": asking.p95(family, window)}
        if long is None:
            return Measured(requests=row)
        curve = asking.curve(family, long)
        others = {
            "request_curve": curve,
            "splits": asking.splits(family, window, counted),
            "upstreams": None,
            "traffic_baseline": asking.baseline(family, long),
        }
        return Measured(requests=row | _peak(curve), others=others)


def _rate(family: Family, counted: Counted, window: float, at: float) -> Row:
    """The one row of ``requests``, as far as the counter tells."""
    requests = sum(value for _, value in counted)
    errors = sum(value for labels, value in counted if _is_error(labels.get(family.status)))
    refused = sum(value for labels, value in counted if _class(labels.get(family.status)) == "4")
    closed = _closed(counted, family.status)
    return {
        "window_seconds": window,
        "requests": round(requests),
        "errors": round(errors),
        "error_percent": percent(errors, requests),
        "low_percent": wilson_low(errors, requests),
        "requests_per_second": round(requests / window, 3),
        "first_at": iso(at - window),
        "last_at": iso(at),
        "client_errors": round(refused) - (closed or 0),
        "closed_by_client": closed,
        "clients": None,
        "retried": None,
        "p95_ms": None,
        "peak_percent": None,
        "peak_at": None,
        "unparsed": 0,
        "format": f"metrics: {family.name}",
        "complete": True,
    }


class _Asking:
    """The queries of one measurement, all at one time and before one deadline."""

    def __init__(self, exchange: Exchange, at: float) -> None:
        self._exchange, self._at = exchange, at

    def vector(self, promql: str) -> Counted:
        """Labels and value of each series at the time of the measurement; what is no number is left out."""
        answer = self._exchange.get("/api/v1/query", {"query": promql, "time": f"{self._at:.3f}"})
        found = []
        for series in as_rows(as_object(answer.object.get("data")).get("result")):
            value = _number(_pair(series.get("value"))[1])
            if value is not None:
                found.append(({k: str(v) for k, v in as_object(series.get("metric")).items()}, value))
        return found

    def matrix(
        self, promql: str, *, start: float, end: float, step: float
    ) -> list[tuple[dict[str, str], float, float]]:
        """Labels, time and value of each point."""
        query = {"query": promql, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        answer = self._exchange.get("/api/v1/query_range", query)
        return [
            ({k: str(v) for k, v in as_object(series.get("metric")).items()}, at, value)
            for series in as_rows(as_object(answer.object.get("data")).get("result"))
            for at, text in map(_pair, _list(series.get("values")))
            if (value := _number(text)) is not None
        ]

    def family(self) -> Family:
        """The first counter that has data, with its labels."""
        names = "|".join(COUNTERS)
        found = self._series(f'group by (__name__, {_listed()}) ({{__name__=~"{names}"}})')
        for name in COUNTERS:
            labels = found.get(name)
            status = next((label for label in STATUSES if labels and label in labels), None)
            if labels is None or status is None:
                continue
            splits = {by: label for by, known in SPLITS.items() for label in reversed(known) if label in labels}
            base = name.removesuffix("_count")
            buckets = f"{base}_bucket" if name.endswith("_count") else ""
            unit = 1.0 if "_ms" in base or "milliseconds" in base else 1000.0
            return Family(name=name, status=status, labels=splits, buckets=buckets, milliseconds=unit)
        reason = "none of the usual counters of HTTP requests with a status is there"
        raise Unavailable(Failure(state="not_configured", reason=reason))

    def _series(self, promql: str) -> dict[str, set[str]]:
        labels: dict[str, set[str]] = defaultdict(set)
        for metric, _ in self.vector(promql):
            labels[metric.get("__name__", "")].update(name for name, value in metric.items() if value)
        return labels

    def p95(self, family: Family, window: float) -> float | None:
        """From the histogram beside the counter, where there is one."""
        if not family.buckets:
            return None
        found = self.vector(f"histogram_quantile(0.95, sum by (le) (rate({family.buckets}[{_span(window)}])))")
        return round(found[0][1] * family.milliseconds, 1) if found else None

    def curve(self, family: Family, long: float) -> list[Row]:
        """Rows of ``request_curve``."""
        step = max(30, math.ceil(long / CURVE_POINTS / 30) * 30)
        points = self.matrix(
            f"sum by ({family.status}) (increase({family.name}[{_span(max(step, 60))}]))",
            start=self._at - long, end=self._at, step=step,
        )  # fmt: skip
        scale = step / max(step, 60)
        totals: dict[float, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for labels, at, value in points:
            totals[at][0] += value * scale
            totals[at][1] += value * scale * _is_error(labels.get(family.status))
        return [
            {"at": iso(at - step), "seconds": step, "requests": round(total), "errors": round(bad), "p95_ms": None,
             "clients": None}
            for at, (total, bad) in sorted(totals.items())
        ]  # fmt: skip

    def splits(self, family: Family, window: float, counted: Counted) -> list[Row]:
        """Rows of ``splits`` for the labels that there are."""
        requests = sum(value for _, value in counted)
        errors = sum(value for labels, value in counted if _is_error(labels.get(family.status)))
        rows: list[Row] = []
        for by, label in {**family.labels, "status": family.status}.items():
            keys = ", ".join(dict.fromkeys((label, family.status)))
            total: dict[str, float] = defaultdict(float)
            bad: dict[str, float] = defaultdict(float)
            for labels, value in self.vector(f"sum by ({keys}) (increase({family.name}[{_span(window)}]))"):
                name = labels.get(label, "")
                total[name] += value
                bad[name] += value * _is_error(labels.get(family.status))
            rows += _split(by, total, bad, requests, errors)
        missing = [by for by in (*SPLITS, *_NEVER) if by not in family.labels]
        return rows + [{"by": by, "value": None, "missing": True} for by in missing]

    def baseline(self, family: Family, long: float) -> list[Row]:
        """The hour before the curve begins, and the same hour a week ago."""
        rows = []
        for name, offset, span in (("before", long, long), ("last_week", _WEEK - 1800, 3600)):
            counted = self.vector(
                f"sum by ({family.status}) (increase({family.name}[{_span(span)}] offset {_span(offset)}))"
            )
            requests = sum(value for _, value in counted)
            bad = sum(value for labels, value in counted if _is_error(labels.get(family.status)))
            if requests:
                rows.append({
                    "window": name, "from_at": iso(self._at - offset - span), "to_at": iso(self._at - offset),
                    "requests": round(requests), "requests_per_second": round(requests / span, 3),
                    "error_percent": percent(bad, requests), "clients": None, "clients_per_minute": None,
                    "p95_ms": None,
                })  # fmt: skip
        return rows


def _split(by: str, total: Mapping[str, float], bad: Mapping[str, float], requests: float, errors: float) -> list[Row]:
    kept = sorted((v for v in total if v and round(total[v])), key=lambda v: (-bad[v], -total[v], v))[:MAX_VALUES]
    return [
        {
            "by": by, "value": value, "requests": round(total[value]), "errors": round(bad[value]),
            "error_percent": percent(bad[value], total[value]),
            "share_of_errors": round(bad[value] / errors, 4) if errors else None,
            "share_of_requests": round(total[value] / requests, 4) if requests else None,
            "first_at": None, "last_at": None, "first_error_at": None, "p95_ms": None,
        }
        for value in kept
    ]  # fmt: skip


def _peak(curve: Iterable[Row]) -> Row:
    large = [(percent(row["errors"], row["requests"]) or 0.0, row["at"]) for row in curve if row["requests"] >= 20]
    if not large:
        return {}
    share, at = max(large, key=lambda item: item[0])
    return {"peak_percent": share, "peak_at": at}


def _listed() -> str:
    labels = [*STATUSES, *(label for known in SPLITS.values() for label in known)]
    return ", ".join(dict.fromkeys(labels))


def _class(status: str | None) -> str:
    """First digit of ``503``, ``5xx`` or ``5``; empty for anything else."""
    return status[0] if status and status[0] in "12345" and len(status) in (1, 3) else ""


def _is_error(status: str | None) -> bool:
    return _class(status) == "5"


def _closed(counted: Counted, label: str) -> int | None:
    """Requests that the client gave up; unknown where only classes of statuses are counted."""
    statuses = {labels.get(label, "") for labels, _ in counted}
    if not all(len(status) == 3 and status.isdigit() for status in statuses):
        return None
    return round(sum(value for labels, value in counted if labels.get(label) == "499"))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed("a list was expected")
    return value


def _pair(value: Any) -> tuple[float, Any]:
    """Time and text of a sample."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], int | float):
        raise Malformed("a sample is a time and a value")
    return float(value[0]), value[1]


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _span(seconds: float) -> str:
    return f"{max(1, round(seconds))}s"
