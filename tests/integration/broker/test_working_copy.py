"""The working copy of a run, and what publishing makes of a worked-through notebook."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from runbook.broker.server import Listening
from runbook.broker.working_copy import run_of, working_copy
from runbook.broker_client import BrokerClient, BrokerRefused
from runbook.errors import ArchiveError, NotFound
from runbook.reporting.archive import FILES, Archive
from runbook.reporting.fragment import actions_html
from runbook.result import RESULT_MIME
from runbook.store.ids import new_run_id
from tests.integration.broker.conftest import RUN, Serving, findings, indexed, run

CANARY = "Canary-7f3a9b"
STARTED = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
ACTION = f"{RUN}:P01.lamp"
ALERT = {"name": "DatabaseConnections", "source": "alertmanager", "labels": {"alertname": "DatabaseConnections"}}
VIEW = "application/vnd.jupyter.widget-view+json"


def executed(*extra: Any) -> Any:
    """A notebook of the connection runbook as a run left it, cut down to what matters here."""
    found = findings()
    return new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        cells=[
            new_markdown_cell("# Database connections exhausted"),
            new_code_cell("samples: int = 3  # how often [1..20]", metadata={"tags": ["parameters"]}),
            new_code_cell("samples = 1", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("run.conclude(…)", outputs=[
                new_output("display_data", {RESULT_MIME: found, "text/html": "<p>the verdict</p>"})]),
            new_code_cell("run.show_actions()", outputs=[
                new_output("display_data", {"text/html": actions_html(found["actions"]), "text/plain": "x"})]),
            *extra,
        ],
    )  # fmt: skip


@pytest.fixture
def archive(data: Path) -> Archive:
    return Archive(data / "archive")


@pytest.fixture
def archived(archive: Archive) -> Archive:
    """An archive with one run in it."""
    result = {
        "schema": 1, "run_id": RUN, "runbook": "db_connection_exhaustion", "title": "t", "severity": "critical",
        "parameters": {"samples": 1}, "alert": ALERT, "incident_id": "i-1",
        "started_at": STARTED.isoformat(), "timings": {}, **findings(),
    }  # fmt: skip
    hostile = new_code_cell("x", outputs=[
        new_output("display_data", {"text/html": "<script>owned()</script><img src=x onerror=owned()><b>kept</b>"}),
        new_output("display_data", {"application/javascript": "owned()"}),
        new_output("stream", text="a line\n"),
    ])  # fmt: skip
    contents = {"notebook.ipynb": json.dumps(executed(hostile)), "result.json": json.dumps(result)}
    files = {name: contents.get(name, f"first {name}").encode() for name in FILES}
    archive.write(RUN, STARTED, files)
    return archive


# -- the working copy --------------------------------------------------------------------------------------------------


def test_it_has_the_parameters_the_outputs_and_the_verdict_of_its_run(archived: Archive) -> None:
    path = working_copy(RUN, archived)
    copy = nbformat.read(path, as_version=4)
    injected = [c.source for c in copy.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert len(injected) == 1
    assert "samples = 1" in injected[0]
    shown = [o for c in copy.cells if c.cell_type == "code" for o in c.outputs]
    assert any(RESULT_MIME in o.get("data", {}) for o in shown)
    assert any(o.get("text") == "a line\n" for o in shown)
    assert run_of(path) == RUN


def test_a_silence_that_is_ordered_in_it_is_of_the_alert_of_its_run(archived: Archive, client: BrokerClient) -> None:
    path = working_copy(RUN, archived)
    worked = new_run_id()
    client.offer(run() | {"run_id": worked})
    wish = {"run_id": worked, "kind": "silence", "targets": [], "title": ""}
    assert client.order(wish | {"notebook": str(path)})["action"]["targets"] == [
        {"labels": ALERT["labels"], "minutes": 60}
    ]
    with pytest.raises(BrokerRefused, match="not known which alert"):
        client.order(wish | {"notebook": str(path.parent.parent.parent / "other.ipynb")})


def test_nothing_in_it_can_run_and_so_it_is_trusted(archived: Archive) -> None:
    path = working_copy(RUN, archived)
    copy = nbformat.read(path, as_version=4)
    text = path.read_text()
    assert NotebookNotary().check_signature(copy)
    assert "owned" not in text
    assert "<b>kept</b>" in text


def test_it_is_the_owners_alone_and_stays_as_it_was_left(archived: Archive) -> None:
    path = working_copy(RUN, archived)
    assert path.parent.stat().st_mode & 0o077 == 0
    path.write_text(path.read_text().replace("the verdict", "my note"))
    text = path.read_text()
    assert working_copy(RUN, archived).read_text() == text


@pytest.mark.parametrize("state_was_saved", [False, True])
def test_opened_again_it_has_the_static_form_of_what_was_live(archived: Archive, state_was_saved: bool) -> None:
    path = working_copy(RUN, archived)
    copy = nbformat.read(path, as_version=4)
    live = {VIEW: {"model_id": "m"}, "text/html": "<p>run 1</p>", "text/plain": "run 1"}
    copy.cells.append(new_code_cell("run", outputs=[new_output("display_data", live)]))
    if state_was_saved:
        copy.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(copy, path)
    NotebookNotary().sign(nbformat.read(path, as_version=4))
    reopened = nbformat.read(working_copy(RUN, archived), as_version=4)
    assert (VIEW in reopened.cells[-1].outputs[0].data) is state_was_saved
    assert reopened.cells[-1].outputs[0].data["text/html"] == "<p>run 1</p>"
    assert NotebookNotary().check_signature(reopened)


@pytest.mark.parametrize("run_id", [new_run_id(), "nothing"], ids=["unknown", "nothing"])
def test_a_run_that_is_not_archived_has_none(archived: Archive, run_id: str) -> None:
    with pytest.raises(NotFound, match="no run"):
        working_copy(run_id, archived)


@pytest.mark.parametrize("run_id", ["../../etc", "*", ""])
def test_what_is_no_id_names_no_file(archived: Archive, run_id: str) -> None:
    with pytest.raises(ArchiveError, match="is not letters"):
        working_copy(run_id, archived)


def test_a_notebook_elsewhere_is_no_working_copy(data: Path, tmp_path: Path) -> None:
    assert run_of(tmp_path / "x.ipynb") == ""
    assert run_of(data / "work" / "x.ipynb") == ""


# -- publishing --------------------------------------------------------------------------------------------------------


def worked(notebook: Path, **more: Any) -> dict[str, Any]:
    """What a kernel says of the run that it publishes."""
    said = {"run_id": RUN, "runbook": "db_connection_exhaustion", "parameters": {"samples": 1}, "readings": [],
            "notebook": str(notebook), "started_at": datetime.now(UTC).isoformat()}  # fmt: skip
    return said | more


def saved(path: Path, *extra: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(executed(*extra), path)
    return path


def test_a_working_copy_becomes_a_new_revision_of_its_run_and_the_first_one_stays(
    serving: Serving, archived: Archive
) -> None:
    path = working_copy(RUN, archived)
    with serving(root=path.parent) as broker:
        client = BrokerClient(str(broker.path), broker.token)
        done = client.publish(worked(path, run_id=new_run_id()))
        again = client.publish(worked(path, run_id=new_run_id()))
    directory = archived.path(RUN, STARTED)
    assert (done["run_id"], done["revision"], again["revision"]) == (RUN, 2, 3)
    assert done["report"] == str(directory / "report.html")
    assert "no discord.webhook_url" in done["message"]
    assert (directory / "report.1.html").read_text() == "first report.html"
    assert len(list(directory.iterdir())) == 3 * len(FILES)
    result = json.loads((directory / "result.json").read_text())
    assert (result["alert"], result["incident_id"]) == (ALERT, "i-1")
    assert (result["outcome"], result["state"], result["revision"]["number"]) == ("diagnosed", "succeeded", 3)
    assert "<html" in (directory / "report.html").read_text()
    assert json.loads((directory / "result.2.json").read_text())["revision"]["number"] == 2


def test_what_is_published_is_found_by_its_own_words(serving: Serving, archived: Archive, database: str) -> None:
    first = json.loads((archived.path(RUN, STARTED) / "result.json").read_text())
    first |= {"state": "succeeded", "outcome": "healthy", "verdict": []}
    assert [row.id for row in indexed(database, "healthy", first)] == [RUN]
    assert indexed(database, "dark confirmed OR P01") == []
    path = working_copy(RUN, archived)
    with serving(root=path.parent) as broker:
        BrokerClient(str(broker.path), broker.token).publish(worked(path, run_id=new_run_id()))
    assert [row.id for row in indexed(database, "dark OR P01")] == [RUN]
    assert indexed(database, "healthy") == []


def test_any_other_notebook_becomes_a_run_of_its_own(broker: Listening, client: BrokerClient, tmp_path: Path) -> None:
    done = client.publish(worked(saved(tmp_path / "mine.ipynb")))
    assert (done["run_id"], done["revision"]) == (RUN, 1)
    assert Path(done["report"]).is_file()


def test_the_report_says_what_became_of_its_actions(client: BrokerClient, tmp_path: Path) -> None:
    client.offer(run())
    plan = client.plan(ACTION)
    client.apply(ACTION, digest=plan["plan"]["digest"], typed="hall")
    client.verify(ACTION)
    widget = new_code_cell(
        "run.show_actions()",
        outputs=[
            new_output("display_data", {VIEW: {"model_id": "m"}, "text/html": actions_html(findings()["actions"])})
        ],
    )
    done = client.publish(worked(saved(tmp_path / "mine.ipynb", widget)))
    report = Path(done["report"])
    result = json.loads((report.parent / "result.json").read_text())
    assert result["actions"][0]["state"] == "verified"
    assert result["actions"][0]["became"].startswith("fixed: dark rooms: 1 before, 0 now")
    assert "dark rooms: 1 before, 0 now" in report.read_text()
    notebook = (report.parent / "notebook.ipynb").read_text()
    assert VIEW not in notebook
    assert notebook.count("verified") >= 2


def test_secrets_are_out_of_it(serving: Serving, tmp_path: Path) -> None:
    leak = new_code_cell("x", outputs=[new_output("stream", text=f"password {CANARY}\n")])
    path = saved(tmp_path / "mine.ipynb", leak)
    with serving(postgres={"action_dsn": f"postgresql://oncall:{CANARY}@db/app"}) as broker:
        done = BrokerClient(str(broker.path), broker.token).publish(
            worked(path, readings=[{"name": "n", "source": "s", "target": "t", "query": CANARY, "measured_at": "",
                                    "duration_ms": 1.0}])
        )  # fmt: skip
    directory = Path(done["report"]).parent
    for name in FILES:
        content = (directory / name).read_bytes()
        text = gzip.decompress(content).decode() if name.endswith(".gz") else content.decode()
        assert CANARY not in text, name


def test_a_cell_that_raised_is_among_what_was_not_checked(client: BrokerClient, tmp_path: Path) -> None:
    failed = new_code_cell(
        "1/0", outputs=[new_output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])]
    )
    done = client.publish(worked(saved(tmp_path / "mine.ipynb", failed)))
    result = json.loads((Path(done["report"]).parent / "result.json").read_text())
    assert any("ZeroDivisionError" in item["reason"] for item in result["not_checked"])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda tmp: saved(tmp.parent / f"{tmp.name}-elsewhere" / "x.ipynb"), "not one of the notebooks"),
        (lambda tmp: tmp / "missing.ipynb", "cannot be read"),
        (lambda tmp: (tmp / "x.ipynb").write_text("{") and tmp / "x.ipynb", "is no notebook"),
    ],
)
def test_what_cannot_be_published_says_why(client: BrokerClient, tmp_path: Path, make: Any, reason: str) -> None:
    with pytest.raises(BrokerRefused, match=reason):
        client.publish(worked(make(tmp_path)))


def test_a_link_out_of_the_directory_leads_nowhere(client: BrokerClient, tmp_path: Path) -> None:
    outside = saved(tmp_path.parent / f"{tmp_path.name}-outside" / "x.ipynb")
    (tmp_path / "link.ipynb").symlink_to(outside)
    with pytest.raises(BrokerRefused, match="not one of the notebooks"):
        client.publish(worked(tmp_path / "link.ipynb"))
