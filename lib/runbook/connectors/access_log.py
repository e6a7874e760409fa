"""Lines of an access log as requests: JSON, one object a line, or nginx's ``combined``; bad lines are counted, never
an error.

Query strings are dropped before anybody sees them: they are people's data. What a line does not carry is ``None``,
which is *unknown*.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from runbook.connectors.routes import without_query

MAX_LINE_BYTES = 65_536
"""A longer line is no request."""
MAX_TEXT = 200
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_COMBINED = re.compile(
    r'(?P<client>\S+) \S+ (?P<user>.*?) \[(?P<time>[^\]]{20,40})\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) '
    r"(?:\d+|-)(?:\s|\Z)"
)
_NGINX_TIME = re.compile(r"(\d{1,2})/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_NUMBER = re.compile(r"\d{1,19}(?:\.\d{1,9})?")
_EARLIEST, _LATEST = 946684800.0, 4102444800.0  # the years 2000 to 2100
_CLOSED_BY_CLIENT = 499

FIELDS = (
    "time", "status", "duration_ms", "client", "user", "method", "path", "release", "instance", "upstream",
    "upstream_status", "upstream_connect_time", "upstream_response_time", "duration_seconds",
)  # fmt: skip
"""Fields of the JSON form that are read. The last is there by its mapping only, for logs that have that unit."""


class Request(NamedTuple):
    """One request as its line tells it."""

    #: Seconds since 1970.
    at: float
    status: int
    duration_ms: float | None
    client: str | None
    user: str | None
    method: str | None
    #: As logged, without its query; :mod:`runbook.connectors.routes` makes it presentable.
    path: str | None
    release: str | None
    instance: str | None
    #: Hosts that the request was passed to, as logged: ``a, b : c`` after retries.
    upstream: str | None
    #: Their answers; ``-`` = none came, ``None`` = the line does not tell.
    upstream_status: str | None
    #: Seconds to connect; ``-`` = no connection, ``None`` = the line does not tell.
    upstream_connect_time: str | None
    #: Seconds that the upstream hosts took to answer; ``None`` = the line does not tell.
    upstream_response_time: str | None = None


@dataclass(kw_only=True)
class Parsed:
    """What a stretch of log holds."""

    requests: list[Request] = field(default_factory=list)
    #: Lines that are no request.
    unparsed: int = 0
    #: How many lines were of which format.
    formats: dict[str, int] = field(default_factory=dict)
    #: Time of the earliest request, whether it was kept or not.
    oldest: float | None = None
    #: And of the latest.
    newest: float | None = None
    #: The request of a last line that has no end yet: complete all the same, or it would be none.
    unfinished: Request | None = None

    @property
    def format(self) -> str:
        """The format of most lines; empty when no line could be read."""
        return max(self.formats, key=lambda name: self.formats[name], default="")

    def until(self, end: float) -> list[Request]:
        """The requests up to this time."""
        found = [request for request in self.requests if request.at <= end]
        return [*found, self.unfinished] if self.unfinished is not None and self.unfinished.at <= end else found

    def continued(self, after: Parsed, *, since: float) -> Parsed:
        """This stretch and the one that follows on it, as one."""
        formats = {
            name: self.formats.get(name, 0) + after.formats.get(name, 0) for name in self.formats | after.formats
        }
        return Parsed(
            requests=[request for request in (*self.requests, *after.requests) if request.at >= since],
            unparsed=self.unparsed + after.unparsed,
            formats=formats,
            oldest=min((at for at in (self.oldest, after.oldest) if at is not None), default=None),
            newest=max((at for at in (self.newest, after.newest) if at is not None), default=None),
            unfinished=after.unfinished,
        )


class Parser:
    """Turns lines into requests.

    Parameters
    ----------
    form
        ``json``, ``combined``, or empty: each line is taken for what it looks like.
    names
        Names in the JSON of fields that are called otherwise there; a dot leads into an object.
    """

    def __init__(self, form: str = "", names: Mapping[str, str] | None = None) -> None:
        self._form = form
        given = names or {}
        self._names = [given.get(name, "" if name == "duration_seconds" else name) for name in FIELDS]
        self._nested = any("." in name for name in self._names)

    def request(self, line: bytes) -> tuple[str, Request] | None:
        """Format and request of one line; ``None`` when it is none."""
        if len(line) > MAX_LINE_BYTES:
            return None
        text = line.decode("utf-8", "replace").strip()
        if self._form != "combined" and text.startswith("{"):
            made = self._from_json(text)
            return ("json", made) if made is not None else None
        if self._form != "json":
            made = _from_combined(text)
            return ("combined", made) if made is not None else None
        return None

    def time(self, line: bytes) -> float | None:
        """When the request of this line was; ``None`` when it is none."""
        found = self.request(line)
        return found[1].at if found is not None else None

    def parse(self, data: bytes, *, since: float, from_line_start: bool) -> Parsed:
        """The requests of a stretch of log that are not older than ``since``.

        The first line is dropped unless the stretch begins where a line does; the last one may still be being written.
        """
        parsed = Parsed()
        lines = data.split(b"\n")
        unfinished = lines.pop() if lines[1:] or from_line_start else b""
        for line in lines if from_line_start else lines[1:]:
            found = self.request(line)
            if found is None:
                parsed.unparsed += bool(line.strip())
                continue
            form, request = found
            parsed.formats[form] = parsed.formats.get(form, 0) + 1
            _stretch(parsed, request.at)
            if request.at >= since:
                parsed.requests.append(request)
        if (found := self.request(unfinished)) is not None:
            form, parsed.unfinished = found
            parsed.formats.setdefault(form, 0)
            _stretch(parsed, parsed.unfinished.at)
        return parsed

    def _from_json(self, text: str) -> Request | None:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict):
            return None
        if self._nested:
            values = [_within(row, name) for name in self._names]
        else:
            values = [row.get(name, _ABSENT) for name in self._names]
        time, status, duration, client, user, method, path, release, instance, *upstream, seconds = values
        at, code = moment(time), _status(status)
        if at is None or code is None:
            return None
        took = _number(duration)
        if took is None and (in_seconds := _number(seconds)) is not None:
            took = in_seconds * 1000
        target = _text(path)
        return Request(
            at,
            code,
            took,
            _text(client),
            _text(user),
            _text(method),
            without_query(target) if target is not None else None,
            _text(release),
            _text(instance),
            _text(upstream[0]),
            _dashed(upstream[1]),
            _dashed(upstream[2]),
            _dashed(upstream[3]),
        )


def _stretch(parsed: Parsed, at: float) -> None:
    if parsed.oldest is None or at < parsed.oldest:
        parsed.oldest = at
    if parsed.newest is None or at > parsed.newest:
        parsed.newest = at


def _within(row: Mapping[str, Any], name: str) -> Any:
    """The field of that name, also within objects; :data:`_ABSENT` where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


