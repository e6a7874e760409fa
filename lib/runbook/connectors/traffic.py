"""What users got: requests and errors as the access log, or else Prometheus, counted them.

One look at the log gives every reading, so that they speak of the same requests: rate, curve, splits, upstream hosts
and what is usual. What cannot be read is unknown, and a log that nobody writes to any more is *stale*: no requests
in it is not the same as no requests.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from runbook.connectors import latency_counts as durations
from runbook.connectors import traffic_counts as counts
from runbook.connectors.access_log import Parsed, Parser, Request
from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.connectors.http import HttpConnector, connection_error
from runbook.connectors.log_file import Log
from runbook.connectors.ssh import remote_file
from runbook.connectors.traffic_counts import Measured, Row
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.settings import Traffic as Section

LIMIT_SECONDS = 12.0
CURVE_MINUTES = 60.0
NEAR_SECONDS = 60.0
"""The newest line is the window's end when it is so near to the time asked for: logs are written with a delay."""
AHEAD_SECONDS = 300.0
"""Lines of a clock that is ahead of ours by no more than this are taken as they are; later ones are left out."""
STALE_SECONDS = 900.0
"""A log whose newest line is older than this, and than the window, says nothing of now."""
LATENCY_READINGS = ("latency_splits", "latency_baseline", "latency_curve")
READINGS = ("request_curve", "splits", "upstreams", "traffic_baseline")
_WEEK = 7 * 86_400.0
_HALF_HOUR = 1800.0
_READABLE_SHARE = 0.5


