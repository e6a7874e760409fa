"""The magics in a real IPython shell, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from runbook import run as run_module
from runbook.connectors.hosts import Hosts
from runbook.connectors.redis_server import RedisServer
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.run import Run, accept_lease, start
from runbook.settings import Workers

Cell = Callable[[str], str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "s", settings=FAST) as made:
        import psycopg

        with psycopg.connect(made.superuser_dsn, autocommit=True) as conn:
            conn.execute("CREATE ROLE monitor LOGIN PASSWORD 'Canary-0a1b2c3d'; GRANT pg_monitor TO monitor")
        yield made


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.fixture
def run(server: EmbeddedPostgres, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(run_module, "_kernel", run_module._Kernel())
    dsn = server.dsn(user="monitor", password="Canary-0a1b2c3d")
    accept_lease(
        json.dumps({"run_id": "r", "runbook": "toy", "recording": None, "settings": {"postgres": {"dsn": dsn}}})
    )
    made = start("toy")
    yield made
    made.close()


@pytest.fixture
def cell(run: Run, shell: InteractiveShell) -> Cell:
    """Runs a cell; what it displayed, or the one line of its error."""

    def execute(source: str) -> str:
        with capture_output() as captured:
            result = shell.run_cell(source)
        shown = "".join(str(o.data.get("text/html", o.data)) for o in captured.outputs)
        if result.error_in_exec is not None:
            assert "Traceback" not in captured.stdout + captured.stderr, captured.stderr
            return f"{type(result.error_in_exec).__name__}: {result.error_in_exec}"
        return shown

    return execute


def reading(shell: InteractiveShell, name: str) -> dict[str, Any]:
    found: dict[str, Any] = shell.user_ns[name].attrs["reading"]
    return found


def test_sql_binds_its_name_to_a_frame_and_shows_it(cell: Cell, shell: InteractiveShell, run: Run) -> None:
    shown = cell("%%sql answer\nSELECT 42 AS deep, 'thought'::text AS x")
    assert list(shell.user_ns["answer"]["deep"]) == [42]
    assert reading(shell, "answer")["state"] == "ok"
    assert "42" in shown
    assert "thought" in shown
    assert [r.name for r in run.readings] == ["answer"]


def test_variables_are_bound_and_never_substituted(cell: Cell, shell: InteractiveShell) -> None:
    shell.user_ns["text"] = "'; DROP TABLE x; --"
    cell("%%sql answer\nSELECT %(text)s::text AS x")
    assert list(shell.user_ns["answer"]["x"]) == ["'; DROP TABLE x; --"]


def test_a_cap_is_kept(cell: Cell, shell: InteractiveShell) -> None:
    cell("%%sql answer --cap 3\nSELECT generate_series(1, 10) AS n")
    assert (len(shell.user_ns["answer"]), reading(shell, "answer")["state"]) == (3, "partial")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("%%sql\nSELECT 1", "required: name"),
        ("%%sql no-name\nSELECT 1", "no name for a variable"),
        ("%%sql class\nSELECT 1", "no name for a variable"),
        ("%%sql a b\nSELECT 1", "unrecognized arguments"),
        ("%%sql 'a\nSELECT 1", "No closing quotation"),
        ("%%sql a --cap 0\nSELECT 1", "a cap is a number"),
        ("%%sql a --cap -1\nSELECT 1", "cap"),
        ("%%sql a --cap 99999999\nSELECT 1", "a cap is a number"),
        ("%%sql a\nSELECT %(nothing)s", "no variable 'nothing'"),
        ("%%sh a nothing\necho", "no variable 'nothing'"),
        ("%%sh a --on mars\necho", "invalid choice"),
        ("%probe", "one of access, activity"),
        ("%probe nothing", "one of access, activity"),
        ("%probe ../../x", "one of access, activity"),
    ],
)
def test_a_mistake_in_a_cell_is_one_line_and_nothing_is_asked(cell: Cell, run: Run, source: str, said: str) -> None:
    answer = cell(source)
    assert answer.startswith("UsageError")
    assert said in answer
    assert run.readings == []


def test_a_statement_that_fails_is_shown_as_unknown_and_the_next_cell_runs(cell: Cell, shell: InteractiveShell) -> None:
    shown = cell("%%sql broken\nSELECT * FROM nowhere")
    assert "unknown" in shown.lower()
    assert "nowhere" in shown
    assert len(shell.user_ns["broken"]) == 0
    assert reading(shell, "broken")["state"] == "not_configured"
    cell("%%sql fine\nSELECT 1 AS one")
    assert reading(shell, "fine")["state"] == "ok"


def test_a_secret_in_a_result_is_shown_to_nobody(cell: Cell, shell: InteractiveShell) -> None:
    shown = cell("%%sql leak\nSELECT 'Canary-' || '0a1b2c3d' AS x, 'postgresql://u:swordfish9@h/d' AS y")
    assert "Canary-0a1b2c3d" not in shown + repr(shell.user_ns["leak"].to_dict())
    assert "swordfish9" not in shown


def test_markup_in_a_result_is_text(cell: Cell) -> None:
    shown = cell("%%sql x\nSELECT '<script>alert(1)</script>' AS x, '<b>' AS \"<i>\"")
    assert "<script>" not in shown
    assert "<i>" not in shown


def test_sh_gives_its_variables_as_positional_arguments(cell: Cell, shell: InteractiveShell) -> None:
    shell.user_ns |= {"a": "$(reboot); 'x", "several": ["1", "-rf"], "n": 5}
    cell('%%sh out a several n\nprintf "%s\\n" "$#" "$1" "$2" "$3" "$4"')
    assert list(shell.user_ns["out"]["line"]) == ["4", "$(reboot); 'x", "1", "-rf", "5"]


def test_sh_on_the_database_host_runs_where_that_is_this_host(cell: Cell, shell: InteractiveShell, run: Run) -> None:
    cell("%%sh out --on postgres\necho here")
    assert list(shell.user_ns["out"]["line"]) == ["here"]
    run.postgres._conninfo = {**run.postgres._conninfo, "host": "db.example"}
    cell("%%sh out --on postgres\necho here")
    assert reading(shell, "out")["state"] == "not_configured"


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("redis://127.0.0.1:6379/0", "ok"),
        ("rediss://:secret-Canary1@localhost:6380/1", "ok"),
        ("unix:///run/redis.sock", "ok"),
        ("redis://cache.example:6379/0", "not_configured"),
        (None, "not_configured"),
    ],
)
def test_sh_on_the_host_of_redis_runs_where_that_is_this_host(
    cell: Cell, shell: InteractiveShell, run: Run, url: str | None, state: str
) -> None:
    run.redis = RedisServer(run.context, url)
    cell("%%sh out --on redis\necho here")
    assert reading(shell, "out")["state"] == state
    assert "Canary" not in repr(reading(shell, "out"))


def test_sh_on_the_workers_runs_on_each_of_them_and_names_the_host(
    cell: Cell, shell: InteractiveShell, run: Run
) -> None:
    shell.user_ns["a"] = "$(reboot)"
    run.hosts = Hosts(run.context, Workers(hosts=["local", "no host"]))
    shown = cell('%%sh out a --on workers\necho "$1"')
    assert list(shell.user_ns["out"]["host"]) == ["local", "no host"]
    assert shell.user_ns["out"]["line"][0] == "$(reboot)"
    assert reading(shell, "out")["state"] == "partial"
    assert "no host" in shown


def test_sh_on_workers_that_are_not_configured_is_shown_as_unknown(cell: Cell, shell: InteractiveShell) -> None:
    shown = cell("%%sh out --on workers\necho")
    assert (reading(shell, "out")["state"], len(shell.user_ns["out"])) == ("not_configured", 0)
    assert "workers.hosts is not set" in shown


def test_probe_shows_the_librarys_own_statement(cell: Cell, shell: InteractiveShell) -> None:
    shown = cell("%probe headroom")
    assert shell.user_ns["headroom"]["max_connections"][0] > 0
    assert "max_wal_senders" in shown
