"""The same notebook gives the same verdict whichever way it is run."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook.result import RESULT_MIME
from tests.acceptance.conftest import BIN, NOTEBOOKS, QUICK, RUNBOOK, Leaky
from tests.support import CHROMIUM_FLAGS, free_port, require_program, wait_until


def findings(notebook: Path) -> dict[str, Any]:
    """The findings that an executed notebook displays."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = [o["data"][RESULT_MIME] for c in cells for o in c.get("outputs", []) if RESULT_MIME in o.get("data", {})]
    assert len(shown) == 1
    found: dict[str, Any] = shown[0]
    return found


def verdict(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What must be the same: cause, tier and role, in order."""
    return [(v["cause"], v["tier"], v["role"]) for v in document["verdict"]]


@pytest.fixture(scope="session")
def by_command(leaky: Leaky, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result document of ``runbook run --json``."""
    directory = tmp_path_factory.mktemp("command")
    parameters = [word for key, value in QUICK.items() for word in ("-p", f"{key}={value}")]
    done = subprocess.run(
        [BIN / "runbook", "run", RUNBOOK, *parameters, "--json", "--output", directory / "out"],
        env=leaky.environment(RUNBOOK_DATA_DIR=str(directory / "data")),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert sorted(p.name for p in (directory / "out").iterdir()) == [
        "notebook.ipynb",
        "readings.jsonl.gz",
        "report.html",
        "result.json",
    ]
    return document


def test_the_command_prints_one_document_of_schema_1(by_command: dict[str, Any]) -> None:
    assert by_command["schema"] == 1
    assert list(by_command) == [
        "schema", "run_id", "runbook", "title", "severity", "parameters", "alert", "incident_id", "state", "error",
        "started_at", "finished_at", "timings", "versions", "symptom", "impact", "outcome", "verdict", "evidence",
        "not_checked", "unexplained", "actions", "report",
    ]  # fmt: skip
    assert set(by_command["timings"]) == {"queued_s", "kernel_s", "cells_s", "render_s", "total_s"}
    assert by_command["outcome"] == "diagnosed"
    top = by_command["verdict"][0]
    assert (top["cause"], top["tier"], top["details"]["application_name"]) == ("P01", "confirmed", "api-leaky")
    ids = [item["id"] for item in by_command["evidence"]]
    assert len(ids) == len(set(ids))
    assert set(top["because"]) <= set(ids)


@pytest.mark.parametrize("engine", [[], ["--engine", "runbook"]], ids=["plain", "engine"])
def test_papermill_gives_the_same_verdict(
    engine: list[str], leaky: Leaky, by_command: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out.ipynb"
    parameters = [word for key, value in QUICK.items() for word in ("-p", key, str(value))]
    done = subprocess.run(
        [BIN / "papermill", NOTEBOOKS / f"{RUNBOOK}.ipynb", out, "-p", "window_minutes", "30", *parameters, *engine],
        env=leaky.environment(RUNBOOK_DATA_DIR=str(tmp_path / "data")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert verdict(findings(out)) == verdict(by_command)
    executed = [c["execution_count"] for c in json.loads(out.read_text())["cells"] if c["cell_type"] == "code"]
    assert executed == list(range(1, len(executed) + 1))


@pytest.fixture
def lab(leaky: Leaky, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A JupyterLab on a copy of the notebook: its URL with the token, and the copy."""
    copy = tmp_path / f"{RUNBOOK}.ipynb"
    text = (NOTEBOOKS / copy.name).read_text(encoding="utf-8")
    for key, value in QUICK.items():
        text, count = re.subn(rf"({key}: \w+ = )[\d.]+", rf"\g<1>{value}", text)
        assert count == 1
    copy.write_text(text, encoding="utf-8")
    port, token = free_port(), secrets.token_hex(16)
    settings = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": tmp_path, "allow_root": True}
    options = [f"--ServerApp.{key}={value}" for key, value in settings.items()]
    log = (tmp_path / "lab.log").open("w")
    server = subprocess.Popen(
        [BIN / "jupyter-lab", "--no-browser", f"--IdentityProvider.token={token}", *options],
        env=leaky.environment(RUNBOOK_DATA_DIR=str(tmp_path / "data"), JUPYTER_CONFIG_DIR=str(tmp_path / "config")),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        import httpx

        def up() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/api?token={token}", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(up, seconds=60, what="JupyterLab")
        yield f"http://127.0.0.1:{port}/lab/tree/{copy.name}?token={token}", copy
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def test_run_all_in_jupyterlab_gives_the_same_verdict(
    lab: tuple[str, Path], by_command: dict[str, Any], tmp_path: Path
) -> None:
    chromium = require_program("chromium", package="chromium")
    from playwright.sync_api import sync_playwright

    url, copy = lab
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(url)
        page.locator(".jp-Notebook").wait_for(timeout=60_000)
        page.get_by_text("| Idle").wait_for(timeout=60_000)
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        wait_until(lambda: _saved(page, copy), seconds=90, every=1.0, what="the findings in the saved notebook")
        if folder := os.environ.get("RUNBOOK_TEST_PICTURES"):
            page.screenshot(path=str(Path(folder) / "jupyterlab.png"))
        browser.close()
    assert verdict(findings(copy)) == verdict(by_command)
    shutil.rmtree(tmp_path / "config", ignore_errors=True)


def _saved(page: Any, copy: Path) -> bool:
    page.keyboard.press("Control+s")
    return RESULT_MIME in copy.read_text(encoding="utf-8")
