"""The command as a person meets it: exit status, what stands on which stream, what it costs to ask for help."""

# ruff: noqa: E501
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.integration.execution.toys import CONCLUDE, notebook
from tests.support import free_port

ROOT = Path(__file__).resolve().parents[2]
CANARY = "Canary-0a1b2c3d"
Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs ``runbook …`` in a directory of its own with nothing configured but what is given."""
    (tmp_path / "notebooks").mkdir()

    def run(*arguments: str, own_notebooks: bool = False, **environment: str) -> Done:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RUNBOOK_")}
        env |= {
            "RUNBOOK_DATA_DIR": str(tmp_path / "data"),
            "PYTHONPATH": str(ROOT / "lib"),
            "COLUMNS": "80",
            **environment,
        }
        env |= {"RUNBOOK_NOTEBOOKS": str(tmp_path / "notebooks")} if own_notebooks else {}
        argv = [sys.executable, "-m", "runbook.cli", *arguments]
        return subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def toy(tmp_path: Path, command: Command) -> Callable[..., None]:
    def put(*cells: str, text: str = "") -> None:
        path = tmp_path / "notebooks" / "toy.ipynb"
        path.write_text(text) if text else nbformat.write(notebook(*cells), path)

    return put


def told(done: Done, status: int, *words: str) -> None:
    """One line on standard error that holds ``words``, nothing on standard output, that exit status."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().split("\n")) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert CANARY not in done.stderr


def document(done: Done) -> dict[str, Any]:
    """The one JSON document on standard output."""
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    return found


HEAVY = (
    "pandas",
    "papermill",
    "nbformat",
    "nbconvert",
    "psycopg",
    "fastapi",
    "matplotlib",
    "IPython",
    "httpx",
    "jupyter_client",
    "boto3",
)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list"], ["list", "--json"], ["--version"], ["show", "db_connection_exhaustion", "--json"]],
)
def test_nothing_heavy_is_imported_for_a_light_command(arguments: list[str]) -> None:
    code = (
        "import sys\nsys.argv = ['runbook', *sys.argv[1:]]\nfrom runbook.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("IMPORTED []"), done.stdout[-300:]


def test_help_and_list_name_what_there_is(command: Command) -> None:
    assert "doctor" in command("--help").stdout
    lines = command("list").stdout.splitlines()
    assert "db_connection_exhaustion (critical): Database connections exhausted" in lines
    assert [line for line in lines if len(line) > 80] == []
    listed = document(command("list", "--json"))["runbooks"]
    assert set(listed[0]) == {"name", "title", "severity", "alerts", "causes", "last_drill"}


def test_list_tells_how_the_last_drill_went(command: Command, toy: Callable[..., None], tmp_path: Path) -> None:
    toy("pass")
    assert command("list", own_notebooks=True).stdout.splitlines()[-1] == "    drill   never drilled"
    drill = {"at": "2026-11-27T21:04:05+00:00", "passed": 18, "failed": 1, "skipped": 2}
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "drills.json").write_text(json.dumps({"toy": drill}))
    line = command("list", own_notebooks=True).stdout.splitlines()[-1]
    assert line == "    drill   2026-11-27 21:04 UTC: 18 of 19 passed, 2 skipped"
    assert document(command("list", "--json", own_notebooks=True))["runbooks"][0]["last_drill"] == drill


def test_show_prints_patterns_as_they_are(command: Command, toy: Callable[..., None], tmp_path: Path) -> None:
    toy("pass")
    path = tmp_path / "notebooks" / "toy.ipynb"
    path.write_text(
        path.read_text().replace('note: str = \\"\\"  # free text', 'note: str = \\"\\"  # free [/text] [~ [a-z]*]')
    )
    done = command("show", "toy", own_notebooks=True)
    assert done.returncode == 0, done.stderr
    assert "[a-z]*" in done.stdout
    assert "[/text]" in done.stdout
    shown = document(command("show", "toy", "--json", own_notebooks=True))
    assert set(shown) == {"name", "title", "severity", "alerts", "causes", "parameters", "last_drill"}
    assert shown["parameters"]["window_minutes"]["maximum"] == 1440


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent"], ["unknown runbook 'absent'", "db_connection_exhaustion"]),
        (["show", "../../etc/passwd"], ["unknown runbook"]),
        (["run", "db_connection_exhaustion", "-p", "smaples=1"], ["'smaples'", "samples (int in 1..20)"]),
        (["run", "db_connection_exhaustion", "-p", "samples=many"], ["samples", "int in 1..20", "'many'"]),
        (["run", "db_connection_exhaustion", "-p", "samples=21"], ["samples", "int in 1..20"]),
        (["run", "db_connection_exhaustion", "-p", "threshold_percent=nan"], ["threshold_percent"]),
        (["run", "db_connection_exhaustion", "-p", "service=a b\nc"], ["service", "matching"]),
        (["run", "db_connection_exhaustion", "-p", "samples"], ["'samples' is not KEY=VALUE"]),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_what_is_allowed(
    command: Command, arguments: list[str], words: list[str]
) -> None:
    told(command(*arguments, "--json"), 2, *words)


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["run", "x", "--nonsense"], ["drill"]])
def test_wrong_usage_ends_with_two_and_prints_nothing_on_standard_output(
    command: Command, arguments: list[str]
) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (f'[postgres]\ndsm = "{CANARY}"', ["postgres.dsm"]),
        (f'[postgres]\ndsn = "{CANARY}', ["runbook.toml"]),
        ('[postgres]\ndsn = "file:/no/such/file"', ["/no/such/file"]),
        ("[thresholds.db_connection_exhaustion]\nsmaples = 1", ["smaples"]),
        ("[thresholds.db_connection_exhaustion]\nsamples = 99", ["int in 1..20"]),
        (f'[archive]\nurl = "http://{CANARY}@x"', ["archive.url"]),
        ('[archive]\nurl = "file:/dev/null/x"', ["/dev/null"]),
    ],
)
def test_settings_that_cannot_be_used_are_told_before_anything_runs(
    command: Command, tmp_path: Path, file: str, words: list[str]
) -> None:
    (tmp_path / "runbook.toml").write_text(file)
    done = command("run", "db_connection_exhaustion")
    if "http://" in file:
        assert done.returncode == 2
        assert "archive.url" in done.stderr
    else:
        told(done, 2, *words)


