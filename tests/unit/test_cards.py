"""Cards of actions: which buttons there are when, what a click asks for, what is shown where no broker is."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from runbook import cards
from runbook.broker_client import BrokerRefused, BrokerUnreachable
from runbook.cards import Card
from runbook.reporting.fragment import ACTIONS_MARK
from runbook.result import Action, Findings, Symptom
from tests.support import wait_until

PLAN = {
    "digest": "d1g357" * 8, "expires_at": "2026-03-01T03:17:05+00:00",
    "draft": {
        "targets": [{"name": "4711", "shown": "pid 4711, <b>api-leaky</b>", "change": "its session is ended"}],
        "risks": ["work is lost"], "left_alone": ["pid 4712: it is gone"],
        "undo": "irreversible: gone", "preconditions": [],
    },
}  # fmt: skip
ACTION = {"id": "a", "kind": "k", "title": "End <the> session", "cause": "P01", "targets": [{"pid": 4711}],
          "preconditions": [], "by_hand": "SELECT 1", "undo": "irreversible", "needs": None}  # fmt: skip


def told(state: str = "proposed", **more: Any) -> dict[str, Any]:
    empty = {"plan": None, "confirm": "", "reversible": False, "applicable": True, "why_not": ""}
    return {"id": "run:a", "state": state, **empty, **more}


def planned(**more: Any) -> dict[str, Any]:
    return told(plan=PLAN, confirm="4711", **more)


class Broker:
    """Answers each step with what the test says, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, step: str) -> Callable[..., Any]:
        def ask(*given: Any, **more: Any) -> Any:
            self.go.wait(10)
            self.asked.append((step, *given, *more.values()))
            answer = self.answers[step]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


def seen(card: Card) -> set[str]:
    """The controls that can be reached."""
    return {n for n in ("plan", "typed", "apply", "verify", "undo") if getattr(card, n).layout.display is None}


def card(first: dict[str, Any], **answers: Any) -> tuple[Card, Broker]:
    broker = Broker(**answers)
    return Card(ACTION, first, broker), broker  # type: ignore[arg-type]


def idle(card: Card) -> bool:
    return not card.plan.disabled


@pytest.mark.parametrize(
    ("state", "controls"),
    [
        (told(), {"plan"}),
        (planned(), {"plan", "typed", "apply"}),
        (planned(state="approved"), {"plan", "typed", "apply"}),
        (planned(state="expired"), {"plan"}),
        (planned(state="failed", failed={"reason": "fuse"}), {"plan"}),
        (planned(state="applied", reversible=True), {"verify", "undo"}),
        (planned(state="applied"), {"verify"}),
        (planned(state="verified", reversible=True), {"verify", "undo"}),
        (planned(state="undone", reversible=True), set()),
        (told(applicable=False, why_not="it is for a person's own hands"), set()),
    ],
)
def test_what_can_be_asked_for_follows_from_how_far_it_has_come(state: dict[str, Any], controls: set[str]) -> None:
    found = planned() | state if state.get("plan") else state
    assert seen(card(found)[0]) == controls


def test_a_click_plans_and_then_the_name_can_be_typed() -> None:
    shown, broker = card(told(), plan=planned())
    shown.plan.click()
    wait_until(lambda: idle(shown))
    assert broker.asked == [("plan", "run:a")]
    assert shown.typed.description == "Type 4711 to confirm"
    assert "work is lost" in shown.foot.value
    assert "pid 4712: it is gone" in shown.foot.value
    shown.typed.value = "4711"
    broker.answers["apply"] = planned(
        state="applied", applied={"effects": [{"target": "4711", "done": True, "said": "x"}]}
    )
    shown.apply.click()
    wait_until(lambda: idle(shown))
    assert broker.asked[-1] == ("apply", "run:a", PLAN["digest"], "4711")
    assert shown.typed.value == ""
    assert "What was done" in shown.foot.value


def test_what_was_ordered_is_not_called_proposed() -> None:
    shown, _ = card(told(ordered_by="person:ada"))
    assert "ordered, nothing is changed yet" in shown.head.value
    assert "proposed" not in shown.head.value


def test_a_click_returns_at_once_and_nothing_else_can_be_clicked_meanwhile() -> None:
    shown, broker = card(planned(), apply=planned(state="applied"))
    broker.go.clear()
    shown.apply.click()
    assert shown.apply.disabled
    assert shown.plan.disabled
    assert 'role="status"' in shown.state.value
    broker.go.set()
    wait_until(lambda: idle(shown))
    assert shown.state.value == ""


def test_a_refusal_stands_in_the_card_and_the_plan_stays() -> None:
    refused = BrokerRefused("that is not the name of the <target>", remedy="Type 4711")
    shown, _ = card(planned(), apply=refused, told=planned())
    shown.apply.click()
    wait_until(lambda: idle(shown))
    assert 'role="alert"' in shown.state.value
    assert "not the name of the &lt;target&gt;. Type 4711" in shown.state.value
    assert seen(shown) == {"plan", "typed", "apply"}


