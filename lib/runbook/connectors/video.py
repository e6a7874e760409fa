"""A video at a provider, in one shape for all providers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from runbook.connectors.answers import iso

VideoStatus = Literal["waiting", "processing", "ready", "errored", "unknown"]
"""``waiting``: for bytes that were promised; ``processing``: has them, and is not done."""


def video_row(
    *,
    provider: Literal["mux", "stream"],
    id: str | None,
    status: VideoStatus,
    raw_status: str | None,
    created: datetime | None,
    now: datetime,
    reference: str | None,
    creator: str | None,
    error_code: str | None,
    error_message: str | None,
    upload_id: str | None,
    progress_percent: float | None,
) -> dict[str, Any]:
    """One row of ``mux_assets`` and ``stream_videos``; ``age_seconds`` is the time since it was created."""
    return {
        "provider": provider,
        "id": id,
        "status": status,
        "raw_status": raw_status,
        "created_at": iso(created),
        "age_seconds": None if created is None else round((now - created).total_seconds(), 1),
        "reference": reference,
        "creator": creator,
        "error_code": error_code,
        "error_message": error_message,
        "upload_id": upload_id,
        "progress_percent": progress_percent,
    }
