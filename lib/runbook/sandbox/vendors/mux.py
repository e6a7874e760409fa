"""Mux Video: assets, direct uploads, and transcoding that ends a moment later with a signed webhook.

Nothing is fetched or transcoded: how an asset ends is decided by the mode in force at its end.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import json
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field

from runbook.sandbox.vendors import webhooks
from runbook.sandbox.vendors.base import (
    Facts,
    Route,
    Row,
    Vendor,
    basic_pair,
    json_object,
    now,
    number,
    same,
    whole,
)
from runbook.sandbox.vendors.credentials import Credentials

_KEPT = 500
_TYPES = {
    400: "invalid_parameters",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    429: "too_many_requests",
    503: "service_unavailable",
}
_WORDS = {
    401: "Unauthorized request",
    404: "The requested resource either doesn't exist or you don't have access to it.",
    429: "Too many requests, please slow down.",
    503: "The service is temporarily unavailable.",
}


class AssetError(Row):
    """Why an asset ended badly."""

    type: str = "invalid_input"
    messages: list[str] = Field(default_factory=lambda: ["The file does not appear to be a video."])


class Asset(Row):
    """One video."""

    id: str
    status: Literal["preparing", "ready", "errored"] = "ready"
    created_at: AwareDatetime
    passthrough: str | None = None
    creator: str | None = None
    title: str | None = None
    input_url: str | None = None
    upload_id: str | None = None
    errors: AssetError | None = None
    progress: float | None = Field(default=None, ge=-1, le=100)
    duration: float = 24.0


class Upload(Row):
    """One direct upload. Mux does not say when it was made."""

    id: str
    status: Literal["waiting", "asset_created", "errored", "cancelled", "timed_out"] = "waiting"
    asset_id: str | None = None
    error: dict[str, str] | None = None
    timeout: int = 3600
    cors_origin: str = ""
    passthrough: str | None = None
    creator: str | None = None


class Delivery(Row):
    """One webhook: what it said, and the status that answered it."""

    type: str
    asset_id: str
    status: int | None


class MuxFacts(Facts):
    """How Mux fares, and what it holds."""

    #: ``errored``: assets end with ``error``; ``stuck``: they do not end; ``quota``: creating is refused with 400;
    #: ``outage``: every request meets 503.
    mode: Literal["ok", "errored", "stuck", "quota", "outage"] = "ok"
    error: AssetError = AssetError()
    #: Only assets whose passthrough, creator or input contains this meet the mode ``errored`` or ``stuck``.
    only: str = ""
    transcode_seconds: float = Field(default=0.5, ge=0)
    #: Whether webhooks are sent.
    webhooks: bool = True
    webhook_url: str = ""
    assets: list[Asset]
    uploads: list[Upload]
    deliveries: list[Delivery]


class Mux(Vendor[MuxFacts]):
    """One environment of Mux Video."""

    name = "mux"
    base = "/mux"
    kept = ("webhook_url",)

    def __init__(self, credentials: Credentials) -> None:
        self._ids = itertools.count(1)
        self._under_way: set[asyncio.Task[None]] = set()
        super().__init__(credentials)

    def healthy(self, at: datetime) -> MuxFacts:
        """A few assets, all ready."""
        assets = [
            Asset(
                id=self._new_id(f"old{n}"), created_at=at - timedelta(hours=2, minutes=20 * n), passthrough=f"video:{n}"
            )
            for n in range(6)
        ]
        return MuxFacts(assets=assets, uploads=[], deliveries=[])

    def reset(self) -> None:
        """Forget what is being transcoded, too."""
        for task in self._under_way:
            task.cancel()
        super().reset()

    def error(self, status: int) -> Any:
        """Mux's error envelope."""
        words = _WORDS.get(status, "An error occurred.")
        return {"error": {"type": _TYPES.get(status, "internal_error"), "messages": [words]}}

    def headers(self) -> Mapping[str, str]:
        """What is left of the current second: always enough."""
        return {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "49"}

    def refusal(self, request: Request) -> Response | None:
        """HTTP Basic, token id and secret; the address of a direct upload is its own credential."""
        path = request.url.path.removeprefix(self.base)
        if not path.startswith("/video/v1/"):
            return None
        if not same(basic_pair(request), f"{self.credentials.mux_id}:{self.credentials.mux_secret}"):
            return self.said(401)
        return self.said(503) if self.facts.mode == "outage" else None

    def routes(self) -> list[Route]:
        """Assets and uploads."""
        return [
            ("GET", "/video/v1/assets", self._assets),
            ("POST", "/video/v1/assets", self._create_asset),
            ("GET", "/video/v1/assets/{id}", self._asset),
            ("DELETE", "/video/v1/assets/{id}", self._delete_asset),
            ("GET", "/video/v1/assets/{id}/input-info", self._input_info),
            ("GET", "/video/v1/uploads", self._uploads),
            ("POST", "/video/v1/uploads", self._create_upload),
            ("GET", "/video/v1/uploads/{id}", self._upload),
            ("PUT", "/video/v1/uploads/{id}/cancel", self._cancel_upload),
            ("PUT", "/direct/{id}", self._receive_upload),
        ]

    # -- assets ----------------------------------------------------------------------------------

    async def _assets(self, request: Request) -> Response:
        asked = request.query_params
        found = sorted(self.facts.assets, key=lambda asset: asset.created_at, reverse=True)
        upload = asked.get("upload_id")
        if upload:
            found = [asset for asset in found if asset.upload_id == upload]
        if asked.get("live_stream_id"):
            found = []
        limit = whole(asked.get("limit"), 10, most=100, least=1)
        start = _cursor(asked.get("cursor")) or (whole(asked.get("page"), 1, most=100_000, least=1) - 1) * limit
        page: dict[str, Any] = {"data": [_asset(asset) for asset in found[start : start + limit]]}
        if start + limit < len(found):
            page["next_cursor"] = base64.urlsafe_b64encode(str(start + limit).encode()).decode()
        return JSONResponse(page)

    async def _asset(self, request: Request) -> Response:
        asset = self._find_asset(request.path_params["id"])
        return JSONResponse({"data": _asset(asset)}) if asset else self.said(404)

    async def _delete_asset(self, request: Request) -> Response:
        asset = self._find_asset(request.path_params["id"])
        if asset is None:
            return self.said(404)
        self.facts.assets.remove(asset)
        return Response(status_code=204)

    async def _input_info(self, request: Request) -> Response:
        asset = self._find_asset(request.path_params["id"])
        if asset is None:
            return self.said(404)
        settings = {"url": asset.input_url} if asset.input_url else {}
        file = {
            "container_format": "mov,mp4,m4a,3gp,3g2,mj2",
            "tracks": [{"type": "video", "duration": asset.duration}],
        }
        return JSONResponse({"data": [{"settings": settings, "file": file}]})

    async def _create_asset(self, request: Request) -> Response:
        body = await json_object(request)
        inputs = body.get("inputs") or body.get("input") or []
        url = inputs[0].get("url") if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict) else None
        if self.facts.mode == "quota":
            return self._invalid("The plan's limit of assets has been reached.")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            return self._invalid("input: a public url is required")
        meta = body.get("meta") or {}
        asset = Asset(
            id=self._new_id(url),
            status="preparing",
            created_at=now(),
            passthrough=body.get("passthrough"),
            creator=meta.get("creator_id"),
            title=meta.get("title"),
            input_url=url,
        )
        self._begin(asset)
        return JSONResponse({"data": _asset(asset)}, status_code=201)

    def _begin(self, asset: Asset) -> None:
        self.facts.assets = [asset, *self.facts.assets[: _KEPT - 1]]
        self._announce("video.asset.created", asset)
        self._start(self._transcode(asset.id))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _transcode(self, asset_id: str) -> None:
        await asyncio.sleep(self.facts.transcode_seconds)
        # Facts may have been changed meanwhile: the asset is looked up anew.
        asset = self._find_asset(asset_id)
        if asset is None or asset.status != "preparing":
            return
        mode = self.facts.mode if self._concerns(asset) else "ok"
        if mode in ("stuck", "outage"):
            return
        if mode == "errored":
            asset.status, asset.errors = "errored", self.facts.error
        else:
            asset.status = "ready"
        self._announce(f"video.asset.{asset.status}", asset)

    def _concerns(self, asset: Asset) -> bool:
        said = (asset.passthrough, asset.creator, asset.input_url)
        return any(self.facts.only in text for text in said if text) or not self.facts.only

    def _announce(self, kind: str, asset: Asset) -> None:
        if not self.facts.webhooks or not self.facts.webhook_url:
            return
        at = now()
        # Webhooks say the creation as a number, the API as text.
        data = _asset(asset) | {"created_at": int(asset.created_at.timestamp())}
        event = {
            "id": self._new_id(kind),
            "type": kind,
            "created_at": at.isoformat(),
            "object": {"type": "asset", "id": asset.id},
            "environment": {"name": "Sandbox", "id": "sandbox"},
            "data": data,
            "attempts": [],
        }
        self._start(self._deliver(kind, asset.id, int(at.timestamp()), json.dumps(event).encode()))

    async def _deliver(self, kind: str, asset_id: str, at: int, body: bytes) -> None:
        status = await webhooks.deliver(self.facts.webhook_url, self.credentials.mux_webhook, at, body)
        self.facts.deliveries = [*self.facts.deliveries[-_KEPT:], Delivery(type=kind, asset_id=asset_id, status=status)]

    def _find_asset(self, asset_id: str) -> Asset | None:
        return next((asset for asset in self.facts.assets if asset.id == asset_id), None)

    # -- direct uploads --------------------------------------------------------------------------

    async def _uploads(self, request: Request) -> Response:
        asked = request.query_params
        limit = whole(asked.get("limit"), 10, most=100, least=1)
        start = (whole(asked.get("page"), 1, most=100_000, least=1) - 1) * limit
        found = self.facts.uploads[start : start + limit]
        return JSONResponse({"data": [self._upload_object(request, upload) for upload in found]})

    async def _upload(self, request: Request) -> Response:
        upload = self._find_upload(request)
        return JSONResponse({"data": self._upload_object(request, upload)}) if upload else self.said(404)

    async def _create_upload(self, request: Request) -> Response:
        body = await json_object(request)
        if self.facts.mode == "quota":
            return self._invalid("The plan's limit of assets has been reached.")
        wanted = body.get("new_asset_settings") or {}
        upload = Upload(
            id=self._new_id("upload"),
            timeout=int(body.get("timeout") or 3600),
            cors_origin=str(body.get("cors_origin") or ""),
            passthrough=wanted.get("passthrough"),
            creator=(wanted.get("meta") or {}).get("creator_id"),
        )
        self.facts.uploads = [upload, *self.facts.uploads[: _KEPT - 1]]
        return JSONResponse({"data": self._upload_object(request, upload)}, status_code=201)

    async def _cancel_upload(self, request: Request) -> Response:
        upload = self._find_upload(request)
        if upload is None:
            return self.said(404)
        if upload.status != "waiting":
            return self.said(403)
        upload.status = "cancelled"
        return JSONResponse({"data": self._upload_object(request, upload)})

    async def _receive_upload(self, request: Request) -> Response:
        upload = self._find_upload(request)
        if upload is None or upload.status != "waiting":
            return self.said(404)
        await request.body()
        asset = Asset(
            id=self._new_id(upload.id),
            status="preparing",
            created_at=now(),
            passthrough=upload.passthrough,
            creator=upload.creator,
            upload_id=upload.id,
        )
        upload.status, upload.asset_id = "asset_created", asset.id
        self._begin(asset)
        return Response(status_code=200)

    def _find_upload(self, request: Request) -> Upload | None:
        return next((upload for upload in self.facts.uploads if upload.id == request.path_params["id"]), None)

    def _upload_object(self, request: Request, upload: Upload) -> dict[str, Any]:
        site = f"{request.url.scheme}://{request.url.netloc}{self.base}"
        more = {"asset_id": upload.asset_id, "error": upload.error, "cors_origin": upload.cors_origin or None}
        return {
            "id": upload.id,
            "status": upload.status,
            "timeout": upload.timeout,
            "url": f"{site}/direct/{upload.id}",
            "new_asset_settings": {"passthrough": upload.passthrough} if upload.passthrough else {},
            **{key: value for key, value in more.items() if value is not None},
        }

    def _invalid(self, words: str) -> Response:
        return JSONResponse({"error": {"type": "invalid_parameters", "messages": [words]}}, status_code=400)

    def _new_id(self, about: str) -> str:
        return f"{number(about):08x}{next(self._ids):024d}"


