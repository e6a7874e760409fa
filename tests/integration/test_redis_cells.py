"""The shell texts of the Redis runbook, as they stand in the notebook, on a real server and on clients' logs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.shell import Shell
from runbook.diagnosis.redis.words import kind
from runbook.result import Reading
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.support import free_port, wait_until

HOSTILE = ("'; reboot; --", "$(touch {marker})", "`touch {marker}`", "-e x", "--", "%s", 'a"b\\')


def cell(name: str) -> str:
    """The body of the notebook's cell that binds this name."""
    notebook = json.loads(catalog.load("redis_connection_failure").path.read_text(encoding="utf-8"))
    for one in notebook["cells"]:
        head, _, body = "".join(one["source"]).partition("\n")
        if one["cell_type"] == "code" and head.split()[1:2] == [name] and head.startswith("%%"):
            return body
    raise LookupError(name)


def run(name: str, *arguments: str) -> Reading:
    return Shell(Context()).script(name, cell(name), arguments)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    directory = tmp_path_factory.mktemp("redis")
    with running(directory, "--logfile", "redis.log") as up:
        yield up


def test_the_process_is_found_by_its_port_with_its_state(server: RedisProcess) -> None:
    [row] = run("redis_host", str(server.port)).rows
    assert (int(row["pid"]), row["listening"]) == (server.process.pid, "yes")
    assert int(row["open_files_limit"]) > 0
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        assert run("redis_host", str(server.port)).rows[0]["state"].startswith("T")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_port_that_nobody_listens_on_has_no_process() -> None:
    [row] = run("redis_host", str(free_port())).rows
    assert (row["pid"], row["listening"]) in (("", "no"), (None, "no"))


def test_its_memory_disk_and_way_are_told(server: RedisProcess) -> None:
    assert float(run("redis_host_memory").rows[0]["total_kb"]) > 0
    assert run("redis_disk", str(server.directory)).rows[0]["mount"]
    gone = run("redis_disk", "/nowhere/at/all")
    assert (gone.state, gone.code) == ("partial", "44")
    assert run("redis_network", "localhost", "6379").rows[0]["address"]


def test_its_own_log_is_read_by_kind_with_how_long_ago(server: RedisProcess) -> None:
    client = server.client()
    (server.directory / "dump.rdb").mkdir()
    client.execute_command("CONFIG", "SET", "save", "3600 1")
    client.set("a", "1")
    client.execute_command("BGSAVE")
    log = server.directory / "redis.log"
    wait_until(lambda: "Background saving error" in log.read_text())
    rows = {row["kind"]: row for row in run("redis_log", "redis.log", str(server.directory)).rows}
    assert 0 <= float(rows["save_failed"]["ago_seconds"]) < 60
    assert "start_stop" in rows


LINES = {
    "maxclients": "ReplyError: ERR max number of clients reached",
    "auth": "ReplyError: WRONGPASS invalid username-password pair or user is disabled.",
    "noperm": "ReplyError: NOPERM this user has no permissions to run the 'incr' command",
    "oom": "OutOfMemoryError: command not allowed when used memory > 'maxmemory'.",
    "misconf": "ReplyError: MISCONF Redis is configured to save RDB snapshots",
    "readonly": "ReadOnlyError: You can't write against a read only replica.",
    "loading": "BusyLoadingError: Redis is loading the dataset in memory",
    "busy": "ReplyError: BUSY Redis is busy running a script. You can only call SCRIPT KILL",
    "noreplicas": "ReplyError: NOREPLICAS Not enough good replicas to write.",
    "clusterdown": "ReplyError: CLUSTERDOWN Hash slot not served",
    "moved": "ReplyError: MOVED 5798 10.0.0.7:6379",
    "protected": "DENIED Redis is running in protected mode because protected mode is enabled",
    "tls": "redis: SSLError [SSL: WRONG_VERSION_NUMBER] wrong version number",
    "refused": "[ioredis] Unhandled error event: Error: connect ECONNREFUSED 127.0.0.1:6379",
    "dns": "redis: Error: getaddrinfo ENOTFOUND cache.internal",
    "timeout": "[ioredis] Error: Command timed out",
    "closed": "redis: MaxRetriesPerRequestError: Reached the max retries per request limit (which is 20).",
    "other": "2026 ERROR redis: something nobody has seen before",
}


@pytest.mark.parametrize("expected", LINES)
def test_a_line_of_the_application_s_log_is_labelled_as_the_rules_read_it(expected: str, tmp_path: Path) -> None:
    log, now = tmp_path / "app.log", datetime.now(UTC)
    old, new = ((now - timedelta(seconds=s)).strftime("%Y-%m-%dT%H:%M:%S") for s in (600, 5))
    text = LINES[expected]
    log.write_text(f"{old}Z ERROR web {text}\n{new}Z ERROR web {text}\n{new}Z ERROR web connect ECONNREFUSED db:5432\n")
    since, recent = ((now - timedelta(seconds=s)).isoformat(timespec="seconds") for s in (1800, 60))
    reading = run("app_errors", since, recent, str(log))
    assert reading.state == "ok", reading.reason
    [row] = reading.rows
    assert (kind(str(row["pattern"])), int(row["count"]), int(row["recent"])) == (expected, 2, 1)


@pytest.mark.parametrize("name", ["redis_host", "redis_disk", "redis_log", "redis_network", "app_errors"])
@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_data(name: str, value: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    run(name, *[value.format(marker=marker)] * 3)
    assert not marker.exists()
