"""Each thing that ``runbook lint`` looks for is found on a notebook that is broken in that one way."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog, lint

NAME = "db_connection_exhaustion"
ORIGINAL: dict[str, Any] = json.loads(catalog.load(NAME).path.read_text())


def cell(notebook: dict[str, Any], text: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in notebook["cells"] if text in "".join(c["source"]))
    return found


def replace(text: str, by: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        here = cell(notebook, text)
        here["source"] = "".join(here["source"]).replace(text, by)

    return change


def metadata(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        notebook["metadata"]["runbook"][key] = value

    return change


def with_output(notebook: dict[str, Any]) -> None:
    cell(notebook, "%%sql holders")["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]


def with_count(notebook: dict[str, Any]) -> None:
    cell(notebook, "%%sql holders")["execution_count"] = 3


def without_verdict(notebook: dict[str, Any]) -> None:
    notebook["cells"].remove(cell(notebook, "## Verdict"))


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    def lint_it(change: Callable[[dict[str, Any]], None] | None = None, *, text: str = "") -> list[tuple[str, str]]:
        notebook = copy.deepcopy(ORIGINAL)
        if change is not None:
            change(notebook)
        (tmp_path / f"{NAME}.ipynb").write_text(text or json.dumps(notebook))
        monkeypatch.setenv("RUNBOOK_NOTEBOOKS", str(tmp_path))
        return lint.problems()

    return lint_it


def test_the_notebooks_as_they_are_have_no_problem() -> None:
    assert lint.problems() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (with_output, "has outputs"),
        (with_count, "has outputs"),
        (without_verdict, "its sections are"),
        (replace("## Prevention", "## Pretension"), "its sections are"),
        (replace("run = start(", "run = begin("), "not called exactly once"),
        (replace('"db_connection_exhaustion",', '"another",'), "does not begin the run of"),
        (replace("    samples=samples,\n", ""), "is not given samples"),
        (replace("    samples=samples,\n", "    samples=5,\n"), "is not given samples"),
        (replace("run = start(", "!reboot\nrun = start("), "not Python"),
        (replace("%%sql holders", "%%sql"), "names no variable"),
        (replace("%%sql holders\n", "%%sql holders\n-- other\n"), "python -m runbook.lint --update"),
        (metadata("diagnosis", "os:system"), "is not in runbook.diagnosis"),
        (metadata("diagnosis", "runbook.diagnosis.connections:absent"), "does not exist"),
        (metadata("diagnosis", "runbook.diagnosis.absent:diagnose"), "does not exist"),
        (metadata("causes", ["P01"]), "causes differ"),
        (metadata("causes", [*ORIGINAL["metadata"]["runbook"]["causes"], "P99"]), "P99"),
        (metadata("title", ""), "runbook.title"),
        (replace("samples: int = 3", "samples: int = 300"), "int in 1..20"),
    ],
)  # fmt: skip
def test_a_problem_is_found(
    broken: Callable[..., list[tuple[str, str]]], change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    assert any(problem in text for _, text in broken(change)), broken(change)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_file_that_is_no_notebook_is_a_problem_and_no_traceback(
    broken: Callable[..., list[tuple[str, str]]], text: str
) -> None:
    assert [name for name, _ in broken(text=text)] == [NAME]


def test_an_alert_that_two_notebooks_answer_is_a_problem(
    broken: Callable[..., list[tuple[str, str]]], tmp_path: Path
) -> None:
    second = copy.deepcopy(ORIGINAL)
    metadata("causes", ["P01"])(second)
    (tmp_path / "second.ipynb").write_text(json.dumps(second))
    found = broken()
    assert ("second", f"database_connections is {NAME}'s already") in found
    assert ("second", f"P01 is {NAME}'s already") in found
