"""What a run proposes about real systems can be planned: its targets name all that a plan compares."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Plan
from runbook.connectors.base import Context
from runbook.connectors.host import Host
from runbook.connectors.mux import Mux
from runbook.connectors.postgres import Postgres
from runbook.connectors.redis_server import RedisServer
from runbook.diagnosis.disks import facts as disks_facts
from runbook.diagnosis.disks import limits as disks_limits
from runbook.diagnosis.disks import proposals as disks
from runbook.diagnosis.queues import facts as queues_facts
from runbook.diagnosis.queues import limits as queues_limits
from runbook.diagnosis.queues import proposals as queues
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.redis import facts as redis_facts
from runbook.diagnosis.redis import limits as redis_limits
from runbook.diagnosis.redis import proposals as redis
from runbook.diagnosis.uploads import facts as uploads_facts
from runbook.diagnosis.uploads import limits as uploads_limits
from runbook.diagnosis.uploads import proposals as uploads
from runbook.result import Action, Reading, Verdict
from runbook.sandbox import Sandbox
from runbook.settings import Workers, from_plain
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.connectors.bullmq_bench import Bench
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.integration.test_upload_cells import cell
from tests.support import wait_until

HOUR_AGO = timedelta(hours=1)


def found(cause: str, **details: Any) -> Verdict:
    return Verdict(cause=cause, name="", tier="confirmed", share=1.0, score=9, coverage=1.0, details=details)


def proposed(actions: list[Action], kind: str) -> Order:
    """The order that a result document makes of it."""
    told = next(action for action in actions if action.kind == kind)
    return order(kind, [dict(target) for target in told.targets], cause=told.cause)


def planned(desk: Desk, asked: Order) -> Plan:
    plan: Plan = desk.do(lambda desk: desk.acting.plan(asked, ME))
    return plan


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with running(tmp_path, "--lua-time-limit", "50") as made:
        yield made


@pytest.fixture
def redis_desk(server: RedisProcess, database: str, data: Path) -> Desk:
    return Desk({"redis": {"url": server.url(), "action_url": server.url()}, "store": {"url": database}})


def redis_seen(server: RedisProcess, *extra: Reading) -> redis_facts.Facts:
    readings = RedisServer(Context(), server.url()).look()
    return redis_facts.Facts(Readings([*readings, *extra]), redis_limits.Limits())


@pytest.mark.parametrize("name", ["cart", ""])
def test_an_idle_client(redis_desk: Desk, server: RedisProcess, name: str) -> None:
    with server.client(client_name=name or None, single_connection_client=True) as idle:
        number = idle.client_id()
        time.sleep(1.2)
        facts = redis_seen(server)
        group = next(g for g in facts.clients or [] if any(c["id"] == number for c in g["longest_idle"]))
        details = {"name": group["name"] or "(no name)", "host": group["host"], "longest_idle": group["longest_idle"]}
        asked = proposed(redis.PROPOSERS["K06"](found("K06", **details), facts), "redis.kill_client")
        plan = planned(redis_desk, asked)
    assert [target.identity["id"] for target in plan.draft.targets] == [number]


def test_more_clients(redis_desk: Desk, server: RedisProcess) -> None:
    with server.client() as admin:
        admin.config_set("maxclients", 100)
    asked = proposed(redis.PROPOSERS["K05"](found("K05", maxclients=100), redis_seen(server)), "redis.raise_maxclients")
    (target,) = planned(redis_desk, asked).draft.targets
    assert (target.before, target.after) == (100, 200)


def test_a_script(redis_desk: Desk, server: RedisProcess) -> None:
    asked = proposed(redis.PROPOSERS["K11"](found("K11", said="BUSY"), redis_seen(server)), "redis.script_kill")
    with server.client(socket_timeout=0.3) as client:
        with pytest.raises(Exception, match=r"(?i)timeout"):
            client.eval("while true do end", 0)
        assert planned(redis_desk, asked).draft.targets[0].identity["command"] == "SCRIPT KILL"


# -- queues ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(server: RedisProcess) -> Iterator[Bench]:
    made = Bench(server, 6, "videos")
    yield made
    made.close()


def queue_seen(bench: Bench, *extra: Reading) -> queues_facts.Facts:
    since = datetime.now(UTC) - HOUR_AGO
    readings = [*bench.connector().look(since), *bench.connector().history(since), *extra]
    return queues_facts.Facts(Readings(readings), queues_limits.Limits())


def test_failed_jobs(redis_desk: Desk, bench: Bench) -> None:
    redis_desk.plain["queue"] = {"name": bench.name}
    bench.do(["add", "fail the provider says 503 token=sesame-open", {}, 12])
    bench.work()
    wait_until(lambda: bench.row()["failed"] == 12, what="the jobs to fail")
    asked = proposed(queues.PROPOSERS["Q08"](found("Q08"), queue_seen(bench)), "queue.retry")
    plan = planned(redis_desk, asked)
    assert (len(plan.draft.targets), plan.draft.left_alone) == (
        10, ["2 younger ones: 10 at once, run the runbook again for the next"]
    )  # fmt: skip


def test_a_paused_queue(redis_desk: Desk, bench: Bench) -> None:
    redis_desk.plain["queue"] = {"name": bench.name}
    bench.do(["add", "ok", {}, 3], ["pause"])
    asked = proposed(queues.PROPOSERS["Q02"](found("Q02"), queue_seen(bench)), "queue.resume")
    assert planned(redis_desk, asked).draft.targets[0].before is True


def test_a_queue_that_should_wait(redis_desk: Desk, bench: Bench) -> None:
    redis_desk.plain["queue"] = {"name": bench.name}
    bench.do(["add", "ok", {}, 3])
    seen = uploads_facts.Facts(Readings(bench.connector().look(datetime.now(UTC) - HOUR_AGO)), uploads_limits.Limits())
    asked = proposed(uploads.PROPOSERS["V11"][0](found("V11", host="local"), seen), "queue.pause")
    assert asked.targets == [{"queue": bench.name, "prefix": "bull", "waiting": 3}]
    assert planned(redis_desk, asked).draft.targets[0].before is False


def test_a_worker_that_hangs(redis_desk: Desk, bench: Bench) -> None:
    bench.do(["add", "hang", {}, 1])
    process = bench.work()
    wait_until(lambda: bench.row()["active"] == 1, what="the job to be taken")
    pattern = f"worker.cjs .* {bench.server.port} bull {bench.name}"
    workers = {"hosts": ["local"], "process_pattern": pattern, "restart": ["systemctl", "restart", "worker"]}
    redis_desk.plain |= {"workers": workers, "queue": {"name": bench.name}}
    processes = Host(Context(), Workers(hosts=["local"], process_pattern=pattern)).worker_processes()
    actions = queues.PROPOSERS["Q04"](found("Q04"), queue_seen(bench, processes))
    (target,) = planned(redis_desk, proposed(actions, "worker.restart")).draft.targets
    assert (target.identity["pid"], target.identity["argv"]) == (process.pid, workers["restart"])


# -- files and rows ----------------------------------------------------------------------------------------------------


def test_files_that_were_left_over(database: str, data: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to see every open file")
    path = tmp_path.resolve() / "upload.part"
    path.write_bytes(b"x" * 5000)
    os.utime(path, (time.time() - 200_000, time.time() - 200_000))
    host = Host(Context(), Workers(hosts=["local"]))
    readings = [host.old_files([str(path.parent)], 24), host.places([], [str(path.parent)]), host.disk()]
    facts = disks_facts.Facts(Readings(readings), disks_limits.Limits())
    verdict = found("D09", host="local", paths=[str(path)])
    asked = proposed(disks.PROPOSERS["D09"][0](verdict, facts), "files.delete_temporary")
    desk = Desk({"workers": {"hosts": ["local"], "tmp_paths": [str(path.parent)]}, "store": {"url": database}})
    assert planned(desk, asked).draft.targets[0].identity["path"] == str(path)


def test_rows_whose_webhook_was_lost(patient: Sandbox, database: str, data: Path) -> None:
    row, made = "content-1", (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    patient.vendors.change("mux", assets=[{"id": "asset-1", "status": "ready", "created_at": made,
                                           "passthrough": f"video:{row}"}])  # fmt: skip
    settings = from_plain(patient.settings())
    assert settings.postgres.dsn is not None
    postgres = Postgres(Context(), settings.postgres.dsn.get_secret_value(), None)
    since = datetime.now(UTC) - HOUR_AGO
    try:
        values = {"since": since.isoformat(), "stuck_after_minutes": 0.5}
        stuck = postgres.query("stuck_rows", cell("stuck_rows"), values)
        states = postgres.query("content_states", cell("content_states"))
        overview = postgres.query("content_overview", cell("content_overview"), values)
    finally:
        postgres.close()
    readings = [stuck, states, overview, Mux(Context(), settings.mux).assets(since)]
    facts = uploads_facts.Facts(Readings(readings), uploads_limits.Limits())
    asked = proposed(uploads.PROPOSERS["V10"][0](found("V10"), facts), "content.resync")
    plan = planned(Desk({**patient.settings(), "store": {"url": database}}), asked)
    patient.vendors.reset("mux")
    assert [(target.name, target.after["status"]) for target in plan.draft.targets] == [(row, "READY")]
