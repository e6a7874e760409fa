"""A Discord that accepts, refuses and throttles webhook messages the way the real one does, and remembers them.

Only the two webhook operations exist, checked against the published limits. What tests and drills ask it besides
(``/simulator/…``) is no part of Discord's interface.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from runbook.sandbox import processes

EMBED_TOTAL = 6000
_INVALID_FORM = 50035
_UNKNOWN_WEBHOOK = 10015
_INVALID_TOKEN = 50027
_EMPTY_MESSAGE = 50006
_UNKNOWN_MESSAGE = 10008
_NO_MODEL = "Only dictionaries may be used in a ModelType"

Mode = Literal["ok", "rate_limited", "unknown_webhook", "server_error"]


class ModeRequest(BaseModel):
    """How the simulator should answer from now on."""

    model_config = ConfigDict(extra="forbid")

    mode: Mode = "ok"
    #: Seconds, as Discord says them: a float.
    retry_after: float = Field(default=0.5, gt=0)
    #: After so many answers in this mode all is well again; ``None`` = stays.
    times: int | None = Field(default=None, gt=0)


@dataclass
class State:
    """What the simulator remembers."""

    token: str
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Bodies as they were received, refused ones included.
    received: list[dict[str, Any]] = field(default_factory=list)
    mode: ModeRequest = field(default_factory=ModeRequest)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1_400_000_000_000_000_001))

    def current_mode(self) -> ModeRequest:
        """The mode in force, used up by one."""
        mode = self.mode
        if mode.times is not None:
            left = mode.times - 1
            self.mode = ModeRequest() if left == 0 else mode.model_copy(update={"times": left})
        return mode


def problems(body: Mapping[str, Any]) -> dict[str, Any]:
    """What Discord would say is wrong with a message, nested as in its ``errors``; empty when it is acceptable."""
    found: dict[str, Any] = {}
    _too_long(found, body, "content", 2000)
    _too_long(found, body, "username", 80)
    embeds = body.get("embeds") or []
    if not isinstance(embeds, list):
        _note(found, ["embeds"], "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        return found
    if len(embeds) > 10:
        _note(found, ["embeds"], "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    for index, embed in enumerate(embeds):
        _check_embed(found, embed, ["embeds", str(index)])
    if not found and sum(_characters(embed) for embed in embeds) > EMBED_TOTAL:
        _note(found, ["embeds"], "MAX_EMBED_SIZE_EXCEEDED", f"Embed size exceeds maximum size of {EMBED_TOTAL}")
    return found


def _check_embed(found: dict[str, Any], embed: Any, at: list[str]) -> None:
    if not isinstance(embed, Mapping):
        _note(found, at, "MODEL_TYPE_CONVERT", _NO_MODEL)
        return
    _too_long(found, embed, "title", 256, at)
    _too_long(found, embed, "description", 4096, at)
    _too_long(found, embed.get("footer") or {}, "text", 2048, [*at, "footer"])
    _too_long(found, embed.get("author") or {}, "name", 256, [*at, "author"])
    color = embed.get("color")
    if color is not None and not (isinstance(color, int) and 0 <= color <= 0xFFFFFF):
        _note(found, [*at, "color"], "NUMBER_TYPE_MAX", "int value should be between 0 and 16777215.")
    fields = embed.get("fields") or []
    if len(fields) > 25:
        _note(found, [*at, "fields"], "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
    for index, item in enumerate(fields):
        if not isinstance(item, Mapping):
            _note(found, [*at, "fields", str(index)], "MODEL_TYPE_CONVERT", _NO_MODEL)
            continue
        for key, limit in (("name", 256), ("value", 1024)):
            here = [*at, "fields", str(index)]
            if not str(item.get(key) or "").strip():
                _note(found, [*here, key], "BASE_TYPE_REQUIRED", "This field is required")
            _too_long(found, item, key, limit, here)


def _too_long(
    found: dict[str, Any], where: Mapping[str, Any], key: str, limit: int, at: list[str] | None = None
) -> None:
    value = where.get(key)
    if value is not None and len(str(value)) > limit:
        _note(found, [*(at or []), key], "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")


def _note(found: dict[str, Any], path: list[str], code: str, message: str) -> None:
    for part in path:
        found = found.setdefault(part, {})
    found.setdefault("_errors", []).append({"code": code, "message": message})


def _characters(embed: Any) -> int:
    """What counts towards the 6000: title, description, field names and values, footer and author."""
    if not isinstance(embed, Mapping):
        return 0
    parts = [embed.get("title"), embed.get("description")]
    parts += [(embed.get("footer") or {}).get("text"), (embed.get("author") or {}).get("name")]
    parts += [item.get(key) for item in embed.get("fields") or [] for key in ("name", "value")]
    return sum(len(str(part)) for part in parts if part)


def message_object(message_id: str, webhook_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The message as Discord returns it."""
    return {
        "id": message_id,
        "type": 0,
        "channel_id": "100000000000000002",
        "webhook_id": webhook_id,
        "author": {
            "id": webhook_id,
            "username": body.get("username") or "Runbook",
            "discriminator": "0000",
            "global_name": None,
            "avatar": None,
            "bot": True,
            "public_flags": 0,
            "flags": 0,
            "primary_guild": None,
        },
        "content": body.get("content") or "",
        "embeds": [{"type": "rich", **embed} for embed in body.get("embeds") or []],
        "attachments": [],
        "components": [],
        "mentions": [],
        "mention_roles": [],
        "mention_everyone": False,
        "pinned": False,
        "tts": False,
        "flags": body.get("flags") or 0,
        "timestamp": datetime.now(UTC).isoformat(),
        "edited_timestamp": None,
    }


