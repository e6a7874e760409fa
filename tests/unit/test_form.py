"""The form that runs a runbook again: its fields, what it refuses, what it starts, and who never sees it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog, form
from runbook import run as run_module
from runbook.broker_client import BrokerRefused, BrokerUnreachable
from runbook.form import Form, command
from runbook.run import accept_lease, start
from runbook.settings import Settings, from_plain
from tests.support import wait_until

VIEW = "application/vnd.jupyter.widget-view+json"
NAME = "db_connection_exhaustion"
DONE = {"run_id": "r-2", "said": "Healthy", "lead": "Every check <was> made.", "error": "", "notebook": "r-2/x y.ipynb"}


class Broker:
    """Answers with what the test says, once it may."""

    def __init__(self, answer: Any = DONE) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.go = threading.Event()
        self.go.set()

    def again(self, runbook: str, parameters: dict[str, Any]) -> Any:
        self.go.wait(10)
        self.asked.append((runbook, parameters))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def shown(broker: Broker | None, settings: Settings | None = None, **parameters: Any) -> Form:
    runbook = catalog.load(NAME)
    return Form(runbook, parameters, settings or Settings(), broker, about="run r-1")  # type: ignore[arg-type]


def idle(given: Form) -> bool:
    return not given.again.disabled


def test_every_parameter_has_a_named_field_with_its_value_and_what_it_is() -> None:
    found = shown(Broker(), samples=5, service="billing")
    declared = catalog.load(NAME).parameters
    assert list(found.fields) == list(declared)
    assert (found.fields["samples"].text, found.fields["service"].text) == ("5", "billing")
    assert found.fields["window_minutes"].text == "30"
    for name, field in found.fields.items():
        assert field.control.description == name
        assert field.control.tooltip == declared[name].help
    assert "how often the symptom is measured · 1 to 20" in found.fields["samples"].widget.children[1].value
    assert "time between two samples, s · 0.1 to 60" in found.fields["sample_seconds"].widget.children[1].value


def test_a_click_runs_it_with_values_of_their_types_and_shows_the_verdict() -> None:
    broker = Broker()
    found = shown(broker, samples=1)
    found.fields["sample_seconds"].control.value = "0.5"
    found.again.click()
    wait_until(lambda: idle(found))
    ((name, parameters),) = broker.asked
    assert name == NAME
    assert (parameters["samples"], parameters["sample_seconds"], parameters["service"]) == (1, 0.5, "")
    assert set(parameters) == set(catalog.load(NAME).parameters)
    assert "r-2: Healthy. Every check &lt;was&gt; made." in found.runs.value
    assert 'href="/lab/tree/r-2/x%20y.ipynb"' in found.runs.value
    assert found.state.value == ""


def test_a_click_returns_at_once_and_a_second_one_is_not_possible_meanwhile() -> None:
    broker = Broker()
    broker.go.clear()
    found = shown(broker)
    found.again.click()
    assert found.again.disabled
    assert 'role="status"' in found.state.value
    broker.go.set()
    wait_until(lambda: idle(found))


@pytest.mark.parametrize(("name", "text"), [("samples", "many"), ("samples", "21"), ("service", "a;b"), ("cores", "")])
def test_a_bad_value_is_refused_beside_its_field_and_starts_nothing(name: str, text: str) -> None:
    broker = Broker()
    found = shown(broker)
    found.fields[name].control.value = text
    found.again.click()
    field = found.fields[name]
    assert field.wrong.layout.display is None
    assert 'role="alert"' in field.wrong.value
    assert "expected" in field.wrong.value
    assert [n for n, other in found.fields.items() if other.wrong.layout.display is None] == [name]
    assert "see beside its field" in found.state.value
    assert (broker.asked, idle(found)) == ([], True)
    field.control.value = catalog.as_text(catalog.load(NAME).parameters[name].default)
    assert (field.wrong.layout.display, found.state.value) == ("none", "")


@pytest.mark.parametrize("error", [BrokerRefused("it <may> not"), BrokerUnreachable("gone"), ValueError("Canary")])
def test_what_the_broker_does_not_do_is_said(error: Exception) -> None:
    found = shown(Broker(error))
    found.again.click()
    wait_until(lambda: idle(found))
    assert "Not run: " in found.state.value
    assert "<may>" not in found.state.value
    assert "Canary" not in found.state.value
    assert found.runs.value == ""


def test_a_notebook_that_this_jupyterlab_cannot_reach_is_opened_by_a_command() -> None:
    found = shown(Broker(DONE | {"notebook": "", "error": "the run failed: <its kernel> died"}))
    found.again.click()
    wait_until(lambda: idle(found))
    assert "runbook jupyter r-2" in found.runs.value
    assert "the run failed: &lt;its kernel&gt; died" in found.runs.value
    assert "href" not in found.runs.value


def test_without_a_broker_the_command_is_shown_and_follows_the_fields() -> None:
    found = shown(None)
    assert found.again.layout.display == "none"
    assert f">runbook run {NAME}<" in found.state.value
    found.fields["samples"].control.value = "5"
    assert f">runbook run {NAME} -p samples=5<" in found.state.value
    found.fields["samples"].control.value = "fifty"
    assert "runbook run" not in found.state.value


def test_a_command_says_what_it_would_not_take_by_itself() -> None:
    runbook = catalog.load(NAME)
    usual = catalog.check_parameters(runbook, {}, Settings())
    settings = from_plain({"thresholds": {NAME: {"samples": 9}}})
    assert command(runbook, usual, Settings()) == f"runbook run {NAME}"
    assert command(runbook, usual, settings) == f"runbook run {NAME} -p samples=3"
    at = usual | {"alert_at": "2026-01-02 11:00"}
    assert command(runbook, at, Settings()) == f"runbook run {NAME} -p 'alert_at=2026-01-02 11:00'"
    named = command(runbook, usual | {"service": "shop"}, Settings())
    assert "-p service=shop" in named
    assert named.count(" -p ") == len(usual)


# -- who sees it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_kernel", run_module._Kernel())


@pytest.mark.usefixtures("kernel")
def test_a_live_front_end_sees_the_form_and_a_report_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/x/mine.ipynb")
    run = start(NAME, samples=1)
    data = run._repr_mimebundle_()
    run.close()
    assert VIEW in data
    assert data["text/html"] == f"<p>{data['text/plain']}</p>"
    assert form.AGAIN not in data["text/html"]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("live", [True, False])
def test_where_nobody_is_there_is_no_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if live:  # a driver's kernel that was started from somebody's notebook
        monkeypatch.setenv("JPY_SESSION_NAME", "/x/mine.ipynb")
        accept_lease(json.dumps({"run_id": "r", "runbook": NAME, "recording": str(tmp_path / "r"), "settings": {}}))
    run = start(NAME)
    assert run._repr_mimebundle_() == {"text/plain": repr(run)}
    run.close()


@pytest.mark.usefixtures("kernel")
def test_a_notebook_that_is_no_runbook_yet_has_no_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/x/mine.ipynb")
    run = start("in_the_making")
    assert VIEW not in run._repr_mimebundle_()
    run.close()
