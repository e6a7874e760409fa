"""The statement and the shell texts of the queue runbook, as they stand in the notebook, on a server and in a shell."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.postgres import Postgres
from runbook.connectors.shell import Shell
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.result import Reading

NOW = datetime.now(UTC)
HOSTILE = ("$(touch {marker})", "`touch {marker}`", "; touch {marker}", "-e", "' || touch {marker} '")


def cell(name: str) -> str:
    """The body of the notebook's cell that binds this name."""
    notebook = json.loads(catalog.load("queue_processing_delays").path.read_text(encoding="utf-8"))
    for one in notebook["cells"]:
        head, _, body = "".join(one["source"]).partition("\n")
        if one["cell_type"] == "code" and head.split()[1:2] == [name] and head.startswith("%%"):
            return body
    raise LookupError(name)


def line(minutes_ago: float, text: str) -> str:
    return f"{(NOW - timedelta(minutes=minutes_ago)).strftime('%Y-%m-%dT%H:%M:%SZ')} {text}\n"


def asked(log: Path, *others: str) -> Reading:
    since = (NOW - timedelta(minutes=60)).isoformat(timespec="seconds")
    return Shell(Context()).script("queue_log", cell("queue_log"), [since, str(log), *others])


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Error: ETIMEDOUT api.mux.com did not answer within 3000 ms", "time-out: Mux"),
        ("PrismaClientKnownRequestError: P2024 Timed out fetching a new connection", "time-out: database"),
        ("canceling statement due to statement timeout", "time-out: database"),
        ("connect ECONNREFUSED media.s3.eu-west-1.amazonaws.com", "connection fails: object storage"),
        ("Error: Mux API answered 503", "answered badly: Mux"),
        ("Error: Missing lock for job 12. moveToFinished", "lock lost"),
        ("MISCONF Redis is configured to save RDB snapshots", "Redis refuses"),
        ("ENOSPC: no space left on device, write", "ENOSPC"),
    ],
)
def test_lines_about_what_is_slow_or_refuses_are_told_by_whom(tmp_path: Path, text: str, pattern: str) -> None:
    log = tmp_path / "app.log"
    log.write_text(line(5, f"ERROR {text}") + line(4, f"ERROR {text}") + line(90, f"ERROR {text}"), encoding="utf-8")
    (row,) = asked(log).rows
    assert (row["pattern"], row["count"]) == (pattern, 2)
    assert text in row["sample"]


@pytest.mark.parametrize(
    "text", ["job 503 completed", "INFO resized 429 pictures", "served in 500 ms", "user timothy logged in"]
)
def test_ordinary_lines_say_nothing(tmp_path: Path, text: str) -> None:
    log = tmp_path / "app.log"
    log.write_text(line(5, text), encoding="utf-8")
    reading = asked(log)
    assert (reading.state, reading.rows) == ("ok", [])


def test_a_log_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(line(5, "ENOSPC"), encoding="utf-8")
    reading = asked(log, str(tmp_path / "gone.log"))
    assert (reading.state, len(reading.rows)) == ("partial", 1)
    assert "gone.log cannot be read" in reading.reason


@pytest.mark.parametrize("name", HOSTILE)
def test_what_stands_in_a_log_or_in_its_name_is_data(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    log = tmp_path / "app.log"
    log.write_text(line(5, "ETIMEDOUT " + name.format(marker=marker)), encoding="utf-8")
    reading = asked(log, name.format(marker=marker))
    assert [row["pattern"] for row in reading.rows] == ["time-out"]
    assert not marker.exists()


def test_no_log_is_not_configured() -> None:
    since = NOW.isoformat(timespec="seconds")
    assert Shell(Context()).script("queue_log", cell("queue_log"), [since]).state == "not_configured"


def test_waits_of_the_database_are_told_by_application(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "s", settings=FAST) as server:
        with psycopg.connect(server.superuser_dsn, autocommit=True) as admin:
            admin.execute("CREATE ROLE monitor LOGIN PASSWORD 'Canary-0a1b2c3d'; GRANT pg_monitor TO monitor")
        with (
            psycopg.connect(server.superuser_dsn, application_name="worker") as holder,
            psycopg.connect(server.superuser_dsn, application_name="worker", autocommit=True) as waiter,
        ):
            holder.execute("SELECT pg_advisory_xact_lock(7)")
            waiter.pgconn.send_query(b"SELECT pg_advisory_lock(7)")
            waiter.pgconn.flush()
            postgres = Postgres(Context(), server.dsn(user="monitor", password="Canary-0a1b2c3d"), None)
            for _ in range(50):
                rows = postgres.query("database_waits", cell("database_waits"), {}).rows
                if any(row["wait_event_type"] == "Lock" for row in rows):
                    break
            postgres.close()
            holder.rollback()
            while waiter.pgconn.get_result() is not None:
                pass
    states = {(row["application"], row["state"], row["wait_event_type"]) for row in rows}
    assert ("worker", "active", "Lock") in states
    assert ("worker", "idle in transaction", "Client") in states
