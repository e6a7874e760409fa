"""The broker and its client: who is served, what confirms a plan, what a kernel is given, what survives a crash."""

from __future__ import annotations

import stat
import threading
from typing import Any

import pytest

from runbook import settings as settings_module
from runbook.actions import orders as orders_module
from runbook.actions.kinds import Said
from runbook.broker.server import Listening
from runbook.broker_client import BrokerClient, BrokerRefused, BrokerUnreachable
from tests.integration.actions.test_steps import Lamp
from tests.integration.broker.conftest import RUN, Serving, run
from tests.support import wait_until

ACTION = f"{RUN}:P01.lamp"


def planned(client: BrokerClient, *lamps: str) -> dict[str, Any]:
    client.offer(run(*lamps))
    return client.plan(ACTION)


def applied(client: BrokerClient, *lamps: str) -> dict[str, Any]:
    plan = planned(client, *lamps)
    return client.apply(ACTION, digest=plan["plan"]["digest"], typed=plan["confirm"])


def test_the_socket_is_for_its_owner_alone(broker: Listening) -> None:
    assert stat.S_IMODE(broker.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(broker.path.parent.stat().st_mode) == 0o700
    assert stat.S_ISSOCK(broker.path.stat().st_mode)


def test_nothing_is_left_of_it(serving: Serving) -> None:
    with serving() as broker:
        client = BrokerClient(str(broker.path), broker.token)
    assert not broker.path.parent.exists()
    with pytest.raises(BrokerUnreachable, match="does not answer"):
        client.offer(run())


@pytest.mark.parametrize("token", ["", "wrong", "ä"])
def test_without_its_token_nobody_is_served(broker: Listening, token: str) -> None:
    stranger = BrokerClient(str(broker.path), token)
    for ask in (lambda: stranger.offer(run()), lambda: stranger.diagnosing(""), lambda: stranger.plan(ACTION)):
        with pytest.raises((BrokerRefused, UnicodeEncodeError)):
            ask()


def test_a_kernel_without_a_broker_has_none() -> None:
    assert BrokerClient.from_environment({}) is None
    assert BrokerClient.from_environment({"RUNBOOK_BROKER": "/tmp/x"}) is None


def test_a_kernel_gets_what_diagnoses_and_nothing_that_acts(serving: Serving, database: str) -> None:
    given = {
        "postgres": {"dsn": "postgresql://monitor:Canary-a@db/app", "action_dsn": "postgresql://act:Canary-b@db/app"},
        "discord": {"webhook_url": "https://discord.com/api/webhooks/1/Canary-c"},
        "actions": {"audit_key": "Canary-d"},
        "services": {"shop": {"postgres": {"dsn": "postgresql://monitor:Canary-e@shop/app"}}},
    }
    with serving(**given) as broker:
        client = BrokerClient(str(broker.path), broker.token)
        general, shop = client.diagnosing(""), client.diagnosing("shop")
    assert "Canary-a" in str(general)
    assert "Canary-e" in str(shop)
    assert not [name for name in ("Canary-b", "Canary-c", "Canary-d", database) if name in str([general, shop])]
    assert settings_module.from_plain(general).postgres.action_dsn is None
    assert set(broker.environment) == {"RUNBOOK_BROKER", "RUNBOOK_BROKER_TOKEN"}


def test_an_action_goes_all_the_way(client: BrokerClient, lamps: dict[str, bool]) -> None:
    (offered,) = client.offer(run())
    assert (offered["applicable"], offered["state"], offered["plan"]) == (True, "proposed", None)
    plan = client.plan(ACTION)
    assert [target["shown"] for target in plan["plan"]["draft"]["targets"]] == ["hall is off"]
    done = client.apply(ACTION, digest=plan["plan"]["digest"], typed=" hall ")
    assert (done["state"], lamps) == ("applied", {"hall": True})
    verified = client.verify(ACTION)
    assert (verified["state"], verified["verified"]["verdict"]) == ("verified", "fixed")
    assert client.undo(ACTION)["state"] == "undone"
    assert lamps == {"hall": False}
    assert [entry["event"] for entry in client.offer(run())[0]["log"]] == [
        "planned", "approved", "applying", "applied", "verified", "undoing", "undone",
    ]  # fmt: skip


def test_who_acts_is_the_person_who_started_it(client: BrokerClient) -> None:
    assert {entry["actor"].partition(":")[0] for entry in applied(client)["log"]} == {"person"}


@pytest.mark.parametrize(
    ("lamps_named", "typed"),
    [(("hall",), ""), (("hall",), "Hall"), (("hall",), "hall +1"), (("hall", "stairs"), "hall"),
     (("hall", "stairs"), "stairs +1"), (("hall", "stairs"), "hall stairs")],
)  # fmt: skip
def test_whoever_types_another_name_changes_nothing(
    client: BrokerClient, lamps_named: tuple[str, ...], typed: str
) -> None:
    plan = planned(client, *lamps_named)
    with pytest.raises(BrokerRefused, match="not the name of the target"):
        client.apply(ACTION, digest=plan["plan"]["digest"], typed=typed)
    assert Lamp.applied == 0
    assert client.offer(run(*lamps_named))[0]["state"] == "proposed"


def test_several_targets_are_confirmed_by_the_first_and_their_number(client: BrokerClient) -> None:
    plan = planned(client, "hall", "stairs", "cellar")
    assert plan["confirm"] == "hall +2"
    assert client.apply(ACTION, digest=plan["plan"]["digest"], typed="hall  +2")["state"] == "applied"


def test_a_confirmation_is_for_the_plan_that_was_seen(client: BrokerClient) -> None:
    seen = planned(client)
    client.plan(ACTION)
    with pytest.raises(BrokerRefused, match="another plan"):
        client.apply(ACTION, digest=seen["plan"]["digest"], typed="hall")
    assert Lamp.applied == 0


def test_of_two_clicks_one_applies(client: BrokerClient) -> None:
    plan = planned(client)
    outcomes: list[str] = []

    def click() -> None:
        try:
            outcomes.append(client.apply(ACTION, digest=plan["plan"]["digest"], typed="hall")["state"])
        except BrokerRefused as error:
            outcomes.append(error.message)

    clicks = [threading.Thread(target=click) for _ in range(2)]
    for each in clicks:
        each.start()
    for each in clicks:
        each.join()
    assert Lamp.applied == 1
    assert sorted(outcomes) == ["applied", "there is no plan to approve: the action is applied"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"runbook": "nothing_of_ours"}, "unknown runbook"),
        ({"parameters": {"strange": 1}}, "no parameter"),
        ({"parameters": {"threshold_percent": 1000}}, "threshold_percent"),
        ({"run_id": "../../etc"}, "run_id"),
        ({"findings": {"actions": [{"id": 1}]}}, "no findings"),
        ({"findings": {"actions": "x"}}, "no findings"),
    ],
)
def test_what_is_no_run_of_ours_is_not_taken_in(client: BrokerClient, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BrokerRefused, match=reason):
        client.offer(run() | change)


