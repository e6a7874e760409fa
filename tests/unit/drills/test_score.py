"""The score table and the rotation of full-length drills."""

from __future__ import annotations

import io
from datetime import date, timedelta
from typing import Any

import pytest
from rich.console import Console

from runbook.drills.score import score_table, summary
from runbook.drills.turns import by_turns, rotating_few

REPORT = {
    "results": [
        {
            "runbook": "r", "fault": "P01+P02", "expected": ["P01", "P02"],
            "found": [{"cause": "P02", "tier": "confirmed"}, {"cause": "P01", "tier": "probable"}],
            "wrong": [], "outcome": "diagnosed", "seconds": 3.21, "passed": True,
        },
        {
            "runbook": "r", "fault": "P03", "expected": ["P03"], "found": [{"cause": "P12", "tier": "probable"}],
            "wrong": ["P12"], "outcome": "diagnosed", "seconds": 2.0, "passed": False, "problems": ["P03 not found"],
        },
    ],
    "passed": 1,
    "failed": 1,
    "skipped": [{"fault": "P10", "reason": "needs pgbouncer (Debian package pgbouncer)"}],
}  # fmt: skip


def rendered() -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(score_table(REPORT))
    return console.export_text()


def test_the_table_shows_expected_found_tier_wrong_and_seconds_in_80_columns() -> None:
    text = rendered()
    assert all(len(line) <= 80 for line in text.splitlines())
    for word in ("1 of 2 drills passed", "P01+P02", "confirmed", "probable", "P12", "3.2", "P03 not found", "failed"):
        assert word in text


def test_the_table_tells_what_was_skipped_and_why() -> None:
    assert "skipped P10: needs pgbouncer" in " ".join(rendered().split())


def test_the_rotation_reaches_every_fault() -> None:
    ids = ["a", "b", "c", "d", "e"]
    day = date(2026, 1, 1)
    seen = {fault for n in range(3) for fault in rotating_few(2, day=day + timedelta(days=n), among=ids)}
    assert seen == set(ids)
    assert rotating_few(2, day=day, among=ids) == rotating_few(2, day=day, among=ids)
    assert rotating_few(9, day=day, among=ids) is not None


def test_the_reference_set_is_always_drilled_and_the_rest_takes_turns() -> None:
    always, others = {"healthy", "P01", "P01+P02", "V09:input"}, {"P03", "P01~blind", "V09:outage"}
    ids = sorted(always | others)
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(3)]
    chosen = [set(by_turns(3, day=day, among=ids)) for day in days]
    assert all(always < today for today in chosen)
    assert [len(today - always) for today in chosen] == [1, 1, 1]
    assert set.union(*chosen) == set(ids)
    assert by_turns(1, day=days[0], among=ids) == ids


def drill(fault: str, expected: list[str], *found: tuple[str, str], outcome: str = "diagnosed") -> dict[str, Any]:
    causes = [cause for cause, _ in found]
    wrong = [cause for cause in causes if cause not in expected]
    return {
        "fault": fault, "expected": expected, "found": [{"cause": c, "tier": t} for c, t in found], "wrong": wrong,
        "outcome": outcome, "passed": not wrong and set(expected) <= set(causes),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([drill("P01", ["P01"], ("P01", "confirmed"))], "top-1 1 of 1 · confirmed wrongly 0"),
        (
            [drill("P01", ["P01"], ("P02", "confirmed"), ("P01", "probable")), drill("P02", ["P02"])],
            "top-1 0 of 2 · confirmed wrongly 1",
        ),
        (
            [drill("P01~blind", [], outcome="undetermined"), drill("few", [], outcome="insufficient_data"),
             drill("P02~blind", [], ("P03", "confirmed"))],
            "confirmed wrongly 1 · unknown, and said so 2 of 3",
        ),
        (
            [drill("healthy", [], outcome="healthy"), drill("healthy", [], ("P01", "probable"))],
            "confirmed wrongly 0 · controls without a fault 1 of 2",
        ),
    ],
)  # fmt: skip
def test_the_summary_counts_the_first_place_wrong_claims_and_honest_unknowns(
    results: list[dict[str, Any]], said: str
) -> None:
    assert summary({"results": results}) == said
