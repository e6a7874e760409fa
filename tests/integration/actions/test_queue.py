"""What acts on real BullMQ queues: jobs are retried and queues paused where the scripts fit; nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Refused
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.connectors.bullmq_bench import Bench
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.support import wait_until

RETRY, PAUSE, RESUME = "queue.retry", "queue.pause", "queue.resume"
OTHER_VERSIONS = (3, 4, 5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as made:
        yield made


def bench_of(server: RedisProcess, version: int, name: str) -> Bench:
    return Bench(server, version, name.removeprefix("test_").partition("[")[0])


@pytest.fixture
def bench(server: RedisProcess, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = bench_of(server, 6, request.node.name)
    yield made
    made.close()


@pytest.fixture
def desk(bench: Bench, database: str, data: Path) -> Desk:
    return desk_of(bench, database)


def desk_of(bench: Bench, database: str) -> Desk:
    url = bench.server.url()
    return Desk({"redis": {"url": url, "action_url": url}, "queue": {"name": bench.name, "prefix": bench.prefix},
                 "store": {"url": database}})  # fmt: skip


def refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


def failed(bench: Bench, count: int, reason: str = "provider says 503") -> list[dict[str, Any]]:
    """Jobs that failed for good, as targets of a run; no worker is left."""
    bench.do(["add", f"fail {reason}", {}, count])
    bench.work()
    wait_until(lambda: bench.row()["failed"] >= count, what="the jobs to fail")
    bench.close()
    return targets(bench)


def targets(bench: Bench) -> list[dict[str, Any]]:
    rows = bench.connector().failed(datetime.now(UTC) - timedelta(hours=1)).rows
    return [{"id": r["id"], "failed_at": r["failed_at"], "reason": r["reason"]} for r in reversed(rows)]


def counts(bench: Bench) -> tuple[int, int, int]:
    row = bench.row()
    return row["waiting"], row["failed"], row["completed"]


# -- retry -------------------------------------------------------------------------------------------------------------


def test_failed_jobs_wait_again_and_a_worker_runs_them(desk: Desk, bench: Bench) -> None:
    told = failed(bench, 4)
    asked = order(RETRY, told[:3], cause="Q08")
    desk.symptom = lambda: 0.0

    async def steps(desk: Desk) -> Any:
        effects = await desk.applied(asked)
        return effects, counts(bench), await desk.acting.verify(asked, ME), await desk.events(asked)

    effects, now, verified, events = desk.do(steps)
    assert [effect.done for effect in effects] == [True] * 3
    assert now == (3, 1, 0)
    assert (verified["verdict"], verified["holds"]) == ("fixed", True)
    assert events == ["planned", "approved", "applying", "applied", "verified"]
    bench.work()
    wait_until(lambda: bench.row()["failed"] == 4, what="the library's own worker to run them, and to fail again")
    assert {t["id"] for t in targets(bench)} == {t["id"] for t in told}


def test_jobs_that_fail_again_are_told(desk: Desk, bench: Bench) -> None:
    asked = order(RETRY, failed(bench, 1))

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        bench.work()
        wait_until(lambda: bench.row()["failed"] == 1, what="it to fail again")
        return await desk.acting.verify(asked, ME)

    verified = desk.do(steps)
    assert (verified["holds"], "failed again" in verified["effect"]) == (False, True)


def test_ten_jobs_at_once_the_oldest_ones(desk: Desk, bench: Bench) -> None:
    told = failed(bench, 13)

    async def steps(desk: Desk) -> Any:
        return await desk.acting.plan(order(RETRY, list(reversed(told))), ME)

    plan = desk.do(steps)
    oldest = sorted(told, key=lambda t: (t["failed_at"], t["id"]))[:10]
    assert [t.identity["job_id"] for t in plan.draft.targets] == [t["id"] for t in oldest]
    assert plan.draft.left_alone[-1].startswith("3 younger ones")
    assert not plan.reversible


def test_where_the_oldest_ones_were_retried_meanwhile_the_next_ones_are_planned(desk: Desk, bench: Bench) -> None:
    told = failed(bench, 13)
    with bench.server.client() as admin:
        for job in told[:11]:
            admin.zrem(f"{bench.prefix}:{bench.name}:failed", job["id"])
    plan = desk.do(lambda desk: desk.acting.plan(order(RETRY, told), ME))
    assert [t.identity["job_id"] for t in plan.draft.targets] == [t["id"] for t in told[11:]]
    assert [said.partition(": ")[2] for said in plan.draft.left_alone] == ["it is failed no longer"] * 11


def test_a_job_that_was_touched_between_plan_and_apply_is_left_alone(desk: Desk, bench: Bench) -> None:
    first, second, third = failed(bench, 3)
    asked = order(RETRY, [first, second, third])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        with bench.server.client() as admin:
            key = f"{bench.prefix}:{bench.name}"
            admin.zrem(f"{key}:failed", first["id"])  # somebody retried it
            admin.hset(f"{key}:{second['id']}", "failedReason", "another reason")  # it failed for another reason
        return await desk.acting.apply(asked, ME)

    effects = desk.do(steps)
    assert [effect.done for effect in effects] == [False, False, True]
    assert [word in e.said for word, e in zip(["failed no longer", "failed anew"], effects, strict=False)] == [True] * 2
    assert counts(bench)[:2] == (1, 1)


def test_a_job_that_changes_in_the_step_itself_is_left_alone(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the change somebody else is faster: Redis does nothing then."""
    from runbook.actions import queue_acting

    (told,) = failed(bench, 1)
    key = f"{bench.prefix}:{bench.name}:{told['id']}"
    scripts_in = queue_acting.Hands._scripts_in

    def late(self: Any, pipe: Any) -> Any:
        with bench.server.client() as admin:
            admin.hset(key, "failedReason", "another reason")
        return scripts_in(self, pipe)

    monkeypatch.setattr(queue_acting.Hands, "_scripts_in", late)
    (effect,) = desk.do(lambda desk: desk.applied(order(RETRY, [told])))
    assert (effect.done, "left alone" in effect.said) == (False, True)
    assert counts(bench)[:2] == (0, 1)


