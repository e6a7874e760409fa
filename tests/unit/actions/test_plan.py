"""What is said of a symptom that was measured before an action and is measured again after it."""

from __future__ import annotations

from typing import Any

import pytest

from runbook.actions.plan import Measure, Order, compared
from runbook.result import Tier


def order(value: float = 720.0) -> Order:
    return Order(
        id="r:Q01.restart", run_id="r", runbook="queue_processing_delays", parameters={}, cause="Q01", tier="confirmed",
        kind="worker.restart", title="Restart it", targets=[], by_hand="", undo="irreversible", needs=None,
        symptom={"label": "oldest waiting job", "value": value, "breached": True},
    )  # fmt: skip


def now(value: float | None, label: str = "oldest waiting job", *, breached: bool | None = True,
        **tiers: Tier) -> Measure:  # fmt: skip
    return Measure(run_id="s", label=label, value=value, unit="s", breached=breached, tiers=tiers)


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (now(0.0, breached=False, Q01="excluded"),
         ("fixed", "oldest waiting job: 720 before, 0 now: the symptom is gone")),
        (now(0.0, breached=False, Q01="probable"),
         ("unchanged", "oldest waiting job: 720 before, 0 now: the symptom is gone; Q01 is still found")),
        (now(None, breached=None),
         ("unknown",
          "oldest waiting job: 720 before, unknown now; nobody can tell whether the symptom is still there")),
        (now(700.0, Q01="confirmed"),
         ("unchanged", "oldest waiting job: 720 before, 700 now: the symptom is still there")),
        (now(900.0, Q01="confirmed"),
         ("worse", "oldest waiting job: 720 before, 900 now: the symptom is still there")),
        (now(700.0, Q05="confirmed", Q09="possible"),
         ("unchanged", "oldest waiting job: 720 before, 700 now: the symptom is still there; Q01 is found no longer, "
          "Q05 is")),
        (now(700.0, Q01="excluded"),
         ("unchanged", "oldest waiting job: 720 before, 700 now: the symptom is still there; Q01 is found no longer, "
          "and no other cause is")),
        # Another figure is the worst by now: the two are not compared with one another.
        (now(900.0, "jobs that fail", Q01="confirmed"),
         ("unchanged", "oldest waiting job: 720 before; jobs that fail: 900 now: the symptom is still there")),
    ],
)  # fmt: skip
def test_what_became_of_the_symptom_is_what_was_measured(measure: Measure, said: tuple[Any, str]) -> None:
    assert compared(order(), measure) == said
