"""JSON over HTTP for vendors' APIs: GET only, within a time limit; nothing that a vendor answers is an error of ours.

Credentials go to the configured origin and nowhere else: a redirect to another one is not followed. What is worth
asking again (429, 5xx, a connection that broke) is asked again while the limit allows it, never longer than the vendor
asked us to wait. Every other answer becomes the state of a reading.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception

from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.result import Reading, ReadingState

LIMIT_SECONDS = 5.0
"""Time for one reading, however many requests it takes."""
MAX_BYTES = 5_000_000
"""A longer answer, unpacked, is not read to its end."""
MAX_PAGES = 20
MAX_REDIRECTS = 3
AT_ONCE = 4
"""Requests of one connector under way at the same time."""
_ATTEMPTS = 3
_BACK_OFF_SECONDS = 0.2

Params = Mapping[str, str | int | float | bool | list[str] | None]


class Malformed(Exception):
    """An answer is JSON, and not of the documented form."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A successful answer: its JSON value and its headers."""

    value: Any
    headers: httpx.Headers
    url: str

    @property
    def object(self) -> dict[str, Any]:
        """The value, which must be an object.

        Raises
        ------
        Malformed
            It is something else.
        """
        return as_object(self.value)

    @property
    def next_link(self) -> str | None:
        """Target of ``Link: …; rel="next"``; ``None`` at the last page, also where Sentry says ``results="false"``."""
        for link in self.headers.get("link", "").split(","):
            target, _, attributes = link.partition(";")
            if 'rel="next"' in attributes.replace(" ", "") and 'results="false"' not in attributes:
                return target.strip().strip("<>") or None
        return None


def as_object(value: Any) -> dict[str, Any]:
    """``value`` if it is an object, else :class:`Malformed`."""
    if not isinstance(value, dict):
        raise Malformed(f"an object was expected, not {_kind(value)}")
    return value


def as_rows(value: Any) -> list[dict[str, Any]]:
    """``value`` if it is a list of objects, else :class:`Malformed`."""
    if not isinstance(value, list):
        raise Malformed(f"a list was expected, not {_kind(value)}")
    return [as_object(item) for item in value]


def segment(text: object) -> str:
    """Anything as one segment of a path: a version with a slash in it, an id from an alert."""
    return quote(str(text), safe="")


class HttpConnector(Connector):
    """A vendor's API.

    Parameters
    ----------
    base_url
        Where its paths begin; may carry a path itself.
    headers, auth
        The credential.
    lacking
        The setting without which it cannot be asked: every reading is then *not configured*. Empty = complete.
    """

    failures = (httpx.HTTPError, httpx.InvalidURL, UnicodeError, Malformed, OSError)

    def __init__(
        self,
        context: Context,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        lacking: str = "",
    ) -> None:
        super().__init__(context, host_of(base_url) or base_url)
        self.base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._auth = auth
        self._lacking = lacking
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def gather(
        self, name: str, query: str, take: Callable[[Exchange], Fetched], *, limit_seconds: float = LIMIT_SECONDS
    ) -> Reading:
        """The reading ``name`` from one request or several.

        Parameters
        ----------
        query
            What is asked, as the report shows it: ``GET /path?…``.
        take
            Asks through the exchange that it is given, and returns what it found.
        limit_seconds
            For all of it.
        """
        if self._lacking:
            reason = f"{self._lacking} is not set"
            return self.missing(name, query, Failure(state="not_configured", reason=reason))
        deadline = time.monotonic() + limit_seconds
        return self.read(name, query, lambda: take(Exchange(self, deadline)), limit_seconds=limit_seconds + 0.5)

    def get(
        self,
        name: str,
        path: str,
        params: Params | None = None,
        *,
        parse: Callable[[Any], Any],
        limit_seconds: float = LIMIT_SECONDS,
    ) -> Reading:
        """The reading ``name`` from one request; ``parse`` turns its JSON into rows."""
        return self.gather(
            name,
            shown(path, params),
            lambda exchange: Fetched(value=parse(exchange.get(path, params).value)),
            limit_seconds=limit_seconds,
        )

    def failure(self, error: Exception) -> Failure:
        if isinstance(error, Malformed):
            return Failure(state="partial", reason=f"an answer of another form than documented: {error}")
        if isinstance(error, httpx.InvalidURL | UnicodeError):
            reason = f"its address or credential cannot be sent: {type(error).__name__}"
            return Failure(state="unreachable", reason=reason)
        if isinstance(error, httpx.TimeoutException):
            return Failure(state="timeout", reason="no answer in time")
        code, reason = connection_error(error)
        return Failure(state="unreachable", reason=reason, code=code)

    @cached_property
    def client(self) -> httpx.Client:
        """Its connections; a proxy and certificates of one's own are taken from the environment."""
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        return httpx.Client(verify=certificates(), limits=limits, headers=_HEADERS | self._headers, auth=self._auth)