def test_a_cause_of_another_runbook_is_not_taken_in(client: BrokerClient) -> None:
    with pytest.raises(BrokerRefused, match="does not look for X99"):
        client.offer(run(cause="X99"))


def test_what_is_proposed_for_no_cause_is_taken_in(client: BrokerClient) -> None:
    (offered,) = client.offer(run(cause=""))
    assert offered["applicable"] is True


def test_what_was_never_handed_in_is_not_known(client: BrokerClient) -> None:
    with pytest.raises(BrokerRefused, match="handed in"):
        client.plan(ACTION)


@pytest.fixture
def ordered_lamps(lamps: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The lamps may be ordered as well."""
    monkeypatch.setattr(Lamp, "may_be_ordered", True)
    monkeypatch.setattr(Lamp, "called", "Switch a lamp on")
    monkeypatch.setattr(Lamp, "said", {"lamp": Said(means="which lamp", needed=True)})
    monkeypatch.setattr(orders_module, "KINDS", {"lamp.on": "here"})
    monkeypatch.setattr(orders_module, "kind_named", {"lamp.on": Lamp}.get)
    return lamps


def wish(**more: Any) -> dict[str, Any]:
    return {"run_id": RUN, "kind": "on", "targets": [{"lamp": "cellar"}], "title": "", "notebook": None} | more


def test_a_person_orders_in_a_cell_and_it_goes_all_the_way(serving: Serving, ordered_lamps: dict[str, bool]) -> None:
    with serving() as broker:
        client = BrokerClient(str(broker.path), broker.token)
        client.offer(run())
        made = client.order(wish())
        assert (made["id"], made["state"], made["applicable"]) == (f"{RUN}:ordered-1", "proposed", True)
        assert (made["action"]["title"], made["action"]["targets"]) == ("Switch a lamp on", [{"lamp": "cellar"}])
        plan = client.plan(made["id"])
        client.apply(made["id"], digest=plan["plan"]["digest"], typed="cellar")
        assert ordered_lamps == {"cellar": True}
    with serving() as broker:  # the next one knows it from the log
        client = BrokerClient(str(broker.path), broker.token)
        told = wait_until(lambda: (found := client.told(made["id"]))["verified"] and found)
        assert told["verified"]["verdict"] == "fixed"
        assert [entry["event"] for entry in told["log"]][:2] == ["ordered", "planned"]
        assert client.undo(made["id"])["state"] == "undone"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "off"}, "no action 'off'"),
        ({"targets": [{}]}, "needs lamp"),
        ({"targets": [{"lamp": "a"}, {"lamp": "b"}]}, "2 targets"),
        ({"run_id": "20261129T120000000-aaaaaaaa"}, "not handed in"),
        ({"run_id": "../x"}, "run_id"),
        ({"actor": "person:somebody"}, "actor"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(
    client: BrokerClient, ordered_lamps: dict[str, bool], change: dict[str, Any], reason: str
) -> None:
    client.offer(run())
    with pytest.raises(BrokerRefused, match=reason):
        client.order(wish(**change))


def test_what_only_hands_can_do_says_so(client: BrokerClient) -> None:
    (offered,) = client.offer(run(kind="lamp.repair"))
    assert (offered["applicable"], offered["why_not"]) == (False, "it is for a person's own hands")
    with pytest.raises(BrokerRefused, match="own hands"):
        client.plan(ACTION)


def test_switched_off_is_switched_off(serving: Serving) -> None:
    with serving(actions={"enabled": False}) as broker:
        client = BrokerClient(str(broker.path), broker.token)
        assert "switched off" in client.offer(run())[0]["why_not"]
        with pytest.raises(BrokerRefused, match="switched off"):
            client.plan(ACTION)


def test_a_system_that_refuses_is_told_and_written_down(client: BrokerClient) -> None:
    Lamp.breaks = True
    plan = planned(client)
    with pytest.raises(BrokerRefused, match="fuse"):
        client.apply(ACTION, digest=plan["plan"]["digest"], typed="hall")
    assert client.offer(run())[0]["state"] == "failed"


def test_without_a_store_it_reads_and_does_nothing(serving: Serving) -> None:
    with serving(store={"url": "postgresql://nobody@127.0.0.1:1/none"}) as broker:
        client = BrokerClient(str(broker.path), broker.token)
        assert client.diagnosing("")["postgres"] == {"dsn": None, "pgbouncer_dsn": None, "reserve_dsn": None}
        assert "no store" in client.offer(run())[0]["why_not"]
        with pytest.raises(BrokerRefused, match="without a log"):
            client.plan(ACTION)


def test_what_a_dead_broker_left_is_verified_by_the_next_one_and_not_applied_again(serving: Serving) -> None:
    with serving() as broker:
        applied(BrokerClient(str(broker.path), broker.token))
    with serving() as broker:
        client = BrokerClient(str(broker.path), broker.token)
        told = wait_until(lambda: (found := client.told(ACTION))["verified"] and found)
        assert (told["state"], told["verified"]["verdict"]) == ("verified", "fixed")
        assert told["log"][-1]["actor"].startswith("resume:")
    assert Lamp.applied == 1
