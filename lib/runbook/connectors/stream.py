"""Cloudflare Stream's API: videos, the token itself, and how many minutes of storage are left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from runbook.connectors.answers import collected, fetched, inside, instant, iso, known, number, prose, text, zulu
from runbook.connectors.base import Context, Failure, Fetched, Unavailable
from runbook.connectors.http import Exchange, HttpConnector, Refused, as_object, as_rows, segment, shown
from runbook.connectors.video import VideoStatus, video_row
from runbook.result import Reading
from runbook.settings import Cloudflare as Section

PAGE = 1000
"""Cloudflare gives no more videos in one answer."""
PAGES = 3
LIMIT_SECONDS = 10.0
_REFUSED = ("1000", "9109", "10000")
"""Cloudflare's codes for a credential that it does not take."""
_STATUSES: dict[str, VideoStatus] = {
    "pendingupload": "waiting",
    "downloading": "processing",
    "queued": "processing",
    "inprogress": "processing",
    "ready": "ready",
    "error": "errored",
}


class Stream(HttpConnector):
    """Stream of one account."""

    source = "cloudflare_stream"

    def __init__(self, context: Context, section: Section) -> None:
        token = section.token.get_secret_value() if section.token else ""
        super().__init__(
            context,
            section.base_url,
            headers={"Authorization": f"Bearer {token}"},
            lacking="" if token and section.account_id else "cloudflare.account_id" if token else "cloudflare.token",
        )
        self._account = f"/accounts/{segment(section.account_id)}"

    def videos(self, since: datetime) -> Reading:
        """``stream_videos``: videos created since then (see :func:`~runbook.connectors.video.video_row`)."""
        path = f"{self._account}/stream"

        def take(exchange: Exchange) -> Fetched:
            found, missing = collected(self, _pages(exchange, path, since), "videos")
            now = self.context.now()
            return fetched([_video(item, now) for item in {text(v.get("uid")): v for v in found}.values()], missing)

        query = shown(path, {"start": zulu(since), "limit": PAGE})
        return self.gather("stream_videos", query, take, limit_seconds=LIMIT_SECONDS)

    def token(self) -> Reading:
        """``stream_token``: whether Cloudflare takes the token, and until when; ``expires_on`` ``None`` = no end."""
        path = "/user/tokens/verify"

        def take(exchange: Exchange) -> Fetched:
            try:
                found = as_object(_result(exchange.get(path).object))
            except Refused as refused:
                # A token that belongs to the account is unknown there, and verified beside it.
                found = self._account_token(exchange, refused)
            return Fetched(value={"status": text(found.get("status")), "expires_on": iso(found.get("expires_on"))})

        return self.gather("stream_token", shown(path), take)

    def storage(self) -> Reading:
        """``stream_storage``: minutes of video stored, and the limit of the account."""
        return self.get("stream_storage", f"{self._account}/stream/storage-usage",
                        parse=lambda value: _storage(as_object(_result(as_object(value)))))  # fmt: skip

    def _account_token(self, exchange: Exchange, refused: Refused) -> dict[str, Any]:
        try:
            return as_object(_result(exchange.get(f"{self._account}/tokens/verify").object))
        except Unavailable:
            raise refused from None


def _pages(exchange: Exchange, path: str, since: datetime) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Newest first; the next page ends where this one did."""
    params: dict[str, Any] = {"start": zulu(since), "limit": PAGE, "asc": False}
    for page in range(1, PAGES + 1):
        items = as_rows(_result(exchange.get(path, params).object))
        oldest = min((at for item in items if (at := text(item.get("created")))), default=None)
        ended = len(items) < PAGE or oldest is None
        yield items, page == PAGES and not ended
        if ended:
            return
        params = params | {"end": str(oldest)}


def _result(envelope: dict[str, Any]) -> Any:
    """What stands in Cloudflare's envelope, which may say no where the status says yes."""
    if envelope.get("success") is False:
        errors = envelope.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else {}
        reason, code = prose(inside(first, "message")) or "not successful", text(inside(first, "code")) or ""
        raise Unavailable(Failure(state="auth_failed" if code in _REFUSED else "partial", reason=reason, code=code))
    return envelope.get("result")


def _video(item: dict[str, Any], now: datetime) -> dict[str, Any]:
    status = item.get("status")
    return video_row(
        provider="stream",
        id=text(item.get("uid")),
        status=known(inside(status, "state"), _STATUSES, "unknown"),
        raw_status=text(inside(status, "state")),
        created=instant(item.get("created")),
        now=now,
        reference=text(inside(item, "meta", "name")),
        creator=text(item.get("creator")),
        # The documented sample of the webhook spells it in the second way.
        error_code=text(inside(status, "errorReasonCode")) or text(inside(status, "errReasonCode")),
        error_message=prose(inside(status, "errorReasonText")) or prose(inside(status, "errReasonText")),
        upload_id=None,
        progress_percent=number(inside(status, "pctComplete")),
    )


def _storage(usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "used_minutes": number(usage.get("totalStorageMinutes")),
        "limit_minutes": number(usage.get("totalStorageMinutesLimit")),
    }
