"""What the simulated vendors have in common: a name, a base path, facts that can be changed, a failure, requests seen.

A vendor answers from its facts and from nothing else; what stands in them is said in the words of the readings, and
each vendor's module turns it into that vendor's published shape.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from runbook.sandbox.vendors.credentials import Credentials
from runbook.sandbox.vendors.failures import Failure

KEPT_REQUESTS = 2000

Endpoint = Callable[[Request], Awaitable[Response]]
Route = tuple[str, str, Endpoint]
"""Method, path below the vendor's base, and what answers."""


class Facts(BaseModel):
    """A vendor's state. A key that does not exist is refused, so that a fault with a slip of the pen fails."""

    model_config = ConfigDict(extra="forbid")


class Row(BaseModel):
    """One thing in a vendor's state; its times carry their zone."""

    model_config = ConfigDict(extra="forbid")


F = TypeVar("F", bound=Facts)


class Vendor(ABC, Generic[F]):
    """One simulated vendor.

    Parameters
    ----------
    credentials
        What it accepts.
    """

    name: str
    base: str
    #: Facts that outlive a reset: they say where the vendor's messages go, not how it feels.
    kept: Sequence[str] = ()

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self.failure: Failure | None = None
        self._concerned = 0
        self._failed = 0
        self.facts: F = self.healthy(now())

    @abstractmethod
    def healthy(self, at: datetime) -> F:
        """The facts of a good day, seen at ``at``."""

    @abstractmethod
    def error(self, status: int) -> Any:
        """The body with which this vendor says that status."""

    @abstractmethod
    def routes(self) -> list[Route]:
        """What it answers."""

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request whose credential is wrong; ``None`` lets it pass. Default: everybody may ask."""
        return None

    def headers(self) -> Mapping[str, str]:
        """Headers of each of its answers."""
        return {}

    def said(self, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """That status in the vendor's own words."""
        return JSONResponse(self.error(status), status_code=status, headers=dict(headers or {}))

    def change(self, changes: Mapping[str, Any]) -> None:
        """Lay ``changes`` over the facts.

        Raises
        ------
        pydantic.ValidationError
            An unknown key or a value that does not fit; nothing has changed then.
        """
        # Fields that were never set stay so: what is derived when absent goes on being derived.
        present = self.facts.model_dump(exclude_unset=True)
        self.facts = type(self.facts).model_validate(present | dict(changes))

    def fail(self, failure: Failure | None) -> None:
        """Answer badly from now on; ``None`` heals."""
        self.failure = failure
        self._concerned = self._failed = 0

    def reset(self) -> None:
        """A good day again, with nothing remembered."""
        kept = {name: getattr(self.facts, name) for name in self.kept}
        self.fail(None)
        self.requests.clear()
        self.facts = self.healthy(now())
        self.change(kept)

    def failure_now(self, path: str) -> Failure | None:
        """The failure that this request meets, counted."""
        failure = self.failure
        if failure is None or not failure.concerns(path):
            return None
        self._concerned += 1
        if math.floor(self._concerned * failure.share + 1e-9) == math.floor(
            (self._concerned - 1) * failure.share + 1e-9
        ):
            return None
        self._failed += 1
        if failure.times is not None and self._failed >= failure.times:
            self.fail(None)
        return failure


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with a ``Z``, to the microsecond where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment is not None else None


def number(text: str) -> int:
    """An identity number that stays the same for the same text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def same(given: str, expected: str) -> bool:
    """Whether a credential is the right one."""
    return hmac.compare_digest(given.encode(), expected.encode())


def whole(text: str | None, default: int, *, most: int, least: int = 0) -> int:
    """A number of a query string, within bounds; the default when it is none."""
    if text is None or not text.isdecimal():
        return default
    return max(least, min(int(text), most))


def instant(text: str | None) -> datetime | None:
    """A moment of a query string; without a zone it is UTC. ``None`` when it is absent or none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def json_object(request: Request) -> dict[str, Any]:
    """The object in a request's body; empty when it holds none."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def basic_pair(request: Request) -> str:
    """``user:password`` of HTTP Basic; empty when that is not what was sent."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
