"""What a run leaves: four files without a secret or a path, whatever rendering and archive do."""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook import settings as settings_module
from runbook.errors import ArchiveError, InvalidParameter, UnknownRunbook
from runbook.execution.execute import NotArchived, RunRequest, execute, prepare
from runbook.execution.kernel import Kernel
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import Archive
from runbook.result import RESULT_MIME
from tests.integration.execution.toys import CONCLUDE, READ, Bench, executed, statuses

CANARY = "hunter2-canary-9x"


def left(result: dict[str, Any]) -> dict[str, str]:
    """The text of every file of the run."""
    directory = Path(result["report"]["html"]).parent
    return {
        path.name: gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        for path in directory.iterdir()
    }


def test_four_files_are_archived_and_the_result_document_is_the_one_returned(bench: Bench, pool: KernelPool) -> None:
    queued_at = datetime.now(UTC) - timedelta(seconds=5)
    result = bench.run(READ, ("Verdict", CONCLUDE), pool=pool, queued_at=queued_at)
    files = left(result)
    assert sorted(files) == ["notebook.ipynb", "readings.jsonl.gz", "report.html", "result.json"]
    assert json.loads(files["result.json"]) == result
    assert json.loads(files["readings.jsonl.gz"])["value"] == {"level": 7}
    assert result["timings"]["queued_s"] >= 5
    nbformat.validate(executed(result))


def test_no_secret_of_settings_environment_or_alert_is_in_any_file_or_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_API_TOKEN", f"{CANARY}-environment")
    settings = settings_module.from_plain(
        {
            "postgres": {
                "dsn": f"postgresql://monitor:{CANARY}-dsn@db/app",
                "action_dsn": f"postgresql://o:{CANARY}-act@db/app",
            },
            "store": {"url": f"postgresql://store:{CANARY}-store@db/store"},
            "discord": {"webhook_url": f"https://discord.com/api/webhooks/1/{CANARY}-hook-of-the-usual-length"},
        }
    )
    secrets = [
        f"{CANARY}-{part}" for part in ("dsn", "act", "store", "hook-of-the-usual-length", "environment", "label")
    ]
    spill = (
        f"secrets = {secrets!r}\n"
        "print(' '.join(secrets))\n"
        "from IPython.display import HTML, display\n"
        "display(HTML('<b>' + secrets[0] + '</b>'))\n"
        "run.context.recorder.add(Reading(name='spilt', source='toy', target='', query=secrets[4], measured_at='',\n"
        "                                 duration_ms=0.0, value={'text': ' '.join(secrets)}))\n"
        "raise RuntimeError('connect to postgresql://monitor:' + secrets[0] + '@db/app failed')"
    )
    alert = {"name": "Toy", "labels": {"alertname": "Toy", "db_password": f"{CANARY}-label", "note": "shown"}}
    result = bench.run(READ, ("Spill", spill), ("Verdict", CONCLUDE), settings=settings, alert=alert)
    assert result["state"] == "succeeded"
    assert result["alert"]["labels"] == {"alertname": "Toy", "db_password": "[redacted]", "note": "shown"}
    for name, text in left(result).items():
        assert CANARY not in text, name
    assert CANARY not in str(result) + caplog.text + "".join(capfd.readouterr())


def test_a_kernel_is_leased_the_diagnosing_settings_alone_and_time_to_conclude(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Kernel.ask
    monkeypatch.setattr(Kernel, "ask", lambda self, code, *rest: (asked.append(code), ask(self, code, *rest))[1])
    settings = settings_module.from_plain(
        {
            "postgres": {"dsn": "postgresql://monitor:diagnosing@db/app", "action_dsn": "postgresql://o:acting@db/app"},
            "store": {"url": "postgresql://store:storing@db/store"},
        }
    )
    result = bench.run(READ, CONCLUDE, settings=settings, timeout_seconds=30)
    assert "diagnosing" in asked[0]
    assert "acting" not in asked[0]
    assert "storing" not in asked[0]
    lease = json.loads(
        json.loads('"' + asked[0].split("accept_lease('")[1].removesuffix("')").replace('"', '\\"') + '"')
    )
    started = datetime.fromisoformat(result["started_at"]).timestamp()
    assert lease["deadline"] == pytest.approx(started + 27, abs=0.1)
    assert lease["run_id"] == result["run_id"]


def test_the_archived_notebook_names_no_path_of_this_machine(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(READ, CONCLUDE, pool=pool)
    noted = executed(result).metadata.papermill
    assert set(noted) == {"start_time", "end_time", "duration", "exception", "parameters", "version"}
    assert str(bench.notebooks) not in left(result)["notebook.ipynb"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"x=1; import os; os.abort(); y": 1},
        {"undeclared": 1},
        {"window_minutes": "30"},
        {"window_minutes": 0},
        {"window_minutes": True},
        {"note": b"bytes"},
        {"note": ("a", "tuple")},
        {"note": "two\nlines"},
        {"names": {"set"}},
        {"names": [{"a": "mapping"}]},
    ],
    ids=str,
)
def test_parameters_that_are_not_declared_or_do_not_fit_are_refused_before_anything_runs(
    bench: Bench, parameters: dict[Any, Any]
) -> None:
    bench.put(READ, CONCLUDE)
    with pytest.raises(InvalidParameter):
        bench.run(parameters=parameters)
    assert not bench.archive.directory.exists()


