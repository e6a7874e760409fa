"""Brings the store's schema up to date: our numbered SQL files, then the queue's own schema.

Everything lives in one PostgreSQL schema, ``runbook``. Whoever opens the store runs this; an advisory lock lets one
of them do it at a time. It only ever goes forward: a store that a newer version wrote is refused, not guessed at.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

import structlog

from runbook.errors import StoreError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

log = structlog.get_logger(__name__)

SCHEMA = "runbook"
_LOCK = 7_254_310_553_270_101
"""Any number that nobody else takes for an advisory lock."""


async def migrate(connection: AsyncConnection[Any]) -> None:
    """Apply what is missing; ``connection`` is in autocommit mode and has the schema first in its search path.

    Raises
    ------
    StoreError
        The server does not speak UTF-8, or the store was written by a newer version.
    """
    encoding = await _one(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreError(f"the store's database has encoding {encoding}", remedy="Create it with encoding UTF8")
    await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        if await _one(connection, "SELECT to_regclass('runbook.schema_steps')") is None:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute(
                "CREATE TABLE schema_steps (part text, name text, applied_at timestamptz NOT NULL DEFAULT now(),"
                " PRIMARY KEY (part, name))"
            )
        await _apply(connection, "store", _files(resources.files("runbook.store") / "migrations"))
        await _apply_queue(connection)
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _files(folder: Traversable) -> dict[str, str]:
    return {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir() if item.name.endswith(".sql")}


async def _apply(connection: AsyncConnection[Any], part: str, files: dict[str, str]) -> None:
    applied = await _applied(connection, part)
    unknown = sorted(applied - set(files))
    if unknown:
        raise StoreError(
            f"the store has schema steps that this version does not know ({part} {unknown[-1]})",
            remedy="Upgrade runbook to the version that wrote it",
        )
    for name in sorted(set(files) - applied):
        async with connection.transaction():
            await connection.execute(files[name].encode())
            await _note(connection, part, name)
        log.info("store migrated", part=part, step=name)


async def _apply_queue(connection: AsyncConnection[Any]) -> None:
    """Procrastinate's whole schema at first, later only the steps that a newer release of it brought."""
    from procrastinate.schema import SchemaManager

    folder = resources.files("procrastinate.sql") / "migrations"
    steps = _files(folder)
    if not await _applied(connection, "queue"):
        async with connection.transaction():
            await connection.execute(SchemaManager.get_schema().encode())
            for name in sorted(steps):
                await _note(connection, "queue", name)
        return
    await _apply(connection, "queue", steps)


async def _applied(connection: AsyncConnection[Any], part: str) -> set[str]:
    rows = await (await connection.execute("SELECT name FROM schema_steps WHERE part = %s", (part,))).fetchall()
    return {row[0] for row in rows}


async def _note(connection: AsyncConnection[Any], part: str, name: str) -> None:
    await connection.execute("INSERT INTO schema_steps (part, name) VALUES (%s, %s)", (part, name))


async def _one(connection: AsyncConnection[Any], query: str) -> Any:
    row = await (await connection.execute(query.encode())).fetchone()
    return row[0] if row else None