def _asset(asset: Asset) -> dict[str, Any]:
    state = {"preparing": "transcoding", "ready": "completed", "errored": "errored"}[asset.status]
    usual = {"preparing": 40.0, "ready": 100.0, "errored": -1.0}[asset.status]
    meta = {"creator_id": asset.creator, "title": asset.title}
    optional = {
        "passthrough": asset.passthrough,
        "upload_id": asset.upload_id,
        "errors": asset.errors.model_dump() if asset.errors else None,
        "meta": {key: value for key, value in meta.items() if value is not None} or None,
        "duration": asset.duration if asset.status == "ready" else None,
    }
    return {
        "id": asset.id,
        "status": asset.status,
        "created_at": str(int(asset.created_at.timestamp())),
        "playback_ids": [{"id": f"p{asset.id}", "policy": "public"}],
        "mp4_support": "none",
        "master_access": "none",
        "max_resolution_tier": "1080p",
        "encoding_tier": "smart",
        "video_quality": "plus",
        "ingest_type": "on_demand_direct_upload" if asset.upload_id else "on_demand_url",
        "progress": {"state": state, "progress": usual if asset.progress is None else asset.progress},
        **{key: value for key, value in optional.items() if value is not None},
    }


def _cursor(text: str | None) -> int:
    try:
        return int(base64.urlsafe_b64decode(text or "MA==").decode())
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return 0
