"""The steps of an action: who may take which, when, once; and that the log tells of every one and of any edit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest

from runbook.actions import acting as acting_module
from runbook.actions.attempts import left_alone
from runbook.actions.kinds import Kind
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.store.action_log import Moved
from tests.integration.actions.desk import ME, Desk, order


class Lamp(Kind):
    """Switches lamps on: stands for any system."""

    lamps: ClassVar[dict[str, bool]] = {}
    applied: ClassVar[int] = 0
    breaks: ClassVar[bool] = False
    moved: ClassVar[bool] = False

    def draft(self, order: Order) -> Draft:
        names = [str(target["lamp"]) for target in order.targets]
        return Draft(
            targets=[Target(name=n, identity={"lamp": n}, shown=f"{n} is off", change="on", before=False, after=True)
                     for n in names],
            undo="it is switched off again",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        type(self).applied += 1
        if self.breaks:
            raise Refused("the fuse is blown")
        if self.moved:
            return [left_alone(target.name, "it is another one by now") for target in plan.draft.targets]
        for target in plan.draft.targets:
            self.lamps[target.name] = True
        return [Effect(target=target.name, done=True, said="on") for target in plan.draft.targets]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        return all(self.lamps.get(target.name) for target in plan.draft.targets), "looked"

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        for target in plan.draft.targets:
            self.lamps[target.name] = False
        return [Effect(target=target.name, done=True, said="off") for target in plan.draft.targets]


class Hands(Lamp):
    may_be_automatic = False


@pytest.fixture(autouse=True)
def lamps(monkeypatch: pytest.MonkeyPatch) -> None:
    Lamp.lamps, Lamp.applied, Lamp.breaks, Lamp.moved = {}, 0, False, False
    kinds: Mapping[str, type[Kind]] = {"lamp.on": Lamp, "lamp.by_hand": Hands, "postgres.drop_slot": Lamp}
    monkeypatch.setattr(acting_module, "kind_named", kinds.get)


@pytest.fixture
def desk(database: str, data: Path) -> Desk:
    return Desk({"store": {"url": database}, "actions": {"cooldown_minutes": 15}})


def lamp(*names: str, **facts: Any) -> Order:
    return order(facts.pop("kind", "lamp.on"), [{"lamp": name} for name in names or ("hall",)], **facts)


def test_nothing_is_applied_without_an_approval(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        with pytest.raises(Refused, match="not approved"):
            await desk.acting.apply(lamp(), ME)
        await desk.acting.plan(lamp(), ME)
        await desk.acting.apply(lamp(), ME)

    with pytest.raises(Refused, match="not approved: the action is proposed"):
        desk.do(steps)
    assert Lamp.applied == 0


def test_an_approval_is_for_one_plan(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        first = await desk.acting.plan(lamp("hall"), ME)
        second = await desk.acting.plan(lamp("hall", "stairs"), ME)
        with pytest.raises(Refused, match="another plan"):
            await desk.acting.approve(lamp().id, first.digest, ME)
        await desk.acting.approve(lamp().id, second.digest, ME)
        await desk.acting.plan(lamp("cellar"), ME)  # planned again: the approval is for nothing now
        await desk.acting.apply(lamp(), ME)

    with pytest.raises(Refused, match="not approved"):
        desk.do(steps)
    assert Lamp.applied == 0


def test_an_approval_expires(desk: Desk) -> None:
    desk.plain["actions"]["approval_minutes"] = 0.002

    async def steps(desk: Desk) -> None:
        await desk.approved(lamp())
        await asyncio.sleep(0.2)
        assert (await desk.acting.standing(lamp().id)).state == "expired"
        await desk.acting.apply(lamp(), ME)

    with pytest.raises(Refused, match="expired"):
        desk.do(steps)
    assert Lamp.applied == 0


def test_who_proposes_without_a_person_does_not_approve(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        plan = await desk.acting.plan(lamp(), "headless:w1")
        await desk.acting.approve(lamp().id, plan.digest, "headless:w1")

    with pytest.raises(Refused, match="does not approve"):
        desk.do(steps)


def test_the_switch_is_off_for_everybody(desk: Desk) -> None:
    desk.plain["actions"]["enabled"] = False
    with pytest.raises(Refused, match="switched off"):
        desk.do(lambda desk: desk.acting.plan(lamp(), ME))


def test_eleven_targets_are_too_many(desk: Desk) -> None:
    with pytest.raises(Refused, match="11 targets are too many, 10 at most"):
        desk.do(lambda desk: desk.acting.plan(lamp(*map(str, range(11))), ME))


def test_of_two_who_apply_at_once_one_does(desk: Desk) -> None:
    async def steps(desk: Desk) -> list[Any]:
        await desk.approved(lamp())
        return await asyncio.gather(
            *(desk.acting.apply(lamp(), name) for name in ("person:a", "person:b", "person:c")), return_exceptions=True
        )

    outcomes = desk.do(steps)
    assert Lamp.applied == 1
    assert sum(isinstance(outcome, Moved | Refused) for outcome in outcomes) == 2


def test_a_target_is_not_acted_on_again_while_it_cools_down(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        await desk.applied(lamp("hall", "stairs"))
        await desk.applied(lamp("cellar", id="another-run:P01.act"))
        await desk.applied(lamp("stairs", id="third-run:P01.act"))

    with pytest.raises(Refused, match="stairs was acted on"):
        desk.do(steps)
    assert Lamp.applied == 2


def test_a_target_that_was_left_alone_does_not_cool_down(desk: Desk) -> None:
    """Nobody has acted on it: planned again, it may be acted on at once; and after that no more."""

    async def steps(desk: Desk) -> list[str]:
        Lamp.moved = True
        (left,) = await desk.applied(lamp())
        Lamp.moved = False
        (done,) = await desk.applied(lamp())
        assert (left.done, done.done) == (False, True)
        with pytest.raises(Refused, match="hall was acted on"):
            await desk.applied(lamp(id="another-run:P01.act"))
        return await desk.events(lamp())

    tried = ["planned", "approved", "applying"]
    assert desk.do(steps) == [*tried, "refused", *tried, "applied"]


def test_what_was_applied_is_not_applied_again(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        await desk.applied(lamp())
        with pytest.raises(Refused, match="applied already"):
            await desk.acting.plan(lamp(), ME)
        await desk.acting.apply(lamp(), ME)

    with pytest.raises(Refused, match="not approved"):
        desk.do(steps)
    assert Lamp.applied == 1


def test_undone_is_undone_once(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        await desk.applied(lamp())
        await desk.acting.undo(lamp(), ME)
        assert not Lamp.lamps["hall"]
        await desk.acting.undo(lamp(), ME)

    with pytest.raises(Refused, match="nothing to undo: the action is undone"):
        desk.do(steps)


def test_what_could_not_be_put_back_may_be_undone_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [Effect(target="hall", done=False, said="somebody holds the switch")]

    async def steps(desk: Desk) -> str:
        await desk.applied(lamp())
        with monkeypatch.context() as held:
            held.setattr(Lamp, "undo", lambda self, plan, effects: left)
            assert await desk.acting.undo(lamp(), ME) == left
        assert (await desk.acting.standing(lamp().id)).state == "applied"
        await desk.acting.undo(lamp(), ME)
        return (await desk.acting.standing(lamp().id)).state

    assert desk.do(steps) == "undone"


def test_what_fails_is_written_down_and_not_tried_again(desk: Desk) -> None:
    Lamp.breaks = True

    async def steps(desk: Desk) -> list[str]:
        with pytest.raises(Refused, match="fuse"):
            await desk.applied(lamp())
        return await desk.events(lamp())

    assert desk.do(steps) == ["planned", "approved", "applying", "failed"]


def test_whoever_died_in_between_is_found_and_only_verified(desk: Desk) -> None:
    async def dies(desk: Desk) -> None:
        await desk.approved(lamp())
        standing = await desk.acting.standing(lamp().id)
        await desk.log.append(
            lamp().id, "applying", ME, {"kind": "lamp.on", "targets": ["hall"]}, after=standing.newest
        )
        Lamp.lamps["hall"] = True  # and here it died

    async def finds(desk: Desk) -> Any:
        assert await desk.acting.unfinished() == [lamp().id]
        told = await desk.acting.verify(lamp(), "resume:w1")
        return told, await desk.acting.unfinished(), await desk.events(lamp())

    desk.do(dies)
    told, left, events = desk.do(finds)
    assert (told["holds"], told["verdict"], left) == (True, "fixed", [])
    assert events == ["planned", "approved", "applying", "verified"]
    assert Lamp.applied == 0


def test_whoever_died_while_undoing_leaves_it_open_and_it_may_be_undone_again(desk: Desk) -> None:
    async def dies(desk: Desk) -> None:
        await desk.applied(lamp())
        standing = await desk.acting.standing(lamp().id)
        await desk.log.append(lamp().id, "undoing", ME, {}, after=standing.newest)

    async def finds(desk: Desk) -> Any:
        assert (await desk.acting.standing(lamp().id)).state == "applied"
        assert await desk.acting.unfinished() == [lamp().id]
        await desk.acting.undo(lamp(), ME)
        return (await desk.acting.standing(lamp().id)).state

    desk.do(dies)
    assert desk.do(finds) == "undone"
    assert Lamp.lamps == {"hall": False}


# -- policies ----------------------------------------------------------------------------------------------------------


def _permit(**facts: Any) -> dict[str, Any]:
    return {"kind": "lamp.on", "runbook": "db_connection_exhaustion", "cause": "P01"} | facts


@pytest.mark.parametrize(
    ("policy", "asked", "done"),
    [
        ([], lamp(), False),
        ([_permit()], lamp(), True),
        ([_permit(cause="P02"), _permit()], lamp(), True),
        ([_permit(runbook="another")], lamp(), False),
        ([_permit(cause="P02")], lamp(), False),
        ([_permit()], lamp(tier="probable"), False),
        ([_permit(minimum_tier="probable")], lamp(tier="probable"), True),
        ([_permit(minimum_tier="probable")], lamp(tier="possible"), False),
        ([_permit(kind="lamp.by_hand")], lamp(kind="lamp.by_hand"), False),
        ([_permit(kind="postgres.drop_slot")], lamp(kind="postgres.drop_slot"), False),
    ],
)
def test_a_run_does_by_itself_what_a_policy_names_and_nothing_else(
    desk: Desk, policy: list[dict[str, Any]], asked: Order, done: bool
) -> None:
    desk.plain["actions"]["policy"] = policy
    told = desk.do(lambda desk: desk.acting.by_policy(asked, "w1"))
    assert (told is not None, Lamp.applied) == (done, int(done))


def test_a_policy_permits_so_many_targets_and_no_more(desk: Desk) -> None:
    desk.plain["actions"]["policy"] = [_permit()]
    with pytest.raises(Refused, match="permits 1 targets"):
        desk.do(lambda desk: desk.acting.by_policy(lamp("hall", "stairs"), "w1"))
    assert Lamp.applied == 0


# -- the log -----------------------------------------------------------------------------------------------------------


async def _three(desk: Desk) -> tuple[int, list[str]]:
    await desk.applied(lamp())
    await desk.acting.verify(lamp(), ME)
    return await desk.log.check()


def test_an_untouched_log_holds(desk: Desk) -> None:
    assert desk.do(_three) == (5, [])


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ("UPDATE runbook.action_log SET body = replace(body, 'ada', 'eve') WHERE seq = 2", "entry 2 was changed"),
        ("UPDATE runbook.action_log SET actor = 'person:eve' WHERE seq = 2", "entry 2 says something else"),
        ("DELETE FROM runbook.action_log WHERE seq = 3", "entries 3 to 3 are missing"),
        ("DELETE FROM runbook.action_log WHERE seq = 5", "missing at the end"),
        ("DELETE FROM runbook.action_log", "missing at the end"),
        ("UPDATE runbook.action_log SET seal = md5(body) WHERE seq = 4", "entry 4 was changed"),
    ],
)  # fmt: skip
def test_any_edit_of_the_log_is_found(desk: Desk, database: str, edit: str, found: str) -> None:
    desk.do(_three)
    with psycopg.connect(database, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
            owner.execute(edit.encode())
        owner.execute("SET session_replication_role = replica")  # as a superuser can
        owner.execute(edit.encode())
    _, problems = desk.do(lambda desk: desk.log.check())
    assert any(found in problem for problem in problems), problems


def test_an_entry_is_appended_to_what_was_seen_or_not_at_all(desk: Desk) -> None:
    async def steps(desk: Desk) -> None:
        await desk.acting.plan(lamp(), ME)
        await desk.log.append(lamp().id, "planned", ME, {}, after=None)

    with pytest.raises(Moved):
        desk.do(steps)


def test_a_plan_says_until_when_it_holds(desk: Desk) -> None:
    plan = desk.do(lambda desk: desk.acting.plan(lamp(), ME))
    assert timedelta(minutes=4) < plan.expires_at - datetime.now(UTC) <= timedelta(minutes=5)
