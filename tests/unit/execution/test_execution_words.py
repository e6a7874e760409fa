"""What cells are called, what a kernel may know, and what becomes of values that JSON cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

import runbook
from runbook.execution import cells, document
from runbook.execution.environment import kernel_environment
from runbook.execution.kernel import private_directory
from runbook.result import RESULT_MIME, empty_findings


def book(*sources: tuple[str, str]) -> Any:
    made = nbformat.v4.new_notebook()
    new = {"m": nbformat.v4.new_markdown_cell, "c": nbformat.v4.new_code_cell}
    made.cells = [new[kind](source) for kind, source in sources]
    return made


@pytest.mark.parametrize(
    ("above", "source", "expected"),
    [
        ("# First\n\ntext\n\n### Lock waits ###", "1", "Lock waits"),
        ("## **Is** it `real`? [docs](https://x)", "1", "Is it real? docs"),
        ("no heading", "\n\n%%sql holders\nSELECT 1", "%%sql holders"),
        ("", "", ""),
        ("# " + "long " * 40, "1", ("long " * 40)[:79] + "…"),
    ],
)
def test_a_cell_is_called_after_the_heading_above_it_or_its_first_line(above: str, source: str, expected: str) -> None:
    assert cells.title(book(("m", above), ("c", source)), 1) == expected


def test_a_label_counts_code_cells_only() -> None:
    made = book(("m", "# A"), ("c", "1"), ("m", "text"), ("c", "2"))
    assert cells.label(made, 3) == "2 · A"


@pytest.mark.parametrize("shape", [None, 7, {"outcome": "healthy"}, ["verdict"]])
def test_a_display_that_is_no_findings_is_none(shape: Any) -> None:
    made = book(("c", "1"))
    made.cells[0].outputs = [nbformat.v4.new_output("display_data", data={RESULT_MIME: shape})]
    assert cells.displayed_findings(made) is None


def test_the_last_findings_that_were_displayed_count() -> None:
    made = book(("c", "1"), ("c", "2"))
    for cell, impact in zip(made.cells, ("first", "second"), strict=True):
        data = {RESULT_MIME: {**empty_findings("x"), "impact": impact}}
        cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    found = cells.displayed_findings(made)
    assert found is not None
    assert found["impact"] == "second"


def test_a_kernels_environment_is_what_is_allowed_and_what_it_needs(tmp_path: Path) -> None:
    library = str(Path(runbook.__file__).parents[1])
    environ = {
        "PATH": "/bin",
        "HOME": "/home/x",
        "LC_TIME": "C",
        "PYTHONPATH": f"/extra:{library}",
        "PYTHONSTARTUP": "/home/x/startup.py",
        "RUNBOOK_POSTGRES__DSN": "postgresql://x",
        "PGPASSWORD": "x",
        "LD_PRELOAD": "/x.so",
    }
    made = kernel_environment(environ, ipython_dir=tmp_path)
    native = {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    assert set(made) == {"PATH", "HOME", "LC_TIME", "PYTHONPATH", "IPYTHONDIR", *native}
    assert made["PYTHONPATH"] == f"{library}:/extra"


@pytest.mark.parametrize(
    ("value", "plain"), [(float("nan"), None), (float("-inf"), None), ({"a": (1, Path("/x"))}, {"a": [1, "/x"]})]
)
def test_values_become_plain_json(value: Any, plain: Any) -> None:
    assert document.as_json(value) == plain


@pytest.mark.parametrize(
    "name", ["os:system", "runbook.settings:load", "..os:system", "connections", ":diagnose", "a b:c", "evidence:a.b"]
)
def test_a_diagnosis_elsewhere_or_nowhere_is_refused(name: str) -> None:
    with pytest.raises(LookupError):
        document.diagnosis(name)


def test_a_diagnosis_is_found_by_its_name() -> None:
    from runbook.diagnosis.connections import diagnose

    assert document.diagnosis("runbook.diagnosis.connections:diagnose") is diagnose


def test_a_kernels_directory_is_ours_alone_and_short_enough_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    made = private_directory()
    try:
        assert made.stat().st_mode & 0o777 == 0o700
        assert len(str(made / "kernel-123456-5")) < 108
    finally:
        made.rmdir()
