"""Acknowledging and notes on the simulated PagerDuty."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Refused
from runbook.sandbox.vendors.pagerduty import Incident
from tests.contract.simulator import Simulator
from tests.integration.actions.desk import ME, Desk, order

ACKNOWLEDGE, NOTE = "pagerduty.acknowledge", "pagerduty.note"
AT = datetime.now(UTC) - timedelta(minutes=8)
NUMBER = 501
ID = Incident(number=NUMBER, title="Error rate", created_at=AT).identity
TARGET = {"incident_id": ID}


@pytest.fixture
def desk(vendors: Simulator, database: str, data: Path) -> Desk:
    become(vendors, "triggered")
    return Desk({"store": {"url": database}, "pagerduty": vendors.settings["pagerduty"]})


def become(vendors: Simulator, status: str) -> None:
    incident = {"number": NUMBER, "title": "Error rate", "created_at": AT, "status": status}
    vendors.vendors.change("pagerduty", incidents=[incident])


def incident(vendors: Simulator) -> dict[str, Any]:
    (found,) = vendors.vendors.state("pagerduty")["incidents"]
    return dict(found)


def changes(vendors: Simulator) -> list[str]:
    return [r["method"] for r in vendors.vendors.requests("pagerduty") if r["method"] != "GET"]


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


def test_an_incident_is_acknowledged_and_triggered_again(desk: Desk, vendors: Simulator) -> None:
    seen = []
    desk.symptom = lambda: seen.append(incident(vendors)["status"]) or 0.0  # type: ignore[func-returns-value]
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order(ACKNOWLEDGE, [TARGET])))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (seen, verified["holds"], incident(vendors)["status"]) == (["acknowledged"], True, "triggered")


@pytest.mark.parametrize("status", ["acknowledged", "resolved"])
def test_only_what_is_still_triggered_is_acknowledged(desk: Desk, vendors: Simulator, status: str) -> None:
    effect = desk.do(lambda desk: desk.overtaken(order(ACKNOWLEDGE, [TARGET]), lambda: become(vendors, status)))
    assert (effect.done, status in effect.said, changes(vendors)) == (False, True, [])
    _refused(desk, order(ACKNOWLEDGE, [TARGET], id="r:other"), f"is {status}")


def test_what_was_resolved_since_is_not_triggered_again(desk: Desk, vendors: Simulator) -> None:
    asked = order(ACKNOWLEDGE, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        become(vendors, "resolved")
        return await desk.acting.undo(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, incident(vendors)["status"]) == (False, "resolved")


def test_no_policy_acknowledges(desk: Desk, vendors: Simulator) -> None:
    asked = order(ACKNOWLEDGE, [TARGET])
    desk.plain["actions"] = {"policy": [{"kind": ACKNOWLEDGE, "runbook": asked.runbook, "cause": asked.cause}]}
    assert desk.do(lambda desk: desk.acting.by_policy(asked, "worker-1")) is None
    assert changes(vendors) == []


def test_a_note_says_what_the_run_found_and_stays(desk: Desk, vendors: Simulator) -> None:
    asked = order(NOTE, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        with pytest.raises(Refused, match="cannot be undone"):
            await desk.acting.undo(asked, ME)
        return await desk.acting.verify(asked, ME)

    assert desk.do(steps)["holds"] is True
    (note,) = incident(vendors)["notes"]
    assert note.startswith("Runbook db_connection_exhaustion, run 2026")
    assert "P01 (confirmed). slots: 20.0" in note


def test_a_note_of_ones_own_is_written_as_it_is(desk: Desk, vendors: Simulator) -> None:
    desk.do(lambda desk: desk.applied(order(NOTE, [TARGET | {"content": "rolled back; watching"}])))
    assert incident(vendors)["notes"] == ["rolled back; watching"]


def test_no_note_is_written_to_what_was_resolved_since_the_plan(desk: Desk, vendors: Simulator) -> None:
    effect = desk.do(lambda desk: desk.overtaken(order(NOTE, [TARGET]), lambda: become(vendors, "resolved")))
    assert (effect.done, incident(vendors)["notes"], changes(vendors)) == (False, [], [])
    _refused(desk, order(NOTE, [TARGET], id="r:other"), "is resolved")


@pytest.mark.parametrize("kind", [ACKNOWLEDGE, NOTE])
@pytest.mark.parametrize(
    ("change", "target", "reason"),
    [
        ({"token": ""}, TARGET, "pagerduty.token is not set"),
        ({"from_email": ""}, TARGET, "pagerduty.from_email is not set"),
        ({"token": "wrong-0a1b2c3d"}, TARGET, "answered 401"),
        ({}, {"incident_id": "QNOBODY"}, "answered 404"),
        ({}, {"incident_id": f"../incidents/{ID}"}, "answered 404"),
        ({}, {}, "an incident_id is needed"),
    ],
)
def test_what_cannot_be_is_refused(
    desk: Desk, kind: str, change: dict[str, str], target: dict[str, str], reason: str
) -> None:
    desk.plain["pagerduty"] = {**desk.plain["pagerduty"], **change}
    with pytest.raises(Refused, match=reason) as caught:
        desk.do(lambda desk: desk.acting.plan(order(kind, [target]), ME))
    assert "wrong-0a1b2c3d" not in str(caught.value)
