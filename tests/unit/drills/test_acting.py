"""Which actions are drilled, and the table of how it went."""

from __future__ import annotations

import io
from datetime import date, timedelta

import pytest
from rich.console import Console

from runbook import catalog
from runbook.actions.kinds import KINDS
from runbook.drills.acting.cases import CASES, chosen
from runbook.drills.acting.score import action_table
from runbook.drills.turns import taking_turns
from runbook.errors import SandboxError
from runbook.sandbox.faults import suits


def test_every_case_is_a_kind_on_a_fault_of_its_runbook() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    for case in CASES:
        assert case.kind in KINDS
        assert suits(case.fault, catalog.load(case.runbook))


@pytest.mark.parametrize("system", ["postgres", "redis", "queue", "worker", "files", "content"])
def test_every_kind_on_our_own_systems_is_drilled_with_somebody_who_is_quicker(system: str) -> None:
    kinds = {kind for kind in KINDS if kind.startswith(f"{system}.")}
    assert kinds == {case.kind for case in CASES if case.kind in kinds and case.drift is not None}


def test_they_are_chosen_by_kind_and_runbook() -> None:
    assert {case.kind for case in chosen(["queue.resume"])} == {"queue.resume"}
    assert {case.runbook for case in chosen(runbook="redis_connection_failure")} == {"redis_connection_failure"}
    assert chosen() == list(CASES)
    with pytest.raises(SandboxError, match=r"no drill of postgres\.restart"):
        chosen(["postgres.restart"])


def test_every_case_has_its_turn() -> None:
    day = date(2026, 1, 1)
    turns = [taking_turns(5, day=day + timedelta(days=number), among=CASES) for number in range(5)]
    assert sorted(case.id for turn in turns for case in turn) == sorted(case.id for case in CASES)
    assert taking_turns(1, day=day, among=CASES) == list(CASES)


def test_the_table_says_what_became_of_each_in_80_columns() -> None:
    row = {"runbook": "r", "fault": "P01", "action": "postgres.set_role_timeout", "drifted": False, "seconds": 3.0}
    report = {
        "results": [
            {**row, "expected": "fixed", "found": "fixed", "undone": True, "passed": True},
            {**row, "expected": "fixed", "found": "", "undone": None, "passed": False, "problems": ["it is gone"]},
        ],
        "passed": 1, "failed": 1, "skipped": [{"fault": "a@P10", "reason": "needs pgbouncer"}],
    }  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(action_table(report))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in ("postgres.set_role_timeout", "not fixed", "it is gone", "1 of 2 drills of actions passed",
                  "skipped a@P10: needs pgbouncer"):  # fmt: skip
        assert words in text
