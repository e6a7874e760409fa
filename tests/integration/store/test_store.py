from __future__ import annotations

import asyncio
import json
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook import settings as settings_module
from runbook.dispatch.reports import search
from runbook.errors import StoreError
from runbook.reporting.archive import FILES, open_archive
from runbook.settings import Settings
from runbook.store import open_store
from runbook.store.ids import RUN_ID, new_run_id
from runbook.store.rows import RunRow
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


def revised(run_id: str, number: int, impact: str) -> dict[str, Any]:
    """A revision of a run's report, as somebody published it."""
    return document(run_id) | {
        "impact": impact, "outcome": "undetermined", "finished_at": "2026-11-24T09:00:00+00:00",
        "report": {"html": f"revision {number}"}, "revision": {"number": number, "by": "person:ada"},
    }  # fmt: skip


async def recorded(settings: Settings, *results: dict[str, Any], query: str) -> list[RunRow]:
    async with open_store(settings) as store:
        for result in results:
            await store.runs.record(result)
        return await store.runs.search(query)


@pytest.mark.parametrize(
    ("query", "found"), [("overheated", True), ("undetermined", True), ("ada", True), ("refused", False)]
)
def test_a_revision_is_found_by_its_own_words(settings: Settings, query: str, found: bool) -> None:
    run_id = new_run_id()
    newest = revised(run_id, 2, "the pooler overheated")
    rows = asyncio.run(recorded(settings, document(run_id), newest, query=query))
    assert [(row.outcome, row.report) for row in rows] == [("undetermined", "revision 2")] * found


def test_a_revision_changes_neither_when_a_run_was_nor_what_came_before_it(settings: Settings) -> None:
    run_id = new_run_id()
    third, second = revised(run_id, 3, "the pooler overheated"), revised(run_id, 2, "nobody knows")
    (row,) = asyncio.run(recorded(settings, document(run_id), third, second, document(run_id), query=""))
    assert row.finished_at is not None
    assert row.finished_at.isoformat() == "2026-11-23T07:00:01+00:00"
    assert (row.report, row.summary["impact"]) == ("revision 3", "the pooler overheated")


def test_a_run_that_is_not_over_is_not_written_over(settings: Settings, database: str) -> None:
    run_id = new_run_id()
    asyncio.run(recorded(settings, document(run_id), query=""))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE runbook.runs SET state = 'running', finished_at = NULL")
    asyncio.run(recorded(settings, revised(run_id, 2, "too early"), query=""))
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT state, report FROM runbook.runs").fetchone() == ("running", "report.html")


def test_what_was_published_without_a_store_is_taken_up_by_whoever_looks(settings: Settings) -> None:
    run_id, archive = new_run_id(), open_archive(settings)
    first, second = document(run_id), revised(run_id, 2, "the pooler overheated")
    started = datetime.fromisoformat(first["started_at"])

    def archived(**results: dict[str, Any]) -> None:
        named = {name.replace("_", "."): json.dumps(result).encode() for name, result in results.items()}
        archive.write(run_id, started, dict.fromkeys(FILES, b"") | named)

    archived(result_json=first)
    assert [found["run_id"] for found in search(settings, "refused")] == [run_id]
    assert search(settings, "overheated") == []
    archived(result_1_json=first, result_json=second)
    assert [found["run_id"] for found in search(settings, "overheated")] == [run_id]
    assert search(settings, "refused") == []


def test_run_ids_sort_by_time_and_may_stand_in_a_path() -> None:
    from datetime import UTC, datetime, timedelta

    start = datetime(2026, 11, 23, 7, 25, 13, 42_000, tzinfo=UTC)
    ids = [new_run_id(start + timedelta(milliseconds=n)) for n in range(50)]
    assert ids == sorted(ids)
    assert len({new_run_id(start) for _ in range(200)}) == 200
    assert all(RUN_ID.fullmatch(i) for i in ids)
    assert ids[0].startswith("20261123T072513042-")