def test_a_settings_file_that_is_not_there_is_told(command: Command) -> None:
    told(command("doctor", RUNBOOK_CONFIG="/no/such.toml"), 2, "/no/such.toml", "RUNBOOK_CONFIG")


@pytest.mark.parametrize("text", ["{", '{"cells": []}'])
def test_a_broken_notebook_is_told(command: Command, toy: Callable[..., None], text: str) -> None:
    toy(text=text)
    told(command("run", "toy", own_notebooks=True), 2, "toy.ipynb", "runbook lint")
    lint = command("lint", "--json", own_notebooks=True)
    assert lint.returncode == 1
    assert document(lint)["problems"][0]["notebook"] == "toy"


def test_a_run_prints_one_document_and_warns_beside_it(command: Command, tmp_path: Path) -> None:
    dsn = f"postgresql://u:{CANARY}@127.0.0.1:{free_port()}/d"
    done = command(
        "run",
        "db_connection_exhaustion",
        "-p",
        "samples=1",
        "--json",
        "--output",
        str(tmp_path / "out"),
        RUNBOOK_POSTGRES__DSN=dsn,
    )
    assert done.returncode == 0, done.stderr
    result = document(done)
    assert (result["schema"], result["state"], result["outcome"]) == (1, "succeeded", "undetermined")
    assert "warning: " in done.stderr
    assert "unreachable" in done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "report.html",
        "notebook.ipynb",
        "result.json",
        "readings.jsonl.gz",
    }
    assert json.loads((tmp_path / "out" / "result.json").read_text())["run_id"] == result["run_id"]
    found = [
        p
        for d in (tmp_path / "out", tmp_path / "data")
        for p in d.rglob("*")
        if p.is_file() and CANARY.encode() in p.read_bytes()
    ]
    assert found == []
    assert CANARY not in done.stdout + done.stderr


def test_a_run_whose_kernel_dies_ends_with_three_a_report_and_one_document_whatever_its_cells_printed(
    command: Command, toy: Callable[..., None]
) -> None:
    noise = "import os, sys\nprint('noise'); print('noise', file=sys.stderr); os.write(1, b'noise'); os.system('echo noise')"
    toy(noise, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", CONCLUDE)
    done = command("run", "toy", "--json", own_notebooks=True)
    assert done.returncode == 3, done.stderr
    result = document(done)
    assert result["state"] == "failed"
    assert Path(result["report"]["html"]).is_file()
    assert "error: the run failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_human_output_fits_eighty_columns_and_names_the_report(command: Command, toy: Callable[..., None]) -> None:
    toy(CONCLUDE)
    done = command("run", "toy", own_notebooks=True)
    assert done.returncode == 0, done.stderr
    assert "A toy: healthy" in done.stdout
    assert "report.html" in done.stdout


def test_doctor_ends_with_one_when_something_is_wrong_and_zero_otherwise(command: Command) -> None:
    assert command("doctor").returncode == 0
    done = command("doctor", "--json", RUNBOOK_POSTGRES__DSN=f"postgresql://u:{CANARY}@127.0.0.1:{free_port()}/d")
    assert done.returncode == 1
    (reachable,) = [c for c in document(done)["checks"] if c["check"] == "reachable"]
    assert reachable["ok"] is False
    assert CANARY not in done.stdout + done.stderr


def test_lint_ends_with_zero_on_the_notebooks_as_they_are(command: Command) -> None:
    done = command("lint", "--json")
    assert (done.returncode, document(done)) == (0, {"problems": []})


def test_a_reader_that_goes_away_is_no_error(command: Command) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    argv = ["/bin/sh", "-c", f"{sys.executable} -m runbook.cli list --json | true"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(("run", "said"), [("20261129T120000000-k3f9qa7m", "no run"), ("../../etc", "is not letters")])
def test_jupyter_on_a_run_that_is_not_there_starts_nothing(command: Command, run: str, said: str) -> None:
    told(command("jupyter", run, "--no-browser"), 2, said)
