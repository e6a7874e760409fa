from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from runbook.dispatch.in_force import InForce
from runbook.dispatch.queue import Queue
from runbook.dispatch.worker import Worker
from runbook.settings import Settings
from runbook.store import open_store
from runbook.store.ids import new_run_id
from runbook.store.rows import NewRun, RunRow
from runbook.store.store import Store
from tests.integration.dispatch.tiny import CELLS, TinyExecutor, document
from tests.support import wait_until

LEASE = 1.0


class House:
    """A store with a worker whose executor is :class:`TinyExecutor`."""

    def __init__(
        self, store: Store, worker: Worker, executor: TinyExecutor, announced: list[Mapping[str, Any]]
    ) -> None:
        self.store, self.worker, self.executor, self.announced = store, worker, executor, announced

    async def start(self, runbook: str = "connections", **parameters: Any) -> str:
        return await queue_run(self.store, self.worker.queue, runbook, **parameters)

    async def ended(self, run_id: str) -> RunRow:
        return await until(self.store, run_id, lambda row: row.finished)


async def queue_run(store: Store, queue: Queue, runbook: str = "connections", **parameters: Any) -> str:
    run_id = new_run_id()
    run = NewRun(id=run_id, key=run_id, runbook=runbook, parameters=parameters, title="T", severity="critical")
    async with store.transaction() as connection:
        await store.runs.insert(connection, [run])
        await queue.defer(connection, [run_id])
    return run_id


async def until(store: Store, run_id: str, condition: Callable[[RunRow], bool], seconds: float = 30) -> RunRow:
    async with asyncio.timeout(seconds):
        while True:
            row = await store.runs.get(run_id)
            assert row is not None
            if condition(row):
                return row
            await asyncio.sleep(0.02)


@asynccontextmanager
async def house(settings: Settings, *, concurrency: int = 2, fail_announcing: bool = False) -> AsyncGenerator[House]:
    announced: list[Mapping[str, Any]] = []

    async def announce(result: Mapping[str, Any]) -> None:
        announced.append(result)
        if fail_announcing:
            raise RuntimeError("nobody answers")

    executor = TinyExecutor(settings)
    async with (
        open_store(settings) as store,
        Worker(store, InForce(settings), executor, announce, concurrency=concurrency, lease_seconds=LEASE) as worker,
    ):
        yield House(store, worker, executor, announced)


def within(settings: Settings, act: Callable[[House], Awaitable[None]], **options: Any) -> None:
    async def use() -> None:
        async with house(settings, **options) as inside:
            await act(inside)

    asyncio.run(use())


def test_a_queued_run_is_executed_archived_and_announced_once(settings: Settings) -> None:
    async def act(inside: House) -> None:
        run_id = await inside.start()
        row = await inside.ended(run_id)
        assert (row.state, row.outcome, row.attempts) == ("succeeded", "diagnosed", 1)
        assert row.summary["causes"][0]["cause"] == "P01"
        assert row.report
        await asyncio.sleep(LEASE)
        assert [result["run_id"] for result in inside.announced] == [run_id]

    within(settings, act)


@pytest.mark.parametrize(("ending", "name"), [("failed", "KernelDied"), ("raise", "RuntimeError")])
def test_a_run_that_fails_is_announced_like_a_verdict(settings: Settings, ending: str, name: str) -> None:
    async def act(inside: House) -> None:
        row = await inside.ended(await inside.start(ending=ending))
        assert row.state == "failed"
        assert row.error is not None
        assert row.error["name"] == name
        assert "hunter2hunter2" not in json.dumps(row.error)
        await asyncio.sleep(0.1)
        assert [result["state"] for result in inside.announced] == ["failed"]
        assert row.started_at is not None
        assert inside.executor.archive.read(row.id, row.started_at, "report.html")

    within(settings, act)


def test_a_failing_announcement_does_not_fail_the_run(settings: Settings) -> None:
    async def act(inside: House) -> None:
        row = await inside.ended(await inside.start())
        assert row.state == "succeeded"
        second = await inside.ended(await inside.start())
        assert second.state == "succeeded"

    within(settings, act, fail_announcing=True)