def test_a_job_that_failed_anew_since_the_run_is_not_planned(desk: Desk, bench: Bench) -> None:
    (told,) = failed(bench, 1)
    refused(desk, order(RETRY, [told | {"failed_at": "2026-01-01T00:00:00.000+00:00"}]), "failed anew since")
    refused(desk, order(RETRY, [told | {"id": "4711"}]), "it is gone")
    refused(desk, order(RETRY, []), "no job was named")


def test_what_a_job_failed_for_is_told_without_its_secrets(desk: Desk, bench: Bench) -> None:
    (told,) = failed(bench, 1, "password=sesame-open")
    plan = desk.do(lambda desk: desk.acting.plan(order(RETRY, [told]), ME))
    assert "sesame" not in str(plan.as_dict())


@pytest.mark.parametrize("version", OTHER_VERSIONS)
@pytest.mark.parametrize("kind", [RETRY, PAUSE])
def test_a_queue_of_another_version_is_never_written_to(
    server: RedisProcess, database: str, data: Path, version: int, kind: str
) -> None:
    bench = bench_of(server, version, f"other-{version}-{kind}")
    bench.do(["add", "ok", {}, 2])
    with server.client() as admin:
        before = {key: admin.dump(key) for key in admin.scan_iter(f"*{bench.name}*")}
        reason = rf"bullmq:{version}\.\d+\.\d+.*bullmq 3\.\d+\.\d+ for Python.* version 6"
        refused(desk_of(bench, database), order(kind, [{"id": "1"}] if kind == RETRY else []), reason)
        assert before == {key: admin.dump(key) for key in admin.scan_iter(f"*{bench.name}*")}


def test_a_queue_whose_version_changed_between_plan_and_apply_is_left_alone(desk: Desk, bench: Bench) -> None:
    asked = order(RETRY, failed(bench, 1))

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        with bench.server.client() as admin:
            admin.hset(f"{bench.prefix}:{bench.name}:meta", "version", "bullmq:5.81.5")
        return await desk.acting.apply(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, "another version" in effect.said) == (False, True)
    assert counts(bench)[:2] == (0, 1)