@pytest.mark.parametrize("error", [BrokerUnreachable("the broker does not answer"), ValueError("Canary")])
def test_a_broker_that_is_gone_is_told_in_the_card(error: Exception) -> None:
    shown, _ = card(told(), plan=error, told=BrokerUnreachable("gone"))
    shown.plan.click()
    wait_until(lambda: idle(shown))
    assert "Not done" in shown.state.value
    assert "Canary" not in shown.state.value


@pytest.mark.parametrize(("verdict", "words"), [("fixed", "Fixed"), ("worse", "worse"), ("unknown", "Unknown")])
def test_what_became_of_the_symptom_is_said(verdict: str, words: str) -> None:
    verified = {"verdict": verdict, "said": "slots: 20 before", "holds": True, "effect": "gone", "run_id": "r2"}
    shown, _ = card(planned() | {"state": "verified", "verified": verified})
    assert words in shown.foot.value
    assert "slots: 20 before" in shown.foot.value
    assert verdict in shown.head.value.lower()


def test_what_a_system_said_is_text() -> None:
    shown, _ = card(planned())
    assert "<b>api" not in shown.foot.value
    assert "End <the>" not in shown.head.value


def test_every_control_has_a_name() -> None:
    shown, _ = card(planned(state="proposed"))
    for button in (shown.plan, shown.apply, shown.verify, shown.undo):
        assert "End <the> session" in button.tooltip
    assert shown.typed.description


def test_buttons_of_different_actions_have_different_names() -> None:
    one, _ = card(planned())
    other = Card(ACTION | {"title": "Restart\nthe worker"}, told(), Broker())  # type: ignore[arg-type]
    # What is seen of it is the first line.
    assert one.plan.description.splitlines() == ["Plan again", "End <the> session"]
    assert one.apply.description.splitlines() == ["Apply", "End <the> session"]
    assert other.plan.description.splitlines() == ["Plan", "Restart the worker"]


@pytest.fixture
def output() -> Callable[[Callable[[], None]], list[dict[str, Any]]]:
    InteractiveShell.instance()

    def displayed(show: Callable[[], None]) -> list[dict[str, Any]]:
        with capture_output() as captured:
            show()
        return [dict(each.data) for each in captured.outputs]

    return displayed


def proposing() -> Findings:
    symptom = Symptom(label="slots", value=20, unit="", threshold=16, breached=True)
    action = Action(**ACTION)
    return Findings(symptom=symptom, impact="", outcome="diagnosed", verdict=(), evidence=(), actions=(action,))


RUN = {"run_id": "20261129T120000000-k3f9qa7m"}
VIEW = "application/vnd.jupyter.widget-view+json"


def test_the_static_form_stands_beside_the_widget(output: Any) -> None:
    findings = proposing()
    broker = Broker(offer=[told() for _ in findings.actions])
    (data,) = output(lambda: cards.show(findings, RUN, broker))  # type: ignore[arg-type]
    assert VIEW in data
    assert "rb-actions" in data["text/html"]
    assert "SELECT 1" in data["text/html"]


@pytest.mark.parametrize("error", [BrokerUnreachable("the broker does not answer"), BrokerRefused("no such runbook")])
def test_without_its_broker_what_to_copy_is_shown_and_why(output: Any, error: Exception) -> None:
    (data,) = output(lambda: cards.show(proposing(), RUN, Broker(offer=error)))  # type: ignore[arg-type]
    assert VIEW not in data
    assert str(error) in data["text/html"]
    assert "rb-actions" in data["text/html"]


WISH = {"run_id": RUN["run_id"], "kind": "silence", "targets": [{"comment": "it's <known>"}], "title": ""}


def test_what_is_ordered_is_a_card_of_its_own(output: Any) -> None:
    broker = Broker(offer=[], order=told(action=ACTION))
    (data,) = output(lambda: cards.order(WISH, RUN, broker))  # type: ignore[arg-type]
    assert broker.asked == [("offer", RUN), ("order", WISH)]
    assert VIEW in data
    # What the run proposed is drawn anew when it is published; this is not of it.
    assert not data["text/html"].startswith(ACTIONS_MARK)
    assert "SELECT 1" in data["text/html"]
    assert data["text/plain"] == "ordered: End <the> session"


@pytest.mark.parametrize("broker", [None, Broker(offer=[], order=BrokerRefused("silence needs an alert"))])
def test_what_is_not_ordered_can_be_copied(output: Any, broker: Any) -> None:
    (data,) = output(lambda: cards.order(WISH, RUN, broker))
    assert VIEW not in data
    command = unescape(data["text/html"].partition("<pre>")[2].partition("</pre>")[0])
    assert shlex.split(command) == [
        "runbook", "actions", "order", RUN["run_id"], "silence", "-t", json.dumps({"comment": "it's <known>"}),
    ]  # fmt: skip
    assert ("silence needs an alert" in data["text/html"]) == (broker is not None)
    assert "<known>" not in data["text/html"]


def test_where_nothing_is_proposed_nothing_is_offered(output: Any) -> None:
    broker = Broker()
    (data,) = output(lambda: cards.show(None, RUN, broker))  # type: ignore[arg-type]
    assert broker.asked == []
    assert "Nothing is proposed" in data["text/html"]
