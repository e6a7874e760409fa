"""Orders by a person: which kinds there are for it, what is typed, and what becomes of the symptom without a cause."""

from __future__ import annotations

from typing import Any

import pytest

from runbook.actions.kinds import KINDS, kind_named
from runbook.actions.orders import orderable, typed
from runbook.actions.plan import Measure, Order, Refused, compared
from runbook.errors import InvalidParameter

BY_PERSONS = {
    "alertmanager.silence", "pagerduty.acknowledge", "pagerduty.note", "discord.post", "pgbouncer.pause",
    "pgbouncer.resume", "pgbouncer.reload", "queue.pause", "queue.resume",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_only_what_needs_no_diagnosis_is_ordered(name: str) -> None:
    kind = kind_named(name)
    assert kind is not None
    assert (kind.may_be_ordered, bool(kind.called)) == ((True, True) if name in BY_PERSONS else (False, False))
    if not kind.may_be_ordered:
        with pytest.raises(Refused, match="never ordered"):
            orderable(name)


@pytest.mark.parametrize(
    ("short", "name"),
    [("silence", "alertmanager.silence"), ("note", "pagerduty.note"), ("reload", "pgbouncer.reload"),
     ("post", "discord.post"), ("queue.pause", "queue.pause")],
)  # fmt: skip
def test_the_end_of_a_name_is_enough_where_it_is_one_kinds(short: str, name: str) -> None:
    assert orderable(short)[0] == name


@pytest.mark.parametrize(
    ("name", "said"),
    [("pause", "'pause' is queue.pause or pgbouncer.pause"), ("rollback", "no action 'rollback'"), ("", "no action ''"),
     ("postgres.drop_slot", "Ordered are: queue.pause, queue.resume, pgbouncer.pause")],
)  # fmt: skip
def test_another_name_is_told_what_there_is(name: str, said: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        orderable(name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "targets"),
    [
        ([], []),
        (["minutes=60"], [{"minutes": 60.0}]),
        (["minutes=60", "comment=a = b"], [{"minutes": 60.0, "comment": "a = b"}]),
        (["labels.alertname=X", "labels.service=api"], [{"labels": {"alertname": "X", "service": "api"}}]),
        (['labels={"alertname": "X"}'], [{"labels": {"alertname": "X"}}]),
        (['{"minutes": 5}'], [{"minutes": 5}]),
        (['{"minutes": 5}', "comment=known"], [{"minutes": 5}, {"comment": "known"}]),
        (["strange=1", "comment.x=1"], [{"strange": "1", "comment.x": "1"}]),
    ],
)
def test_targets_are_read_as_they_are_typed(texts: list[str], targets: list[dict[str, Any]]) -> None:
    assert typed("silence", texts) == targets


@pytest.mark.parametrize(
    "text", ["minutes", "=60", "minutes=an hour", '{"minutes": 5', "labels=api", "labels={", "labels=5"]
)
def test_what_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(InvalidParameter):
        typed("silence", [text])


def _order(**facts: Any) -> Order:
    given: dict[str, Any] = {
        "id": "r:ordered-1", "run_id": "r", "runbook": "b", "parameters": {}, "cause": "", "tier": "", "kind": "k",
        "title": "t", "targets": [], "by_hand": "", "undo": "", "needs": None,
        "symptom": {"label": "slots", "value": 20.0}, "ordered_by": "person:ada",
    }  # fmt: skip
    return Order(**given | facts)


@pytest.mark.parametrize(
    ("value", "breached", "verdict", "said"),
    [
        (2.0, False, "fixed", "slots: 20 before, 2 now: the symptom is gone"),
        (20.0, True, "unchanged", "slots: 20 before, 20 now: the symptom is still there"),
        (30.0, True, "worse", "slots: 20 before, 30 now: the symptom is still there"),
        (None, None, "unknown", "slots: 20 before, unknown now; nobody can tell whether the symptom is still there"),
    ],
)
def test_without_a_cause_the_symptom_alone_decides(
    value: float | None, breached: bool | None, verdict: str, said: str
) -> None:
    now = Measure(run_id="r2", label="slots", value=value, unit="", breached=breached, tiers={"P01": "confirmed"})
    assert compared(_order(), now) == (verdict, said)
