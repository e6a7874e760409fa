"""A Stripe that an application under test can charge: charges, payment intents, the balance, form-encoded.

No runbook asks Stripe itself; the application does, and what it meets here shows in its access log.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import parse_qs

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from runbook.sandbox.vendors.base import Facts, Route, Vendor, basic_pair, now, same, whole
from runbook.sandbox.vendors.credentials import Credentials

_KEPT = 200
_TYPES = {401: "invalid_request_error", 402: "card_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_WORDS = {
    401: "Invalid API Key provided",
    402: "Your card was declined.",
    404: "Unrecognized request URL",
    429: "Request rate limit exceeded.",
}


class StripeFacts(Facts):
    """How it treats who would charge."""

    #: ``error`` answers ``status``; ``declined`` declines every card.
    mode: Literal["ok", "error", "declined"] = "ok"
    status: int = Field(default=503, ge=400, le=599)
    delay_seconds: float = Field(default=0, ge=0)
    #: Seconds, said with the refusal.
    retry_after_seconds: int | None = Field(default=None, ge=0)
    #: In mode ``error``: the share of the requests that meet it, evenly spread.
    share: float = Field(default=1, gt=0, le=1)
    #: The last charges, newest first.
    charges: list[dict[str, Any]]


class Stripe(Vendor[StripeFacts]):
    """The part of Stripe's API that takes money."""

    name = "stripe"
    base = "/stripe"

    def __init__(self, credentials: Credentials) -> None:
        self._asked = 0
        self._made = 0
        super().__init__(credentials)

    def healthy(self, at: datetime) -> StripeFacts:
        """Every card is good."""
        return StripeFacts(charges=[])

    def error(self, status: int) -> Any:
        """Stripe's error envelope."""
        return {"error": {"type": _TYPES.get(status, "api_error"), "message": _WORDS.get(status, "An error occurred.")}}

    def headers(self) -> Mapping[str, str]:
        """Its version."""
        return {"stripe-version": "2024-06-20"}

    def refusal(self, request: Request) -> Response | None:
        """A secret key as bearer or as Basic user; the root is open, as a probe may find it."""
        if not request.url.path.startswith(f"{self.base}/v1/"):
            return None
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = basic_pair(request).partition(":")[0] or bearer
        return None if same(key, self.credentials.stripe) else self.said(401)

    def routes(self) -> list[Route]:
        """Charges, payment intents, the balance."""
        return [
            ("POST", "/v1/charges", self._charge),
            ("GET", "/v1/charges", self._charges),
            ("POST", "/v1/payment_intents", self._intend),
            ("GET", "/v1/balance", self._balance),
        ]

    async def _charge(self, request: Request) -> Response:
        return await self._take(request, "charge", "ch", "succeeded")

    async def _intend(self, request: Request) -> Response:
        return await self._take(request, "payment_intent", "pi", "requires_payment_method")

    async def _take(self, request: Request, kind: str, prefix: str, status: str) -> Response:
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        refusal = await self._ill()
        if refusal is not None:
            return refusal
        amount = whole(form.get("amount"), 0, most=99_999_999)
        if not amount or not form.get("currency"):
            missing = "amount" if not amount else "currency"
            words = {
                "type": "invalid_request_error",
                "param": missing,
                "message": f"Missing required param: {missing}.",
            }
            return JSONResponse({"error": words}, status_code=400)
        if self.facts.mode == "declined":
            words = {"type": "card_error", "code": "card_declined", "message": _WORDS[402]}
            return JSONResponse({"error": words}, status_code=402)
        self._made += 1
        made = {
            "id": f"{prefix}_{self._made:024d}",
            "object": kind,
            "amount": amount,
            "currency": form["currency"],
            "created": int(now().timestamp()),
            "livemode": False,
            "status": status,
        }
        if kind == "charge":
            self.facts.charges = [made, *self.facts.charges[: _KEPT - 1]]
        return JSONResponse(made)

    async def _charges(self, request: Request) -> Response:
        limit = whole(request.query_params.get("limit"), 10, most=100, least=1)
        charges = self.facts.charges
        body = {"object": "list", "url": "/v1/charges", "has_more": len(charges) > limit, "data": charges[:limit]}
        return await self._ill() or JSONResponse(body)

    async def _balance(self, request: Request) -> Response:
        body = {"object": "balance", "livemode": False, "available": [{"amount": 0, "currency": "usd"}], "pending": []}
        return await self._ill() or JSONResponse(body)

    async def _ill(self) -> Response | None:
        facts = self.facts
        await asyncio.sleep(facts.delay_seconds)
        if facts.mode != "error":
            return None
        self._asked += 1
        meets = math.floor(self._asked * facts.share + 1e-9) > math.floor((self._asked - 1) * facts.share + 1e-9)
        if not meets:
            return None
        retry_after = facts.retry_after_seconds
        return self.said(facts.status, {"retry-after": str(retry_after)} if retry_after is not None else {})
