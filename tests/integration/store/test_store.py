from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path

import psycopg
import pytest

from runbook import settings as settings_module
from runbook.errors import StoreError
from runbook.settings import Settings
from runbook.store import open_store
from runbook.store.ids import RUN_ID, new_run_id
from tests.integration.dispatch.tiny import document
from tests.support import free_port


def test_the_embedded_store_opens_with_its_schema_and_stops_with_its_last_user(data: Path) -> None:
    async def use() -> list[str]:
        async with open_store(Settings()) as first:
            async with open_store(Settings()) as second:
                await second.check()
            await first.check()
            async with first.connection() as connection:
                rows = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'runbook'")
                return [row[0] for row in await rows.fetchall()]

    tables = asyncio.run(use())
    assert {"alerts", "incidents", "runs", "procrastinate_jobs"} <= set(tables)
    assert not (data / "store" / "data" / "postmaster.pid").exists()


def test_opening_at_the_same_moment_migrates_once(settings: Settings, database: str) -> None:
    async def use() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(_open_and_check(settings))

    asyncio.run(use())
    with psycopg.connect(database) as connection:
        steps = connection.execute("SELECT count(*) FROM runbook.schema_steps WHERE part = 'store'").fetchone()
    assert steps == (len(list((resources.files("runbook.store") / "migrations").iterdir())),)


async def _open_and_check(settings: Settings) -> None:
    async with open_store(settings) as store:
        await store.check()


def test_a_store_written_by_a_newer_version_is_refused(settings: Settings, database: str) -> None:
    asyncio.run(_open_and_check(settings))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO runbook.schema_steps (part, name) VALUES ('store', '9999_later.sql')")
    with pytest.raises(StoreError, match="9999_later"):
        asyncio.run(_open_and_check(settings))


def test_a_database_that_is_not_utf8_is_refused(postgres: object, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc"
            " TEMPLATE template0"
        )
    url = database.rpartition("/")[0] + "/latin"
    with pytest.raises(StoreError, match="LATIN1"):
        asyncio.run(_open_and_check(settings_module.from_plain({"store": {"url": url}})))


def test_an_unreachable_store_says_so_without_its_url() -> None:
    url = f"postgresql://someone:hunter2hunter2@127.0.0.1:{free_port()}/nowhere"
    with pytest.raises(StoreError) as caught:
        asyncio.run(_open_and_check(settings_module.from_plain({"store": {"url": url}})))
    assert "hunter2hunter2" not in str(caught.value)
    assert "nowhere" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", True),
        ("api-leaky", True),
        ("P01", True),
        ("connections diagnosed", True),
        ("healthy", False),
        ("P01 -leak", False),
        ("\x00'; DROP TABLE runs --", False),
        ('"unbalanced (', False),
    ],
)
def test_reports_are_found_by_their_words(settings: Settings, query: str, found: bool) -> None:
    run_id = new_run_id()

    async def use() -> list[str]:
        async with open_store(settings) as store:
            await store.runs.record(document(run_id))
            return [row.id for row in await store.runs.search(query)]

    assert (asyncio.run(use()) == [run_id]) is found


def test_run_ids_sort_by_time_and_may_stand_in_a_path() -> None:
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 11, 23, 7, 25, 13, 42_000, tzinfo=UTC)
    ids = [new_run_id(start + timedelta(milliseconds=n)) for n in range(50)]
    assert ids == sorted(ids)
    assert len({new_run_id(start) for _ in range(200)}) == 200
    assert all(RUN_ID.fullmatch(i) for i in ids)
    assert ids[0].startswith("20261123T072513042-")