def test_progress_is_notified_cell_by_cell(settings: Settings) -> None:
    async def use() -> None:
        async with house(settings) as inside:
            heard: list[dict[str, Any]] = []

            async def listen() -> None:
                async for payload in inside.store.listen("runbook_runs"):
                    heard.append(json.loads(payload))

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.2)
            run_id = await inside.start(hold_seconds=0.3)
            await inside.ended(run_id)
            async with asyncio.timeout(5):
                while [e.get("state") for e in heard if e["event"] == "state"] != ["running", "succeeded"]:
                    await asyncio.sleep(0.02)
            listening.cancel()
            cells = [(e["cell"], e["state"]) for e in heard if e["event"] == "cell"]
            assert cells == [(cell, state) for cell in range(1, CELLS + 1) for state in ("running", "ok")]
            assert {e["run_id"] for e in heard} == {run_id}

    asyncio.run(use())


def test_no_more_runs_than_allowed_at_the_same_time(settings: Settings) -> None:
    async def act(inside: House) -> None:
        ids = [await inside.start(hold_seconds=0.4) for _ in range(5)]
        most = 0
        while not all([(await inside.store.runs.get(i)).finished for i in ids]):  # type: ignore[union-attr]
            most = max(most, (await inside.store.runs.counts())["running"])
            await asyncio.sleep(0.02)
        assert most == 2
        assert sorted(inside.executor.executed) == sorted(ids)

    within(settings, act)


def test_a_job_delivered_twice_runs_once(settings: Settings) -> None:
    async def act(inside: House) -> None:
        run_id = new_run_id()
        run = NewRun(id=run_id, key=run_id, runbook="connections", parameters={"hold_seconds": 0.2})
        async with inside.store.transaction() as connection:
            await inside.store.runs.insert(connection, [run])
            await inside.worker.queue.defer(connection, [run_id, run_id, run_id])
        await inside.ended(run_id)
        await asyncio.sleep(0.3)
        assert inside.executor.executed == [run_id]

    within(settings, act)


def test_a_run_longer_than_its_lease_keeps_it(settings: Settings) -> None:
    async def act(inside: House) -> None:
        row = await inside.ended(await inside.start(hold_seconds=3 * LEASE))
        assert (row.state, row.attempts) == ("succeeded", 1)

    within(settings, act)


def test_a_worker_that_lost_its_lease_is_cancelled_and_writes_nothing(settings: Settings) -> None:
    async def act(inside: House) -> None:
        run_id = await inside.start("uploads", hold_seconds=60)
        await until(inside.store, run_id, lambda row: row.state == "running")
        async with inside.store.connection() as connection:
            await connection.execute(
                "UPDATE runs SET fencing_token = fencing_token + 1, state = 'interrupted', finished_at = now()"
            )
        async with asyncio.timeout(10):
            while inside.worker._held:
                await asyncio.sleep(0.05)
        row = await inside.store.runs.get(run_id)
        assert row is not None
        assert (row.state, row.report) == ("interrupted", None)

    within(settings, act)


def test_a_queued_run_whose_job_is_gone_is_deferred_again(settings: Settings) -> None:
    async def use() -> None:
        async with open_store(settings) as store, Queue(store) as queue:
            run_id = await queue_run(store, queue)
            async with store.connection() as connection:
                await connection.execute("DELETE FROM procrastinate_jobs")
        async with house(settings) as inside:
            assert (await inside.ended(run_id)).state == "succeeded"

    asyncio.run(use())


def test_a_run_that_was_left_unannounced_is_announced(settings: Settings, database: str) -> None:
    async def use() -> None:
        run_id = new_run_id()
        async with open_store(settings) as store:
            await store.runs.record(document(run_id))
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("UPDATE runbook.runs SET announced_at = NULL, finished_at = now() - interval '1 hour'")
        async with house(settings) as inside, asyncio.timeout(10):
            while not inside.announced:
                await asyncio.sleep(0.05)
            assert inside.announced[0]["run_id"] == run_id

    asyncio.run(use())