class Traffic(Connector):
    """Requests of the service.

    Parameters
    ----------
    prometheus
        Asked when no access log is configured.
    """

    source = "traffic"
    failures = HttpConnector.failures

    def __init__(self, context: Context, section: Section, prometheus: HttpConnector | None = None) -> None:
        self._section = section
        self._prometheus = prometheus
        self._known_hosts = [entry.partition("=")[0] for entry in section.upstream_hosts]
        host, path = remote_file(section.access_log) or ("", section.access_log)
        self._log = Log(path, host, Parser(section.format, section.fields))
        metrics = prometheus.target if prometheus is not None else ""
        super().__init__(context, section.access_log or metrics or "access log")

    def measure(
        self, window_seconds: float, at: datetime | None = None, *, curve_minutes: float = CURVE_MINUTES
    ) -> Reading:
        """Read the log once and record ``requests`` and :data:`READINGS`.

        Parameters
        ----------
        window_seconds
            What the rate, the splits and the upstreams are counted over.
        at
            End of the window; now when not given.
        curve_minutes
            What the curve, and the peak in ``requests``, are counted over.

        Returns
        -------
        Reading
            ``requests``; the others are recorded beside it.
        """
        long_seconds = max(window_seconds, curve_minutes * 60)
        reading, measured = self._asked(window_seconds, long_seconds, at)
        for name in READINGS:
            self._beside(replace(reading, name=name, value=None, duration_ms=0.0), measured)
        return reading

    def rate(self, window_seconds: float, at: datetime | None = None) -> Reading:
        """Record ``requests`` alone: one sample of the symptom, which costs little."""
        return self._asked(window_seconds, None, at)[0]

    def latency(
        self,
        window_seconds: float,
        at: datetime | None = None,
        *,
        look: durations.Look,
        curve_minutes: float = 0.0,
    ) -> Reading:
        """Record ``latency``: how long requests took; with ``curve_minutes`` also :data:`LATENCY_READINGS`.

        Metrics tell the p95 alone and nothing of uploads in it, so that reading is partial.
        """
        now = self.context.now().timestamp()
        anchor = min(at.timestamp(), now) if at is not None else now
        long = max(window_seconds, curve_minutes * 60) if curve_minutes else 0.0
        query = f"durations of the last {window_seconds:g} s, without {look.exclude or 'nothing'}"
        box: dict[str, list[Row]] = {}
        if not self._section.access_log:
            return self._latency_of_metrics(window_seconds, at, query, look)

        def fetch() -> Fetched:
            row, others, lacking = self._durations(window_seconds, long, anchor, now, look)
            box.update(others)
            return Fetched(value=row, partial=lacking)

        reading = self.read("latency", query, fetch, limit_seconds=LIMIT_SECONDS)
        for name in LATENCY_READINGS if long else ():
            self.keep(replace(reading, name=name, value=box.get(name) if reading.known else None, duration_ms=0.0))
        return reading

    def _latency_of_metrics(self, window: float, at: datetime | None, query: str, look: durations.Look) -> Reading:
        reading = replace(self.rate(window, at), name="latency", query=query)
        lacks = "metrics do not tell it; set traffic.access_log"
        if reading.known:
            row = reading.rows[0]
            kept = {key: row.get(key) for key in ("requests", "requests_per_second", "p95_ms", "errors")}
            reading = replace(reading, state="partial", value={**kept, "slow_ms": look.slow_ms}, reason=lacks)
        for name in LATENCY_READINGS:
            self.keep(replace(reading, name=name, state="not_configured", value=None, reason=reading.reason or lacks))
        self.keep(reading)
        return reading

    def _durations(
        self, window: float, long: float, anchor: float, now: float, look: durations.Look
    ) -> tuple[Row, dict[str, list[Row]], str]:
        stretch = self._log.since(anchor - (2 * long or window) - NEAR_SECONDS, limit_seconds=LIMIT_SECONDS - 2)
        parsed = stretch.parsed
        _refuse_unreadable(parsed, empty=stretch.empty)
        end = _end(parsed, anchor, now)
        covered = float("-inf") if stretch.reaches_back else parsed.oldest if parsed.oldest is not None else end
        past = parsed.until(end)
        inside = [r for r in past if r.at > end - window]
        _refuse_stale(parsed, inside, end, now, window)
        complete = covered <= end - window
        row = {"window_seconds": window, **durations.latency(inside, look, seconds=min(window, end - covered)),
               "complete": complete}  # fmt: skip
        lacking = _lacking(parsed, complete=complete, covered=covered)
        if row["without_duration"] and not row["requests"]:
            lacking = "; ".join(filter(None, ("no line carries a duration (traffic.fields.duration_ms)", lacking)))
        if not long:
            return row, {}, lacking
        begin, until = _before(end, window, long, max(covered, parsed.oldest or covered))
        before = [r for r in past if begin < r.at <= until]
        rows = [durations.baseline("before", before, look, begin=begin, end=until)]
        week = self._week_ago(end - _WEEK, window)
        rows += [durations.baseline("last_week", week[0], look, begin=week[1], end=week[2])] if week else []
        others: dict[str, list[Row]] = {
            "latency_splits": durations.splits(inside, before, look, self._known_hosts),
            "latency_baseline": [found for found in rows if found is not None],
            "latency_curve": durations.curve(past, look, begin=max(end - long, covered), end=end),
        }
        return row, others, lacking

    def _beside(self, reading: Reading, measured: Measured | None) -> None:
        rows = measured.others[reading.name] if measured is not None else None
        if measured is not None and rows is None:
            reading = replace(reading, state="not_configured", reason="metrics do not tell it; set traffic.access_log")
        self.keep(replace(reading, value=rows))

    def failure(self, error: Exception) -> Failure:
        if isinstance(error, TimeoutError):
            return Failure(state="timeout", reason="no answer in time")
        if self._prometheus is not None:
            return self._prometheus.failure(error)
        code, reason = connection_error(error)
        return Failure(state="unreachable", reason=reason, code=code)

    def _asked(self, window: float, long: float | None, at: datetime | None) -> tuple[Reading, Measured | None]:
        """The reading ``requests`` and, where there is one, what it was taken from; without ``long`` that alone."""
        now = self.context.now().timestamp()
        anchor = min(at.timestamp(), now) if at is not None else now
        span = f"the last {window:g} s" + (f", curve of {long / 60:g} min" if long else "")
        if self._section.access_log:
            query = f"{self._section.access_log}: {span}"
            take = partial(self._from_log, window, long, anchor, now)
        elif self._prometheus is not None:
            from runbook.connectors.traffic_metrics import Metrics

            query = f"HTTP metrics: {span}"
            metrics = Metrics(self._prometheus)
            take = partial(metrics.measured, window, long, anchor, limit_seconds=LIMIT_SECONDS - 1)
        else:
            reason = "traffic.access_log is not set, nor is prometheus.url"
            return self.missing("requests", span, Failure(state="not_configured", reason=reason)), None
        box: list[Measured] = []

        def fetch() -> Fetched:
            box.append(take())
            return Fetched(value=box[0].requests, partial=box[0].partial)

        reading = self.read("requests", query, fetch, limit_seconds=LIMIT_SECONDS)
        return reading, box[0] if reading.known else None

    # -- the access log -----------------------------------------------------------------------------------------------

    def _from_log(self, window: float, long: float | None, anchor: float, now: float) -> Measured:
        begun = time.monotonic()
        # What was usual before is read with it: as long a time again before the curve begins.
        since = anchor - (2 * long if long else window) - NEAR_SECONDS
        stretch = self._log.since(since, limit_seconds=LIMIT_SECONDS - 2)
        parsed = stretch.parsed
        _refuse_unreadable(parsed, empty=stretch.empty)
        end = _end(parsed, anchor, now)
        covered = float("-inf") if stretch.reaches_back else parsed.oldest if parsed.oldest is not None else end
        past = parsed.until(end)
        inside = [r for r in past if r.at > end - window]
        _refuse_stale(parsed, inside, end, now, window)
        complete = covered <= end - window
        row = {
            "window_seconds": window,
            **counts.rate(inside, seconds=min(window, end - covered)),
            **counts.peak(r for r in past if r.at > end - (long or window)),
            "unparsed": parsed.unparsed,
            "format": parsed.format,
            "complete": complete,
        }
        others: dict[str, list[Row] | None] = {}
        if long is not None:
            left = LIMIT_SECONDS - 2 - (time.monotonic() - begun)
            others = {
                "request_curve": counts.curve(
                    (r for r in past if r.at > end - long), begin=end - long, end=end, covered_from=covered
                ),
                "splits": counts.splits(inside),
                "upstreams": counts.upstreams(inside, self._known_hosts),
                "traffic_baseline": self._baseline(past, end, window, long, covered, quick=left < 2),
            }
        return Measured(requests=row, others=others, partial=_lacking(parsed, complete=complete, covered=covered))

    def _baseline(
        self, past: list[Request], end: float, window: float, long: float, covered: float, *, quick: bool
    ) -> list[Row]:
        """What is usual: before the curve begins, or as much of its begin as the log has; and a week ago."""
        begin, until = _before(end, window, long, covered)
        before = counts.baseline("before", past, begin=begin, end=until) if until - begin >= window else None
        week = None if quick else self._last_week(end - _WEEK, window)
        return [row for row in (before, week) if row is not None]

    def _last_week(self, middle: float, window: float) -> Row | None:
        week = self._week_ago(middle, window)
        return counts.baseline("last_week", week[0], begin=week[1], end=week[2]) if week else None

    def _week_ago(self, middle: float, window: float) -> tuple[list[Request], float, float] | None:
        """Requests around that time of last week, and the stretch that the log has of it."""
        half = max(_HALF_HOUR, window / 2)
        old = self._log.around(middle - half)
        if old is None:
            return None
        requests = old.parsed.until(middle + half)
        begin = middle - half if old.reaches_back else max(middle - half, old.parsed.oldest or middle)
        end = min(middle + half, old.parsed.newest or middle) if old.cut else middle + half
        return requests, begin, end


