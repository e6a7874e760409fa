"""Health endpoints of the application: what each instance says of itself, in whatever convention it says it.

``/live``, ``/ready`` and ``/health`` in the forms of draft-inadarei-api-health-check, Spring Boot Actuator, NestJS
Terminus and plain text. Where HTTP status and body disagree the worse of the two counts, and the row says so. An
endpoint that cannot be reached has failed: that is what a balancer would find.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from runbook.connectors.base import Connector, Context, Failure, Fetched
from runbook.connectors.http import connection_error
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.settings import App

LIMIT_SECONDS = 6.0
ANSWER_SECONDS = 4.0
"""A balancer's own limit is seldom longer."""
MAX_BYTES = 262_144
_ACCEPT = "application/health+json, application/json, */*"
MAX_CHECKS = 30
MAX_WORDS_CHARACTERS = 100
AT_ONCE = 16
_WORDS = {
    "pass": "pass", "ok": "pass", "up": "pass", "healthy": "pass", "success": "pass", "passing": "pass",
    "warn": "warn", "warning": "warn", "degraded": "warn",
    "fail": "fail", "error": "fail", "down": "fail", "unhealthy": "fail", "out_of_service": "fail",
    "shutting_down": "fail", "failing": "fail", "critical": "fail",
}  # fmt: skip
_WORSE = {"pass": 0, "unknown": 1, "warn": 2, "fail": 3}
_POOL_NAMES = ("pool", "database", "postgres", "prisma", "db", "sql", "hikari")
_USED = ("used", "in_use", "inuse", "active", "busy", "acquired", "checked_out", "numused", "activeconnections")
_WAITING = ("waiting", "pending", "queued", "numpendingacquires", "threadsawaitingconnection")
_SIZE = ("size", "max", "limit", "total", "pool_size", "maximum", "max_size", "connection_limit", "maxconnections")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One URL to ask."""

    #: ``health``, ``ready`` or ``live``.
    kind: str
    url: str
    #: Host and port of the instance.
    instance: str
    #: Whether it is asked at its own address, as a balancer does it: without a look at its certificate.
    balanced: bool = False


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a body says, in the words pass, warn, fail, unknown; empty = nothing beyond the HTTP status."""

    status: str
    #: ``health+json``, ``actuator``, ``terminus``, ``json``, ``text``, ``empty``.
    format: str
    checks: tuple[Mapping[str, Any], ...] = ()
    pool: Mapping[str, int] | None = None


class Health(Connector):
    """Every configured endpoint, of every instance."""

    source = "health"
    failures = (OSError,)

    def __init__(self, context: Context, section: App) -> None:
        urls = {"health": section.health_url, "ready": section.ready_url, "live": section.live_url}
        self._endpoints = list(endpoints({kind: url for kind, url in urls.items() if url}, section.instances))
        super().__init__(context, ", ".join(dict.fromkeys(e.instance for e in self._endpoints)) or "application")

    def check(self) -> Reading:
        """Rows of ``health``: one for each endpoint of each instance, all asked at once."""
        query = " · ".join(f"GET {endpoint.url}" for endpoint in self._endpoints)[:500] or "GET"
        if not self._endpoints:
            failure = Failure(state="not_configured", reason="app.health_url is not set, nor ready_url or live_url")
            return self.missing("health", query, failure)
        return self.read("health", query, self._asked, limit_seconds=LIMIT_SECONDS)

    def failure(self, error: Exception) -> Failure:
        code, reason = connection_error(error)
        return Failure(state="unreachable", reason=reason, code=code)

    def _asked(self) -> Fetched:
        with ThreadPoolExecutor(min(AT_ONCE, len(self._endpoints)), thread_name_prefix="health") as pool:
            return Fetched(value=list(pool.map(ask, self._endpoints)))


def endpoints(urls: Mapping[str, str], instances: list[str]) -> Iterator[Endpoint]:
    """What to ask: each URL at each instance, or where it points itself when no instances are configured.

    An instance is ``host:port`` or a base URL. Instances without any URL are asked for ``/health``.
    """
    for kind, url in urls.items() if urls else [("health", "/health")] if instances else ():
        for instance in instances or [""]:
            try:
                yield _endpoint(kind, url, instance)
            except ValueError:  # brackets without an address in them
                yield Endpoint(kind=kind, url=url, instance=instance or url)