@pytest.mark.parametrize(
    "value", ["'); import os; os.abort() #", '"""', "\\' + str(1) + \\'", "{braces} %s $HOME", "é\\n"]
)
def test_a_parameter_reaches_the_notebook_as_the_text_it_is(bench: Bench, pool: KernelPool, value: str) -> None:
    result = bench.run(READ, "print(repr(note))", CONCLUDE, pool=pool, parameters={"note": value})
    assert result["state"] == "succeeded"
    assert executed(result).cells[-2].outputs[0].text.strip() == repr(value)


def test_unknown_runbooks_and_run_ids_that_are_no_names_are_refused(bench: Bench) -> None:
    bench.put(READ, CONCLUDE)
    with pytest.raises(UnknownRunbook):
        execute(RunRequest(run_id="r", runbook="nothing", parameters={}), bench.settings, archive=bench.archive)
    with pytest.raises(ArchiveError):
        execute(RunRequest(run_id="../../r", runbook="toy", parameters={}), bench.settings, archive=bench.archive)


def test_a_report_that_cannot_be_rendered_does_not_lose_the_run(
    bench: Bench, pool: KernelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> str:
        raise KeyError("<script>boom</script>")

    monkeypatch.setattr("runbook.reporting.html.render", broken)
    result = bench.run(READ, CONCLUDE, pool=pool, parameters={"note": "<script>note</script>"})
    assert result["state"] == "succeeded"
    page = left(result)["report.html"]
    assert "could not be rendered" in page
    assert result["run_id"] in page
    assert "<script" not in page


def test_an_archive_that_cannot_be_written_loses_nothing(
    bench: Bench, pool: KernelPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "occupied").write_text("a file stands where the archive should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    with pytest.raises(NotArchived) as caught:
        bench.run(READ, CONCLUDE, pool=pool, archive=Archive(tmp_path / "occupied"))
    error = caught.value
    assert error.result["outcome"] == "healthy"
    (rescued,) = (tmp_path / "t").iterdir()
    assert str(rescued) in str(error)
    assert {path.name: path.read_bytes() for path in rescued.iterdir()} == error.files


def test_settings_of_the_service_that_the_alert_names_are_used(bench: Bench, pool: KernelPool) -> None:
    settings = settings_module.from_plain({"thresholds": {"toy": {"window_minutes": 77}}})
    assert bench.run(READ, CONCLUDE, pool=pool, settings=settings)["parameters"]["window_minutes"] == 77


def test_prepare_makes_the_first_run_need_no_more_imports() -> None:
    script = (
        "import sys\nfrom runbook.execution.execute import prepare\nassert 'papermill' not in sys.modules\nprepare()\n"
    )
    check = "assert {'papermill', 'nbconvert', 'runbook.reporting.html'} <= set(sys.modules)"
    subprocess.run([sys.executable, "-c", script + check], check=True, timeout=120)
    prepare()


def papermill(source: Path, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", "--engine", "runbook", str(source), str(target), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))


def test_the_engine_works_from_the_papermill_command_line(bench: Bench, tmp_path: Path) -> None:
    done = papermill(bench.put(READ, ("Verdict", CONCLUDE)), tmp_path / "out.ipynb", "-p", "note", "from the shell")
    assert done.returncode == 0, done.stderr
    book = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert set(statuses(book)) == {"completed"}
    assert book.cells[-1].outputs[0].data[RESULT_MIME]["outcome"] == "healthy"


def test_a_kernel_that_dies_under_the_papermill_command_line_is_not_marked_completed(
    bench: Bench, tmp_path: Path
) -> None:
    source = bench.put(READ, ("Leaving", "import os; os._exit(4)"), ("Verdict", CONCLUDE))
    done = papermill(source, tmp_path / "out.ipynb")
    assert done.returncode != 0
    assert "exit code 4" in done.stderr
    book = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert statuses(book)[-2:] == ["failed", "pending"]
    assert book.metadata.papermill.exception is True


def test_the_notebooks_own_time_limit_holds_under_the_papermill_command_line(bench: Bench, tmp_path: Path) -> None:
    source = bench.put(READ, ("Too slow", "import time; time.sleep(600)"), CONCLUDE, timeout_seconds=2)
    assert "DeadlineExceeded" in papermill(source, tmp_path / "out.ipynb").stderr