# -- a worker that dies or is stopped ---------------------------------------------------------------------------------


def worker_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.integration.dispatch.worker_process", str(LEASE)])


@pytest.fixture
def configured(settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, for processes as well."""
    monkeypatch.setenv("RUNBOOK_STORE__URL", database)
    return settings


async def begun_elsewhere(settings: Settings, runbook: str) -> tuple[str, subprocess.Popen[bytes]]:
    """A run that another process is executing."""
    process = worker_process()
    async with open_store(settings) as store, Queue(store) as queue:
        run_id = await queue_run(store, queue, runbook, hold_seconds=60)
        await until(store, run_id, lambda row: row.state == "running")
    return run_id, process


def test_a_killed_workers_run_is_interrupted_and_announced_when_it_may_not_run_again(configured: Settings) -> None:
    async def use() -> None:
        run_id, process = await begun_elsewhere(configured, "uploads")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        async with house(configured) as inside:
            row = await inside.ended(run_id)
            assert (row.state, row.attempts) == ("interrupted", 1)
            assert row.error is not None
            assert row.error["name"] == "WorkerLost"
            assert row.started_at is not None
            report = inside.executor.archive.read(run_id, row.started_at, "report.html").decode()
            assert "not started again by itself" in report
            await asyncio.sleep(0.2)
            assert [(r["run_id"], r["state"]) for r in inside.announced] == [(run_id, "interrupted")]
            assert inside.executor.executed == []

    asyncio.run(use())


def test_a_killed_workers_run_starts_again_when_its_notebook_allows_that(configured: Settings, database: str) -> None:
    async def use() -> None:
        run_id, process = await begun_elsewhere(configured, "connections")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("UPDATE runbook.runs SET parameters = '{}'")
        async with house(configured) as inside:
            row = await inside.ended(run_id)
            assert (row.state, row.attempts) == ("succeeded", 2)
            assert inside.executor.executed == [run_id]

    asyncio.run(use())


def test_a_terminated_worker_gives_its_run_back(configured: Settings) -> None:
    async def use() -> None:
        run_id, process = await begun_elsewhere(configured, "connections")
        process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: process.poll() is not None, seconds=60)
        assert process.returncode == 0
        async with open_store(configured) as store:
            row = await store.runs.get(run_id)
            assert row is not None
            assert (row.state, row.worker) == ("queued", None)
            async with store.connection() as connection:
                jobs = await connection.execute("SELECT status, args->>'run_id' FROM procrastinate_jobs")
                assert await jobs.fetchall() == [("todo", run_id)]

    asyncio.run(use())


def test_a_terminated_worker_ends_a_run_that_may_not_run_again_as_interrupted(configured: Settings) -> None:
    async def use() -> None:
        run_id, process = await begun_elsewhere(configured, "uploads")
        process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: process.poll() is not None, seconds=60)
        async with open_store(configured) as store:
            row = await store.runs.get(run_id)
            assert row is not None
            assert row.state == "interrupted"
            assert row.report, "what was known when it was cut short is in the archive"

    asyncio.run(use())


def test_a_worker_lives_through_a_restart_of_the_store(settings: Settings, database: str) -> None:
    async def act(inside: House) -> None:
        await inside.ended(await inside.start())
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        async with asyncio.timeout(20):
            assert (await inside.ended(await inside.start())).state == "succeeded"

    within(settings, act)


def test_times_of_a_run_are_those_of_its_document(settings: Settings) -> None:
    async def act(inside: House) -> None:
        row = await inside.ended(await inside.start())
        assert row.started_at is not None
        assert abs((row.started_at - datetime.now(UTC)).total_seconds()) < 3600
        directory = inside.executor.archive.path(row.id, row.started_at)
        assert sorted(path.name for path in directory.iterdir()) == [
            "notebook.ipynb", "readings.jsonl.gz", "report.html", "result.json",
        ]  # fmt: skip

    within(settings, act)