def _endpoint(kind: str, url: str, instance: str) -> Endpoint:
    parts = urlsplit(url)
    if not instance:
        return Endpoint(kind=kind, url=url, instance=parts.netloc.rpartition("@")[2])
    base = urlsplit(instance if "://" in instance else f"{parts.scheme or 'http'}://{instance}")
    where = urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + (parts.path or "/"), parts.query, ""))
    return Endpoint(kind=kind, url=where, instance=base.netloc.rpartition("@")[2], balanced=True)


def ask(endpoint: Endpoint) -> dict[str, Any]:
    """One row of ``health``."""
    row: dict[str, Any] = {
        "endpoint": endpoint.kind, "url": endpoint.url, "instance": endpoint.instance, "http_status": None,
        "status": "fail", "milliseconds": None, "checks": [], "format": None, "disagrees": False, "code": "",
        "reason": "", "pool": None,
    }  # fmt: skip
    try:
        _trusting(anybody=endpoint.balanced)  # made before the clock runs: it reads every certificate of the system
        began = time.perf_counter()
        status, kind, body = fetch(endpoint, accept=_ACCEPT, seconds=ANSWER_SECONDS, most=MAX_BYTES)
    except httpx.TimeoutException:
        return row | {"code": "TIMEOUT", "reason": f"no answer within {ANSWER_SECONDS:g} s"}
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
        return row | {"status": "unknown", "code": "URL", "reason": f"not a URL that can be asked: {error}"}
    except (httpx.HTTPError, OSError) as error:
        code, reason = connection_error(error)
        return row | {"code": code or "CONNECTION", "reason": reason}
    said, found = body_says(kind, body), http_says(status)
    worse = max(said.status or found, found, key=lambda word: _WORSE[word]) if found != "unknown" else "unknown"
    disagrees = {said.status, found} == {"pass", "fail"}
    return row | {
        "http_status": status,
        "status": worse,
        "milliseconds": round((time.perf_counter() - began) * 1000, 1),
        "checks": [dict(check) for check in said.checks],
        "format": said.format,
        "disagrees": disagrees,
        "code": str(status) if found != "pass" else "",
        "reason": _reason(status, found, said, disagrees=disagrees),
        "pool": dict(said.pool) if said.pool else None,
    }


def fetch(endpoint: Endpoint, *, accept: str, seconds: float, most: int) -> tuple[int, str, bytes]:
    """Status, content type and body of one GET, as a balancer or a scraper does it.

    Raises
    ------
    httpx.HTTPError, httpx.InvalidURL, OSError, ValueError
        Nothing came, or nothing that could be asked for.
    """
    trusted, deadline = _trusting(anybody=endpoint.balanced), time.monotonic() + seconds
    with (
        httpx.Client(verify=trusted, timeout=seconds, follow_redirects=False, trust_env=False) as client,
        client.stream("GET", endpoint.url, headers={"Accept": accept}) as response,
    ):
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > most:
                break
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer did not come to its end")
        return response.status_code, response.headers.get("content-type", ""), bytes(body)


@cache
def _trusting(*, anybody: bool) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    if anybody:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def http_says(status: int) -> str:
    """What the HTTP status says. One that speaks of the question (404, a login, a redirect) says nothing of health."""
    if 200 <= status < 300:
        return "pass"
    return "fail" if status >= 500 or status == 429 else "unknown"


def _reason(status: int, found: str, said: Said, *, disagrees: bool) -> str:
    if found == "unknown":
        return f"answered {status}: this says nothing of its health"
    if disagrees:
        return f"HTTP {status} says {found}, the body says {said.status}: the worse counts"
    bad = [str(check["name"]) for check in said.checks if check["status"] in ("fail", "warn")]
    return f"answered {status}" * (found == "fail") + (": " if bad and found == "fail" else "") + ", ".join(bad)


# -- bodies -----------------------------------------------------------------------------------------------------------


