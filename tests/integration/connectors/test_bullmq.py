"""Queues as the library itself makes them: every supported major version of BullMQ on a real Redis."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.connectors import bullmq as module
from runbook.connectors.base import Context
from runbook.connectors.bullmq import BullQueue
from runbook.connectors.redis_server import Session
from runbook.settings import Queue
from tests.integration.connectors.bullmq_bench import Bench, modules
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.support import require_program, wait_until

VERSIONS = (3, 4, 5, 6)
HOUR_AGO = timedelta(hours=1)
FORBIDDEN = {"keys", "smembers", "monitor", "config", "eval", "evalsha", "sort"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(params=VERSIONS, ids=lambda version: f"v{version}")
def version(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def bench(server: RedisProcess, version: int, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(server, version, request.node.name.removeprefix("test_"))
    yield made
    made.close()


def since() -> datetime:
    return datetime.now(UTC) - HOUR_AGO


def test_a_queue_says_its_version(bench: Bench) -> None:
    bench.do()
    row = bench.row()
    assert (row["exists"], row["major"]) == (True, bench.version)
    assert str(row["version"]).startswith(f"bullmq:{bench.version}.")


def test_counts_are_those_of_the_library(bench: Bench) -> None:
    counts = bench.do(
        ["add", "ok", {}, 5],
        ["add", "ok", {"delay": 3_600_000}, 3],
        ["add", "ok", {"priority": 3}, 2],
        ["flow", "ok", "ok"],
    )
    row = bench.row()
    assert row["in_wait_list"] == counts["wait"]
    assert (row["delayed"], row["prioritized"]) == (counts["delayed"], counts.get("prioritized", 0))
    assert row["waiting_children"] == counts["waiting-children"] == 1
    assert row["waiting"] + row["prioritized"] == 7
    assert (row["paused"], row["active"], row["failed"], row["completed"]) == (False, 0, 0, 0)


def test_a_paused_queue_keeps_its_jobs_where_its_version_does(bench: Bench) -> None:
    bench.do(["add", "ok", {}, 4], ["pause"], ["add", "ok", {}, 2])
    row = bench.row()
    assert (row["paused"], row["waiting"]) == (True, 6)
    assert (row["in_wait_list"], row["in_paused_list"]) == ((6, 0) if bench.version == 6 else (0, 6))
    bench.do(["resume"])
    row = bench.row()
    assert (row["paused"], row["waiting"], row["in_wait_list"]) == (False, 6, 6)


@pytest.mark.parametrize("options", [{"delay": 3_600_000}, {"priority": 2}])
def test_a_marker_that_wakes_workers_is_no_job(bench: Bench, options: dict[str, int]) -> None:
    counts = bench.do(["add", "ok", options])
    row = bench.row()
    assert row["waiting"] == counts["wait"]
    assert row["waiting"] + row["prioritized"] + row["delayed"] == 1


def test_the_oldest_waiting_job_is_aged_from_when_it_was_due(bench: Bench) -> None:
    ago = int((datetime.now(UTC) - timedelta(minutes=20)).timestamp() * 1000)
    bench.do(["add", "ok", {"timestamp": ago}], ["add", "ok", {}, 3])
    assert bench.row()["oldest_waiting_seconds"] == pytest.approx(1200, abs=60)
    bench.do(["pause"])
    assert bench.row()["oldest_waiting_seconds"] == pytest.approx(1200, abs=60)


def test_no_waiting_job_has_no_age(bench: Bench) -> None:
    bench.do()
    assert bench.row()["oldest_waiting_seconds"] is None


def test_a_delayed_job_that_nobody_promotes_is_overdue(bench: Bench) -> None:
    bench.do(["add", "ok", {"delay": 1}], ["add", "ok", {"delay": 3_600_000}])
    row = bench.row()
    assert (row["delayed"], row["delayed_overdue"]) == (2, 1)


def test_live_workers_are_counted_by_the_names_of_their_connections(bench: Bench) -> None:
    bench.do()
    assert bench.row()["workers"] == 0
    bench.work()
    bench.work()
    row = wait_until(lambda: (found := bench.row())["workers"] == 2 and found, what="two workers")
    assert {client["name"] for client in row["worker_clients"]} == {f"bull:{_encoded(bench.name)}"}
    assert all(client["id"] and client["address"].startswith("127.0.0.1:") for client in row["worker_clients"])


def test_a_worker_of_another_queue_is_none_of_this_one(bench: Bench) -> None:
    bench.do()
    with contextlib.closing(Bench(bench.server, bench.version, f"{bench.name}-other")) as other:
        other.work()
        wait_until(lambda: other.row()["workers"] == 1, what="the other's worker")
        assert bench.row()["workers"] == 0


def test_a_job_in_work_shows_its_lock(bench: Bench) -> None:
    bench.do(["add", "hang"])
    bench.work()
    row = wait_until(lambda: bench.connector().active().value, what="the active job")[0]
    assert (row["job"], row["has_lock"], row["stalled_count"]) == ("hang", True, 0)
    assert 0 < row["lock_ms"] <= 30_000
    assert row["running_seconds"] >= 0
    assert bench.row()["active"] == 1


def test_a_job_of_a_dead_worker_has_no_lock_and_no_client(bench: Bench) -> None:
    bench.do(["add", "hang"])
    bench.work(lockDuration=1000)
    wait_until(lambda: bench.connector().active().value, what="the active job")
    bench.close()
    row = wait_until(
        lambda: (r := bench.connector().active().value[0])["has_lock"] is False and r, what="the lock's end"
    )
    assert row["lock_ms"] is None
    wait_until(lambda: bench.row()["workers"] == 0, what="the worker's connection to go")
    assert bench.row()["active"] == 1


def test_a_job_of_a_blocked_worker_has_no_lock_while_the_client_is_there(bench: Bench) -> None:
    bench.work(lockDuration=1000)
    bench.do(["add", "block"])
    wait_until(
        lambda: (found := bench.connector().active().value) and found[0]["has_lock"] is False, what="the lock's end"
    )
    assert bench.row()["workers"] == 1


def test_a_stalled_job_that_was_taken_up_again_says_how_often(bench: Bench) -> None:
    bench.do(["add", "hang"])
    bench.work(lockDuration=500, stalledInterval=300)
    wait_until(lambda: bench.connector().active().value, what="the active job")
    bench.close()
    bench.work(stalledInterval=300, maxStalledCount=3)

    def taken_up() -> Any:
        rows = bench.connector().active().value
        return rows and rows[0]["stalled_count"] and rows[0]["has_lock"] and rows[0]

    assert wait_until(taken_up, what="the second try")["stalled_count"] == 1


def test_failed_jobs_come_with_reason_and_attempts_newest_first(bench: Bench) -> None:
    bench.do(["add", "fail ENOSPC: no space left on device", {"attempts": 2}])
    bench.work()
    wait_until(lambda: bench.row()["failed"] == 1, what="the failure")
    bench.do(["add", "fail another way"])
    wait_until(lambda: bench.row()["failed"] == 2, what="the second failure")
    newest, oldest = bench.connector().failed(since()).value
    assert (newest["reason"], newest["attempts"]) == ("another way", 1)
    assert (oldest["reason"], oldest["attempts"]) == ("ENOSPC: no space left on device", 2)
    assert datetime.fromisoformat(newest["failed_at"]) > since()
    assert bench.connector().failed(datetime.now(UTC) + HOUR_AGO).value == []


def test_more_failed_jobs_than_are_shown_make_it_partial(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FINISHED", 2)
    bench.do(["add", "fail x", {}, 3])
    bench.work()
    wait_until(lambda: bench.row()["failed"] == 3, what="the failures")
    reading = bench.connector().failed(since())
    assert (reading.state, reading.reason, len(reading.value)) == ("partial", "only 2 of 3", 2)


def test_completed_jobs_say_how_long_they_waited_and_ran(bench: Bench) -> None:
    ago = int((datetime.now(UTC) - timedelta(seconds=90)).timestamp() * 1000)
    bench.do(["add", "ok", {"timestamp": ago}], ["add", "ok", {"delay": 400}])
    bench.work()
    wait_until(lambda: bench.row()["completed"] == 2, what="completion")
    waited = sorted(row["waited_seconds"] for row in bench.connector().completed(since()).value)
    assert waited[0] < 30  # its delay is no waiting
    assert waited[1] == pytest.approx(90, abs=30)
    assert all(row["ran_seconds"] >= 0 for row in bench.connector().completed(since()).value)


def test_the_data_of_a_job_is_never_fetched(bench: Bench) -> None:
    bench.do(["add", "fail badly"], ["add", "ok"], ["add", "ok", {"delay": 60_000}])
    bench.work()
    wait_until(lambda: bench.row()["failed"] == 1, what="the failure")
    asked = bench.connector()
    asked.look(since())
    assert "not to be fetched" not in repr(asked.context.recorder.readings)


def test_a_prefix_with_a_hash_tag_is_taken_as_it_is(server: RedisProcess, version: int) -> None:
    with contextlib.closing(Bench(server, version, "media", prefix=f"{{app{version}}}")) as bench:
        bench.do(["add", "ok", {}, 2])
        bench.work()
        wait_until(lambda: bench.row()["completed"] == 2, what="completion")
        row = bench.row()
        assert (row["exists"], row["workers"]) == (True, 1)


def test_state_and_active_and_failed_and_completed_together_take_two_round_trips(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.do(["add", "fail x"], ["add", "hang"], ["add", "ok"])
    bench.work(concurrency=3)
    wait_until(lambda: bench.row()["failed"] == 1 and bench.row()["completed"] == 1, what="the jobs")
    trips: list[int] = []
    batch = Session.batch

    def counted(self: Session, commands: Any) -> list[Any]:
        trips.extend([1] if commands else [])
        return batch(self, commands)

    monkeypatch.setattr(Session, "batch", counted)
    readings = bench.connector().look(since())
    assert len(trips) == 2
    assert [r.name for r in readings] == ["queue_state", "queue_active", "queue_failed", "queue_completed"]
    assert [len(r.value) for r in readings] == [1, 1, 1, 1]
    assert {r.state for r in readings} == {"ok"}


def history(bench: Bench, since_: datetime | None = None) -> dict[str, list[dict[str, Any]]]:
    readings = bench.connector().history(since_ or since())
    assert {r.state for r in readings} == {"ok"}, [(r.name, r.reason) for r in readings]
    return {r.name: r.value for r in readings}


def test_who_waits_is_told_with_its_list_and_the_longest_first(bench: Bench) -> None:
    ago = int((datetime.now(UTC) - timedelta(minutes=20)).timestamp() * 1000)
    bench.do(["add", "old", {"timestamp": ago}], ["add", "new", {}, 2], ["pause"])
    waiting = history(bench)["queue_waiting"]
    assert [row["job"] for row in waiting] == ["old", "new", "new"]
    assert {row["list"] for row in waiting} == {"wait" if bench.version == 6 else "paused"}
    assert waiting[0]["waited_seconds"] == pytest.approx(1200, abs=60)
    assert all(row["has_hash"] and row["at_head"] for row in waiting)


def test_a_job_between_two_tries_says_why_and_one_that_is_scheduled_does_not(bench: Bench) -> None:
    bench.do(["add", "ok", {"delay": 3_600_000}],
             ["add", "fail badly", {"attempts": 3, "backoff": {"type": "fixed", "delay": 600_000}}])  # fmt: skip
    bench.work()
    wait_until(lambda: bench.row()["delayed"] == 2, what="the second try to be put off")
    again, later = history(bench)["queue_delayed"]
    assert (again["job"], again["attempts"], again["reason"]) == ("fail badly", 1, "badly")
    assert (later["job"], later["attempts"], later["reason"]) == ("ok", 0, None)
    assert datetime.fromisoformat(later["due_at"]) > datetime.now(UTC) + timedelta(minutes=50)


def test_what_ended_is_counted_by_the_minute_and_told_with_its_times(bench: Bench) -> None:
    bench.do(["add", "ok", {}, 3], ["add", "fail x"])
    bench.work()
    wait_until(lambda: bench.row()["completed"] == 3 and bench.row()["failed"] == 1, what="the jobs")
    told = history(bench)
    assert sum(row["completed"] for row in told["queue_flow"]) == 3
    assert sum(row["failed"] for row in told["queue_flow"]) == 1
    assert len(told["queue_flow"]) >= 60
    assert told["queue_failed"][0]["ran_seconds"] >= 0
    assert told["queue_before"] == []
    row = bench.row()
    assert (row["added"], row["last_completed_at"] is not None, row["last_failed_at"] is not None) == (4, True, True)
    assert len(history(bench, datetime.now(UTC) + timedelta(minutes=1))["queue_before"]) == 3


def test_a_parent_is_told_with_the_child_that_failed(bench: Bench) -> None:
    bench.do(["flow", "album", "fail no such picture"], ["flow", "other", "hang"])
    with contextlib.closing(Bench(bench.server, bench.version, f"{bench.name}-children")) as children:
        children.work(concurrency=2)
        wait_until(lambda: children.row()["failed"] == 1, what="the child's failure")
        told = {row["job"]: row for row in history(bench)["queue_parents"]}
    assert told["album"]["child_reason"] == "no such picture"
    assert f"{bench.name}-children:" in told["album"]["failed_child"]
    assert (told["other"]["failed_child"], told["other"]["children_left"]) == (None, 1)


# -- what is no matter of the version ---------------------------------------------------------------------------------


@pytest.fixture
def newest(server: RedisProcess, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(server, 6, request.node.name.removeprefix("test_"))
    yield made
    made.close()


def test_a_worker_with_a_name_is_one_all_the_same(newest: Bench) -> None:
    newest.do()
    newest.work(name="encoder-1")
    row = wait_until(lambda: (found := newest.row())["workers"] and found, what="the worker")
    assert row["worker_clients"][0]["name"] == f"bull:{_encoded(newest.name)}:w:encoder-1"


def test_a_global_concurrency_is_told(newest: Bench) -> None:
    newest.do(["concurrency", 3])
    assert newest.row()["concurrency"] == 3


def test_a_limiter_in_force_is_told_with_what_is_left_of_it(newest: Bench) -> None:
    newest.do(["add", "ok", {}, 3])
    assert newest.row()["limiter_ms"] == 0
    newest.work(limiter={"max": 1, "duration": 60_000})
    row = wait_until(lambda: (found := newest.row())["completed"] and found, what="the first job")
    assert 0 < row["limiter_ms"] <= 60_000
    assert row["waiting"] + row["delayed"] == 2


def test_the_longest_running_jobs_are_those_that_are_shown(newest: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTIVE", 2)
    newest.do(["add", "hang 1"])
    newest.work(concurrency=4)
    for number in (2, 3):
        wait_until(lambda n=number: newest.row()["active"] == n - 1, what="the job")  # type: ignore[misc]
        newest.do(["add", f"hang {number}"])
    wait_until(lambda: newest.row()["active"] == 3, what="three jobs")
    reading = newest.connector().active()
    assert [row["job"] for row in reading.value] == ["hang 1", "hang 2"]
    assert (reading.state, reading.reason) == ("partial", "only 2 of 3")


def test_a_queue_that_is_not_there_names_those_that_are(newest: Bench) -> None:
    newest.do()
    elsewhere = Bench(newest.server, 6, newest.name, prefix="other")
    elsewhere.do()
    row = newest.connector(name="misspelt").state().value[0]
    assert row["exists"] is False
    assert {newest.name, f"other:{newest.name}"} <= set(row["other_queues"])


def test_looking_for_other_queues_ends(newest: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCANS", 2)
    monkeypatch.setattr(module, "SCAN_COUNT", 1)
    newest.do(["add", "ok", {}, 20])
    reading = newest.connector(name="misspelt").state()
    assert reading.state == "partial"
    assert "only the first" in reading.reason


def test_a_job_whose_hash_is_gone_has_no_name(newest: Bench) -> None:
    newest.do(["add", "fail x", {"jobId": "gone"}])
    newest.work()
    wait_until(lambda: newest.row()["failed"] == 1, what="the failure")
    newest.server.client().delete(f"bull:{newest.name}:gone")
    row = newest.connector().failed(since()).value[0]
    assert (row["id"], row["job"], row["attempts"]) == ("gone", None, None)


@contextlib.contextmanager
def user(server: RedisProcess, *rules: str) -> Iterator[str]:
    """URL of a user of these ACL rules."""
    client = server.client()
    client.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">Canary-1a2b3c4d", "~*", *rules)
    yield server.url("narrow:Canary-1a2b3c4d")
    client.acl_deluser("narrow")


def test_workers_are_unknown_where_clients_may_not_be_listed(newest: Bench) -> None:
    newest.do(["add", "ok", {}, 2])
    with user(newest.server, "+@read", "+ping") as url:
        reading = BullQueue(Context(), url, Queue(name=newest.name)).state()
    row = reading.value[0]
    assert (reading.state, row["workers"], row["waiting"]) == ("partial", None, 2)
    assert "clients: NOPERM" in reading.reason


def test_workers_are_unknown_where_names_are_hidden(newest: Bench) -> None:
    newest.do()
    newest.work()
    with user(newest.server, "+@read", "+client|list") as url:
        row = BullQueue(Context(), url, Queue(name=newest.name)).state().value[0]
    assert row["workers"] is None


def test_hashes_that_may_not_be_read_are_not_taken_for_gone(newest: Bench) -> None:
    newest.do(["add", "ok", {}, 2])
    with user(newest.server, "+@read", "-hmget", "+client|setname") as url:
        readings = BullQueue(Context(), url, Queue(name=newest.name)).history(since())
    waiting = next(r for r in readings if r.name == "queue_waiting")
    assert [row["has_hash"] for row in waiting.value] == [None, None]


def test_a_waiting_job_whose_hash_was_evicted_is_told(newest: Bench) -> None:
    newest.do(["add", "ok", {"jobId": "gone"}], ["add", "ok"])
    newest.server.client().delete(f"bull:{newest.name}:gone")
    told = {row["id"]: row["has_hash"] for row in history(newest)["queue_waiting"]}
    assert sorted(told.values()) == [False, True]
    assert told["gone"] is False


@pytest.mark.parametrize("place", ["active", "wait", "failed", "delayed", "prioritized"])
def test_a_job_that_ends_while_we_look_is_not_taken_for_one_without_its_hash(
    newest: Bench, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """``removeOnComplete`` takes list and hash at once, here between our list and our look at the hash."""
    queue, redis = f"bull:{newest.name}", newest.server.client()
    now = int(datetime.now(UTC).timestamp() * 1000)
    for job in ("ends", "lost", "stays"):
        redis.hset(f"{queue}:{job}", mapping={"name": "ok", "timestamp": now, "finishedOn": now})
        if place in ("active", "wait"):
            redis.lpush(f"{queue}:{place}", job)
        else:
            redis.zadd(f"{queue}:{place}", {job: now * 4096 if place == "delayed" else now})
    batch, rounds = Session.batch, iter(range(100))

    def ended(self: Session, commands: Any) -> list[Any]:
        if next(rounds) == 1:
            redis.delete(f"{queue}:ends", f"{queue}:lost")
            take = redis.lrem if place in ("active", "wait") else None
            take(f"{queue}:{place}", 0, "ends") if take else redis.zrem(f"{queue}:{place}", "ends")
        return batch(self, commands)

    monkeypatch.setattr(Session, "batch", ended)
    connector = newest.connector()
    readings = [connector.active()] if place == "active" else connector.history(since())
    name = {"wait": "waiting", "prioritized": "waiting"}.get(place, place)
    (reading,) = [r for r in readings if r.name == f"queue_{name}"]
    assert {row["id"]: row["has_hash"] for row in reading.value} == {"lost": False, "stays": True}


def test_the_oldest_of_those_that_come_last_is_among_many_that_are_prioritized(
    newest: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OLDEST", 2)
    newest.do(
        ["add", "starving", {"priority": 9}], ["add", "late", {"priority": 9}, 6], ["add", "first", {"priority": 1}, 6]
    )
    reading = next(r for r in newest.connector().history(since()) if r.name == "queue_waiting")
    assert "starving" in {row["job"] for row in reading.value}
    assert (reading.state, "of 13" in reading.reason) == ("partial", True)


def test_the_newest_and_the_oldest_of_a_long_list_are_read(newest: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NEWEST", 3)
    monkeypatch.setattr(module, "MAX_OLDEST", 1)
    newest.do(["add", "oldest"], ["add", "between", {}, 6], ["add", "newest", {}, 3])
    reading = next(r for r in newest.connector().history(since()) if r.name == "queue_waiting")
    assert [row["job"] for row in reading.value if not row["at_head"]] == ["oldest"]
    assert {row["job"] for row in reading.value if row["at_head"]} == {"newest"}
    assert (reading.state, reading.reason) == ("partial", "only 4 of 10")


def test_a_rate_limit_of_the_queues_own_is_told(newest: Bench) -> None:
    newest.do(["rate", 5, 10_000])
    row = newest.row()
    assert (row["rate_max"], row["rate_duration_ms"]) == (5, 10_000)


def test_a_history_takes_four_round_trips_over_one_connection(newest: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    newest.do(["add", "ok", {}, 2], ["add", "ok", {"priority": 2}], ["flow", "a", "b"])
    trips: list[int] = []
    batch = Session.batch

    def counted(self: Session, commands: Any) -> list[Any]:
        trips.extend([1] if commands else [])
        return batch(self, commands)

    monkeypatch.setattr(Session, "batch", counted)
    before = int(newest.server.client().info("stats")["total_connections_received"])
    newest.connector().history(since())
    after = int(newest.server.client().info("stats")["total_connections_received"])
    assert len(trips) <= 4
    assert after - before <= 2  # ours, and the one that counts


def test_a_user_who_may_not_read_is_permission_denied(newest: Bench) -> None:
    newest.do()
    with user(newest.server, "+ping") as url:
        readings = BullQueue(Context(), url, Queue(name=newest.name)).look(since())
    assert {reading.state for reading in readings} == {"permission_denied"}
    assert {reading.code for reading in readings} == {"NOPERM"}


def test_nothing_that_costs_with_the_size_of_the_queue_is_sent(tmp_path: Path) -> None:
    with running(tmp_path) as own:
        BullQueue(Context(), own.url(), Queue(name="x")).look(since())
        BullQueue(Context(), own.url(), Queue(name="x")).history(since())
        sent = {key.removeprefix("cmdstat_") for key in own.client().info("commandstats")}
    assert not sent & FORBIDDEN


def test_no_redis_means_no_queue_is_known() -> None:
    readings = BullQueue(Context(), "redis://127.0.0.1:1/0", Queue(name="x")).look(since())
    assert {(reading.state, reading.code) for reading in readings} == {("unreachable", "ECONNREFUSED")}


@pytest.mark.parametrize(
    ("url", "name", "reason"),
    [(None, "x", "redis.url is not set"), ("redis://127.0.0.1:1/0", "", "queue.name is not set")],
)
def test_what_is_not_configured_says_which_setting(url: str | None, name: str, reason: str) -> None:
    reading = BullQueue(Context(), url, Queue(name=name)).state()
    assert (reading.state, reading.reason) == ("not_configured", reason)


def test_bull_the_predecessor_is_recognised(server: RedisProcess) -> None:
    node = require_program("node", package="nodejs")
    script = (
        "const Queue = require(process.argv[1] + '/bull');"
        "const q = new Queue('old', {redis: {port: Number(process.argv[2])}});"
        "q.add({}).then(() => q.pause()).then(() => process.exit(0))"
    )
    subprocess.run([node, "-e", script, modules("bull"), str(server.port)], check=True, timeout=60)
    row = BullQueue(Context(), server.url(), Queue(name="old")).state().value[0]
    assert (row["exists"], row["version"], row["major"]) == (True, "Bull (legacy)", None)
    assert (row["paused"], row["waiting"]) == (True, 1)


PYTHON_WORKER = """
import asyncio, sys
from bullmq import Worker

async def work(job, token):
    return None

async def main():
    worker = Worker(sys.argv[1], work, {"connection": sys.argv[2], "name": "transcoder"})
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_worker_of_bullmq_for_python_is_counted(server: RedisProcess) -> None:
    connector = BullQueue(Context(), server.url(), Queue(name="snake"))
    process = subprocess.Popen([sys.executable, "-c", PYTHON_WORKER, "snake", server.url()])
    try:
        seen = wait_until(lambda: (row := connector.state().value[0])["workers"] and row, what="the worker")
        assert {client["name"] for client in seen["worker_clients"]} == {"bull:snake:w:transcoder"}
    finally:
        process.kill()
        process.wait()


def _encoded(name: str) -> str:
    return base64.b64encode(name.encode()).decode()
