"""The ranking, on causes made of bare evidence."""

from __future__ import annotations

from typing import Any

import pytest

from runbook.diagnosis.verdict import Cause, outcome, rank, tier, unexplained
from runbook.result import Answer, Evidence


def evidence(answer: Answer, weight: int = 3, slug: str = "x") -> Evidence:
    return Evidence(id=slug, label=slug, value=1, reading=answer, weight=weight, source="test")


def cause(gate: Answer, *clauses: Answer, share: float = 1.0, id: str = "A", **how: Any) -> Cause:
    return Cause(
        id=id, name=id, gate=evidence(gate), clauses=[evidence(a, slug=str(n)) for n, a in enumerate(clauses)],
        share=share, **how,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (cause("refutes", "supports", "supports"), "excluded"),
        (cause("unknown", "supports", "supports"), "undetermined"),
        (cause("supports", "supports"), "confirmed"),
        (cause("supports", "supports", share=0.49), "probable"),
        (cause("supports", "supports", share=0.5), "confirmed"),
        (cause("supports", "supports", share=0.2), "probable"),
        (cause("supports", "supports", share=0.19), "possible"),
        (cause("supports", "neutral"), "possible"),
        (cause("supports", "supports", "neutral"), "probable"),
        (cause("supports", "supports", "refutes"), "possible"),
        (cause("supports", "refutes"), "excluded"),
        (cause("supports", "supports", "unknown"), "probable"),
        (cause("supports"), "possible"),
    ],
)
def test_tiers(given: Cause, expected: str) -> None:
    assert tier(given) == expected


def test_one_decisive_item_beside_the_gate_is_enough() -> None:
    decisive = Cause(
        id="A", name="A", gate=evidence("supports"), clauses=[evidence("supports", 6), evidence("neutral")], share=0.8
    )
    assert tier(decisive) == "confirmed"


def test_without_the_symptom_only_a_decisive_cause_is_a_finding() -> None:
    assert tier(cause("supports", "supports", "neutral"), breached=False) == "possible"
    assert tier(cause("supports", "supports"), breached=False) == "confirmed"


def test_little_coverage_confirms_nothing() -> None:
    thin = Cause(
        id="A", name="A", gate=evidence("supports"), clauses=[evidence("supports", 6), *[evidence("unknown")] * 3],
        share=1.0,
    )  # fmt: skip
    assert thin.coverage == 0.5
    assert tier(thin) == "probable"


def test_in_a_compound_a_decisive_cause_is_confirmed_as_contributing_from_a_fifth_on() -> None:
    verdicts = rank([cause("supports", "supports", share=0.6), cause("supports", "supports", share=0.3, id="B")])
    assert [(v.cause, v.tier, v.role) for v in verdicts] == [
        ("A", "confirmed", "main"),
        ("B", "confirmed", "contributing"),
    ]


def test_order_is_tier_then_share_in_steps_then_score_then_id() -> None:
    verdicts = rank(
        [
            cause("supports", "supports", share=0.81, id="B"),
            cause("supports", "supports", share=0.79, id="A"),
            cause("supports", "supports", "supports", share=0.80, id="C"),
            cause("refutes", id="D"),
            cause("unknown", id="E"),
        ]
    )
    assert [v.cause for v in verdicts] == ["C", "A", "B", "E", "D"]


def test_a_consequence_stands_behind_what_explains_it() -> None:
    verdicts = rank(
        [cause("supports", "supports", share=0.5), cause("supports", "supports", share=1.0, id="B")], [("A", "B")]
    )
    assert [(v.cause, v.role, v.consequence_of) for v in verdicts] == [
        ("A", "main", None),
        ("B", "consequence", "A"),
    ]
    assert unexplained(verdicts) == 0.5


def test_a_consequence_that_is_surer_than_its_cause_stands_behind_it_all_the_same() -> None:
    causes = [
        cause("supports", "supports", "neutral", id="A"),
        cause("supports", "supports", id="B"),
        cause("supports", "supports", share=0.9, id="C"),
        cause("supports", "supports", share=0.3, id="D"),
    ]
    verdicts = rank(causes, [("A", "B"), ("B", "C")])
    assert [(v.cause, v.tier) for v in verdicts] == [
        ("D", "confirmed"), ("A", "probable"), ("B", "confirmed"), ("C", "confirmed"),
    ]  # fmt: skip


def test_nothing_is_a_consequence_of_what_was_not_found() -> None:
    verdicts = rank([cause("refutes"), cause("supports", "supports", id="B")], [("A", "B")])
    assert verdicts[0].role == "main"


@pytest.mark.parametrize(
    ("causes", "breached", "peaked", "sufficient", "expected"),
    [
        ([cause("supports", "supports")], True, True, True, "diagnosed"),
        ([cause("supports", "supports")], False, False, False, "diagnosed"),
        ([cause("refutes")], True, True, False, "insufficient_data"),
        ([cause("unknown")], False, False, True, "undetermined"),
        ([cause("unknown", applicable=False)], False, False, True, "healthy"),
        ([cause("refutes")], None, False, True, "undetermined"),
        ([cause("refutes")], True, True, True, "undetermined"),
        ([cause("refutes")], False, True, True, "no_current_fault"),
        ([cause("refutes")], False, False, True, "healthy"),
        ([cause("supports", "supports", id="OK")], False, False, True, "healthy"),
    ],
)
def test_outcome_is_the_first_that_applies(
    causes: list[Cause], breached: bool | None, peaked: bool, sufficient: bool, expected: str
) -> None:
    told = outcome(causes, rank(causes), healthy="OK", breached=breached, peaked=peaked, sufficient=sufficient)
    assert told == expected
