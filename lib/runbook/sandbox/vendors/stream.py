"""Cloudflare's API as far as Stream needs it: videos, storage, and the token's own state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field

from runbook.sandbox.vendors.base import Facts, Route, Row, Vendor, instant, number, same, stamp, whole
from runbook.sandbox.vendors.credentials import ACCOUNT

_MOST = 1000
_CODES = {400: 10005, 401: 10001, 403: 10000, 404: 10003, 429: 10429}
_WORDS = {
    401: "Unable to authenticate request",
    403: "Authentication error",
    404: "Not Found: the requested resource does not exist",
    429: "Please wait and consider throttling your request speed",
}


class Video(Row):
    """One video."""

    uid: str
    state: Literal["pendingupload", "downloading", "queued", "inprogress", "ready", "error", "live-inprogress"] = (
        "ready"
    )
    created: AwareDatetime
    name: str = ""
    creator: str | None = None
    error_code: str = ""
    error_text: str = ""
    percent: float | None = Field(default=None, ge=0, le=100)
    size: int = 5_000_000
    duration: float = 24.0


class StreamFacts(Facts):
    """What the account holds and may hold."""

    videos: list[Video]
    token_status: Literal["active", "disabled", "expired"] = "active"  # noqa: S105 - no token
    token_expires_on: AwareDatetime | None = None
    storage_minutes: int = 420
    storage_limit_minutes: int = 1000


class Stream(Vendor[StreamFacts]):
    """One Cloudflare account with Stream."""

    name = "stream"
    base = "/cloudflare/client/v4"

    def healthy(self, at: datetime) -> StreamFacts:
        """A few videos, all ready, and room for more."""
        videos = [
            Video(
                uid=f"{number(f'video{n}'):032x}",
                created=at - timedelta(hours=3, minutes=25 * n),
                name=f"video-{n}.mp4",
            )
            for n in range(4)
        ]
        return StreamFacts(videos=videos, token_expires_on=at + timedelta(days=90))

    def error(self, status: int) -> Any:
        """Cloudflare's envelope, unsuccessful."""
        words = {"code": _CODES.get(status, 10000), "message": _WORDS.get(status, "Internal Server Error")}
        return {"success": False, "errors": [words], "messages": [], "result": None}

    def headers(self) -> Mapping[str, str]:
        """What is left of the five minutes: always enough."""
        return {"ratelimit": '"default";r=1199;t=300', "ratelimit-policy": '"default";q=1200;w=300'}

    def refusal(self, request: Request) -> Response | None:
        """A bearer; a disabled or expired token can still ask about itself."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not same(given, self.credentials.cloudflare):
            return self.said(401)
        if request.url.path.endswith("/user/tokens/verify") or self.facts.token_status == "active":  # noqa: S105
            return None
        return self.said(403)

    def routes(self) -> list[Route]:
        """Videos, storage, token."""
        stream = "/accounts/{account}/stream"
        return [
            ("GET", stream, self._videos),
            ("GET", f"{stream}/storage-usage", self._storage),
            ("GET", f"{stream}/{{uid}}", self._video),
            ("GET", "/user/tokens/verify", self._verify),
        ]

    async def _videos(self, request: Request) -> Response:
        if request.path_params["account"] != ACCOUNT:
            return self.said(403)
        asked = request.query_params
        found = [video for video in self.facts.videos if _matches(video, asked)]
        found.sort(key=lambda video: video.created, reverse=asked.get("asc", "").lower() != "true")
        page = found[: whole(asked.get("limit"), _MOST, most=_MOST, least=1)]
        counts = {"range": len(page), "total": len(found)} if asked.get("include_counts", "").lower() == "true" else {}
        return JSONResponse({**_success([_object(video) for video in page]), **counts})

    async def _video(self, request: Request) -> Response:
        wanted = request.path_params["uid"]
        video = next((video for video in self.facts.videos if video.uid == wanted), None)
        if video is None or request.path_params["account"] != ACCOUNT:
            return self.said(404)
        return JSONResponse(_success(_object(video)))

    async def _storage(self, request: Request) -> Response:
        if request.path_params["account"] != ACCOUNT:
            return self.said(403)
        usage = {
            "totalStorageMinutes": self.facts.storage_minutes,
            "totalStorageMinutesLimit": self.facts.storage_limit_minutes,
            "videoCount": len(self.facts.videos),
        }
        return JSONResponse(_success(usage))

    async def _verify(self, request: Request) -> Response:
        expires = self.facts.token_expires_on
        result = {"id": f"{number(self.credentials.cloudflare):032x}", "status": self.facts.token_status}
        answer = _success({**result, **({"expires_on": stamp(expires)} if expires else {})})
        answer["messages"] = [{"code": 10000, "message": f"This API Token is {self.facts.token_status}"}]
        return JSONResponse(answer)


def _success(result: Any) -> dict[str, Any]:
    return {"success": True, "errors": [], "messages": [], "result": result}


def _matches(video: Video, asked: Mapping[str, str]) -> bool:
    start, end = instant(asked.get("start") or asked.get("after")), instant(asked.get("end") or asked.get("before"))
    return (
        asked.get("status", video.state) == video.state
        and (start is None or video.created >= start)
        and (end is None or video.created < end)
        and asked.get("creator", video.creator) == video.creator
        and asked.get("search", "") in video.name
    )


def _object(video: Video) -> dict[str, Any]:
    ready = video.state == "ready"
    percent = video.percent if video.percent is not None else 100.0 if ready else None
    status = {
        "state": video.state,
        "errorReasonCode": video.error_code,
        "errorReasonText": video.error_text,
        **({"pctComplete": f"{percent:.6f}"} if percent is not None else {}),
    }
    return {
        "uid": video.uid,
        "created": stamp(video.created),
        "uploaded": stamp(video.created),
        "modified": stamp(video.created),
        "readyToStream": ready,
        **({"readyToStreamAt": stamp(video.created + timedelta(seconds=30))} if ready else {}),
        **({"creator": video.creator} if video.creator is not None else {}),
        "duration": video.duration if ready else -1,
        "size": video.size,
        "meta": {"name": video.name},
        "status": status,
        "requireSignedURLs": False,
        "allowedOrigins": [],
        "thumbnailTimestampPct": 0,
        "input": {"width": 1280, "height": 720} if ready else {"width": -1, "height": -1},
    }
