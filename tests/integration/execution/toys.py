"""Small notebooks that behave, and misbehave, in one way each; and what it takes to run them."""

from __future__ import annotations

import sys
import types
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook.execution.execute import RunRequest, execute
from runbook.reporting.archive import Archive
from runbook.result import Findings, Reading, Symptom
from runbook.settings import Settings

PARAMETERS = """
window_minutes: int = 30  # how far to look back, min [1..1440]
note: str = ""  # free text
names: list[str] = []  # some names
"""
START = 'from runbook import start\nrun = start("toy", window_minutes=window_minutes)'
READ = """
from runbook.result import Reading
run.context.recorder.add(Reading(name="level", source="toy", target="here", query="level?",
                                 measured_at="2026-01-01T00:00:00+00:00", duration_ms=1.0, value={"level": 7}))
"""
CONCLUDE = """
from IPython.display import display
from runbook.result import RESULT_MIME, empty_findings
display({RESULT_MIME: {**empty_findings("by the notebook"), "outcome": "healthy", "not_checked": []}}, raw=True)
"""


def notebook(*cells: str | tuple[str, str], timeout_seconds: float = 60, diagnosis: str = "toy:diagnose") -> Any:
    """A runbook of these cells: source, or heading and source; parameters and start come first."""
    made = nbformat.v4.new_notebook()
    made.metadata["runbook"] = {
        "title": "A toy",
        "severity": "low",
        "alerts": ["Toy"],
        "parameters_from_alert": {"note": "note"},
        "diagnosis": diagnosis,
        "causes": [],
        "owner": "nobody",
        "idempotent": True,
        "timeout_seconds": timeout_seconds,
    }
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python", "language": "python"}
    made.cells = [
        nbformat.v4.new_markdown_cell("# A toy"),
        nbformat.v4.new_code_cell(PARAMETERS.strip(), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(START),
    ]
    for cell in cells:
        heading, source = cell if isinstance(cell, tuple) else ("", cell)
        if heading:
            made.cells.append(nbformat.v4.new_markdown_cell(f"## {heading}\n\nWhat it means."))
        made.cells.append(nbformat.v4.new_code_cell(source.strip()))
    return made


class Bench:
    """A catalog with the notebook ``toy``, an archive, and runs of it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notebooks = directory / "notebooks"
        self.notebooks.mkdir()
        self.archive = Archive(directory / "archive")
        self.settings = Settings()
        monkeypatch.setenv("RUNBOOK_NOTEBOOKS", str(self.notebooks))
        toy = types.ModuleType("runbook.diagnosis.toy")
        toy.diagnose = diagnose  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "runbook.diagnosis.toy", toy)

    def put(self, *cells: str | tuple[str, str], **metadata: Any) -> Path:
        path = self.notebooks / "toy.ipynb"
        nbformat.write(notebook(*cells, **metadata), path)
        return path

    def run(self, *cells: str | tuple[str, str], **given: Any) -> dict[str, Any]:
        """Put the notebook there and run it; keywords go to ``execute``, ``RunRequest`` or the notebook's metadata."""
        metadata = {key: given.pop(key) for key in ("timeout_seconds", "diagnosis") if key in given}
        if cells:
            self.put(*cells, **metadata)
        asked = {key: given.pop(key) for key in ("alert", "queued_at", "incident_id") if key in given}
        request = RunRequest(
            run_id=f"run-{uuid.uuid4().hex[:8]}", runbook="toy", parameters=given.pop("parameters", {}), **asked
        )
        settings = given.pop("settings", self.settings)
        archive = given.pop("archive", self.archive)
        return execute(request, settings, archive=archive, **given)


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """A diagnosis that needs one reading."""
    (level,) = [reading for reading in readings if reading.name == "level"]
    symptom = Symptom(label="level", value=level.value["level"], unit="", threshold=5, breached=True)
    return Findings(symptom=symptom, impact="", outcome="undetermined", verdict=(), evidence=())


def executed(result: Mapping[str, Any]) -> Any:
    """The archived notebook."""
    return nbformat.read(result["report"]["notebook"], as_version=4)


def statuses(book: Any) -> list[str]:
    """papermill's status of each code cell."""
    return [cell.metadata.papermill["status"] for cell in book.cells if cell.cell_type == "code"]
