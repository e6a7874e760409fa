"""The rules on readings that were recorded from real faults (``python -m tests.record`` takes them anew)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbook import recording
from runbook.diagnosis.connections import diagnose
from runbook.sandbox.faults import plan

RECORDED = Path(__file__).parent / "recorded"
FAULTS = sorted(path.name.removesuffix(".jsonl.gz") for path in RECORDED.glob("*.jsonl.gz"))


def test_every_fault_of_the_sandbox_is_recorded() -> None:
    assert len(FAULTS) >= 19


@pytest.mark.parametrize("fault", FAULTS)
def test_a_recorded_fault_gives_its_cause_and_no_other(fault: str) -> None:
    readings = recording.load(RECORDED / f"{fault}.jsonl.gz")
    parameters = json.loads((RECORDED / f"{fault}.json").read_text(encoding="utf-8"))
    findings = diagnose(readings, parameters)
    found = {v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"}
    assert found == set(plan(fault).expects)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_recording_gives_the_same_findings_every_time(fault: str) -> None:
    parameters = json.loads((RECORDED / f"{fault}.json").read_text(encoding="utf-8"))
    first, second = (
        json.dumps(diagnose(recording.load(RECORDED / f"{fault}.jsonl.gz"), parameters).as_dict()) for _ in range(2)
    )
    assert first == second
