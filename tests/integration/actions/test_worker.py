"""What restarts a worker on a real host, here and over SSH: that very process, once, and a new one comes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.actions import worker_restart
from runbook.actions.plan import Order, Refused
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.actions.hosts import home, host, sshd
from tests.integration.connectors.bullmq_bench import Bench
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.support import wait_until

__all__ = ["home", "host", "sshd"]

RESTART = "worker.restart"
WORKER = "trap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n"
START = """
setsid /bin/sh "$(dirname "$0")/worker.sh" "$MARK" >/dev/null 2>&1 </dev/null &
"""
STOP_AND_START = """
[ "$1" = 0 ] || kill -TERM "$1"
while kill -0 "$1" 2>/dev/null && [ "$(cut -d ' ' -f 3 /proc/$1/stat)" != Z ]; do sleep 0.05; done
"""


class Works:
    """A worker of a test, and the commands that restart it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = f"worker-of-{directory.name}"
        self.started: list[subprocess.Popen[bytes]] = []
        self.write("worker.sh", WORKER)
        self.write("start.sh", START)
        self.write("restart.sh", STOP_AND_START + START)

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(f"MARK={self.mark}\n{text}")
        return str(path)

    def start(self) -> int:
        argv = ["/bin/sh", str(self.directory / "worker.sh"), self.mark]
        self.started.append(subprocess.Popen(argv, start_new_session=True))
        wait_until(lambda: self.pids(), what="the worker")
        return self.started[-1].pid

    def pids(self) -> list[int]:
        """Workers that live; what one forks is called as it is until it runs something else."""
        found: dict[int, int] = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                state, parent = (place / "stat").read_text().rpartition(") ")[2].split()[:2]
                if self.mark.encode() in words and state != "Z":
                    found[int(place.name)] = int(parent)
        return sorted(pid for pid, parent in found.items() if parent not in found)

    def end(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for process in self.started:
            process.wait(10)


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    made = Works(tmp_path)
    yield made
    made.end()


@pytest.fixture
def desk(works: Works, host: str, database: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(worker_restart, "NEW_SECONDS", 5.0)
    restart = ["/bin/sh", str(works.directory / "restart.sh"), "{pid}"]
    return Desk({"workers": {"hosts": [host], "process_pattern": works.mark, "restart": restart},
                 "store": {"url": database}})  # fmt: skip


def seen(host: str, pid: int, **more: Any) -> dict[str, Any]:
    """A worker's process as a run names it."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    began = datetime.now(UTC) - timedelta(seconds=up - ticks / os.sysconf("SC_CLK_TCK"))
    return {"host": host, "pid": pid, "started_at": began.isoformat(timespec="seconds"), "job_ids": []} | more


def refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


def test_a_worker_is_restarted_and_a_new_one_is_there(desk: Desk, works: Works, host: str) -> None:
    pid = works.start()
    asked = order(RESTART, [seen(host, pid)])
    desk.symptom = lambda: float(pid in works.pids())

    async def steps(desk: Desk) -> Any:
        plan = await desk.acting.plan(asked, ME)
        await desk.acting.approve(asked.id, plan.digest, ME)
        effects = await desk.acting.apply(asked, ME)
        return plan, effects, await desk.acting.verify(asked, ME)

    plan, (effect,), verified = desk.do(steps)
    (target,) = plan.draft.targets
    assert target.identity["argv"][-1] == str(pid)
    assert any("cannot be told" in risk for risk in plan.draft.risks)  # no queue is configured
    assert effect.done
    assert (verified["verdict"], verified["holds"]) == ("fixed", True)
    assert works.started[0].wait(5) == 0  # it was let end
    assert len(works.pids()) == 1
    assert works.pids() != [pid]


def test_a_worker_that_was_replaced_between_plan_and_apply_is_left_alone(
    desk: Desk, works: Works, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is somebody else's by now, which the command sees itself, however late that became so."""
    pid = works.start()
    asked = order(RESTART, [seen(host, pid)])
    started = worker_restart._workers

    def older(*arguments: Any) -> Any:
        return {number: row | {"started": row["started"] - 1} for number, row in started(*arguments).items()}

    async def steps(desk: Desk) -> Any:
        monkeypatch.setattr(worker_restart, "_workers", older)
        return await desk.applied(asked)

    (effect,) = desk.do(steps)
    assert (effect.done, "another process" in effect.said) == (False, True)
    assert works.pids() == [pid]


def test_a_worker_that_ended_between_plan_and_apply_is_not_restarted(desk: Desk, works: Works, host: str) -> None:
    pid = works.start()
    asked = order(RESTART, [seen(host, pid)])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        works.end()
        return await desk.acting.apply(asked, ME), await desk.events(asked)

    (effect,), events = desk.do(steps)
    assert (effect.done, events[-1], works.pids()) == (False, "refused", [])


def test_a_worker_that_is_gone_is_started(desk: Desk, works: Works, host: str) -> None:
    desk.plain["workers"]["restart"] = ["/bin/sh", str(works.directory / "start.sh")]
    asked = order(RESTART, [{"host": host, "pid": None, "job_ids": []}])

    async def steps(desk: Desk) -> Any:
        return await desk.applied(asked), await desk.acting.verify(asked, ME)

    (effect,), verified = desk.do(steps)
    assert (effect.done, verified["holds"], len(works.pids())) == (True, True, 1)
    refused(desk, order(RESTART, [{"host": host, "pid": None}], id="x:y.z"), "a worker runs there by now")


def test_one_worker_at_a_time(desk: Desk, works: Works, host: str) -> None:
    first, second = works.start(), works.start()
    plan = desk.do(lambda desk: desk.acting.plan(order(RESTART, [seen(host, first), seen(host, second)]), ME))
    assert [target.identity["pid"] for target in plan.draft.targets] == [first]
    assert plan.draft.left_alone == [f"pid {second} on {host}: one worker at a time"]


def test_a_command_that_fails_has_changed_nothing(desk: Desk, works: Works, host: str) -> None:
    pid = works.start()
    script = works.write("failing.sh", "echo 'Unit worker.service not found.' >&2; exit 5")
    desk.plain["workers"]["restart"] = ["/bin/sh", script]
    (effect,) = desk.do(lambda desk: desk.applied(order(RESTART, [seen(host, pid)])))
    assert (effect.done, "exit status 5: Unit worker.service not found" in effect.said) == (False, True)
    assert works.pids() == [pid]


def test_a_command_that_takes_too_long_goes_on_and_is_verified(
    desk: Desk, works: Works, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_restart, "RESTART_SECONDS", 1.0)
    pid = works.start()
    script = works.write("slow.sh", f"sleep 3\n{STOP_AND_START}{START}")
    desk.plain["workers"]["restart"] = ["/bin/sh", script, "{pid}"]
    asked = order(RESTART, [seen(host, pid)])

    async def steps(desk: Desk) -> Any:
        return await desk.applied(asked), await desk.acting.verify(asked, ME)

    (effect,), verified = desk.do(steps)
    assert (effect.done, "not known to be done" in effect.said, verified["holds"]) == (True, True, True)
    assert works.started[0].wait(5) == 0


def test_a_new_worker_that_does_not_come_is_told(desk: Desk, works: Works, host: str) -> None:
    pid = works.start()
    desk.plain["workers"]["restart"] = ["/bin/sh", works.write("stop.sh", STOP_AND_START), "{pid}"]
    asked = order(RESTART, [seen(host, pid)])

    async def steps(desk: Desk) -> Any:
        return await desk.applied(asked), await desk.acting.verify(asked, ME)

    (effect,), verified = desk.do(steps)
    assert (effect.done, verified["holds"], verified["effect"]) == (True, False, "no new worker has come")


@pytest.mark.parametrize(
    ("restart", "reason"),
    [
        ([], "workers.restart is not set"),
        (["kill", "-9", "{pid}"], "SIGKILL"),
        (["/bin/kill", "-s", "KILL", "{pid}"], "SIGKILL"),
        (["sh", "-c", "pkill -KILL -f worker"], "SIGKILL"),
        (["systemctl", "kill", "--signal=SIGKILL", "worker"], "SIGKILL"),
        (["supervisorctl", "signal", "KILL", "worker"], "SIGKILL"),
    ],
)
def test_no_command_that_kills_is_run(desk: Desk, works: Works, host: str, restart: list[str], reason: str) -> None:
    pid = works.start()
    desk.plain["workers"]["restart"] = restart
    refused(desk, order(RESTART, [seen(host, pid)]), reason)
    assert works.pids() == [pid]


def test_placeholders_are_whole_words_and_no_shell_reads_them(desk: Desk, works: Works, host: str) -> None:
    pid = works.start()
    desk.plain["workers"]["restart"] = ["sh", "-c", "restart {pid}", "{host}", "{pid}", "$(reboot)"]
    plan = desk.do(lambda desk: desk.acting.plan(order(RESTART, [seen(host, pid)]), ME))
    assert plan.draft.targets[0].identity["argv"] == ["sh", "-c", "restart {pid}", host, str(pid), "$(reboot)"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"host": "elsewhere"}, "none of workers.hosts"),
        ({"started_at": "2026-01-01T00:00:00+00:00"}, "another process"),
        ({"started_at": None}, "did not tell"),
        ({"pid": 4_000_000}, "it is gone"),
    ],
)
def test_another_process_than_the_run_saw_is_not_restarted(
    desk: Desk, works: Works, host: str, changed: dict[str, Any], reason: str
) -> None:
    pid = works.start()
    refused(desk, order(RESTART, [seen(host, pid) | changed]), reason)
    assert works.pids() == [pid]


