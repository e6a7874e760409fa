"""Static edges between findings of different runbooks."""

from __future__ import annotations

import pytest

from runbook.diagnosis.edges import across
from runbook.diagnosis.verdict import Cause
from runbook.result import Evidence

GATE = Evidence(id="x.gate", label="gate", value=True, reading="supports", weight=3, source="r")


def cause(id: str, refers_to: str = "") -> Cause:
    return Cause(id=id, name=id, gate=GATE, details={"refers_to": refers_to} if refers_to else {})


@pytest.mark.parametrize(
    ("causes", "edges"),
    [
        # Full disk → MISCONF → queue stopped, as the queue runbook names them.
        ((cause("Q17", "D01"), cause("Q14", "K08")), [("Q17", "Q14")]),
        ((cause("Q17", "D01"), cause("Q14", "K03")), []),
        ((cause("Q14", "K08"), cause("Q01"), cause("Q04")), [("Q14", "Q01"), ("Q14", "Q04")]),
        ((cause("Q14"), cause("Q17")), []),
        ((cause("Q17"), cause("Q04")), [("Q17", "Q04")]),
        ((cause("L02"), cause("L03")), [("L02", "L03")]),
        ((cause("D01"), cause("D02")), []),
        ((cause("K08"), cause("K01")), []),
    ],
)
def test_edges_follow_from_what_causes_stand_for(causes: tuple[Cause, ...], edges: list[tuple[str, str]]) -> None:
    assert across(causes) == edges
