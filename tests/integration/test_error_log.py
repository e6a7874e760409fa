"""The cell of *high_error_rate* that reads the application's log, on logs as applications write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.shell import Shell
from runbook.diagnosis.errors.systems import kind_of

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
WINDOW, RECENT = NOW - timedelta(hours=1), NOW - timedelta(minutes=5)


def script() -> str:
    notebook = json.loads(catalog.load("high_error_rate").path.read_text(encoding="utf-8"))
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    return next(t for t in texts if t.startswith("%%sh app_errors")).partition("\n")[2]


def read(*logs: Path) -> Any:
    arguments = [WINDOW.isoformat(timespec="seconds"), RECENT.isoformat(timespec="seconds"), *map(str, logs)]
    return Shell(Context()).script("app_errors", script(), arguments)


def log(tmp_path: Path, *lines: str, name: str = "app.log") -> Path:
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def stamp(minutes_ago: float) -> str:
    return f"{NOW - timedelta(minutes=minutes_ago):%Y-%m-%dT%H:%M:%S}.120Z"


@pytest.mark.parametrize(("text", "kind"), [
    ('FATAL: sorry, too many clients already (SQLSTATE 53300)', "connections"),
    ('{"code":"P2024","msg":"Timed out fetching a new connection from the connection pool"}', "connections"),
    ("sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached", "connections"),
    ("psycopg.errors.ReadOnlySqlTransaction: cannot execute UPDATE in a read-only transaction", "read_only"),
    ('error: could not extend file "base/1/2": No space left on device { code: \'53100\' }', "full"),
    ('password authentication failed for user "web"', "auth"),
    ("FATAL: the database system is shutting down, SQLSTATE=57P03", "down"),
    ('connection to server at "10.0.0.5", port 6543 failed: Connection refused', "down"),
    ('PrismaClientInitializationError: Can\'t reach database server at `db`', "down"),
    ('UndefinedColumn: column content.mediaUrl does not exist', "schema"),
    ('ERROR: relation "orders" does not exist', "schema"),
    ("[ioredis] Unhandled error event: Error: connect ECONNREFUSED 10.0.0.9:7001", "redis"),
    ("ReplyError: MISCONF Redis is configured to save RDB snapshots", "redis"),
    ("ReplyError: OOM command not allowed when used memory > 'maxmemory'.", "redis"),
    ("Error: ENOSPC: no space left on device, write", "disk"),
    ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "memory"),
    ("Error: certificate has expired code: 'CERT_HAS_EXPIRED'", "tls"),
    ("Error: connect ECONNREFUSED 10.1.1.1:443", None),
    ("ERROR web TypeError: Cannot read properties of undefined", None),
])  # fmt: skip
def test_an_error_line_is_known_for_what_it_speaks_of(text: str, kind: str | None, tmp_path: Path) -> None:
    reading = read(log(tmp_path, f"{stamp(1)} {text}"))
    assert reading.state == "ok"
    assert [(row["count"], row["recent"], kind_of(row)) for row in reading.rows] == [(1, 1, kind)]


@pytest.mark.parametrize("text", ["INFO served 53300 bytes", "INFO user 42703 signed in", "GET /pool 200", "readonly"])
def test_ordinary_lines_with_such_numbers_are_no_errors(text: str, tmp_path: Path) -> None:
    assert read(log(tmp_path, f"{stamp(1)} {text}")).rows == []


def test_lines_are_counted_over_the_window_and_over_the_rate_window(tmp_path: Path) -> None:
    lines = [f"{stamp(minutes)} (SQLSTATE 53300)" for minutes in (90, 40, 30, 4, 3, 2)]
    (row,) = read(log(tmp_path, *lines)).rows
    assert (row["count"], row["recent"]) == (5, 3)


def test_times_in_milliseconds_since_the_epoch_are_times(tmp_path: Path) -> None:
    lines = [json.dumps({"level": 50, "time": int((NOW - timedelta(minutes=m)).timestamp() * 1000), "msg": "ENOSPC"})
             for m in (90, 30, 1)]  # fmt: skip
    (row,) = read(log(tmp_path, *lines)).rows
    assert (row["count"], row["recent"]) == (2, 1)


def test_lines_of_a_trace_without_a_time_belong_to_the_line_before(tmp_path: Path) -> None:
    reading = read(log(tmp_path, f"{stamp(1)} request failed", "  psycopg.errors.X: SQLSTATE 42703", f"{stamp(90)} x",
                       "  SQLSTATE 42703"))  # fmt: skip
    assert [row["count"] for row in reading.rows if str(row["pattern"]) == "42703"] == [1]


def test_a_log_that_cannot_be_read_is_named_beside_those_that_can(tmp_path: Path) -> None:
    good = log(tmp_path, f"{stamp(1)} SQLSTATE 53300")
    reading = read(good, tmp_path / "gone.log", tmp_path)
    assert reading.state == "partial"
    assert "gone.log cannot be read" in reading.reason
    assert len(reading.rows) == 1


def test_without_a_log_the_setting_is_named() -> None:
    reading = read()
    assert (reading.state, reading.reason) == ("not_configured", "app.log_paths is not set")
