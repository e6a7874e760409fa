"""A Discord that accepts, refuses and throttles webhook messages the way the real one does, and remembers them.

Only the webhook operations exist, checked against the published limits.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from runbook.sandbox.vendors.base import Facts, Route, Vendor, now, same
from runbook.sandbox.vendors.credentials import Credentials

EMBED_TOTAL = 6000
_INVALID_FORM = 50035
_UNKNOWN_WEBHOOK = 10015
_INVALID_TOKEN = 50027
_EMPTY_MESSAGE = 50006
_UNKNOWN_MESSAGE = 10008
_NO_MODEL = "Only dictionaries may be used in a ModelType"

Mode = Literal["ok", "rate_limited", "unknown_webhook", "server_error"]


class DiscordFacts(Facts):
    """How it answers, and what it was sent."""

    mode: Mode = "ok"
    #: Seconds, as Discord says them: a float.
    retry_after: float = Field(default=0.5, gt=0)
    #: After so many answers in this mode all is well again; ``None`` = stays.
    times: int | None = Field(default=None, gt=0)
    #: Where the webhook leads.
    channel: str = "100000000000000002"
    #: Messages that stand in the channel, oldest first.
    messages: list[dict[str, Any]]
    #: Bodies as they were received, refused ones included.
    received: list[dict[str, Any]]


class Discord(Vendor[DiscordFacts]):
    """One webhook, any number of messages."""

    name = "discord"
    base = "/discord"

    def __init__(self, credentials: Credentials) -> None:
        self._ids = itertools.count(1_400_000_000_000_000_001)
        super().__init__(credentials)

    def healthy(self, at: datetime) -> DiscordFacts:
        """Accepts everything that is within the limits."""
        return DiscordFacts(messages=[], received=[])

    def error(self, status: int) -> Any:
        """Discord's general errors; those of a webhook have codes of their own."""
        words = {401: "401: Unauthorized", 404: "404: Not Found", 429: "You are being rate limited."}
        more = {"retry_after": self.facts.retry_after, "global": False} if status == 429 else {}
        return {"message": words.get(status, f"{status}: error"), "code": 0, **more}

    def routes(self) -> list[Route]:
        """Execute, read, edit and delete, under both API prefixes."""
        webhook = "/webhooks/{webhook_id}/{webhook_token}"
        message = f"{webhook}/messages/{{message_id}}"
        return [
            (method, prefix + path, endpoint)
            for prefix in ("/api", "/api/v10")
            for method, path, endpoint in (
                ("GET", webhook, self._webhook),
                ("POST", webhook, self._execute),
                ("GET", message, self._message),
                ("PATCH", message, self._edit),
                ("DELETE", message, self._delete),
            )
        ]

    async def _webhook(self, request: Request) -> Response:
        refusal = self._wrong_token(request)
        return refusal or JSONResponse(_webhook_object(request.path_params["webhook_id"], self.facts.channel))

    async def _execute(self, request: Request) -> Response:
        body = await self._accept(request)
        if isinstance(body, JSONResponse):
            return body
        message = message_object(str(next(self._ids)), request.path_params["webhook_id"], self.facts.channel, body)
        self.facts.messages.append(message)
        wait = request.query_params.get("wait", "").lower() in ("true", "1")
        return JSONResponse(message) if wait else Response(status_code=204)

    async def _message(self, request: Request) -> Response:
        refusal = self._wrong_token(request)
        if refusal is not None:
            return refusal
        place = self._place(request)
        return JSONResponse(self.facts.messages[place]) if place is not None else _unknown_message()

    async def _edit(self, request: Request) -> Response:
        body = await self._accept(request)
        if isinstance(body, JSONResponse):
            return body
        place = self._place(request)
        if place is None:
            return _unknown_message()
        old = self.facts.messages[place]
        new = message_object(old["id"], old["webhook_id"], old["channel_id"], body)
        edited = new | {"timestamp": old["timestamp"], "edited_timestamp": now().isoformat()}
        self.facts.messages[place] = edited
        return JSONResponse(edited)

    async def _delete(self, request: Request) -> Response:
        refusal = self._wrong_token(request)
        if refusal is not None:
            return refusal
        place = self._place(request)
        if place is None:
            return _unknown_message()
        del self.facts.messages[place]
        return Response(status_code=204)

    def _place(self, request: Request) -> int | None:
        wanted = request.path_params["message_id"]
        return next((n for n, message in enumerate(self.facts.messages) if message["id"] == wanted), None)

    def _wrong_token(self, request: Request) -> JSONResponse | None:
        if same(request.path_params["webhook_token"], self.credentials.discord):
            return None
        return _refusal(401, _INVALID_TOKEN, "Invalid Webhook Token")

    async def _accept(self, request: Request) -> JSONResponse | dict[str, Any]:
        """The message body, or the refusal to answer with."""
        try:
            body = json.loads(await request.body())
        except ValueError:
            return _refusal(400, 50109, "The request body contains invalid JSON.")
        if not isinstance(body, dict):
            return _refusal(400, 50109, "The request body contains invalid JSON.")
        self.facts.received.append(body)
        ill = self._ill()
        if ill is not None:
            return ill
        refusal = self._wrong_token(request)
        if refusal is not None:
            return refusal
        if not body.get("content") and not body.get("embeds"):
            return _refusal(400, _EMPTY_MESSAGE, "Cannot send an empty message")
        wrong = problems(body)
        return _refusal(400, _INVALID_FORM, "Invalid Form Body", errors=wrong) if wrong else body

    def _ill(self) -> JSONResponse | None:
        """The answer of the mode in force, used up by one."""
        mode, retry_after, times = self.facts.mode, self.facts.retry_after, self.facts.times
        if times is not None:
            self.facts.times = times - 1 or None
            self.facts.mode = mode if times > 1 else "ok"
        if mode == "rate_limited":
            return _throttled(retry_after)
        if mode == "unknown_webhook":
            return _refusal(404, _UNKNOWN_WEBHOOK, "Unknown Webhook")
        if mode == "server_error":
            return _refusal(503, 0, "Service Unavailable")
        return None


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


def message_object(message_id: str, webhook_id: str, channel_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The message as Discord returns it."""
    return {
        "id": message_id,
        "type": 0,
        "channel_id": channel_id,
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
        "timestamp": now().isoformat(),
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


def _unknown_message() -> JSONResponse:
    return _refusal(404, _UNKNOWN_MESSAGE, "Unknown Message")


def _webhook_object(webhook_id: str, channel_id: str) -> dict[str, Any]:
    return {
        "id": webhook_id,
        "type": 1,
        "guild_id": "100000000000000001",
        "channel_id": channel_id,
        "application_id": None,
        "name": "Runbook",
        "avatar": None,
    }
