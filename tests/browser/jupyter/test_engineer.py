"""The engineer's path: open the run of an alert, step through it, fix what it found, publish what was done."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from runbook.sandbox import Sandbox
from runbook.sandbox.sandbox import as_environment
from tests.browser.jupyter.conftest import LEAKED, Channel
from tests.browser.reporting.test_report_page import CONTRASTS
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUNBOOK = "db_connection_exhaustion"
QUICK = {"samples": "1", "idle_after_seconds": "0.2"}
COMMAND = [sys.executable, "-m", "runbook.cli"]


@pytest.fixture
def environment(leaking: Sandbox, channel: Channel, home: Path, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNBOOK_", "JUPYTER"))}
    postgres = leaking.settings()["postgres"]
    settings = {"postgres": {"dsn": postgres["dsn"], "action_dsn": postgres["action_dsn"]},
                "discord": {"webhook_url": channel.url}}  # fmt: skip
    own = {"HOME": str(home), "RUNBOOK_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "100"}
    return kept | as_environment(settings) | own


@pytest.fixture
def run_id(environment: Mapping[str, str], tmp_path: Path) -> str:
    """A headless run that has found the leak."""
    options = [word for key, value in QUICK.items() for word in ("-p", f"{key}={value}")]
    done = subprocess.run([*COMMAND, "run", RUNBOOK, *options, "--json"], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
    result = json.loads(done.stdout)
    assert result["verdict"][0]["cause"] == "P01"
    return str(result["run_id"])


@contextmanager
def jupyter(environment: Mapping[str, str], directory: Path, *arguments: str) -> Iterator[str]:
    """``runbook jupyter …``, ended by Ctrl-C; the address that it tells."""
    told = directory / "jupyter.log"
    with told.open("w") as log:
        process = subprocess.Popen([*COMMAND, "jupyter", *arguments, "--no-browser"], env=environment, cwd=directory,
                                   stdout=log, stderr=log)  # fmt: skip
        try:
            found = wait_until(lambda: re.search(r"JupyterLab: (\S+)\n", told.read_text()), seconds=90, what="Lab")
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 0, told.read_text()
    assert "Traceback" not in told.read_text()


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    folder = os.environ.get("RUNBOOK_TEST_PICTURES")

    def take(page: Page, name: str) -> None:
        if folder:
            page.screenshot(path=str(Path(folder) / f"jupyter-{name}.png"))

    return take


def leaked(sandbox: Sandbox) -> int:
    with psycopg.connect(sandbox.dsn("postgres"), autocommit=True) as admin:
        row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'").fetchone()
    return int(row[0]) if row else -1


def opened(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(url)
    page.locator(".jp-Notebook").wait_for(timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    return page


def step_through(page: Page) -> None:
    """Every cell in turn, as a person does it: Shift+Enter, and look at what it says."""
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Home")
    for number in range(1, cells(page) + 1):
        expect(page.get_by_text(re.compile(rf"^Cell {number}/"))).to_be_visible(timeout=60_000)
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(NOTHING_RUNS, timeout=90_000)
    card = page.locator(".rb-card").first
    # JupyterLab draws only what is in view.
    for _ in range(20):
        if card.is_visible():
            break
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowUp")
        page.wait_for_timeout(300)
    card.wait_for(timeout=30_000)


def cells(page: Page) -> int:
    """How many there are, by the status bar."""
    told = page.get_by_text(re.compile(r"^Cell \d+/\d+$")).inner_text()
    return int(told.partition("/")[2])


NOTHING_RUNS = "() => ![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"


def test_an_engineer_opens_a_run_fixes_it_and_publishes(
    chromium: Browser,
    leaking: Sandbox,
    channel: Channel,
    environment: dict[str, str],
    run_id: str,
    tmp_path: Path,
    picture: Callable[[Page, str], None],
) -> None:
    with jupyter(environment, tmp_path, run_id) as url:
        page = opened(chromium, url)
        picture(page, "opened")
        step_through(page)
        card = page.locator(".widget-vbox .widget-vbox", has=page.locator(".rb-card")).first
        card.scroll_into_view_if_needed()
        picture(page, "card")

        title = card.get_by_role("heading").inner_text().partition(" proposed")[0]
        # By what it is about, so that it is told from the same button of another card.
        page.get_by_role("button", name=f"Plan {title}", exact=True).click()
        typed = card.get_by_role("textbox")
        expect(typed).to_be_visible(timeout=30_000)
        card.scroll_into_view_if_needed()
        picture(page, "planned")
        assert leaked(leaking) == LEAKED

        typed.fill("somebody else")
        card.get_by_role("button", name="Apply").click()
        expect(card.get_by_role("alert")).to_contain_text("not the name of the target")
        assert leaked(leaking) == LEAKED
        picture(page, "refused")

        label = str(card.locator(".widget-text label").inner_text())
        typed.fill(label.removeprefix("Type ").removesuffix(" to confirm"))
        card.get_by_role("button", name="Apply").click()
        expect(card.get_by_role("button", name="Verify")).to_be_visible(timeout=30_000)
        assert wait_until(lambda: leaked(leaking) == 0)
        picture(page, "applied")

        card.get_by_role("button", name="Verify").click()
        expect(card.locator(".verdict.fixed")).to_contain_text("Fixed", timeout=120_000)
        card.scroll_into_view_if_needed()
        picture(page, "fixed")
        assert page.evaluate(CONTRASTS_IN_CARDS) == []
        theme(page, "JupyterLab Dark")
        card.scroll_into_view_if_needed()
        picture(page, "fixed-dark")
        assert page.evaluate(CONTRASTS_IN_CARDS) == []

        in_a_new_cell(page, 'run.order("post", {"content": "we are on it"})')
        ordered = page.locator(".rb-card", has_text="Post a message to Discord")
        expect(ordered).to_be_visible(timeout=30_000)
        ordered.scroll_into_view_if_needed()
        picture(page, "ordered")

        publish(page)
        expect(page.locator(".rb-publish").last).to_contain_text("Published as run", timeout=120_000)
        picture(page, "published")

        other = run_again_with_other_values(page, picture)
        page.close()

    directory = next((tmp_path / "data" / "archive").glob(f"*/*/*/{run_id}"))
    result = json.loads((directory / "result.json").read_text())
    (action,) = [one for one in result["actions"] if one["state"] == "verified"]
    assert action["became"].startswith("fixed:")
    assert result["revision"]["number"] == 2
    assert (directory / "report.1.html").is_file()
    report = (directory / "report.html").read_text()
    assert "Fixed: usable slots idle" in report
    assert "Post a message to Discord" in report
    assert "Run again with these values" not in report + (directory / "notebook.ipynb").read_text()
    asked = json.loads(next((tmp_path / "data" / "archive").glob(f"*/*/*/{other}/result.json")).read_text())
    assert (asked["parameters"]["window_minutes"], asked["state"]) == (7, "succeeded")
    assert asked["asked_by"].startswith("person:")
    (message,) = channel.heard
    assert f"runbook jupyter {run_id}" in json.dumps(message)
    assert "revision 2" in json.dumps(message)


def run_again_with_other_values(page: Page, picture: Callable[[Page, str], None]) -> str:
    """By keyboard, from the form at the top, in the dark theme and back in the light one; the id of the new run."""
    form = page.locator(".rb-form")
    page.locator(".jp-Notebook .jp-Cell").last.click()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Home")
    expect(form).to_be_visible(timeout=30_000)
    form.scroll_into_view_if_needed()
    picture(page, "form-dark")
    assert page.evaluate(CONTRASTS_IN_FORM) == []
    theme(page, "JupyterLab Light")
    form.scroll_into_view_if_needed()
    picture(page, "form")
    assert page.evaluate(CONTRASTS_IN_FORM) == []

    window = form.get_by_label("window_minutes", exact=True)
    expect(window).to_have_value("30")
    window.fill("many")
    window.press("Tab")
    expect(form.get_by_role("alert").first).to_contain_text("expected int in 1..1440, got 'many'", timeout=30_000)
    again = form.get_by_role("button", name="Run again with these values")
    again.click()
    expect(form.get_by_role("alert").last).to_contain_text("see beside its field", timeout=30_000)
    form.scroll_into_view_if_needed()
    picture(page, "form-refused")

    window.fill("7")
    window.press("Tab")
    expect(form.get_by_role("alert")).to_have_count(0, timeout=30_000)
    again.press("Space")
    way = form.get_by_role("link", name="Open its notebook")
    expect(way).to_be_visible(timeout=120_000)
    form.scroll_into_view_if_needed()
    picture(page, "form-ran")
    run_id = str(way.get_attribute("href")).split("/")[3]
    way.click()
    expect(page.get_by_text("window_minutes = 7").first).to_be_visible(timeout=60_000)
    picture(page, "form-opened")
    return run_id


CONTRASTS_IN_FORM = CONTRASTS.replace("document.body,", "document.querySelector('.rb-form'),")
CONTRASTS_IN_CARDS = CONTRASTS.replace(
    "document.body,", "document.querySelector('.rb-card').closest('.jp-OutputArea'),"
)


def theme(page: Page, name: str) -> None:
    """Switch to one of JupyterLab's own themes."""
    page.get_by_text("Settings", exact=True).first.click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).hover()
    page.get_by_text(name, exact=True).click()
    light = str(name != "JupyterLab Dark").lower()
    page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached", timeout=30_000)


