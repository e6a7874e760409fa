"""Durations of an access log counted into rows: the p95, where its slow requests concentrate, and what was before.

Pure: requests in, rows out. Requests that are long by their nature (uploads, event streams, long polls) are counted
apart and never into the p95; a request without a duration is unknown and never fast.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from runbook.connectors.access_log import Request, seconds_of
from runbook.connectors.routes import routes
from runbook.connectors.traffic_counts import MAX_VALUES, Row, bare_host, hosts_of, iso, percent, together

LONG_BY_NATURE = "upload,uploads,download,events,sse,stream,poll,websocket,ws,socket,subscribe"
"""Words of a path whose requests last as long as somebody wants them to."""
_SWITCHED = 101
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the durations are looked at."""

    #: A request that takes so long is slow, milliseconds.
    slow_ms: float
    #: Words of a path, with commas between them, that mark requests which are long by their nature.
    exclude: str = LONG_BY_NATURE

    def is_long(self, request: Request) -> bool:
        """Whether this request is long by its nature, so that its duration says nothing."""
        if request.status == _SWITCHED or request.method == "CONNECT":
            return True
        words = frozenset(_WORD.findall(self.exclude.lower()))
        return bool(words & frozenset(_WORD.findall((request.path or "").lower())))


def quantile(durations: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of sorted durations, milliseconds; ``None`` of nothing."""
    return round(durations[max(0, math.ceil(share * len(durations)) - 1)], 1) if durations else None


def times_of(requests: Iterable[Request]) -> list[float]:
    """The durations that are known, sorted, milliseconds."""
    return sorted(r.duration_ms for r in requests if r.duration_ms is not None)


def latency(window: Sequence[Request], look: Look, *, seconds: float) -> Row:
    """The one row of ``latency``; ``seconds`` = how much time the log covers of the window."""
    counted = [r for r in window if not look.is_long(r)]
    known, every = times_of(counted), times_of(window)
    return {
        "requests": len(known),
        "excluded": len(window) - len(counted),
        "without_duration": len(counted) - len(known),
        "requests_per_second": round(len(counted) / seconds, 3) if seconds > 0 else None,
        "p50_ms": quantile(known, 0.5),
        "p95_ms": quantile(known, 0.95),
        "p99_ms": quantile(known, 0.99),
        "mean_ms": round(sum(known) / len(known), 1) if known else None,
        "total_ms": round(sum(known), 1),
        "slow": sum(ms >= look.slow_ms for ms in known),
        "slow_total_ms": round(sum(ms for ms in known if ms >= look.slow_ms), 1),
        "slow_ms": look.slow_ms,
        "p95_with_excluded_ms": quantile(every, 0.95),
        "errors": sum(r.status >= 500 for r in counted),
        "first_at": iso(min((r.at for r in window), default=None)),
        "last_at": iso(max((r.at for r in window), default=None)),
    }


def baseline(window: str, requests: Sequence[Request], look: Look, *, begin: float, end: float) -> Row | None:
    """One row of ``latency_baseline``: an earlier stretch to compare with; ``None`` when it is empty."""
    found = [r for r in requests if begin < r.at <= end]
    if not found or end - begin < 1:
        return None
    row = latency(found, look, seconds=end - begin)
    return {"window": window, "from_at": iso(begin), "to_at": iso(end), **row}


def curve(rows: Iterable[Request], look: Look, *, begin: float, end: float, points: int = 60) -> list[Row]:
    """Rows of ``latency_curve``: p95 and requests over time; a step without a request has no p95."""
    step = max(5.0, (end - begin) / points)
    buckets: dict[int, list[Request]] = defaultdict(list)
    for request in rows:
        if begin < request.at <= end and not look.is_long(request):
            buckets[int((request.at - begin) // step)].append(request)
    return [
        {"at": iso(begin + number * step), "seconds": step, "requests": len(buckets[number]),
         "p95_ms": quantile(times_of(buckets[number]), 0.95)}
        for number in sorted(buckets)
    ]  # fmt: skip


def splits(
    window: Sequence[Request], before: Sequence[Request], look: Look, known_hosts: Iterable[str] = ()
) -> list[Row]:
    """Rows of ``latency_splits``: the slow requests by each field in turn, beside how the same value was before.

    ``known_host``: the upstream host is one of the settings, hence a vendor and not an instance of ours.
    ``release_overlap`` counts the minutes alone in which two releases served.

    A field that no line has gets one row that says so.
    """
    now = [r for r in window if not look.is_long(r) and r.duration_ms is not None]
    then = [r for r in before if not look.is_long(r) and r.duration_ms is not None]
    named = routes(r.path for r in (*now, *then) if r.path is not None)
    fields: Mapping[str, Callable[[Request], tuple[str, ...]]] = {
        "route": lambda r: _one(_named(r, named)),
        "release": lambda r: _one(r.release),
        "instance": lambda r: _one(r.instance),
        "upstream": hosts_of,
        "client": lambda r: _one(r.client),
        "user": lambda r: _one(r.user),
    }
    rows = [row for by, values in fields.items() for row in _split(by, values, now, then, look)]
    at_once = _split("release_overlap", fields["release"], together(now), (), look)
    rows += [row for row in at_once if not row.get("missing")]
    known = {name.lower() for name in known_hosts}
    for row in rows:
        if row["by"] == "upstream" and row["value"] is not None:
            row["known_host"] = bare_host(row["value"]) in known
            row.update(_spans([r for r in now if row["value"] in hosts_of(r)]))
    return [*rows, *_routes_of_hosts(now, named)]


def _named(request: Request, named: Mapping[str, str]) -> str | None:
    if request.path is None:
        return None
    return f"{request.method} {named[request.path]}" if request.method else named[request.path]


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _by_value(values: Callable[[Request], tuple[str, ...]], requests: Iterable[Request]) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        for value in values(request):
            found[value].append(request)
    return found


def _split(
    by: str,
    values: Callable[[Request], tuple[str, ...]],
    now: Sequence[Request],
    before: Sequence[Request],
    look: Look,
) -> list[Row]:
    current, earlier = _by_value(values, now), _by_value(values, before)
    if not current:
        return [{"by": by, "value": None, "missing": True}]
    slow = {value: sum((r.duration_ms or 0) >= look.slow_ms for r in found) for value, found in current.items()}
    all_slow = sum((r.duration_ms or 0) >= look.slow_ms for r in now)
    kept = sorted(current, key=lambda v: (-slow[v], -len(current[v]), v))[:MAX_VALUES]
    return [
        {
            "by": by,
            "value": value,
            "values": len(current),
            "requests": len(current[value]),
            "slow": slow[value],
            "slow_percent": percent(slow[value], len(current[value])),
            "share_of_slow": round(slow[value] / all_slow, 4) if all_slow else None,
            "share_of_requests": round(len(current[value]) / len(now), 4),
            "p50_ms": quantile(known := times_of(current[value]), 0.5),
            "p95_ms": quantile(known, 0.95),
            "total_ms": round(sum(known), 1),
            "slow_total_ms": round(sum(ms for ms in known if ms >= look.slow_ms), 1),
            "others_p95_ms": quantile(times_of(r for r in now if value not in values(r)), 0.95),
            "before_requests": len(earlier.get(value, ())),
            "before_p95_ms": quantile(times_of(earlier.get(value, ())), 0.95),
        }
        for value in kept
    ]


def _spans(requests: Sequence[Request]) -> Row:
    """How long a host itself took, of the requests whose line tells; ``None`` where none does."""
    spans = sorted(1000 * s for r in requests if (s := seconds_of(r.upstream_response_time)) is not None)
    connects = sorted(1000 * s for r in requests if (s := seconds_of(r.upstream_connect_time)) is not None)
    return {
        "span_ms": round(sum(spans), 1) if spans else None,
        "span_p95_ms": quantile(spans, 0.95),
        "spans": len(spans),
        "connect_ms": round(sum(connects), 1) if connects else None,
        "connect_p95_ms": quantile(connects, 0.95),
    }


def _routes_of_hosts(now: Sequence[Request], named: Mapping[str, str]) -> list[Row]:
    """For each host that requests were passed to, the routes that do, so that its slowness can be placed."""
    found: dict[str, set[str]] = defaultdict(set)
    for request in now:
        for host in hosts_of(request):
            found[host].add(_named(request, named) or "?")
    return [
        {"by": "upstream_routes", "value": host, "routes": sorted(names)[:10]} for host, names in sorted(found.items())
    ][:MAX_VALUES]
