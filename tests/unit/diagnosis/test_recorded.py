"""The rules on readings that were recorded from real faults (``python -m tests.record RUNBOOK`` takes them anew)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog, recording
from runbook.execution.document import diagnosis
from runbook.sandbox.faults import known, plan

RECORDED = Path(__file__).parent / "recorded"
FILES = sorted(RECORDED.glob("*/*.jsonl.gz"))
each = pytest.mark.parametrize(
    "file", FILES, ids=[f"{file.parent.name}/{file.name.removesuffix('.jsonl.gz')}" for file in FILES]
)


def findings(file: Path) -> dict[str, Any]:
    runbook = catalog.load(file.parent.name)
    parameters = json.loads(file.with_name(file.name.replace(".jsonl.gz", ".json")).read_text(encoding="utf-8"))
    plain: dict[str, Any] = diagnosis(runbook.diagnosis)(recording.load(file), parameters).as_dict()
    return plain


@pytest.mark.parametrize("runbook", catalog.load_all(), ids=lambda runbook: runbook.name)
def test_every_fault_of_the_sandbox_is_recorded(runbook: catalog.Runbook) -> None:
    recorded = {file.name.removesuffix(".jsonl.gz") for file in FILES if file.parent.name == runbook.name}
    assert recorded == set(known(runbook))


@each
def test_a_recorded_fault_gives_its_cause_and_no_other(file: Path) -> None:
    runbook = catalog.load(file.parent.name)
    one = plan(file.name.removesuffix(".jsonl.gz"), causes=runbook.causes)
    result = findings(file)
    found = [v for v in result["verdict"] if v["tier"] in ("confirmed", "probable")]
    accepted = {v["cause"] for v in found if v["role"] != "consequence"}
    assert accepted == set(one.expects)
    assert result["outcome"] in one.outcomes


@each
def test_a_recording_gives_the_same_findings_every_time(file: Path) -> None:
    assert json.dumps(findings(file)) == json.dumps(findings(file))
