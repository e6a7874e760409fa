"""Publishing from a notebook: which file, when, through whom, and what is said when it does not work."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from IPython.core import display_functions

from runbook import publishing
from runbook.broker_client import BrokerRefused
from runbook.errors import NotFound
from runbook.publishing import notebook_file, publish

DONE = {"run_id": "r-1", "revision": 2, "report": "/archive/report.html", "url": "", "message": "sent"}
RUN = {"run_id": "r-1"}


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "mine.ipynb"
    path.write_text("{}")
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the output says, in order."""
    lines: list[str] = []

    class Handle:
        def update(self, shown: Any) -> None:
            lines.append(shown.data)

    def display(shown: Any, **_: Any) -> Handle:
        lines.append(shown.data)
        return Handle()

    monkeypatch.setattr(display_functions, "display", display)
    monkeypatch.setattr("IPython.display.display", display)
    return lines


class Broker:
    def __init__(self, answer: Any = DONE) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def publish(self, run: dict[str, Any]) -> Any:
        self.asked.append(run)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_it_waits_for_the_next_save_and_no_cell_waits_with_it(notebook: Path, said: list[str]) -> None:
    broker = Broker()
    began = time.monotonic()
    thread = publish(RUN, notebook, broker)  # type: ignore[arg-type]
    assert time.monotonic() - began < 1
    time.sleep(0.5)
    assert broker.asked == []
    notebook.write_text("{} ")
    thread.join(10)
    assert broker.asked == [{**RUN, "notebook": str(notebook)}]
    assert "as soon as it is saved" in said[0]
    assert "Published as run r-1, revision 2: /archive/report.html. Message on Discord: sent." in said[-1]


def test_a_save_that_is_not_over_is_waited_for(notebook: Path, said: list[str]) -> None:
    broker = Broker()
    thread = publish(RUN, notebook, broker)  # type: ignore[arg-type]
    notebook.write_text('{"cells": [')
    time.sleep(1)
    assert broker.asked == []
    notebook.write_text('{"cells": []}')
    thread.join(10)
    assert len(broker.asked) == 1
    assert "Published" in said[-1]


def test_what_was_never_saved_is_not_published(
    notebook: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "SAVE_SECONDS", 0.3)
    broker = Broker()
    publish(RUN, notebook, broker).join(10)  # type: ignore[arg-type]
    assert broker.asked == []
    assert "was not saved" in said[-1]


@pytest.mark.parametrize("error", [BrokerRefused("not <one> of them"), ValueError("Canary")])
def test_a_refusal_is_said(notebook: Path, said: list[str], error: Exception) -> None:
    thread = publish(RUN, notebook, Broker(error))  # type: ignore[arg-type]
    notebook.write_text("{} ")
    thread.join(10)
    assert said[-1].count("Not published: ") == 1
    assert "<one>" not in said[-1]
    assert "Canary" not in said[-1]


@pytest.mark.parametrize(
    ("environment", "given", "found"),
    [("mine.ipynb", "", True), ("", "mine.ipynb", True), ("", "", False), ("kernel-1", "", False),
     ("gone.ipynb", "", False), ("mine.ipynb", "gone.ipynb", False)],
)  # fmt: skip
def test_the_front_end_says_which_file_it_is_or_a_person_does(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, environment: str, given: str, found: bool
) -> None:
    def whole(name: str) -> str:
        return str(notebook.with_name(name)) if name else ""

    monkeypatch.setenv("JPY_SESSION_NAME", whole(environment))
    if found:
        assert notebook_file(whole(given)) == notebook
    else:
        with pytest.raises(NotFound, match="which file"):
            notebook_file(whole(given))


def test_without_a_broker_a_process_of_its_own_does_it(
    notebook: Path, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(tmp_path / "data"))
    thread = publish({"run_id": "nothing"}, notebook, None)
    notebook.write_text("{} ")
    thread.join(60)
    assert "Not published: what was handed in is no run of ours" in said[-1]


def test_nothing_of_it_hangs_where_nobody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbook import run as run_module
    from runbook.run import accept_lease, start

    shown: list[str] = []
    monkeypatch.setattr(run_module, "_kernel", run_module._Kernel())
    monkeypatch.setattr("runbook.views.note", shown.append)
    lease = {"run_id": "r", "runbook": "toy", "recording": str(tmp_path / "r"), "settings": {}}
    accept_lease(json.dumps(lease))
    run = start("toy")
    run.publish()
    run.close()
    assert shown == ["A headless run is archived and announced by whoever started it."]
