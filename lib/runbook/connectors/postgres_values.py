"""PostgreSQL values as JSON values: readings are recorded, so they hold nothing else."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from runbook.connectors.base import MAX_CELL_CHARACTERS, MAX_CELL_ITEMS

if TYPE_CHECKING:
    import psycopg


def plain(value: Any) -> Any:
    """A value as JSON: times in ISO 8601 with microseconds, intervals in seconds, long texts cut."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        # Cut to twice the length here, for memory's sake; to the length itself after redaction.
        return value.replace("\x00", "")[: 2 * MAX_CELL_CHARACTERS]
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
        kept = [plain(item) for item in value[:MAX_CELL_ITEMS]]
        return kept if len(value) <= MAX_CELL_ITEMS else [*kept, "…"]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in islice(value.items(), MAX_CELL_ITEMS)}
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:100]).hex()
    return plain(str(value))


def use_lenient_loaders(conn: psycopg.Connection[Any]) -> None:
    """Read what psycopg would refuse to: one odd value must not cost the whole reading.

    ``pg_stat_activity`` shows statements of other databases in *their* encoding, byte for byte. Times beyond Python's
    (``infinity``, BC) and JSON come as PostgreSQL writes them.
    """
    from psycopg.adapt import Loader
    from psycopg.errors import DataError
    from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader

    class Text(Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode("utf-8", "replace")

    def lenient(base: type[Loader]) -> type[Loader]:
        class Lenient(base):  # type: ignore[misc, valid-type]
            def load(self, data: Any) -> Any:
                try:
                    return super().load(data)
                except DataError:
                    return bytes(data).decode("utf-8", "replace")

        return Lenient

    for name in ("text", "varchar", "bpchar", "name", "json", "jsonb"):
        conn.adapters.register_loader(name, Text)
    for name, loader in (("date", DateLoader), ("timestamp", TimestampLoader), ("timestamptz", TimestamptzLoader)):
        conn.adapters.register_loader(name, lenient(loader))
