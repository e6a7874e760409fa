"""The statements and shell texts of the memory runbook, as they stand in the notebook, on a server and in a shell."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.host import Host
from runbook.connectors.postgres import Postgres
from runbook.connectors.shell import Shell
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.errors import InvalidParameter
from runbook.settings import Workers, from_plain
from tests.support import require_program


def cell(name: str) -> str:
    """The body of the notebook's cell that binds this name."""
    notebook = json.loads(catalog.load("high_memory_usage").path.read_text(encoding="utf-8"))
    for one in notebook["cells"]:
        head, _, body = "".join(one["source"]).partition("\n")
        if one["cell_type"] == "code" and head.split()[1:2] == [name] and head.startswith("%%"):
            return body
    raise LookupError(name)


def sh(name: str, *arguments: str) -> Any:
    return Shell(Context()).script(name, cell(name), arguments)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "s", settings=FAST) as made:
        with psycopg.connect(made.superuser_dsn, autocommit=True) as conn:
            conn.execute("CREATE ROLE monitor LOGIN PASSWORD 'Canary-0a1b2c3d'; GRANT pg_monitor TO monitor")
            conn.execute("CREATE ROLE reports; ALTER ROLE reports SET work_mem = '256MB'")
            conn.execute("ALTER ROLE reports SET statement_timeout = '9s'")
        asked = Postgres(Context(), made.dsn(user="monitor", password="Canary-0a1b2c3d"), None)
        yield asked
        asked.close()


def test_settings_of_memory_come_with_their_bytes(postgres: Postgres) -> None:
    reading = postgres.query("memory_settings", cell("memory_settings"), {})
    assert reading.state == "ok", reading.reason
    rows = {row["name"]: row for row in reading.rows}
    assert (rows["work_mem"]["setting"], rows["work_mem"]["bytes"]) == ("4MB", 4 * 2**20)
    assert rows["max_connections"]["bytes"] == float(rows["max_connections"]["setting"])


def test_a_role_with_a_work_mem_of_its_own_is_listed(postgres: Postgres) -> None:
    reading = postgres.query("role_settings", cell("role_settings"), {})
    assert reading.state == "ok", reading.reason
    assert reading.rows == [{"role": "reports", "database": "(all)", "setting": "work_mem=256MB"}]


def test_the_largest_processes_are_listed_with_their_score() -> None:
    reading = sh("largest")
    assert reading.state == "ok", reading.reason
    assert 1 <= len(reading.rows) <= 10
    sizes = [row["rss_mb"] for row in reading.rows]
    assert sizes == sorted(sizes, reverse=True)
    assert {"pid", "oom_score", "command"} <= set(reading.rows[0])


def test_the_heap_limit_of_a_node_process_is_read_and_nothing_else_of_its_environment() -> None:
    node = require_program("node", package="nodejs")
    environment = {"PATH": os.environ["PATH"], "NODE_OPTIONS": "--max-old-space-size=333", "SECRET": "Canary-0a1b2c3d"}
    command = ["node", "--max-old-space-size=444", "-e", "console.log(1); setTimeout(() => {}, 60000)"]
    with subprocess.Popen(command, executable=node, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            reading = sh("heap_limits")
            row = next(r for r in reading.rows if r["pid"] == process.pid)
        finally:
            process.kill()
    assert (row["command_line_mb"], row["node_options_mb"]) == (444, 333)
    assert "Canary" not in json.dumps(reading.as_dict())


def test_swap_and_overcommit_are_listed() -> None:
    reading = sh("swap")
    assert reading.state == "ok", reading.reason
    assert {"SwapTotal", "CommitLimit", "AnonPages", "vm/overcommit_memory"} <= {row["name"] for row in reading.rows}


LINES = (
    ("worker exited with code 137", "exit 137"),
    ("container api terminated: OOMKilled", "exit 137"),
    ("child process died, signal SIGKILL", "exit 137"),
    ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "heap out of memory"),
    ("Error: spawn ENOMEM", "ENOMEM"),
    ("java.lang.OutOfMemoryError: Java heap space", "ENOMEM"),
    ("GET /exit/code/1370 200", ""),
    ("order 137 was shipped", ""),
    ("exit code 1", ""),
)


@pytest.mark.parametrize(("line", "kind"), LINES)
def test_lines_of_the_log_are_told_apart(line: str, kind: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    log = tmp_path / "app.log"
    log.write_text(f"{now:%Y-%m-%dT%H:%M:%SZ} ERROR {line}\n", encoding="utf-8")
    since = (now - timedelta(minutes=5)).isoformat(timespec="seconds")
    rows = sh("app_errors", since, str(log)).rows
    assert [row["pattern"] for row in rows] == ([kind] if kind else [])


def test_lines_before_the_window_and_logs_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("2020-01-01T00:00:00Z ERROR exit code 137\n", encoding="utf-8")
    since = datetime.now(UTC).isoformat(timespec="seconds")
    reading = sh("app_errors", since, str(log), str(tmp_path / "none.log"))
    assert (reading.state, reading.rows) == ("partial", [])
    assert sh("app_errors", since).state == "not_configured"


@pytest.mark.parametrize(
    "hostile", ["$(touch {marker})", "`touch {marker}`", "'; touch {marker}; '", "../../../{marker}"]
)
def test_a_hostile_cgroup_is_refused_as_a_parameter_and_stays_data_below(hostile: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    runbook = catalog.load("high_memory_usage")
    with pytest.raises(InvalidParameter):
        catalog.check_parameters(runbook, {"cgroup": hostile.format(marker=" m")}, from_plain({}))
    reading = Host(Context(), Workers(hosts=["local"])).cgroup(hostile.format(marker=marker))
    assert not [row for row in reading.rows if "path" in row]
    assert not marker.exists()


@pytest.mark.parametrize(
    "path", ["", "/", "/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-0a.scope", "docker/0a1b"]
)
def test_the_paths_of_real_cgroups_are_taken(path: str) -> None:
    runbook = catalog.load("high_memory_usage")
    assert catalog.check_parameters(runbook, {"cgroup": path}, from_plain({}))["cgroup"] == path


@pytest.mark.parametrize("hostile", ["$(touch {marker})", "`touch {marker}`", "; touch {marker}", "-e x"])
def test_a_hostile_path_of_a_log_stays_data(hostile: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    sh("app_errors", "2026-01-01T00:00:00+00:00", hostile.format(marker=marker))
    assert not marker.exists()
