"""How a vendor answers badly: a refusal, something that is no JSON, half an answer, far too much, or nothing at all.

A failure stands before the vendor's own routes, so that each kind is the same for every vendor; what it says in
refusing is the vendor's own wording.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from fastapi import Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Inner = Callable[[Receive, Send], Awaitable[None]]

HUGE_BYTES = 50_000_000
ELSEWHERE = "http://elsewhere.invalid/login"
_PIECE = b"0," * 32_000
_SIGN_IN = "<!doctype html><html><head><title>Sign in</title></head><body><h1>Please sign in</h1></body></html>"


class Failure(BaseModel):
    """What goes wrong, for which requests, and how often."""

    model_config = ConfigDict(extra="forbid")

    #: Status to answer with; alone, the body is the vendor's own for that status.
    status: int | None = Field(default=None, ge=200, le=599)
    headers: dict[str, str] = {}
    #: A string goes out as it is, anything else as JSON.
    body: Any = None
    #: Seconds before anything is answered; alone, the answer itself is the ordinary one.
    delay_seconds: float = Field(default=0, ge=0)
    kind: Literal["html", "truncated", "redirect", "huge", "silence"] | None = None
    #: Only requests whose path contains this; empty = all.
    path: str = ""
    #: Only that many requests; ``None`` = until healed.
    times: int | None = Field(default=None, gt=0)
    #: Of the requests that it concerns, this share fails, evenly spread.
    share: float = Field(default=1, gt=0, le=1)

    def concerns(self, path: str) -> bool:
        """Whether a request of that path is meant."""
        return self.path in path

    async def answer(self, own_words: Callable[[int], Any], inner: Inner, receive: Receive, send: Send) -> None:
        """Answer one request badly; ``inner`` would have answered it well."""
        if self.kind == "silence":
            await _disconnected(receive)
            return
        await asyncio.sleep(self.delay_seconds)
        response = self._response(own_words)
        if response is not None:
            await response({"type": "http", "method": "GET"}, receive, send)
        elif self.kind == "truncated":
            await _half(inner, receive, send)
        else:
            await inner(receive, send)

    def _response(self, own_words: Callable[[int], Any]) -> Response | None:
        match self.kind:
            case "html":
                text = self.body if isinstance(self.body, str) else _SIGN_IN
                return HTMLResponse(text, status_code=self.status or 200, headers=self.headers)
            case "redirect":
                target = self.headers.get("Location", ELSEWHERE)
                return RedirectResponse(target, status_code=self.status or 302)
            case "huge":
                return StreamingResponse(_huge(), status_code=self.status or 200, media_type="application/json")
            case "truncated" | "silence":
                return None
        if self.status is None and self.body is None:
            return None
        status = self.status or 200
        body = own_words(status) if self.body is None else self.body
        if isinstance(body, str):
            return Response(body, status_code=status, headers=self.headers)
        return JSONResponse(body, status_code=status, headers=self.headers)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _huge() -> Any:
    yield b'{"data":['
    for _ in range(HUGE_BYTES // len(_PIECE)):
        yield _PIECE
    yield b"0]}"


async def _half(inner: Inner, receive: Receive, send: Send) -> None:
    """The ordinary answer with the first half of its body only, and the length of that half."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await inner(receive, keep)
    start = messages[0]
    body = b"".join(message.get("body", b"") for message in messages[1:]) or json.dumps({"data": []}).encode()
    half = body[: max(1, len(body) // 2)]
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    await send({**start, "headers": [*headers, (b"content-length", str(len(half)).encode())]})
    await send({"type": "http.response.body", "body": half})
