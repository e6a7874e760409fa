"""Signing and sending of Mux's webhooks, as the documentation says: HMAC-SHA256 over the time, a dot, and the body."""

from __future__ import annotations

import asyncio
import hashlib
import hmac

import httpx
import structlog

log = structlog.get_logger(__name__)

_WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further attempt. The real one goes on for a day."""
_SECONDS = 10.0


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of ``Mux-Signature``; ``at`` is Unix time in seconds."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


async def deliver(url: str, secret: str, at: int, body: bytes) -> int | None:
    """POST until a 2xx answers or the attempts are used up; the last status, ``None`` when nothing answered."""
    status = None
    async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
        for wait in (0.0, *_WAITS):
            await asyncio.sleep(wait)
            headers = {"Content-Type": "application/json", "Mux-Signature": signature(secret, at, body)}
            try:
                status = (await client.post(url, content=body, headers=headers)).status_code
            except httpx.HTTPError as error:
                status = None
                log.warning("webhook not delivered", url=url, error=repr(error))
                continue
            if 200 <= status < 300:
                return status
            log.warning("webhook refused", url=url, status=status)
    return status
