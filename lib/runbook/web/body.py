"""Reads a request's body up to a limit, and not a byte further than needed to know that it is over it."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

LIMIT_BYTES = 1024 * 1024
_SECONDS = 30.0
_CLOSE = {"Connection": "close"}


async def read_body(request: Request) -> bytes:
    """The body.

    Raises
    ------
    HTTPException
        413 above 1 MiB (declared or found out while reading), 408 when it does not arrive.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > LIMIT_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > LIMIT_BYTES:
                    raise _too_large()
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {_SECONDS:g} s", _CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early", _CLOSE) from None
    return b"".join(parts)


def _too_large() -> HTTPException:
    return HTTPException(413, "the body is larger than 1 MiB; send fewer alerts in one message (max_alerts)", _CLOSE)
