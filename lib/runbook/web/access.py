"""Who may do what over HTTP: bearer tokens with roles, or loopback alone where no token is configured.

Tokens are compared by their SHA-256 in constant time and are kept nowhere. Without tokens a browser on the same machine
must not become somebody else's hand: the Host header has to name this machine, and no other site may post.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from runbook.errors import ConfigurationError
from runbook.settings import Settings, Token

Need = Literal["alerts", "read", "run", "act"]

_GRANTED: dict[str, frozenset[Need]] = {
    "alerts": frozenset({"alerts"}),
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "run", "alerts"}),
    "admin": frozenset({"read", "run", "alerts", "act"}),
}


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped and mapped.is_loopback))


def check_binding(settings: Settings) -> None:
    """Refuse to listen beyond this machine without a token.

    Raises
    ------
    ConfigurationError
        No token is configured and ``server.host`` is no loopback address.
    """
    if not settings.server.tokens and not is_loopback(settings.server.host):
        raise ConfigurationError(
            f"server.host is {settings.server.host} and no token is configured",
            remedy="Add server.tokens, or listen on 127.0.0.1",
        )


class Access:
    """Decides about requests by the tokens of the settings."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = [(token.sha256.lower().encode(), token.role, token.name) for token in tokens]

    def needs(self, need: Need) -> Callable[[Request], Awaitable[None]]:
        """A dependency that lets through only who may do ``need``."""

        async def check(request: Request) -> None:
            self.check(request, need)

        return check

    def check(self, request: Request, need: Need) -> None:
        """Raise :class:`HTTPException` 401 or 403 unless the request may do ``need``."""
        _refuse_other_sites(request)
        if not self._tokens:
            _refuse_other_machines(request)
            if need == "act":
                raise HTTPException(
                    403, "no token is configured, and nobody acts over HTTP without one; use the command line"
                )
            return
        role, _ = self._holder(request)
        if role is None:
            scheme = 'Basic realm="runbook", charset="UTF-8"' if _is_page(request) else 'Bearer realm="runbook"'
            raise HTTPException(
                401,
                "a valid token is needed: send Authorization: Bearer with a token whose SHA-256 is in server.tokens",
                {"WWW-Authenticate": scheme},
            )
        if need not in _GRANTED[role]:
            raise HTTPException(403, f"the role {role} of this token does not allow this; use another token")

    def actor(self, request: Request) -> str:
        """Who acts, by the name of the token."""
        return f"token:{self._holder(request)[1]}"

    def _holder(self, request: Request) -> tuple[str | None, str]:
        """Role and name of a request's token; every configured one is compared, so that the time tells nothing."""
        token = _presented(request.headers.get("authorization", ""))
        digest = hashlib.sha256(token).hexdigest().encode()
        found: tuple[str | None, str] = (None, "")
        for known, role, name in self._tokens:
            if hmac.compare_digest(digest, known):
                found = (role, name)
        return found if token else (None, "")


def _presented(header: str) -> bytes:
    """The token of an Authorization header: Bearer, or the password of Basic (what a browser can send)."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _is_page(request: Request) -> bool:
    return not request.url.path.startswith(("/api/", "/alerts/", "/metrics"))


def _refuse_other_sites(request: Request) -> None:
    """A page of another site must not post here with the reader's own rights."""
    if request.method in ("GET", "HEAD"):
        return
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if foreign or request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise HTTPException(403, "requests from other sites are refused")


def _refuse_other_machines(request: Request) -> None:
    client = request.client.host if request.client else ""
    try:
        named = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        named = ""
    if not is_loopback(client) or not is_loopback(named):
        raise HTTPException(403, "no token is configured, so only this machine may connect; add server.tokens")