def _refusal(status: int, code: int, message: str, **more: Any) -> JSONResponse:
    return JSONResponse({"message": message, "code": code, **more}, status_code=status)


def _throttled(retry_after: float) -> JSONResponse:
    body = {"message": "You are being rate limited.", "code": 0, "retry_after": retry_after, "global": False}
    headers = {
        "Retry-After": str(max(1, round(retry_after))),
        "X-RateLimit-Limit": "5",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset-After": f"{retry_after:.3f}",
        "X-RateLimit-Bucket": "simulated",
        "X-RateLimit-Scope": "user",
    }
    return JSONResponse(body, status_code=429, headers=headers)


async def _accept(state: State, token: str, request: Request) -> JSONResponse | dict[str, Any]:
    """The message body, or the refusal to answer with."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        return _refusal(400, 50109, "The request body contains invalid JSON.")
    if not isinstance(body, dict):
        return _refusal(400, 50109, "The request body contains invalid JSON.")
    state.received.append(body)
    mode = state.current_mode()
    if mode.mode == "rate_limited":
        return _throttled(mode.retry_after)
    if mode.mode == "unknown_webhook":
        return _refusal(404, _UNKNOWN_WEBHOOK, "Unknown Webhook")
    if mode.mode == "server_error":
        return _refusal(503, 0, "Service Unavailable")
    if not hmac.compare_digest(token.encode(), state.token.encode()):
        return _refusal(401, _INVALID_TOKEN, "Invalid Webhook Token")
    if not body.get("content") and not body.get("embeds"):
        return _refusal(400, _EMPTY_MESSAGE, "Cannot send an empty message")
    wrong = problems(body)
    return _refusal(400, _INVALID_FORM, "Invalid Form Body", errors=wrong) if wrong else body


def create_app(token: str) -> FastAPI:
    """The simulator as an application; ``token`` is the only webhook token that it knows."""
    app = FastAPI(openapi_url=None)
    state = State(token)

    @app.post("/api/webhooks/{webhook_id}/{webhook_token}")
    @app.post("/api/v10/webhooks/{webhook_id}/{webhook_token}")
    async def execute(webhook_id: str, webhook_token: str, request: Request, wait: bool = False) -> Response:
        body = await _accept(state, webhook_token, request)
        if isinstance(body, JSONResponse):
            return body
        message = message_object(str(next(state.ids)), webhook_id, body)
        state.messages[message["id"]] = message
        return JSONResponse(message) if wait else Response(status_code=204)

    @app.patch("/api/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}")
    @app.patch("/api/v10/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}")
    async def edit(webhook_id: str, webhook_token: str, message_id: str, request: Request) -> Response:
        body = await _accept(state, webhook_token, request)
        if isinstance(body, JSONResponse):
            return body
        if message_id not in state.messages:
            return _refusal(404, _UNKNOWN_MESSAGE, "Unknown Message")
        edited = message_object(message_id, webhook_id, body) | {"edited_timestamp": datetime.now(UTC).isoformat()}
        state.messages[message_id] = edited
        return JSONResponse(edited)

    @app.get("/simulator/messages")
    async def messages() -> list[dict[str, Any]]:
        return list(state.messages.values())

    @app.get("/simulator/received")
    async def received() -> list[dict[str, Any]]:
        return state.received

    @app.delete("/simulator/messages", status_code=204)
    async def forget() -> None:
        state.messages.clear()
        state.received.clear()

    @app.put("/simulator/mode", status_code=204)
    async def set_mode(mode: ModeRequest) -> None:
        state.mode = mode

    return app


def main() -> None:
    """In the child: listen on a free port of loopback, say which, serve until SIGTERM."""
    import uvicorn

    given = processes.arguments()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(create_app(given["token"]), log_level="warning", access_log=False)
        processes.ready(port=listener.getsockname()[1])
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
