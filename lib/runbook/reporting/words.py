"""Numbers, times, states and outcomes as a tired reader wants them: short, exact, in plain English.

Pure functions over values of the result document. They never raise on a value that they do not expect: a report of
a run that went wrong is exactly where such values turn up.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

NARROW_SPACE = "\u202f"

TIER_WORDS = {
    "confirmed": "Confirmed",
    "probable": "Probable",
    "possible": "Possible",
    "undetermined": "Undetermined",
    "excluded": "Excluded",
}

STATE_WORDS = {
    "ok": "read",
    "not_configured": "not configured",
    "unreachable": "unreachable",
    "auth_failed": "credentials refused",
    "permission_denied": "permission denied",
    "rate_limited": "rate limited",
    "timeout": "timed out",
    "partial": "read in part",
    "stale": "stale",
}

RUN_STATE_WORDS = {
    "queued": "The run has not started",
    "running": "The run has not finished",
    "failed": "The run failed",
    "interrupted": "The run was interrupted",
    "cancelled": "The run was cancelled",
}

OUTCOME_WORDS = {
    "diagnosed": "Diagnosed",
    "insufficient_data": "Not enough data",
    "undetermined": "Undetermined",
    "no_current_fault": "No current fault",
    "healthy": "Healthy",
}

NOTHING: tuple[Any, ...] = (None, "", [], {}, ())
"""Values of a detail that say nothing."""

WEIGHT_WORDS = {6: "decisive", 3: "strong", 1: "weak"}

_SHARE_UNITS = frozenset({"share", "ratio"})
_BYTE_UNITS = frozenset({"bytes", "byte", "B"})
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?")
_COMPARISON = re.compile(r"(?P<sign>[<>≤≥=]{0,2})\s*(?P<number>-?\d+(?:\.\d+)?)")


def number(value: float) -> str:
    """A number with as many digits as help, thousands apart: ``12 345``, ``0.042``."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", NARROW_SPACE)
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 1
    text = f"{value:,.{min(digits, 12)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace(",", NARROW_SPACE)


def size(count: float) -> str:
    """Bytes in the largest binary unit that keeps at least one whole: ``1.5 GiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{number(round(amount, 1))} {unit}"


def duration(seconds: float) -> str:
    """Seconds as ``84 ms``, ``4.2 s``, ``3 min 12 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if not math.isfinite(seconds):
        return str(seconds)
    sign, left = ("−", -seconds) if seconds < 0 else ("", seconds)
    if left < 1:
        return f"{sign}{round(left * 1000)} ms"
    if left < 120:
        return f"{sign}{number(round(left, 1))} s"
    whole = round(left)
    for big, small, length in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= length:
            rest = whole % length // {"h": 3600, "min": 60, "s": 1}[small]
            return f"{sign}{whole // length} {big}" + (f" {rest} {small}" if rest else "")
    return f"{sign}{whole} s"


def percent(share: float) -> str:
    """A share 0–1 as ``80 %``."""
    return f"{number(round(share * 100, 1 if 0 < abs(share) < 0.1 else 0))}{NARROW_SPACE}%"


def plain(value: Any) -> str:
    """A value with no unit in words; nested ones as compact JSON."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(not isinstance(item, list | dict) for item in value):
        return ", ".join(plain(item) for item in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def identity(value: Any) -> str:
    """A value that names something: a process id is printed without spaces between its thousands."""
    if isinstance(value, list | tuple) and all(not isinstance(item, list | tuple | Mapping) for item in value):
        return ", ".join(identity(item) for item in value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else plain(value)


def amount(value: Any, unit: str = "") -> str:
    """A value with its unit; ``unknown`` when there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value) if value is None or not unit else f"{plain(value)} {unit}"
    if unit in _SHARE_UNITS:
        return percent(value)
    if unit in _BYTE_UNITS:
        return size(value)
    if unit == "%":
        return f"{number(round(value, 1))}{NARROW_SPACE}%"
    return f"{number(value)} {unit}".rstrip()


def threshold(text: Any, unit: str = "") -> str:
    """A threshold in the unit of the value that it stands beside; a sentence is left as it is."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return amount(text, unit)
    words = "" if text is None else str(text)
    match = _COMPARISON.fullmatch(words.strip())
    if not match:
        return words
    value = float(match["number"])
    return f"{match['sign']} {amount(int(value) if value.is_integer() else value, unit)}".strip()


def moment(text: Any) -> datetime | None:
    """An ISO 8601 time, in UTC; ``None`` when it is none."""
    if not isinstance(text, str):
        return None
    try:
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def compact(timestamp: str) -> str:
    """An ISO 8601 time with all of its digits, easier to read: it may be what identifies a session."""
    return timestamp.replace("T", " ").replace("+00:00", "Z")


def clock(text: Any) -> str:
    """A time of day in UTC with its date: ``2026-03-01 03:12:05 UTC``; what is no time stays as it is."""
    when = moment(text)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else plain(text)


def label(key: str) -> str:
    """A key of the result document as a label: ``median_age_seconds`` → ``median age``; the value says its unit."""
    return key.removesuffix("_seconds").removesuffix("_bytes").replace("_", " ").strip()


def sentence(text: str) -> str:
    """With a capital letter in front, unless the first word is a name in code: ``pg_stat_statements``."""
    first = text.split(" ", 1)[0].rstrip(",:;")
    return text[:1].upper() + text[1:] if first.replace("-", "").isalpha() and first.islower() else text


def detail(key: str, value: Any) -> str:
    """A detail of a cause, by the unit that its key carries: ``_seconds``, ``_bytes``, ``_share``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("_seconds"):
            return duration(value)
        if key.endswith("bytes"):
            return size(value)
        if key == "share" or key.endswith("_share"):
            return percent(value)
    if isinstance(value, str) and TIMESTAMP.fullmatch(value):
        return compact(value)
    if isinstance(value, Mapping):
        return " · ".join(f"{label(str(k))} {detail(str(k), v)}" for k, v in value.items() if v not in NOTHING)
    return identity(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` when it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; empty when it is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def texts(value: Any) -> list[str]:
    """The strings of a list; empty when it is no list."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else []