class Exchange:
    """The requests of one reading, all of them before one deadline."""

    def __init__(self, connector: HttpConnector, deadline: float) -> None:
        self._connector = connector
        self._deadline = deadline
        self._client = connector.client

    def get(self, path: str, params: Params | None = None) -> Answer:
        """The answer to one request.

        Raises
        ------
        Unavailable
            The vendor did not give one; carries the state of the reading.
        """
        origin = self._connector.base_url
        url = path if path.startswith(("http://", "https://")) else origin + path
        if not same_origin(url, origin):
            raise _elsewhere(url)
        asked = httpx.QueryParams({k: _plain(v) for k, v in (params or {}).items() if v is not None})
        target = httpx.URL(url)
        if asked:
            target = target.copy_merge_params(asked)
        retrying = Retrying(
            retry=retry_if_exception(_worth_asking_again), wait=_wait, stop=self._enough, reraise=True, sleep=time.sleep
        )
        answer: Answer = retrying(self._ask, target)
        return answer

    def pages(self, path: str, params: Params | None = None, *, most: int = MAX_PAGES) -> Iterator[tuple[Answer, bool]]:
        """Pages linked by ``Link: rel="next"``, each with whether it is the last one although more would follow."""
        answer = self.get(path, params)
        for number in range(1, most + 1):
            link = answer.next_link
            yield answer, link is not None and number == most
            if link is None or number == most:
                return
            answer = self.get(link)

    def _enough(self, state: RetryCallState) -> bool:
        return state.attempt_number >= _ATTEMPTS or time.monotonic() + state.upcoming_sleep >= self._deadline

    def _ask(self, url: httpx.URL) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(Failure(state="timeout", reason="no answer in time"))
            request = self._client.build_request("GET", url, timeout=left)
            with self._connector._turns:
                response = self._client.send(request, stream=True, follow_redirects=False)
                try:
                    if not response.has_redirect_location:
                        return self._answer(response)
                finally:
                    response.close()
            url = url.join(response.headers["location"])
            if not same_origin(str(url), self._connector.base_url):
                raise _elsewhere(str(url))
        raise Unavailable(Failure(state="unreachable", reason="redirects in a circle", code=str(response.status_code)))

    def _answer(self, response: httpx.Response) -> Answer:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise Unavailable(Failure(state="partial", reason=f"an answer of more than {MAX_BYTES:,} bytes"))
            if time.monotonic() > self._deadline:
                raise Unavailable(Failure(state="timeout", reason="the answer did not come to its end in time"))
        try:
            value = json.loads(bytes(body))  # knows UTF-8, UTF-16 and UTF-32, with or without a byte order mark
        except (ValueError, RecursionError):
            value = None
            if response.is_success:
                kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
                raise Unavailable(Failure(state="partial", reason=f"the answer is not JSON ({kind[:40]})")) from None
        if not response.is_success:
            raise Refused(refusal(response, value), retry_after_seconds=_retry_after(response.headers))
        return Answer(value=value, headers=response.headers, url=str(response.url))