def test_without_a_pattern_or_a_process_nothing_is_restarted(desk: Desk, works: Works, host: str) -> None:
    refused(desk, order(RESTART, [{"job_id": "7"}]), "did not see the worker's process")
    desk.plain["workers"]["process_pattern"] = ""
    refused(desk, order(RESTART, [{"host": host, "pid": 1}]), "process_pattern is not set")


# -- jobs under way ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def bench(server: RedisProcess) -> Iterator[Bench]:
    made = Bench(server, 6, "videos")
    made.do(["add", "hang", {}, 1])
    made.work()
    wait_until(lambda: made.row()["active"] == 1, what="the job to be taken")
    yield made
    made.close()


@pytest.mark.parametrize("host", ["local"], indirect=True)
def test_jobs_under_way_are_waited_for_and_those_that_hang_are_not(
    desk: Desk, works: Works, host: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_restart, "DRAIN_SECONDS", 1.0)
    desk.plain |= {
        "redis": {"url": bench.server.url()},
        "queue": {"name": bench.name},
        "actions": {"cooldown_minutes": 0},
    }
    job = bench.connector().active().rows[0]["id"]

    def restarted(number: int, **more: Any) -> tuple[Any, str, float]:
        asked = order(RESTART, [seen(host, works.pids()[0], **more)], id=f"r{number}:Q04.restart")

        async def steps(desk: Desk) -> Any:
            plan = await desk.acting.plan(asked, ME)
            await desk.acting.approve(asked.id, plan.digest, ME)
            began = time.monotonic()
            (effect,) = await desk.acting.apply(asked, ME)
            return plan.draft.risks[0], effect.said, time.monotonic() - began

        return desk.do(steps)  # type: ignore[no-any-return]

    works.start()
    risk, said, seconds = restarted(1)
    assert (f"jobs under way ({job})" in risk, f"still under way: {job}" in said, seconds > 1.0) == (True, True, True)
    risk, said, _ = restarted(2, job_ids=[job])
    assert (f"jobs that hang begin again: {job}" in risk, "no job was under way" in said) == (True, True)
    monkeypatch.setattr(worker_restart, "DRAIN_SECONDS", 20.0)

    def done() -> None:
        with bench.server.client() as admin:
            admin.lrem(f"bull:{bench.name}:active", 1, job)

    timer = threading.Timer(1.5, done)
    timer.start()
    _, said, seconds = restarted(3)
    timer.join()
    assert ("no job was under way" in said, 1.0 < seconds < 15.0) == (True, True)
