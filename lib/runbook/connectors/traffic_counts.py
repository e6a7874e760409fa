"""Requests of an access log counted into the rows of a report: rate, curve, splits, upstreams, baseline.

Pure: requests in, rows out. What the log does not carry is ``None`` or said to be missing; it is never counted as 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runbook.connectors.access_log import Request, attempts
from runbook.connectors.routes import routes

Row = dict[str, Any]

MAX_VALUES = 20
"""Values of one split that are kept: those with most errors, then those with most requests."""
PEAK_REQUESTS = 20
"""A minute with fewer requests makes no peak."""
CURVE_POINTS = 120
_STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_NO_ANSWER = "-"
_ERRORS = ("error", "timeout", "refused", "silent")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The rows of all readings of one look at the traffic, and what is missing from them."""

    #: The one row of ``requests``.
    requests: Row
    #: Rows of the others by reading name; ``None`` = the source does not tell.
    others: Mapping[str, list[Row] | None] = field(default_factory=dict)
    partial: str = ""


def iso(at: float | None) -> str | None:
    """A time as readings have it: ISO 8601, UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def percent(part: float, whole: float) -> float | None:
    """``part`` of ``whole`` in percent; ``None`` of nothing."""
    return round(100 * part / whole, 2) if whole else None


def wilson_low(errors: float, requests: float) -> float | None:
    """Lower bound, in percent, of the 95 % confidence interval of a share (Wilson 1927)."""
    if requests <= 0:
        return None
    z = 1.96
    share = min(1.0, errors / requests)
    middle = share + z * z / (2 * requests)
    spread = z * math.sqrt((share * (1 - share) + z * z / (4 * requests)) / requests)
    return round(100 * max(0.0, (middle - spread) / (1 + z * z / requests)), 2)


def p95(requests: Iterable[Request]) -> float | None:
    """95th percentile of the durations that are known, nearest rank, in milliseconds."""
    known = sorted(r.duration_ms for r in requests if r.duration_ms is not None)
    return round(known[max(0, math.ceil(0.95 * len(known)) - 1)], 1) if known else None


def failing(request: Request) -> bool:
    """Whether we answered with an error of ours (5xx)."""
    return request.status >= 500


def rate(window: Sequence[Request], *, seconds: float) -> Row:
    """The one row of ``requests``; ``seconds`` = how much time the log covers of the window."""
    errors = sum(map(failing, window))
    closed = sum(r.status == 499 for r in window)
    logged = any(r.upstream is not None for r in window)
    return {
        "requests": len(window),
        "errors": errors,
        "error_percent": percent(errors, len(window)),
        "low_percent": wilson_low(errors, len(window)),
        "requests_per_second": round(len(window) / seconds, 3) if seconds > 0 else None,
        "first_at": iso(min((r.at for r in window), default=None)),
        "last_at": iso(max((r.at for r in window), default=None)),
        "client_errors": sum(400 <= r.status < 500 for r in window) - closed,
        "closed_by_client": closed,
        "clients": _clients(window),
        "retried": sum(len(_attempts(r)) > 1 for r in window) if logged else None,
        "p95_ms": p95(window),
    }


def peak(requests: Iterable[Request]) -> Row:
    """The worst minute by share of errors."""
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for request in requests:
        minute = counts[int(request.at // 60)]
        minute[0] += 1
        minute[1] += failing(request)
    large = [(bad / total, -number) for number, (total, bad) in counts.items() if total >= PEAK_REQUESTS]
    if not large:
        return {"peak_percent": None, "peak_at": None}
    share, number = max(large)
    return {"peak_percent": round(100 * share, 2), "peak_at": iso(-number * 60.0)}


def curve(requests: Iterable[Request], *, begin: float, end: float, covered_from: float) -> list[Row]:
    """Rows of ``request_curve``; a step without a request has 0, one that the log does not reach has no row.

    ``seconds`` is how much of its step a row covers: the first and the last are cut short by the window.
    """
    step = next((s for s in _STEPS if (end - begin) / s <= CURVE_POINTS), _STEPS[-1])
    buckets: dict[int, list[Request]] = defaultdict(list)
    for request in requests:
        buckets[math.ceil(request.at / step) - 1].append(request)  # the window is open at its begin, so are steps
    first = max(int(begin // step), int(covered_from // step) if covered_from > begin else 0)
    rows: list[Row] = []
    for number in range(first, math.ceil(end / step)):
        found = buckets.get(number, [])
        seconds = min((number + 1) * step, end) - max(number * step, begin, covered_from)
        if seconds <= 0:
            continue
        rows.append(
            {
                "at": iso(float(number * step)),
                "seconds": round(seconds, 3),
                "requests": len(found),
                "errors": sum(map(failing, found)),
                "p95_ms": p95(found),
                "clients": _clients(found),
            }
        )
    return rows


def _clients(requests: Iterable[Request]) -> int | None:
    """Distinct clients; unknown when requests there are name none."""
    named, some = set(), False
    for request in requests:
        some = True
        if request.client is not None:
            named.add(request.client)
    return len(named) if named or not some else None


# -- splits -----------------------------------------------------------------------------------------------------------


def hosts_of(request: Request) -> tuple[str, ...]:
    """Hosts that a request was passed to, each once."""
    return tuple(dict.fromkeys(attempt.host for attempt in _attempts(request)))


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


_SPLITS: dict[str, Callable[[Request], tuple[str, ...]]] = {
    "release": lambda r: _one(r.release),
    "instance": lambda r: _one(r.instance),
    "status": lambda r: (str(r.status),),
    "method": lambda r: _one(r.method),
    "upstream": hosts_of,
    "client": lambda r: _one(r.client),
    "user": lambda r: _one(r.user),
    "upstream_status": lambda r: _one(tries[-1].status if (tries := _attempts(r)) else None),
}


def splits(window: Sequence[Request]) -> list[Row]:
    """Rows of ``splits``: the same requests by each field in turn.

    A request that went to two upstream hosts counts for both. A field that no line has gets one row that says so.
    """
    errors = sum(map(failing, window))
    named = routes(r.path for r in window if r.path is not None)
    fields = {**_SPLITS, "route": lambda r: _one(None if r.path is None else named[r.path])}
    rows = [row for by, values in fields.items() for row in _split(by, values, window, errors)]
    overlap = together(window)
    if any(row["by"] == "release" and row.get("missing") for row in rows):
        return [*rows, {"by": "release_overlap", "value": None, "missing": True}]
    at_once = _split("release_overlap", lambda r: _one(r.release), overlap, sum(map(failing, overlap)))
    return [*rows, *(row for row in at_once if not row.get("missing"))]


def _split(
    by: str, values: Callable[[Request], tuple[str, ...]], window: Sequence[Request], all_errors: int
) -> list[Row]:
    total: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for request in window:
        for value in values(request):
            total[value] += 1
            if request.status >= 500:
                bad[value] += 1
    if not total:
        return [{"by": by, "value": None, "missing": True}]
    kept = sorted(total, key=lambda value: (-bad[value], -total[value], value))[:MAX_VALUES]
    found: dict[str, list[Request]] = {value: [] for value in kept}
    for request in window:
        for value in values(request):
            if value in found:
                found[value].append(request)
    return [
        {
            "by": by,
            "value": value,
            "requests": total[value],
            "errors": bad[value],
            "error_percent": percent(bad[value], total[value]),
            "share_of_errors": round(bad[value] / all_errors, 4) if all_errors else None,
            "share_of_requests": round(total[value] / len(window), 4),
            "first_at": iso(min(r.at for r in found[value])),
            "last_at": iso(max(r.at for r in found[value])),
            "first_error_at": iso(min((r.at for r in found[value] if failing(r)), default=None)),
            "p95_ms": p95(found[value]),
        }
        for value in kept
    ]


def together(window: Sequence[Request]) -> list[Request]:
    """Requests of the minutes in which two releases or more served at the same time.

    In the minute of a switch both served, one after the other: such a minute compares times as well as releases, so
    a release counts only when its stretch of the minute overlaps with another's.
    """
    minutes: dict[int, dict[str, list[Request]]] = defaultdict(lambda: defaultdict(list))
    for request in window:
        if request.release is not None:
            minutes[int(request.at // 60)][request.release].append(request)
    kept: list[Request] = []
    for releases in minutes.values():
        if len(releases) < 2:
            continue
        spans = {release: (min(r.at for r in found), max(r.at for r in found)) for release, found in releases.items()}
        for release, (first, last) in spans.items():
            if any(first <= end and start <= last for other, (start, end) in spans.items() if other != release):
                kept += releases[release]
    return kept


# -- upstreams --------------------------------------------------------------------------------------------------------


def _attempts(request: Request) -> tuple[Any, ...]:
    return attempts(request.upstream, request.upstream_status, request.upstream_connect_time)


def upstreams(window: Sequence[Request], known_hosts: Iterable[str]) -> list[Row]:
    """Rows of ``upstreams``: what each host that requests were passed to answered, the worst first.

    A request counts once for a host, by its last try there. ``failing`` are our 5xx that touched it, ``failing_with_…``
    those of them to which it gave that answer. ``None`` where the log has no such field at all.
    """
    known = {name.lower() for name in known_hosts}
    tells_status = any(r.upstream is not None and r.upstream_status is not None for r in window)
    tells_connect = any(r.upstream is not None and r.upstream_connect_time is not None for r in window)
    by_host: dict[str, list[tuple[Request, str]]] = defaultdict(list)
    for request in window:
        last = {attempt.host: attempt for attempt in _attempts(request)}
        for host, attempt in last.items():
            by_host[host].append((request, _outcome(request, attempt)))
    all_failing = sum(map(failing, window))
    rows = []
    for host, calls in by_host.items():
        counts = Counter(outcome for _, outcome in calls)
        within = Counter(outcome for request, outcome in calls if failing(request))
        errors = sum(counts[kind] for kind in _ERRORS)
        row: Row = {
            "host": host,
            "requests": len(calls),
            "failing": within.total(),
            "failing_with_error": sum(within[kind] for kind in _ERRORS) if tells_status else None,
            "failing_with_auth": within["auth"] if tells_status else None,
            "failing_with_throttled": within["throttled"] if tells_status else None,
            "upstream_errors": errors if tells_status else None,
            "auth": counts["auth"] if tells_status else None,
            "throttled": counts["throttled"] if tells_status else None,
            "refused": counts["refused"] if tells_status and tells_connect else None,
            "timeouts": counts["timeout"] if tells_status else None,
            "upstream_error_percent": percent(errors, len(calls)) if tells_status else None,
            "share_of_failing": round(within.total() / all_failing, 4) if all_failing else None,
            "known_host": bare_host(host) in known,
        }
        rows.append(row)
    return sorted(rows, key=lambda r: (-r["failing"], -(r["upstream_errors"] or 0), -r["requests"], r["host"]))[
        :MAX_VALUES
    ]


def _outcome(request: Request, attempt: Any) -> str:
    """What a try came to: ``error`` (5xx), ``timeout``, ``refused``, ``silent``, ``auth``, ``throttled``, ``answered``.

    nginx, observed: 502 without a connect time = refused, 504 without one = nobody took the connection, 504 with
    one = it hung.
    """
    status = attempt.status or _NO_ANSWER
    if status.isascii() and status.isdigit():
        code = int(status)
        if code in (401, 403):
            return "auth"
        if code == 429:
            return "throttled"
        return "timeout" if code == 504 else "error" if code >= 500 else "answered"
    if request.status == 504 or "time" in status.lower():  # ETIMEDOUT, timeout, Timeout
        return "timeout"
    return "refused" if (attempt.connect_time or _NO_ANSWER) == _NO_ANSWER else "silent"


def bare_host(host: str) -> str:
    """A host in small letters without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name.strip("[]") if colon and port.isdigit() else host.lower().strip("[]")


# -- baseline ---------------------------------------------------------------------------------------------------------


def baseline(window: str, requests: Sequence[Request], *, begin: float, end: float) -> Row | None:
    """One row of ``traffic_baseline``: an earlier stretch of time to compare with; ``None`` when it is empty."""
    found = [r for r in requests if begin < r.at <= end]
    if not found or end - begin < 1:
        return None
    minutes: dict[int, list[Request]] = defaultdict(list)
    for request in found:
        minutes[int(request.at // 60)].append(request)
    clients = [count for part in minutes.values() if (count := _clients(part)) is not None]
    return {
        "window": window,
        "from_at": iso(begin),
        "to_at": iso(end),
        "requests": len(found),
        "requests_per_second": round(len(found) / (end - begin), 3),
        "error_percent": percent(sum(map(failing, found)), len(found)),
        "clients": _clients(found),
        "clients_per_minute": round(sum(clients) / len(clients), 1) if clients else None,
        "p95_ms": p95(found),
    }