class Refused(Unavailable):
    """The vendor answered, and not with what was asked for."""

    def __init__(self, failure: Failure, *, retry_after_seconds: float | None) -> None:
        super().__init__(failure)
        self.retry_after_seconds = retry_after_seconds


def same_origin(url: str, other: str) -> bool:
    """Whether both have the same scheme, host and port."""
    a, b = httpx.URL(url), httpx.URL(other)
    return (a.scheme, a.host, a.port) == (b.scheme, b.host, b.port)


def host_of(url: str) -> str:
    """Host and port of a URL, never its login; empty when it is none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def connection_error(error: BaseException) -> tuple[str, str]:
    """Code (``ECONNREFUSED``, ``DNS``, ``TLS10`` …) and reason of a connection that did not come about or broke."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS{cause.verify_code}", f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS", f"TLS: {cause.reason or cause}"
        if isinstance(cause, socket.gaierror):
            return "DNS", f"its name does not resolve: {cause.strerror}"
        if isinstance(cause, OSError) and cause.errno:
            return errno.errorcode.get(cause.errno, str(cause.errno)), str(cause.strerror)
        cause = cause.__cause__ or cause.__context__
    return "", f"{type(error).__name__}: {error}".rstrip(": ")


def shown(path: str, params: Params | None = None) -> str:
    """A request as a report shows it."""
    pairs = ((k, v if isinstance(v, list) else [v]) for k, v in (params or {}).items() if v is not None)
    asked = "&".join(f"{k}={_plain(item)}" for k, items in pairs for item in items)
    return f"GET {path}" + (f"?{asked}" if asked else "")


_HEADERS = {"User-Agent": "runbook", "Accept": "application/json"}


@cache
def certificates() -> ssl.SSLContext:
    """The authorities that are trusted, loaded once in this process: loading takes longer than many an answer."""
    return httpx.create_ssl_context()


def _worth_asking_again(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.failure.state == "rate_limited" or error.failure.code in ("500", "502", "503", "504")
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.TimeoutException)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, Refused):
        if error.retry_after_seconds is not None:
            return error.retry_after_seconds
        if error.failure.state == "rate_limited":  # until when was not said: not within this run
            return float("inf")
    return _BACK_OFF_SECONDS * float(2 ** (state.attempt_number - 1))


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait as the vendor says: ``Retry-After`` as a number, ``ratelimit-reset`` in seconds."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def refusal(response: httpx.Response, value: Any) -> Failure:
    """How an answer that is no success fails, with what the vendor says about it."""
    status = response.status_code
    said = _message(value)
    reason = f"answered {status}" + (f": {said}" if said else "")
    state: ReadingState
    if status == 401:
        state = "auth_failed"
    elif status == 429 or (status == 403 and _exhausted(response.headers, said)):
        state, wait = "rate_limited", response.headers.get("retry-after", "")
        reason += f" (asks to wait {wait[:30]} s)" if wait else ""
    elif status == 404:
        state, reason = "permission_denied", f"{reason} (not found, or not visible to this token)"
    elif 400 <= status < 500:
        state = "permission_denied" if status == 403 else "partial"
    else:
        state = "unreachable"
    return Failure(state=state, reason=reason, code=str(status))


def _exhausted(headers: httpx.Headers, said: str) -> bool:
    return headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers or "rate limit" in said.lower()


def _message(value: Any) -> str:
    """What an error body says, in any of the vendors' forms."""
    if isinstance(value, str):
        return value[:200]
    if isinstance(value, list):
        return next((text for item in value if (text := _message(item))), "")
    if isinstance(value, dict):
        keys = ("message", "detail", "error", "messages", "errors")
        return next((text for key in keys if (text := _message(value.get(key)))), "")
    return ""


def _elsewhere(url: str) -> Unavailable:
    host = host_of(url)[:100]
    return Unavailable(Failure(state="unreachable", reason=f"redirects to another origin ({host}), not followed"))


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _kind(value: Any) -> str:
    return {type(None): "null", list: "a list", dict: "an object", str: "a text"}.get(type(value), "a number")