def _before(end: float, window: float, long: float, covered: float) -> tuple[float, float]:
    """The stretch that tells what was usual: before the curve, or as much of the curve's begin as the log has."""
    begin, until = max(covered, end - 2 * long), end - long
    return (begin, until) if until - begin >= window else (max(covered, end - long), end - 3 * window)


def _end(parsed: Parsed, anchor: float, now: float) -> float:
    """End of the window: the newest line, when that is near to the time asked for and this is near to now."""
    newest = max((r.at for r in parsed.until(now + AHEAD_SECONDS)), default=None)
    if newest is None or anchor < now - NEAR_SECONDS:
        return anchor
    return newest if newest >= anchor - NEAR_SECONDS else anchor


def _refuse_unreadable(parsed: Parsed, *, empty: bool) -> None:
    if empty:
        raise Unavailable(Failure(state="stale", reason="the access log is empty", code="EMPTY"))
    if not parsed.formats:
        reason = f"none of {parsed.unparsed:,} lines is a request as JSON (time, status) or as nginx's combined"
        raise Unavailable(Failure(state="partial", reason=reason, code="FORMAT"))


def _refuse_stale(parsed: Parsed, inside: list[Request], end: float, now: float, window: float) -> None:
    """No line within the window, and none for long: whether there was no request or no log is not known."""
    if inside:
        return
    oldest, newest = parsed.oldest or 0.0, parsed.newest or 0.0
    if oldest > now + AHEAD_SECONDS:
        reason = f"its lines are from {counts.iso(oldest)}: the clock of its host is ahead of ours"
        raise Unavailable(Failure(state="stale", reason=reason, code="CLOCK"))
    if oldest > end:
        raise Unavailable(Failure(state="stale", reason=f"it begins at {counts.iso(oldest)} only", code="YOUNG"))
    if newest < end - max(window, STALE_SECONDS):
        reason = f"no line between {counts.iso(newest)} and {counts.iso(end)}"
        raise Unavailable(Failure(state="stale", reason=reason, code="OLD"))


def _lacking(parsed: Parsed, *, complete: bool, covered: float) -> str:
    readable = sum(parsed.formats.values())
    lacks = []
    if parsed.unparsed and readable / (readable + parsed.unparsed) < _READABLE_SHARE:
        lacks.append(f"{parsed.unparsed:,} of {readable + parsed.unparsed:,} lines are no request")
    if not complete:
        lacks.append(f"the log reaches back to {counts.iso(covered)} only")
    return "; ".join(lacks)
