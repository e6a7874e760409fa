"""Drills against the whole product: service, notebook, verdict, over HTTP; and nothing of them is left."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from runbook.drills.demo import run_demo
from runbook.drills.drill import run_drills
from runbook.drills.service import Service
from runbook.errors import SandboxError, UnknownRunbook

RUNBOOK = "db_connection_exhaustion"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go during the test, so that what is left can be seen."""
    directory = tmp_path / "t"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(tmp_path / "data"))
    return directory


def processes_of(place: Path) -> list[str]:
    """Command lines of processes that stand in, were told of, or were started for ``place``."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            known = command + (process / "environ").read_bytes() + os.fsencode((process / "cwd").readlink())
        except OSError:
            continue
        if os.fsencode(place) in known:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def left_in(place: Path) -> list[str]:
    """What lies in ``place``; the locks by which processes of one user share a database's budget are no leftovers."""
    return [path.name for path in place.iterdir() if path.name != f"runbook-{os.geteuid()}"]


def test_a_drill_finds_what_was_injected_and_leaves_nothing(place: Path) -> None:
    told: list[str] = []
    report = run_drills(RUNBOOK, ["P01", "healthy"], progress=told.append)
    assert [(r["fault"], r["passed"], r.get("problems")) for r in report["results"]] == [
        ("P01", True, None),
        ("healthy", True, None),
    ]
    assert (report["passed"], report["failed"], report["skipped"]) == (2, 0, [])
    assert report["results"][0]["found"][0]["cause"] == "P01"
    assert all(result["seconds"] > 0 for result in report["results"])
    assert [line.split(":")[0] for line in told] == ["P01", "healthy"]
    assert processes_of(place) == []
    assert left_in(place) == []


def test_what_cannot_be_injected_is_skipped_with_the_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.sandbox.faults.registry.find_program", lambda name: None)
    report = run_drills(RUNBOOK, ["P10"])
    assert report["results"] == []
    assert report["skipped"] == [{"fault": "P10", "reason": "needs pgbouncer (Debian package pgbouncer)"}]
    assert (report["passed"], report["failed"]) == (0, 0)


def test_a_service_that_cannot_start_fails_the_drill_and_says_why(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.drills.service.Service._write_settings", _broken_settings)
    report = run_drills(RUNBOOK, ["P06"])
    [result] = report["results"]
    assert result["passed"] is False
    assert "the service ended at once" in result["problems"][0]
    assert processes_of(place) == []


def _broken_settings(service: Service, port: int) -> None:
    (service.directory / "runbook.toml").write_text("no_such_section = 1\n")


@pytest.mark.parametrize(
    ("runbook", "fault", "error"), [(RUNBOOK, "P99", SandboxError), ("none", "P01", UnknownRunbook)]
)
def test_unknown_names_are_refused_before_anything_starts(
    place: Path, runbook: str, fault: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_drills(runbook, [fault])
    assert left_in(place) == []


def test_the_demo_ends_well_and_leaves_only_the_report(place: Path, tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    assert run_demo(console) == 0
    text = console.export_text()
    for word in ("P01", "api-leaky", "POST /alerts/alertmanager", "✓  1/", "Discord", "confirmed"):
        assert word in text
    reports = list((tmp_path / "data" / "demo").rglob("report.html"))
    assert len(reports) == 1
    assert str(reports[0]) in text.replace("\n", "")
    assert processes_of(place) == []
    assert left_in(place) == []