def in_a_new_cell(page: Page, code: str) -> None:
    """A cell of one's own at the end."""
    page.locator(".jp-Notebook .jp-Cell").last.click()
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.type(code)
    page.keyboard.press("Shift+Enter")


def publish(page: Page) -> None:
    """Ask for it in a cell, and save."""
    in_a_new_cell(page, "run.publish()")
    page.locator(".rb-publish").last.wait_for(timeout=30_000)
    page.keyboard.press("Control+s")


def test_nothing_that_acts_reaches_a_kernel_who_waits_sees_how_far_it_is_and_a_link_opens_a_run(
    chromium: Browser, environment: dict[str, str], run_id: str, tmp_path: Path, picture: Callable[[Page, str], None]
) -> None:
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    cell: dict[str, Any] = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
    look = (
        "import os\n"
        "from runbook import start\n"
        f"run = start('{RUNBOOK}')\n"
        "print('seen', sorted(n for n in os.environ if n.startswith('RUNBOOK')), run.settings.postgres.action_dsn,"
        " run.settings.postgres.dsn is not None)"
    )
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    fan = "run.hosts.script('waited', 'sleep 4').state"
    cells = [cell | {"source": look}, cell | {"source": fan, "id": "b"}]
    content = {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    (notebooks / "look.ipynb").write_text(json.dumps(content))
    own = {"RUNBOOK_NOTEBOOKS": str(notebooks), "RUNBOOK_WORKERS__HOSTS": json.dumps(["local", "-", "--"])}
    with jupyter(environment | own, tmp_path) as url:
        page = opened(chromium, url.replace("/runbooks?", "/runbooks/look.ipynb?"))
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.keyboard.press("Shift+Enter")
        output = page.locator(".jp-OutputArea-output", has_text="seen")
        expect(output).to_contain_text("None True", timeout=60_000)
        names = output.inner_text()
        page.keyboard.press("Shift+Enter")
        expect(page.locator(".rb-progress")).to_have_text("hosts 2 of 3 answered", timeout=30_000)
        picture(page, "hosts")
        expect(page.locator(".jp-OutputArea-output", has_text="partial")).to_be_visible(timeout=30_000)
        expect(page.locator(".rb-progress")).to_have_text("")
        page.goto(f"{url.partition('/lab/')[0]}/runbook/runs/{run_id}")
        page.get_by_text("| Idle").wait_for(timeout=60_000)
        expect(page.locator(".jp-DirListing")).to_contain_text(RUNBOOK, timeout=30_000)
        expect(page.get_by_role("tab", name=f"{RUNBOOK}.ipynb")).to_be_visible()
        picture(page, "linked")
        page.close()
    assert "ACTION" not in names
    assert "DISCORD" not in names
    assert "RUNBOOK_BROKER" in names
