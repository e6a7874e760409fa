"""What a person orders: kept in the sealed log, found by its id, and done by the same steps as a proposal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Refused
from runbook.errors import InvalidParameter
from tests.contract.simulator import Simulator
from tests.integration.actions.desk import ME, Desk

RUN = "20261129T120000000-k3f9qa7m"
LABELS = {"alertname": "ConnectionsHigh", "service": "api"}
RESULT: dict[str, Any] = {
    "run_id": RUN, "runbook": "db_connection_exhaustion", "parameters": {"samples": 1},
    "symptom": {"label": "slots", "value": 20.0, "breached": True},
    "verdict": [{"cause": "P01", "tier": "confirmed"}, {"cause": "P02", "tier": "excluded"}],
    "alert": {"source": "alertmanager", "fingerprint": "f00dfeedf00dfeed", "labels": LABELS},
}  # fmt: skip


@pytest.fixture
def desk(vendors: Simulator, database: str, data: Path) -> Desk:
    sections = {name: vendors.settings[name] for name in ("discord", "pagerduty")}
    return Desk({"store": {"url": database}, "queue": {"name": "videos"}, **sections})


def made(desk: Desk, kind: str, *targets: Mapping[str, Any], **result: Any) -> Any:
    """The order as it is found again afterwards."""

    async def steps(desk: Desk) -> Any:
        order = await desk.acting.orders.make(kind, targets, result=RESULT | result, actor=ME)
        assert await desk.acting.orders.one(order.id) == order
        return order

    return desk.do(steps)


def test_an_order_goes_the_whole_way_and_the_log_tells_who_wanted_what(desk: Desk, vendors: Simulator) -> None:
    async def steps(desk: Desk) -> Any:
        order = await desk.acting.orders.make("post", [{"content": "we are on it"}], result=RESULT, actor=ME)
        done = await desk.there_and_back(order)
        return order, done, await desk.log.of(order.id), await desk.log.check()

    order, (effects, verified, undone), entries, (count, problems) = desk.do(steps)
    assert (order.id, order.kind, order.cause, order.ordered_by) == (f"{RUN}:ordered-1", "discord.post", "", ME)
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (verified["verdict"], verified["said"]) == ("fixed", "slots: 20 before, 0 now: the symptom is gone")
    assert [entry.event for entry in entries] == [
        "ordered", "planned", "approved", "applying", "applied", "verified", "undoing", "undone",
    ]  # fmt: skip
    told = entries[0]
    assert (told.actor, told.detail["kind"], told.detail["targets"]) == (
        ME, "discord.post", [{"content": "we are on it"}],
    )  # fmt: skip
    assert (count, problems) == (8, [])


def test_two_orders_at_once_are_two(desk: Desk) -> None:
    async def steps(desk: Desk) -> Any:
        make = desk.acting.orders.make
        both = [make("queue.pause", [], result=RESULT, actor=ME) for _ in range(2)]
        ids = {order.id for order in await asyncio.gather(*both)}
        return ids, {order.id for order in await desk.acting.orders.of(RUN)}

    ids, found = desk.do(steps)
    assert ids == found == {f"{RUN}:ordered-1", f"{RUN}:ordered-2"}


@pytest.mark.parametrize(
    ("kind", "target", "completed"),
    [
        ("silence", {}, {"labels": LABELS, "minutes": 60}),
        ("silence", {"minutes": 5}, {"labels": LABELS, "minutes": 5}),
        ("silence", {"labels": {"alertname": "Y"}}, {"labels": {"alertname": "Y"}, "minutes": 60}),
        ("queue.resume", {}, {"queue": "videos", "prefix": "bull"}),
        ("pgbouncer.pause", {"database": "app"}, {"database": "app"}),
    ],
)
def test_what_is_not_said_is_known_from_the_run_and_the_settings(
    desk: Desk, kind: str, target: dict[str, Any], completed: dict[str, Any]
) -> None:
    assert made(desk, kind, target).targets == [completed]


def test_what_needs_no_target_has_none(desk: Desk) -> None:
    assert made(desk, "reload").targets == []


def test_an_alert_whose_labels_were_not_kept_is_known_by_its_fingerprint(desk: Desk) -> None:
    alert = RESULT["alert"] | {"labels": LABELS | {"tenant": "[withheld]"}}
    (target,) = made(desk, "silence", alert=alert).targets
    assert target == {"fingerprint": "f00dfeedf00dfeed", "labels": LABELS, "minutes": 60}


def test_a_note_says_what_the_run_found_where_nobody_says_anything(desk: Desk) -> None:
    (target,) = made(desk, "note", {"incident_id": "Q1"}).targets
    assert target == {
        "incident_id": "Q1",
        "content": f"Runbook {RESULT['runbook']}, run {RUN}: P01 (confirmed). slots: 20.0",
    }


def test_which_incidents_are_open_is_told_and_none_is_taken_by_itself(desk: Desk, vendors: Simulator) -> None:
    incident = {"number": 7, "title": "Error rate", "created_at": "2026-11-29T12:00:00+00:00", "status": "triggered"}
    closed = {"number": 8, "title": "Over", "created_at": "2026-11-29T12:00:00+00:00", "status": "resolved"}
    vendors.vendors.change("pagerduty", incidents=[incident, closed])
    with pytest.raises(InvalidParameter, match=r"which incident\. Say incident_id=… Open are: \w+ \(Error rate\)$"):
        made(desk, "acknowledge")


@pytest.mark.parametrize(
    ("kind", "targets", "said"),
    [
        ("silence", [{"minute": 5}], "knows no minute. It takes labels, fingerprint, minutes, comment"),
        ("silence", [{"minutes": "5"}], "minutes is no number"),
        ("silence", [{"minutes": True}], "minutes is no number"),
        ("silence", [{"minutes": float("nan")}], "minutes is no number"),
        ("silence", [{"labels": ["x"]}], "labels are no labels"),
        ("silence", [{"labels": {}}], "labels are no labels"),
        ("silence", [{"labels": {"alertname": 5}}], "labels is no text"),
        ("silence", [{"comment": "\x1b[2J"}], "control characters"),
        ("silence", [{"comment": "x" * 4001}], "too long"),
        ("silence", [{"comment": " "}], "an empty one"),
        ("silence", [{}, {}], "2 targets, and an order has one"),
        ("post", [], "discord.post needs content: the message"),
        ("pgbouncer.resume", [{}], "needs database"),
        ("reload", [{"database": "app"}], "knows no database. It takes nothing"),
        ("post", [{"content": "password: correct-horse-9"}], "a secret stands in it"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_kept(
    desk: Desk, kind: str, targets: list[dict[str, Any]], said: str
) -> None:
    async def steps(desk: Desk) -> Any:
        with pytest.raises(InvalidParameter) as caught:
            await desk.acting.orders.make(kind, targets, result=RESULT, actor=ME)
        return str(caught.value), await desk.acting.orders.of(RUN)

    refused, kept = desk.do(steps)
    assert said in refused
    assert kept == []


def test_a_configured_secret_reaches_no_log_and_no_channel(desk: Desk, vendors: Simulator) -> None:
    with pytest.raises(InvalidParameter, match="a secret stands in it") as caught:
        made(desk, "post", {"content": f"the webhook is {vendors.known.discord}"})
    assert vendors.known.discord not in str(caught.value)


def test_where_no_alert_is_known_the_labels_have_to_be_said(desk: Desk) -> None:
    for alert in (None, {"source": "generic", "fingerprint": "sha256:1", "labels": LABELS | {"x": "[withheld]"}}):
        with pytest.raises(InvalidParameter, match=r"not known which alert.*labels\.alertname"):
            made(desk, "silence", alert=alert)


def test_no_policy_does_what_a_person_ordered(desk: Desk, vendors: Simulator) -> None:
    desk.plain["actions"] = {"policy": [{"kind": "discord.post", "runbook": RESULT["runbook"], "cause": ""}]}

    async def steps(desk: Desk) -> Any:
        order = await desk.acting.orders.make("post", [{"content": "hello"}], result=RESULT, actor=ME)
        return await desk.acting.by_policy(order, "worker-1")

    assert desk.do(steps) is None
    assert vendors.vendors.state("discord")["messages"] == []


def test_what_a_diagnosis_has_to_read_is_ordered_by_nobody(desk: Desk) -> None:
    with pytest.raises(Refused, match=r"never ordered.*Ordered are: queue\.pause"):
        made(desk, "postgres.terminate_session", {"pid": 4711})
