"""Queues that BullMQ of Node makes, read by the connector and judged by the rules: scenario S25 and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook.connectors.base import Context
from runbook.connectors.bullmq import BullQueue
from runbook.connectors.redis_server import RedisServer
from runbook.diagnosis.queues import diagnose
from runbook.result import Findings
from runbook.settings import Queue
from tests.integration.connectors.bullmq_bench import Bench
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.support import wait_until

TEN_MINUTES_AGO = {"timestamp": int((datetime.now(UTC) - timedelta(minutes=10)).timestamp() * 1000)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(params=(5, 6), ids=lambda version: f"v{version}")
def bench(server: RedisProcess, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(server, request.param, request.node.name.removeprefix("test_"))
    yield made
    made.close()


def judged(bench: Bench, **parameters: Any) -> Findings:
    """What the rules say of what was read, with two looks at it."""
    context = Context()
    queue = BullQueue(context, bench.server.url(), Queue(name=bench.name))
    redis = RedisServer(context, bench.server.url())
    redis.ping()
    redis.info()
    for _ in range(2):
        queue.state()
        queue.active()
    queue.history(datetime.now(UTC) - timedelta(hours=1))
    return diagnose(context.recorder.readings, parameters)


def found(findings: Findings) -> dict[str, str]:
    return {
        v.cause: v.tier for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"
    }


def test_forty_jobs_in_a_paused_queue_with_its_worker_up(bench: Bench) -> None:
    """S25: not *no worker*, not *too few workers*, in whichever list the version keeps them."""
    bench.work()
    wait_until(lambda: bench.row()["workers"] == 1, what="the worker")
    bench.do(["pause"], ["add", "ok", TEN_MINUTES_AGO, 40])
    findings = judged(bench)
    assert found(findings) == {"Q02": "confirmed"}
    details = findings.verdict[0].details
    assert (details["waiting"], details["workers"]) == (40, 1)
    assert (details["in_wait_list"], details["in_paused_list"]) == ((40, 0) if bench.version == 6 else (0, 40))


def test_jobs_that_nobody_works_on(bench: Bench) -> None:
    bench.do(["add", "ok", TEN_MINUTES_AGO, 12])
    assert found(judged(bench)) == {"Q01": "confirmed"}


def test_a_worker_that_keeps_up_is_healthy_and_so_is_a_schedule(bench: Bench) -> None:
    bench.work()
    bench.do(["add", "ok", {}, 3], ["add", "ok", {"delay": 3_600_000}, 4])
    wait_until(lambda: bench.row()["completed"] == 3, what="the jobs")
    findings = judged(bench)
    assert (findings.outcome, found(findings)) == ("healthy", {"Q10": "confirmed"})


def test_a_worker_whose_event_loop_is_blocked(bench: Bench) -> None:
    bench.work(lockDuration=1000)
    bench.do(["add", "block", TEN_MINUTES_AGO, 3])
    wait_until(
        lambda: (rows := bench.connector().active().value) and rows[0]["has_lock"] is False, what="the lock's end"
    )
    wait_until(lambda: bench.row()["worker_clients"][0]["idle_seconds"] >= 2, what="its silence")
    assert found(judged(bench, silent_seconds=2)) == {"Q05": "confirmed"}


def test_jobs_that_fail_and_wait_for_their_next_try(bench: Bench) -> None:
    bench.work(concurrency=6)
    again = {"attempts": 3, "backoff": {"type": "fixed", "delay": 600_000}} | TEN_MINUTES_AGO
    bench.do(["add", "fail codec is undefined", again, 8])
    wait_until(lambda: bench.row()["delayed"] == 8, what="the second tries to be put off")
    findings = judged(bench)
    assert found(findings) == {"Q08": "confirmed"}
    assert findings.verdict[0].details["reason"] == "codec is undefined"


def test_a_limit_of_jobs_at_a_time(bench: Bench) -> None:
    bench.work(concurrency=3)
    bench.do(["concurrency", 1], ["add", "hang"], ["add", "ok", TEN_MINUTES_AGO, 10])
    wait_until(lambda: bench.row()["active"] == 1, what="the first job")
    assert found(judged(bench)) == {"Q09": "confirmed"}
