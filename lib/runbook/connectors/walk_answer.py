"""What the answer of a health endpoint tells: its layer, the body in our words, its release, its age, its clock."""

from __future__ import annotations

import http.client
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from runbook.connectors.health import body_says, http_says

Row = dict[str, Any]
_RELEASE_KEYS = ("release", "version", "releaseId", "release_id", "build", "commit", "sha")
_WORD_KEYS = ("status", "state", "health", "message", "reason")


def shown(url: str) -> str:
    """A URL without its login."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    except ValueError:
        return url


def told(response: http.client.HTTPResponse, body: bytes, now: datetime) -> Row:
    """What an answer says: the layer that fails by it, the body in our words, and what it tells of itself."""
    status = response.status
    said, found = body_says(response.headers.get("content-type", ""), body), http_says(status)
    value = _object(body)
    failing = [check for check in said.checks if check["status"] == "fail"]
    degraded = found == "pass" and (said.status in ("warn", "fail") or bool(failing))
    layer = "http" if found != "pass" else "body" if degraded else ""
    named = ", ".join(str(check["name"]) for check in said.checks if check["status"] in ("fail", "warn"))
    reason = f"answered {status}" + (f": {named}" if named else "") if layer else ""
    return {
        "layer": layer, "code": str(status) if layer else "", "reason": reason, "status": said.status or found,
        "word": _word(value, body), "checks": [dict(check) for check in said.checks], "format": said.format,
        "location": _location(response.headers.get("location")), "release": _release(value, response),
        "uptime_seconds": _uptime(value), "skew_seconds": _skew(response.headers.get("date"), now),
    }  # fmt: skip


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _word(value: Mapping[str, Any], body: bytes) -> str:
    """What the body calls its state, as it says it; a page is no word."""
    said = [str(value[key]) for key in _WORD_KEYS if isinstance(value.get(key), str)]
    text = "; ".join(said) if value else body[:101].decode("utf-8", "replace").strip()
    return text[:100] if text.isprintable() and len(text) <= 100 and text[:1] not in ("<", "{", "[") else text[:0]


def _release(value: Mapping[str, Any], response: http.client.HTTPResponse) -> str | None:
    told = [value.get(key) for key in _RELEASE_KEYS]
    told += [response.headers.get(name) for name in ("x-release", "x-app-version", "x-version")]
    return next((str(one)[:100] for one in told if isinstance(one, str | int) and not isinstance(one, bool) and one),
                None)  # fmt: skip


def _uptime(value: Mapping[str, Any]) -> float | None:
    found = value.get("uptime", value.get("uptime_seconds"))
    known = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) and found >= 0
    return round(float(found), 1) if known and found is not None else None


def _location(header: str | None) -> str | None:
    """Where a redirect points, without what is secret in it."""
    return None if header is None else re.sub(r"[?#].*", "", shown(header))[:200]


def _skew(header: str | None, now: datetime) -> float | None:
    if not header:
        return None
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return round((at - now).total_seconds(), 1)