_ABSENT: Any = object()


def _from_combined(text: str) -> Request | None:
    match = _COMBINED.match(text)
    if match is None:
        return None
    at, status = _nginx_moment(match["time"]), _status(match["status"])
    if at is None or status is None:
        return None
    method, _, rest = match["request"].partition(" ")
    path = rest.rpartition(" ")[0] or rest
    known = bool(path) and method.isascii() and method.isalpha()
    user = match["user"] if match["user"] != "-" else None
    return Request(
        at,
        status,
        None,
        _text(match["client"]),
        _text(user) if user is not None else None,
        method if known else None,
        without_query(path[:MAX_TEXT]) if known else None,
        None,
        None,
        None,
        None,
        None,
    )


def moment(value: Any) -> float | None:
    """A time as logs have it, in seconds since 1970: ISO 8601 (without a zone: UTC), nginx's local time, an epoch in
    seconds or smaller units. ``None`` when it is no time between 2000 and 2100.
    """
    at: float | None
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
            at = (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            at = _epoch(float(value)) if _NUMBER.fullmatch(value) else _nginx_moment(value)
        else:
            if value.isdigit() and len(value) > 8:  # an epoch that happens to look like a date
                at = _epoch(float(value))
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e20:
        at = _epoch(float(value))
    else:
        return None
    return at if at is not None and _EARLIEST <= at <= _LATEST else None


def _epoch(value: float) -> float:
    """Seconds, whatever the unit: until the year 2100 the units do not overlap."""
    for unit in (1.0, 1e3, 1e6):
        if value / unit <= _LATEST:
            return value / unit
    return value / 1e9


@lru_cache(maxsize=4096)
def _nginx_moment(text: str) -> float | None:
    match = _NGINX_TIME.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        return None
    day, _, year, hour, minute, second, sign, zone_hours, zone_minutes = match.groups()
    try:
        at = datetime(
            int(year), _MONTHS.index(match[2]) + 1, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC
        )
    except ValueError:
        return None
    offset = (int(zone_hours) * 60 + int(zone_minutes)) * 60
    return at.timestamp() - (offset if sign == "+" else -offset)


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if value == 0:  # what Envoy writes where nginx writes 499: the client had gone
        return _CLOSED_BY_CLIENT
    return value if 100 <= value <= 599 else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return None
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 1e12 and math.isfinite(value) else None


def _text(value: Any) -> str | None:
    """A text that says something; lists are joined as nginx does it."""
    if isinstance(value, str):
        return value[:MAX_TEXT] if value not in ("", "-") else None
    if isinstance(value, bool) or value is None or value is _ABSENT:
        return None
    if isinstance(value, int | float):
        return str(value)[:MAX_TEXT]
    if isinstance(value, list):
        return ", ".join(_text(item) or "-" for item in value[:20])[:MAX_TEXT] or None
    return None


def _dashed(value: Any) -> str | None:
    """The same where nothing says something too: ``-``."""
    return None if value is _ABSENT else _text(value) or "-"


# -- upstreams --------------------------------------------------------------------------------------------------------

_ATTEMPTS = re.compile(r"\s*,\s*|\s+:\s+")


class Attempt(NamedTuple):
    """One try at one upstream host; ``-`` where nothing came, ``None`` where the log does not tell."""

    host: str
    status: str | None
    connect_time: str | None


@lru_cache(maxsize=16_384)
def attempts(upstream: str | None, status: str | None, connect_time: str | None) -> tuple[Attempt, ...]:
    """The tries at upstream hosts, in their order, out of nginx's joined values ``a, b : c``."""
    if upstream is None:
        return ()
    hosts = _ATTEMPTS.split(upstream)
    statuses, times = _beside(hosts, status), _beside(hosts, connect_time)
    return tuple(Attempt(*tried) for tried in zip(hosts, statuses, times, strict=True) if tried[0] not in ("", "-"))


def seconds_of(joined: str | None) -> float | None:
    """The seconds of all tries together, out of nginx's joined values ``0.004, 0.310``; ``None`` when none is told."""
    known = [float(part) for part in _ATTEMPTS.split(joined or "") if _NUMBER.fullmatch(part)]
    return sum(known) if known else None


def _beside(hosts: list[str], joined: str | None) -> list[str | None]:
    """One value for each host; a single value belongs to the last try."""
    if joined is None:
        return [None] * len(hosts)
    values: list[str | None] = [value or "-" for value in _ATTEMPTS.split(joined)]
    return [*["-"] * (len(hosts) - len(values)), *values][-len(hosts) :]
