"""An alert as every source tells it, whatever its own format: a value object, and text made safe to keep.

Everything in an alert is data from outside. It is never executed and never becomes part of a query, a command, a
path or markup.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from runbook.errors import RunbookError

Status = Literal["firing", "resolved"]

_UNKEEPABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN_CHARACTERS = 4096
_FINGERPRINT_CHARACTERS = 128
_EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
_EPOCH_MILLISECONDS = 1e11
"""A number beyond this is not seconds since 1970 but milliseconds."""


class MalformedAlert(RunbookError):
    """A body that is none of what its source sends; says what is wrong without repeating it."""


class UnreadableBody(MalformedAlert):
    """A body that is not even JSON."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert, as told by its source."""

    source: str
    name: str
    status: Status
    #: What identifies the alert across messages.
    fingerprint: str
    #: ``None`` when the source does not tell, or tells what is no time.
    starts_at: datetime | None
    severity: str = ""
    service: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: The message itself, as JSON.
    raw: Mapping[str, Any] = field(default_factory=dict)
    #: What was odd about it, for the reader of the report.
    notes: Sequence[str] = ()


def keepable(value: Any) -> Any:
    """A JSON value that PostgreSQL and every terminal can take.

    Control characters and lone surrogates become U+FFFD, numbers that are none become ``null``.
    """
    if isinstance(value, str):
        return _UNKEEPABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {keepable(str(key)): keepable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [keepable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Labels or annotations as texts: numbers and the like written out, very long ones cut."""
    return {name[:256]: _cut(value if isinstance(value, str) else json.dumps(value)) for name, value in values.items()}


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def identity(*parts: Any) -> str:
    """A fingerprint for a source that gives none: the same parts give the same one."""
    written = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return "sha256:" + hashlib.sha256(written.encode()).hexdigest()[:32]


def fingerprint(given: str, *parts: Any) -> str:
    """The source's own fingerprint when it is one, else :func:`identity` of the parts."""
    return given if 0 < len(given) <= _FINGERPRINT_CHARACTERS else identity(given, *parts)


def moment(value: Any) -> datetime | None:
    """A time in ISO 8601, or in seconds or milliseconds since 1970; ``None`` for anything else.

    The zero time (year 1) that Go programs send for "not set" is none either.
    """
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found = datetime.fromtimestamp(value / 1000 if value > _EPOCH_MILLISECONDS else value, tz=UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return found if found >= _EARLIEST else None


def iso(time: datetime) -> str:
    """ISO 8601 in UTC, with a ``Z``."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
