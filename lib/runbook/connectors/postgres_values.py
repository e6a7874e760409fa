"""PostgreSQL values as JSON values: readings are recorded, so they hold nothing else."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from runbook.connectors.base import MAX_CELL_CHARACTERS


def plain(value: Any) -> Any:
    """A value as JSON: times in ISO 8601 with microseconds, intervals in seconds, long texts cut."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        cut = value.replace("\x00", "")
        return cut if len(cut) <= MAX_CELL_CHARACTERS else cut[:MAX_CELL_CHARACTERS] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return plain(float(value)) if value.is_finite() else str(value)
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()[:200]
    return str(value)
