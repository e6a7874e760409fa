"""A vendor's API for those who act: looked at as a connector looks, changed by one request that is never repeated.

Requests go to the configured origin and to no other one, also where the vendor redirects. An answer is read up to a
limit. What is said about a failure carries no credential. A request that may have been heard is not sent again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import httpx

from runbook.actions.attempts import Unheard
from runbook.actions.plan import Refused
from runbook.connectors.base import Context, Unavailable
from runbook.connectors.http import (
    LIMIT_SECONDS,
    MAX_BYTES,
    Answer,
    Exchange,
    HttpConnector,
    Malformed,
    Params,
    as_object,
    as_rows,
    certificates,
    connection_error,
    refusal,
    same_origin,
)
from runbook.redaction import Redactor

ACT_SECONDS = 10.0
"""Time for one request that changes something, its answer included."""

Method = Literal["POST", "PUT", "DELETE"]
_NOT_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.LocalProtocolError,
    httpx.InvalidURL, UnicodeError,
)  # fmt: skip
"""What fails before a byte of the request has left."""


class Declined(Refused):
    """The vendor answered, and does not do it; ``status`` is its HTTP status, ``None`` when it did not answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message, remedy="See what the action needs: docs/actions/vendors.md")
        self.status = status


class ActingApi(HttpConnector):
    """One API with the credential that acts.

    Parameters
    ----------
    name
        The vendor, as messages call it.
    secrets
        Whatever of the address and the headers must be in no message.
    lacking
        The setting without which it cannot be asked; empty = complete.

    Raises
    ------
    Refused
        A setting is lacking.
    """

    source = "acting"

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        lacking: str = "",
    ) -> None:
        if lacking:
            raise Refused(f"{lacking} is not set", remedy="Do it by hand, or set it")
        super().__init__(Context(redactor=Redactor(secrets)), base_url, headers=headers)
        self.name = name

    def look(self, path: str, params: Params | None = None) -> Answer:
        """The answer to a GET.

        Raises
        ------
        Declined
            There is none that can be used.
        """
        try:
            return Exchange(self, time.monotonic() + LIMIT_SECONDS).get(path, params)
        except Unavailable as error:
            raise self._declined(error.failure.reason, error.failure.code) from None
        except self.failures as error:
            failure = self.failure(error)
            raise self._declined(failure.reason, failure.code) from None

    def look_object(self, path: str, params: Params | None = None, *, under: str = "") -> dict[str, Any]:
        """The object that a GET brings, or the one ``under`` that name in it; otherwise as :meth:`look`."""
        value = self.look(path, params).value
        try:
            return as_object(as_object(value).get(under) if under else value)
        except Malformed as error:
            raise self._declined(f"an answer of another form than documented: {error}", "") from None

    def look_rows(self, path: str, params: Params | None = None, *, under: str = "") -> list[dict[str, Any]]:
        """The list of objects that a GET brings, or the one ``under`` that name in it; otherwise as :meth:`look`."""
        value = self.look(path, params).value
        try:
            return as_rows(as_object(value).get(under) if under else value)
        except Malformed as error:
            raise self._declined(f"an answer of another form than documented: {error}", "") from None

    def send(self, method: Method, path: str, body: Any = None, params: Params | None = None) -> Any:
        """Ask once for a change; the JSON value of the answer, ``None`` where it is none.

        Raises
        ------
        Declined
            The vendor refused, or was not reached: nothing was changed.
        Unheard
            It was sent, and it is not known what became of it.
        """
        deadline = time.monotonic() + ACT_SECONDS
        url = self.base_url + path
        if not same_origin(url, self.base_url):
            raise self._declined("another origin than the configured one is not asked", "")
        asked = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            target = httpx.URL(url).copy_merge_params(asked) if asked else httpx.URL(url)
            request = self.client.build_request(method, target, json=body, timeout=ACT_SECONDS)
            response = self.client.send(request, stream=True, follow_redirects=False)
        except _NOT_SENT as error:
            raise self._declined(f"not reached: {connection_error(error)[1]}", "") from None
        except httpx.HTTPError as error:
            raise self._unheard(type(error).__name__) from None
        try:
            return self._value(response, _read(response, deadline))
        finally:
            response.close()

    def _value(self, response: httpx.Response, body: bytes | None) -> Any:
        try:
            value = json.loads(body) if body else None
        except (ValueError, RecursionError):
            value = None
        if response.is_success:
            return value
        failure = refusal(response, value)
        if response.status_code >= 500:
            raise self._unheard(failure.reason)
        raise self._declined(failure.reason, failure.code)

    @cached_property
    def client(self) -> httpx.Client:
        """A connection of its own for each request: one that was kept may be gone when the request is sent."""
        headers = {"User-Agent": "runbook", "Accept": "application/json"} | self._headers
        return httpx.Client(verify=certificates(), limits=httpx.Limits(max_keepalive_connections=0), headers=headers)

    def _declined(self, reason: str, code: str) -> Declined:
        text = self.context.redactor.text(f"{self.name} at {self.target}: {reason}")
        return Declined(text[:500], status=int(code) if code.isdecimal() else None)

    def _unheard(self, reason: str) -> Unheard:
        text = self.context.redactor.text(f"{self.name} at {self.target} did not say what became of it ({reason})")
        return Unheard(text[:500], remedy="Look there before anything is done again")


def _read(response: httpx.Response, deadline: float) -> bytes | None:
    """The body; ``None`` where it is too long, breaks off or does not come to its end in time."""
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BYTES or time.monotonic() > deadline:
                return None
    except httpx.HTTPError:
        return None
    return bytes(body)