def test_a_queue_whose_version_is_unknown_or_that_is_not_there_is_refused(desk: Desk, bench: Bench) -> None:
    refused(desk, order(RETRY, [{"id": "1"}]), "there is no queue")
    bench.do(["add", "ok", {}, 1])
    with bench.server.client() as admin:
        admin.hdel(f"{bench.prefix}:{bench.name}:meta", "version")
    refused(desk, order(PAUSE, []), "an unknown version.* version 6")


# -- pause and resume --------------------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed_again_and_no_job_is_lost(desk: Desk, bench: Bench) -> None:
    bench.do(["add", "ok", {}, 3], ["add", "ok", {"priority": 3}, 2])
    asked = order(PAUSE, [{"queue": bench.name, "prefix": bench.prefix}])

    async def steps(desk: Desk) -> Any:
        (effect,) = await desk.applied(asked)
        bench.do(["add", "ok", {}, 2])
        paused = bench.row()
        verified = await desk.acting.verify(asked, ME)
        return effect, paused, verified, await desk.acting.undo(asked, ME)

    effect, paused, verified, (undone,) = desk.do(steps)
    assert (effect.done, paused["paused"], paused["in_wait_list"], paused["in_paused_list"]) == (True, True, 5, 0)
    assert (verified["holds"], undone.done, bench.row()["paused"]) == (True, True, False)
    bench.work()
    wait_until(lambda: bench.row()["completed"] == 7, what="every job to be done")


def test_a_paused_queue_is_resumed_and_paused_again(desk: Desk, bench: Bench) -> None:
    bench.do(["add", "ok", {}, 3], ["pause"])
    bench.work()
    asked = order(RESUME, [{"queue": bench.name, "waiting": 3}])

    async def steps(desk: Desk) -> Any:
        (effect,) = await desk.applied(asked)
        wait_until(lambda: bench.row()["completed"] == 3, what="its jobs to be done")
        return effect, await desk.acting.undo(asked, ME)

    effect, (undone,) = desk.do(steps)
    assert (effect.done, undone.done, bench.row()["paused"]) == (True, True, True)


def test_jobs_that_an_older_version_left_paused_come_back_with_the_resume(desk: Desk, bench: Bench) -> None:
    bench.do(["add", "ok", {}, 3], ["pause"])
    key = f"{bench.prefix}:{bench.name}"
    with bench.server.client() as admin:
        admin.rename(f"{key}:wait", f"{key}:paused")  # as the pause of version 5 leaves them
    bench.do(["add", "ok", {}, 2])
    (effect,) = desk.do(lambda desk: desk.applied(order(RESUME, [])))
    row = bench.row()
    assert (effect.done, row["in_wait_list"], row["in_paused_list"]) == (True, 5, 0)


def test_a_queue_that_somebody_paused_between_plan_and_apply_stays_as_it_is(desk: Desk, bench: Bench) -> None:
    bench.do(["add", "ok", {}, 1])
    asked = order(PAUSE, [])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        bench.do(["pause"])
        return await desk.acting.apply(asked, ME), await desk.events(asked)

    (effect,), events = desk.do(steps)
    assert (effect.done, "paused by now" in effect.said, events[-1]) == (False, True, "refused")
    refused(desk, order(PAUSE, []), "already")


def test_a_pause_that_somebody_ended_is_not_undone(desk: Desk, bench: Bench) -> None:
    bench.do(["add", "ok", {}, 1])
    asked = order(PAUSE, [])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        bench.do(["resume"])
        return await desk.acting.undo(asked, ME)

    (undone,) = desk.do(steps)
    assert (undone.done, "not paused by now" in undone.said) == (False, True)


def test_another_queue_than_the_runs_is_not_paused(desk: Desk, bench: Bench) -> None:
    bench.do(["add", "ok", {}, 1])
    refused(desk, order(PAUSE, [{"queue": "another"}]), "was about queue another")


def test_no_policy_resumes_a_queue() -> None:
    from runbook.actions.queue_pause import Pause, Resume

    assert (Pause.may_be_automatic, Resume.may_be_automatic) == (True, False)