def body_says(content_type: str, body: bytes) -> Said:
    """A body in the words pass, warn, fail, unknown."""
    text = body.decode("utf-8", "replace").strip()
    if not text:
        return Said(status="", format="empty")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Said(status=_text_says(content_type, text), format="text")
    if not isinstance(value, dict):
        return Said(status=_word(value), format="json")
    return _object_says(value)


def _text_says(content_type: str, text: str) -> str:
    """A word or two is an answer; a page of HTML, or half a JSON, is not."""
    if "html" in content_type or text[0] in "<{[" or len(text) > MAX_WORDS_CHARACTERS or not text.isprintable():
        return "unknown"
    return "unknown" if "\ufffd" in text else _WORDS.get(_normal(text), "")


def _object_says(value: dict[str, Any]) -> Said:
    pool = _pool(value)
    if isinstance(value.get("checks"), dict):
        made = [_check(name, item) for name, items in value["checks"].items() for item in _many(items)]
        form = "health+json"
    elif isinstance(components := value.get("components", value.get("details")), dict):
        made = [_check(name, item) for name, item in _leaves(components)]
        form = "actuator" if "components" in value else "terminus"
    else:
        parts = value.get("checks") or value.get("services") or value.get("dependencies") or []
        items = parts.items() if isinstance(parts, dict) else ((_name(part), part) for part in _many(parts))
        made = [_check(name, item) for name, item in items]
        form = "json"
    said = next((value[key] for key in ("status", "state", "health", "healthy", "ok") if key in value), None)
    status = _word(said)
    if said is None and made:
        status = max((str(check["status"]) for check in made), key=lambda word: _WORSE[word])
    return Said(status=status, format=form, checks=tuple(made[:MAX_CHECKS]), pool=pool)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "pass" if value else "fail"
    if not isinstance(value, str):
        return "unknown"
    return _WORDS.get(_normal(value), "unknown")


def _normal(word: str) -> str:
    return word.strip(" .!").lower().replace("-", "_").replace(" ", "_")


def _many(items: Any) -> list[Any]:
    return items if isinstance(items, list) else [items]


def _name(item: Any) -> str:
    return str(item.get("name") or item.get("id") or "check") if isinstance(item, dict) else "check"


def _leaves(components: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Components, those within a component named ``outer/inner``."""
    for name, item in components.items():
        yield f"{prefix}{name}", item
        inner = item.get("components") if isinstance(item, dict) else None
        if isinstance(inner, dict) and depth < 3:
            yield from _leaves(inner, f"{prefix}{name}/", depth + 1)


def _check(name: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {"name": str(name)[:100], "status": _word(item), "output": ""}
    said = next((item[key] for key in ("status", "state", "healthy", "ok") if key in item), None)
    details = item.get("details")
    texts = [item.get(key) for key in ("output", "message", "error", "description")]
    texts += [details.get("error")] if isinstance(details, dict) else []
    output: str = next((text for text in texts if isinstance(text, str) and text), "")
    return {"name": str(name)[:100], "status": _word(said), "output": output[:300]}


def _pool(value: Any, depth: int = 0) -> dict[str, int] | None:
    """``used`` and ``size`` of the database pool, wherever in the body an object named like one has both; ``waiting``
    where it is told.
    """
    if not isinstance(value, dict) or depth > 5:
        return None
    for name, item in value.items():
        for part in _many(item):
            if isinstance(part, dict) and any(word in str(name).lower() for word in _POOL_NAMES):
                found = _counts(part)
                if found is not None:
                    return found
            found = _pool(part, depth + 1)
            if found is not None:
                return found
    return None


def _counts(part: Mapping[str, Any]) -> dict[str, int] | None:
    lower = {str(key).lower(): item for key, item in part.items() if isinstance(item, int) and item is not True}
    used = next((lower[key] for key in _USED if key in lower), None)
    size = next((lower[key] for key in _SIZE if key in lower), None)
    if used is None or size is None:
        return _counts(part["details"]) if isinstance(part.get("details"), dict) else None
    waiting = next((lower[key] for key in _WAITING if key in lower), None)
    return {"used": used, "size": size} | ({"waiting": waiting} if waiting is not None else {})
