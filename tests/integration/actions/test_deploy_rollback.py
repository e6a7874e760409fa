"""Rolling back a deployment on the simulated GitHub: the right commit, and nothing that was deployed meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Refused
from tests.contract.simulator import Simulator
from tests.integration.actions.desk import ME, Desk, order

KIND = "deploy.rollback"
GOOD, BAD, NEXT = "a" * 40, "c" * 40, "e" * 40
NOW = datetime.now(UTC)
TARGET = {"repository": "acme/api", "environment": "production", "from": BAD, "to": GOOD}


def commit(sha: str, hours: float, *files: str) -> dict[str, Any]:
    return {"sha": sha, "at": NOW - timedelta(hours=hours), "files": [{"filename": name} for name in files]}


def deployment(number: int, sha: str, hours: float, state: str = "inactive", **more: Any) -> dict[str, Any]:
    return {"id": number, "sha": sha, "created_at": NOW - timedelta(hours=hours), "state": state, **more}


def run(number: int, sha: str, hours: float, **more: Any) -> dict[str, Any]:
    return {"id": number, "sha": sha, "created_at": NOW - timedelta(hours=hours), **more}


@pytest.fixture
def desk(vendors: Simulator, database: str, data: Path) -> Desk:
    history(vendors)
    return Desk({"store": {"url": database}, "github": vendors.settings["github"]})


def history(vendors: Simulator, *files: str, **more: Any) -> None:
    """A bad release an hour ago, after a good one."""
    given = {
        "commits": [commit(NEXT, 0.1), commit(BAD, 2, "src/pay.ts", *files), commit(GOOD, 30, "src/old.ts")],
        "deployments": [deployment(12, BAD, 1, "success", ref="v2.0.0"), deployment(11, GOOD, 29, ref="v1.9.0")],
        "workflow_runs": [run(102, BAD, 1), run(101, GOOD, 29)],
    }
    vendors.vendors.change("github", **(given | more))


def deployed(vendors: Simulator) -> list[str]:
    """Commits of the deployments, newest first."""
    return [row["sha"][:1] for row in vendors.vendors.state("github")["deployments"]]


def started(vendors: Simulator) -> list[str]:
    """What was asked of GitHub that changes something."""
    return [f"{r['method']} {r['path']}" for r in vendors.vendors.requests("github") if r["method"] != "GET"]


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


# -- by the workflow ---------------------------------------------------------------------------------------------------


def test_the_workflow_deploys_the_last_good_commit_and_the_newer_one_again(desk: Desk, vendors: Simulator) -> None:
    seen: list[list[str]] = []
    desk.symptom = lambda: seen.append(deployed(vendors)) or 0.0  # type: ignore[func-returns-value]
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order(KIND, [TARGET])))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (seen, verified["holds"]) == ([["a", "c", "a"]], True)
    assert deployed(vendors) == ["c", "a", "c", "a"]
    assert len(started(vendors)) == 2
    newest = vendors.vendors.state("github")["workflow_runs"][0]
    assert (newest["name"], newest["event"]) == ("rollback", "workflow_dispatch")
    assert effects[0].made.isdecimal()


def test_the_plan_names_commits_deployments_and_how(desk: Desk) -> None:
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [TARGET]), ME))
    (target,) = plan.draft.targets
    assert (target.name, target.before, target.after) == ("acme/api:production", BAD, GOOD)
    assert (target.identity["deployment"], target.identity["workflow"], target.identity["branch"]) == (
        12, "rollback.yml", "main",
    )  # fmt: skip
    assert [p.holds for p in plan.draft.preconditions] == [True, True, True, True, None]
    assert BAD in plan.draft.undo


def test_a_release_is_found_by_its_tag_and_without_a_goal_the_last_good_one_is(desk: Desk) -> None:
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [{"from": "2.0.0"}]), ME))
    assert plan.draft.targets[0].after == GOOD


def test_a_deployment_that_never_succeeded_is_no_good_one(desk: Desk, vendors: Simulator) -> None:
    history(vendors, deployments=[deployment(12, BAD, 1, "success"), deployment(11, NEXT, 5, "failure"),
                                  deployment(10, GOOD, 29)])  # fmt: skip
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [{"from": BAD}]), ME))
    assert plan.draft.targets[0].after == GOOD
    _refused(desk, order(KIND, [{"from": BAD, "to": NEXT}]), "no deployment of .* that succeeded")


def test_a_deployment_that_takes_its_time_is_not_said_to_be_there(desk: Desk, vendors: Simulator) -> None:
    vendors.vendors.change("github", deploys_as="in_progress")
    asked = order(KIND, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        early = await desk.acting.verify(asked, ME)
        rows = vendors.vendors.state("github")["deployments"]
        vendors.vendors.change("github", deployments=[rows[0] | {"state": "failure"}, *rows[1:]])
        return early, await desk.acting.verify(asked, ME)

    early, late = desk.do(steps)
    assert (early["holds"], late["holds"]) == (None, False)
    assert "in_progress" in early["effect"]
    assert "failure" in late["effect"]


# -- by running the last good run again --------------------------------------------------------------------------------


def test_without_a_workflow_the_last_good_run_is_run_again_and_then_the_newer_one(
    desk: Desk, vendors: Simulator
) -> None:
    desk.plain["github"]["rollback_workflow"] = ""
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order(KIND, [TARGET])))
    assert [effect.made for effect in (*effects, *undone)] == ["101", "102"]
    assert verified["holds"] is True
    assert deployed(vendors) == ["c", "a", "c", "a"]
    assert started(vendors) == [f"POST /repos/acme/api/actions/runs/{number}/rerun" for number in (101, 102)]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([run(102, BAD, 1)], "name no run"),
        ([run(102, BAD, 1), run(101, GOOD, 24 * 31)], "older than 30 days"),
        ([run(102, BAD, 1), run(101, GOOD, 29, status="in_progress", conclusion=None)], "is in_progress"),
    ],
)
def test_a_run_that_cannot_be_run_again_is_refused(
    desk: Desk, vendors: Simulator, runs: list[dict[str, Any]], reason: str
) -> None:
    desk.plain["github"]["rollback_workflow"] = ""
    history(vendors, workflow_runs=runs)
    _refused(desk, order(KIND, [TARGET]), reason)


def test_without_a_run_of_the_newer_one_it_is_irreversible_and_says_so(desk: Desk, vendors: Simulator) -> None:
    desk.plain["github"]["rollback_workflow"] = ""
    history(vendors, workflow_runs=[run(101, GOOD, 29)])
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [TARGET]), ME))
    assert not plan.reversible


# -- across a migration ------------------------------------------------------------------------------------------------


def test_nothing_is_rolled_back_across_a_migration_unless_the_order_says_so(desk: Desk, vendors: Simulator) -> None:
    history(vendors, "prisma/migrations/1_drop/migration.sql")
    _refused(desk, order(KIND, [TARGET]), "1 migrations lie between")
    _refused(desk, order(KIND, [TARGET | {"across_migration": "yes"}]), "1 migrations lie between")
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [TARGET | {"across_migration": True}]), ME))
    assert [p.holds for p in plan.draft.preconditions][2] is False
    assert any("schema is newer" in risk for risk in plan.draft.risks)


def test_what_could_not_be_compared_counts_as_a_migration(desk: Desk, vendors: Simulator) -> None:
    vendors.vendors.fail("github", status=500, path="/compare")
    _refused(desk, order(KIND, [TARGET]), "is not known")
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [TARGET | {"across_migration": True}]), ME))
    assert [p.holds for p in plan.draft.preconditions][2] is None


def test_a_migration_on_the_way_back_to_a_newer_commit_counts_as_well(desk: Desk, vendors: Simulator) -> None:
    history(vendors, "prisma/migrations/1_drop/migration.sql", deployments=[
        deployment(12, GOOD, 1, "success"), deployment(11, BAD, 29),
    ])  # fmt: skip
    _refused(desk, order(KIND, [{"from": GOOD, "to": BAD}]), "1 migrations lie between")


def test_no_policy_rolls_back(desk: Desk, vendors: Simulator) -> None:
    asked = order(KIND, [TARGET | {"across_migration": True}])
    permit = {"kind": KIND, "runbook": asked.runbook, "cause": asked.cause}
    desk.plain["actions"] = {"policy": [permit]}
    assert desk.do(lambda desk: desk.acting.by_policy(asked, "worker-1")) is None
    assert started(vendors) == []


# -- what has moved on -------------------------------------------------------------------------------------------------


def test_what_was_deployed_between_plan_and_apply_stays(desk: Desk, vendors: Simulator) -> None:
    def deploy() -> None:
        rows = vendors.vendors.state("github")["deployments"]
        vendors.vendors.change("github", deployments=[deployment(13, NEXT, 0, "success"), *rows])

    effect = desk.do(lambda desk: desk.overtaken(order(KIND, [TARGET]), deploy))
    assert (effect.done, "deployment 13" in effect.said) == (False, True)
    assert started(vendors) == []


def test_what_was_deployed_after_the_rollback_is_not_undone(desk: Desk, vendors: Simulator) -> None:
    asked = order(KIND, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        rows = vendors.vendors.state("github")["deployments"]
        vendors.vendors.change("github", deployments=[deployment(14, NEXT, -24, "success"), *rows])
        return await desk.acting.undo(asked, ME)

    (effect,) = desk.do(steps)
    assert effect.done is False
    assert len(started(vendors)) == 1


@pytest.mark.parametrize(
    ("deployments", "target", "reason"),
    [
        ([deployment(12, NEXT, 1, "success"), deployment(11, GOOD, 29)], TARGET, "by now, and not"),
        ([deployment(12, BAD, 1, "in_progress"), deployment(11, GOOD, 29)], TARGET, "is in_progress"),
        ([deployment(12, BAD, 1, "success")], TARGET, "stood before"),
        ([deployment(12, BAD, 1, "success"), deployment(11, BAD, 29)], {"from": BAD}, "stood before"),
        ([deployment(12, BAD, 1, "success", environment="staging")], TARGET, "has no deployment"),
        ([], TARGET, "has no deployment"),
        ([deployment(12, BAD, 1, "success")], {"to": GOOD}, "which commit or release is bad"),
        ([deployment(12, BAD, 1, "success")], {**TARGET, "repository": "acme/web"}, "for repository acme/web"),
        ([deployment(12, BAD, 1, "success")], {**TARGET, "environment": "staging"}, "for environment staging"),
    ],
    ids=["another one is deployed", "one is under way", "nothing before", "the same commit before", "elsewhere",
         "nothing", "no bad one named", "another repository", "another environment"],
)  # fmt: skip
def test_what_is_not_as_the_run_saw_it_is_refused(
    desk: Desk, vendors: Simulator, deployments: list[dict[str, Any]], target: dict[str, Any], reason: str
) -> None:
    history(vendors, deployments=deployments)
    _refused(desk, order(KIND, [target]), reason)


@pytest.mark.parametrize(
    ("workflows", "reason"),
    [
        ([{"name": "deploy"}], "no workflow rollback.yml"),
        ([{"name": "rollback", "state": "disabled_manually"}], "is disabled_manually"),
    ],
)
def test_a_workflow_that_cannot_be_started_is_refused(
    desk: Desk, vendors: Simulator, workflows: list[dict[str, Any]], reason: str
) -> None:
    vendors.vendors.change("github", workflows=workflows)
    _refused(desk, order(KIND, [TARGET]), reason)


def test_a_dispatch_that_may_have_been_heard_is_not_sent_again(desk: Desk, vendors: Simulator) -> None:
    asked = order(KIND, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        vendors.vendors.fail("github", status=502, path="/dispatches")
        effects = await desk.acting.apply(asked, ME)
        vendors.vendors.heal("github")
        return effects, await desk.acting.verify(asked, ME)

    (effect,), verified = desk.do(steps)
    assert (effect.done, "may have happened" in effect.said) == (True, True)
    assert len(started(vendors)) == 1
    assert verified["holds"] is None


@pytest.mark.parametrize("setting", ["action_token", "repository", "environment"])
def test_what_is_not_set_is_named(desk: Desk, setting: str) -> None:
    desk.plain["github"][setting] = ""
    _refused(desk, order(KIND, [TARGET]), f"github.{setting} is not set")
