"""Mux Video's API: assets and direct uploads, and what became of them.

The list of assets knows no filter by time or state: it is read page by page to the edge of the window, no further.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from runbook.connectors.answers import collected, fetched, inside, instant, known, number, prose, text, whole
from runbook.connectors.base import Context, Fetched
from runbook.connectors.http import Exchange, HttpConnector, as_rows, shown
from runbook.connectors.video import VideoStatus, video_row
from runbook.result import Reading
from runbook.settings import Mux as Section

PAGE = 100
PAGES = 10
LIMIT_SECONDS = 10.0
_STATUSES: dict[str, VideoStatus] = {"preparing": "processing", "ready": "ready", "errored": "errored"}
_UPLOADS = {name: name for name in ("waiting", "asset_created", "errored", "cancelled", "timed_out")}


class Mux(HttpConnector):
    """One environment of Mux (its token belongs to one)."""

    source = "mux"

    def __init__(self, context: Context, section: Section) -> None:
        secret = section.token_secret.get_secret_value() if section.token_secret else ""
        super().__init__(
            context,
            section.base_url,
            auth=(section.token_id, secret),
            lacking="" if secret and section.token_id else "mux.token_id" if secret else "mux.token_secret",
        )

    def assets(self, since: datetime) -> Reading:
        """``mux_assets``: assets created since then (see :func:`~runbook.connectors.video.video_row`)."""
        path = "/video/v1/assets"

        def take(exchange: Exchange) -> Fetched:
            found, missing = collected(self, _pages(exchange, path, since), "assets")
            now = self.context.now()
            assets = {text(item.get("id")): item for item in found}  # a page may begin with what ended the one before
            rows = [_asset(item, now) for item in assets.values() if (_created(item) or since) >= since]
            return fetched(rows, missing)

        return self.gather("mux_assets", shown(path, {"limit": PAGE, "page": "1…"}), take, limit_seconds=LIMIT_SECONDS)

    def uploads(self) -> Reading:
        """``mux_uploads``: the newest direct uploads, one page; Mux does not say when they were made."""
        return self.get("mux_uploads", "/video/v1/uploads", {"limit": PAGE, "page": 1},
                        parse=lambda value: [_upload(item) for item in as_rows(inside(value, "data"))])  # fmt: skip


def _pages(exchange: Exchange, path: str, since: datetime) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    for page in range(1, PAGES + 1):
        items = as_rows(exchange.get(path, {"limit": PAGE, "page": page}).object.get("data"))
        times = [_created(item) for item in items]
        known_times = [at for at in times if at is not None]
        # That the newest come first is nowhere promised: the edge counts only while the page keeps that order.
        past_edge = known_times == sorted(known_times, reverse=True) and bool(known_times) and known_times[-1] < since
        ended = len(items) < PAGE or past_edge
        yield items, page == PAGES and not ended
        if ended:
            return


def _created(item: dict[str, Any]) -> datetime | None:
    return instant(item.get("created_at"))


def _asset(item: dict[str, Any], now: datetime) -> dict[str, Any]:
    messages = inside(item, "errors", "messages")
    percent = number(inside(item, "progress", "progress"))
    return video_row(
        provider="mux",
        id=text(item.get("id")),
        status=known(item.get("status"), _STATUSES, "unknown"),
        raw_status=text(item.get("status")),
        created=_created(item),
        now=now,
        reference=text(item.get("passthrough")) or text(inside(item, "meta", "external_id")),
        creator=text(inside(item, "meta", "creator_id")),
        error_code=text(inside(item, "errors", "type")),
        error_message=prose("; ".join(m for m in messages if isinstance(m, str)))
        if isinstance(messages, list)
        else None,
        upload_id=text(item.get("upload_id")),
        progress_percent=percent if percent is not None and percent >= 0 else None,
    )


def _upload(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": text(item.get("id")),
        "status": known(item.get("status"), _UPLOADS, "unknown"),
        "asset_id": text(item.get("asset_id")),
        "error_type": text(inside(item, "error", "type")),
        "error_message": prose(inside(item, "error", "message")),
        "timeout_seconds": whole(item.get("timeout")),
        "cors_origin": text(item.get("cors_origin")),
    }
