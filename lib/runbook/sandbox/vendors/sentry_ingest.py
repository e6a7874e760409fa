"""What Sentry's SDKs send: single events and envelopes, compressed or not. Only errors are kept."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request

from runbook.sandbox.vendors.base import now
from runbook.sandbox.vendors.sentry_facts import Issue
from runbook.sandbox.vendors.sentry_queries import Window

Reader = Callable[[bytes], list[dict[str, Any]]]

_KEY = re.compile(r"\bsentry_key=(\w+)")


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One error that an application reported."""

    at: datetime
    accepted: bool
    title: str
    culprit: str
    level: str
    release: str | None
    environment: str
    transaction: str
    exception_type: str
    exception_value: str
    #: ``file:line in function``, innermost first.
    frames: tuple[str, ...]
    user: str

    @classmethod
    def of(cls, event: Mapping[str, Any], at: datetime, *, accepted: bool) -> Reported:
        """What an SDK's event says; ``at`` is when it came in."""
        values = (event.get("exception") or {}).get("values") or [{}]
        thrown = values[-1]
        kind, value = str(thrown.get("type") or ""), str(thrown.get("value") or "")
        message = event.get("message") or (event.get("logentry") or {}).get("formatted") or ""
        frames = tuple(map(_frame, reversed((thrown.get("stacktrace") or {}).get("frames") or [])))
        transaction = str(event.get("transaction") or "")
        return cls(
            at=at,
            accepted=accepted,
            title=f"{kind}: {value}" if kind else str(message) or "<unlabeled event>",
            culprit=transaction or (frames[0] if frames else ""),
            level=str(event.get("level") or "error"),
            release=event.get("release"),
            environment=str(event.get("environment") or "production"),
            transaction=transaction,
            exception_type=kind,
            exception_value=value,
            frames=frames,
            user=str((event.get("user") or {}).get("id") or ""),
        )

    def described(self) -> dict[str, Any]:
        """What an issue made of it says."""
        return {
            "title": self.title,
            "culprit": self.culprit,
            "level": self.level if self.level in ("debug", "info", "warning", "error", "fatal") else "error",
            "release": self.release or "",
            "environment": self.environment,
            "transaction": self.transaction,
            "exception_type": self.exception_type,
            "exception_value": self.exception_value,
            "frames": list(self.frames),
        }


def issues_of(reported: Iterable[Reported], window: Window | None) -> list[Issue]:
    """Reported errors as issues, by title and culprit, counted over the window; ``None`` = over all time."""
    groups: dict[tuple[str, str], list[Reported]] = {}
    for one in reported:
        if one.accepted:
            groups.setdefault((one.title, one.culprit), []).append(one)
    found = []
    for events in groups.values():
        inside = [one for one in events if window is None or window.holds(one.at)]
        if not inside:
            continue
        last = inside[-1]
        found.append(
            Issue(
                **last.described(),
                count=len(inside),
                users=len({one.user for one in inside if one.user}),
                substatus="new" if now() - events[0].at < timedelta(days=1) else "ongoing",
                first_seen=events[0].at,
                last_seen=last.at,
                first_release=events[0].release,
            )
        )
    return found


def public_key(request: Request) -> str:
    """The project's key as SDKs send it: in a header of their own, or in the query."""
    found = _KEY.search(request.headers.get("x-sentry-auth", ""))
    return found[1] if found else request.query_params.get("sentry_key", "")


def plain(body: bytes, encoding: str) -> bytes:
    """The body without its compression.

    Raises
    ------
    ValueError
        It is not compressed as it says.
    """
    try:
        if encoding == "gzip":
            return gzip.decompress(body)
        return zlib.decompress(body) if encoding == "deflate" else body
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None


def single(body: bytes) -> list[dict[str, Any]]:
    """The one event of a ``store`` request. Raises ValueError when it is no JSON object."""
    return [_object(body)]


def events_of_envelope(body: bytes) -> list[dict[str, Any]]:
    """The error events among an envelope's items. Raises ValueError when it is malformed."""
    events = []
    header_end = body.find(b"\n")
    rest = body[header_end + 1 :] if header_end >= 0 else b""
    _object(body[:header_end] if header_end >= 0 else body)
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = _object(line)
        length = header.get("length")
        if isinstance(length, int):
            payload, rest = rest[:length], rest[length:].removeprefix(b"\n")
        else:
            payload, _, rest = rest.partition(b"\n")
        if header.get("type") == "event":
            events.append(_object(payload))
    return events


def _object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _frame(frame: Mapping[str, Any]) -> str:
    file = frame.get("filename") or frame.get("module") or "?"
    line = f":{frame['lineno']}" if frame.get("lineno") else ""
    function = f" in {frame['function']}" if frame.get("function") else ""
    return f"{file}{line}{function}"
