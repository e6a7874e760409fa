"""What a diagnosing connection does not do, whatever statement it is handed."""

# ruff: noqa: E501
from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from runbook.connectors import postgres as postgres_module
from runbook.connectors import turn as turn_module
from runbook.connectors.base import MAX_CELL_CHARACTERS, MAX_CELL_ITEMS
from runbook.connectors.postgres import Postgres
from runbook.embedded import EmbeddedPostgres
from tests.integration.connectors.conftest import Connect
from tests.integration.connectors.servers import PASSWORD, dsn, execute, holding
from tests.support import wait_until


@pytest.fixture
def monitor(server: EmbeddedPostgres, connect: Connect) -> Postgres:
    return connect(dsn(server, "monitor"))


@pytest.fixture
def writer(server: EmbeddedPostgres, connect: Connect) -> Postgres:
    return connect(dsn(server, "writer"))


@pytest.fixture
def observer(server: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's session that looks at what the connector left behind."""
    with psycopg.connect(server.superuser_dsn, autocommit=True) as conn:
        yield conn


def count(observer: psycopg.Connection[Any], what: str = "application_name = 'runbook:diagnose'") -> int:
    row = observer.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {what}".encode()).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


def works(postgres: Postgres) -> bool:
    return postgres.query("after", "SELECT 1 AS one").value == [{"one": 1}]


# -- one statement, read only ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO content VALUES (1000, 'x')",
        "WITH x AS (INSERT INTO content VALUES (1000, 'x') RETURNING 1) SELECT * FROM x",
        "CREATE TABLE made (a int)",
        "CREATE TEMP TABLE made (a int)",
        "SELECT * INTO made FROM content",
        "DROP TABLE content",
        "CREATE DATABASE made",
        "VACUUM content",
        "SELECT nextval('pg_catalog.nothing')",
        "SELECT 1; SELECT 2",
        "SELECT 1; INSERT INTO content VALUES (1000, 'x')",
        "COMMIT; INSERT INTO content VALUES (1000, 'x')",
        "BEGIN READ WRITE; INSERT INTO content VALUES (1000, 'x')",
        "SET TRANSACTION READ WRITE; INSERT INTO content VALUES (1000, 'x')",
        "DO $$BEGIN INSERT INTO content VALUES (1000, 'x'); END$$",
        "DO $$BEGIN COMMIT; INSERT INTO content VALUES (1000, 'x'); END$$",
        "COPY content FROM STDIN",
        "COPY content TO STDOUT",
        "COPY content TO PROGRAM 'touch /tmp/made'",
        "LOCK TABLE content",
        "SELECT * FROM content FOR UPDATE",
        "EXPLAIN ANALYZE DELETE FROM content",
        "NOTIFY x",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "SELECT",
        "nonsense",
        "",
        ";",
        "-- nothing",
    ],
)
def test_a_statement_that_would_change_something_changes_nothing_and_breaks_nothing(
    writer: Postgres, observer: psycopg.Connection[Any], sql: str
) -> None:
    before = observer.execute("SELECT count(*) FROM content").fetchone()
    writer.query("r", sql)
    assert observer.execute("SELECT count(*) FROM content").fetchone() == before
    assert observer.execute("SELECT to_regclass('made')").fetchone() == (None,)
    assert works(writer)


def test_a_write_is_refused_as_one(writer: Postgres) -> None:
    reading = writer.query("r", "INSERT INTO content VALUES (1000, 'x')")
    assert (reading.state, reading.code, reading.known) == ("permission_denied", "25006", False)


def test_a_second_statement_is_refused(writer: Postgres) -> None:
    reading = writer.query("r", "SELECT 1; SELECT 2")
    assert (reading.state, reading.code, reading.known) == ("partial", "42601", False)


@pytest.mark.parametrize(
    "trick",
    [
        "COMMIT",
        "ROLLBACK",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "SET statement_timeout = 0",
        "SET search_path = nowhere",
        "SELECT set_config('statement_timeout', '0', false)",
        "SET ROLE app",
        "RESET ALL",
        "DISCARD ALL",
        "PREPARE x AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LISTEN x",
        "BEGIN",
        "SAVEPOINT x",
    ],
)
def test_no_trick_with_transactions_or_settings_reaches_the_next_statement(writer: Postgres, trick: str) -> None:
    writer.query("r", trick)
    after = writer.query("after", "SELECT current_setting('transaction_read_only') AS read_only, "
                         "current_setting('statement_timeout') AS seconds, current_user::text AS me").value  # fmt: skip
    assert after == [{"read_only": "on", "seconds": "5s", "me": "writer"}]


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["'; DROP TABLE content; --", "$1", "%(x)s", "\\", "'", '"', "a\nb", "é漢", "%", ""])
def test_a_parameter_is_data_whatever_is_in_it(monitor: Postgres, text: str) -> None:
    sql = "SELECT %(x)s::text = %(y)s::text AS same, length(%(x)s::text) AS long"
    assert monitor.query("r", sql, {"x": text, "y": text}).value == [{"same": True, "long": len(text)}]


def test_a_percent_sign_is_one_where_nothing_is_bound(monitor: Postgres) -> None:
    assert monitor.query("r", "SELECT 5 %% 3 AS x WHERE 'a' LIKE 'a%%'").known is False
    assert monitor.query("r", "SELECT 5 % 3 AS x WHERE 'a' LIKE 'a%'").value == [{"x": 2}]


def test_a_placeholder_without_a_value_is_the_authors_mistake(monitor: Postgres) -> None:
    with pytest.raises(KeyError, match="missing"):
        monitor.query("r", "SELECT %(missing)s", {})


@pytest.mark.parametrize("value", ["a\x00b", object(), "\ud800"])
def test_a_value_that_cannot_be_sent_is_unknown_and_the_server_not_unreachable(monitor: Postgres, value: Any) -> None:
    reading = monitor.query("r", "SELECT %(x)s::text", {"x": value})
    assert (reading.state, reading.known) == ("partial", False)
    assert works(monitor)


# -- caps and times ---------------------------------------------------------------------------------------------------


def test_rows_beyond_the_cap_are_not_read_and_said(monitor: Postgres, observer: psycopg.Connection[Any]) -> None:
    reading = monitor.query("r", "SELECT a.id FROM content a, content b, content c, content d, content e", row_cap=10)
    assert (reading.state, len(reading.value), reading.reason) == ("partial", 10, "only the first 10 rows")
    assert works(monitor)
    assert monitor.query("r", "SELECT n FROM generate_series(1, 10) n", row_cap=10).state == "ok"
    assert count(observer) == 1


def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    monitor: Postgres, observer: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_BEGIN", postgres_module._BEGIN.replace("'5s'", "'200ms'"))
    reading = monitor.query("r", "SELECT pg_sleep(600)")
    assert (reading.state, reading.code) == ("timeout", "57014")
    assert count(observer, "query LIKE '%%pg_sleep%%' AND state = 'active' AND pid <> pg_backend_pid()") == 0


def test_a_lock_is_not_waited_for(server: EmbeddedPostgres, monitor: Postgres) -> None:
    with holding(server, "super", 1) as (holder,):
        holder.execute("BEGIN; LOCK TABLE content")
        reading = monitor.query("r", "SELECT count(*) FROM content")
        holder.execute("ROLLBACK")
    assert (reading.state, reading.code) == ("timeout", "55P03")


def test_a_backend_that_hangs_ends_as_timeout_and_the_next_reading_gets_another(
    monitor: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = int(monitor.connect().value["own_pid"])
    monkeypatch.setattr(postgres_module, "LIMIT_SECONDS", 1.0)
    os.kill(pid, signal.SIGSTOP)
    try:
        reading = monitor.query("r", "SELECT 1 AS one")
        assert (reading.state, reading.known) == ("timeout", False)
        wait_until(lambda: works(monitor), seconds=20, what="a reading on another connection")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_backend_that_is_killed_is_unreachable_and_the_next_reading_gets_another(
    monitor: Postgres, observer: psycopg.Connection[Any]
) -> None:
    pid = int(monitor.connect().value["own_pid"])
    observer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    assert monitor.query("r", "SELECT 1").state == "unreachable"
    assert works(monitor)


def test_a_slot_is_given_back_when_nobody_asks(
    monitor: Postgres, observer: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "IDLE_CLOSE_SECONDS", 0.1)
    assert works(monitor)
    wait_until(lambda: count(observer) == 0, what="the connection to be closed")
    assert works(monitor)


def test_a_statement_that_was_not_run_gives_the_slot_back_too(
    server: EmbeddedPostgres, connect: Connect, observer: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "IDLE_CLOSE_SECONDS", 0.1)
    postgres = connect(dsn(server, "super"))
    postgres.query("r", "SELECT 1")
    wait_until(lambda: count(observer) == 0, what="the connection to be closed")


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("NULL::text", None),
        ("1.50::numeric", 1.5),
        ("'NaN'::numeric", "NaN"),
        ("'NaN'::float8", "nan"),
        ("'infinity'::float8", "inf"),
        ("1e400::numeric", "inf"),
        ("9223372036854775807", 9223372036854775807),
        ("true", True),
        ("'2026-01-02 03:04:05.000006+02'::timestamptz", "2026-01-02T01:04:05.000006+00:00"),
        ("'2026-01-02 03:04:05'::timestamp", "2026-01-02T03:04:05"),
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("interval '1 day 1.5 s'", 86401.5),
        ("'{a,NULL}'::text[]", ["a", None]),
        ("'127.0.0.1'::inet", "127.0.0.1"),
        ("'{\"a\": [1, 2]}'::jsonb", '{"a": [1, 2]}'),
        ("'\\xdeadbeef'::bytea", "deadbeef"),
        ("'550e8400-e29b-41d4-a716-446655440000'::uuid", "550e8400-e29b-41d4-a716-446655440000"),
        ("int4range(1, 5)", "[1, 5)"),
        ("ROW(1, 'a')::text", "(1,a)"),
        ("repeat('x', 1000000)", "x" * MAX_CELL_CHARACTERS + "…"),
        ("repeat('[', 100000)::text", "[" * MAX_CELL_CHARACTERS + "…"),
    ],
)
def test_every_type_becomes_a_json_value(monitor: Postgres, expression: str, value: Any) -> None:
    reading = monitor.query("r", f"SELECT {expression} AS x")
    assert (reading.state, reading.value) == ("ok", [{"x": value}])


def test_a_long_array_is_cut_and_says_so(monitor: Postgres) -> None:
    (row,) = monitor.query("r", "SELECT array_agg(n) AS x FROM generate_series(1, 5000) n").value
    assert len(row["x"]) == MAX_CELL_ITEMS + 1
    assert row["x"][-1] == "…"


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII", "LATIN1"])
def test_statements_of_a_database_in_another_encoding_are_read(
    server: EmbeddedPostgres, connect: Connect, encoding: str
) -> None:
    for name, its_encoding in (("theirs", "LATIN1"), ("ours", encoding)):
        execute(server, f"DROP DATABASE IF EXISTS {name}")
        execute(
            server,
            f"CREATE DATABASE {name} ENCODING '{its_encoding}' TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER libc",
        )
    with holding(server, "app", 1, database="theirs") as (session,):
        session.execute('SELECT 1 AS "größe"')
        postgres = connect(dsn(server, "monitor", database="ours"))
        assert postgres.connect().state == "ok"
        reading = postgres.probe("sessions")
        assert reading.state == "ok", reading.reason
        (query,) = [r["query"] for r in reading.value if r["application_name"] == "holder"]
        assert query.startswith('SELECT ? AS "gr')
        assert works(postgres)


# -- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "why"), [("super", "superuser"), ("signal", "signal other sessions")])
def test_with_a_role_that_could_act_only_shipped_statements_are_run(
    server: EmbeddedPostgres, connect: Connect, role: str, why: str
) -> None:
    postgres = connect(dsn(server, role))
    reading = postgres.query("r", "SELECT 1")
    assert (reading.state, reading.known) == ("permission_denied", False)
    assert why in reading.reason
    assert postgres.probe("headroom").state == "ok"
    assert why in postgres.connect().value["powers"]


def test_a_role_that_may_drop_replication_slots_could_act(server: EmbeddedPostgres, connect: Connect) -> None:
    execute(server, f"CREATE ROLE replica LOGIN REPLICATION PASSWORD '{PASSWORD}'; GRANT pg_monitor TO replica")
    assert connect(dsn(server, "replica")).query("r", "SELECT 1").state == "permission_denied"


# -- one connection a database ------------------------------------------------------------------------------------------

OTHER = """
import sys
from runbook.connectors import postgres
from runbook.connectors.base import Context
postgres.IDLE_CLOSE_SECONDS = 600
found = postgres.Postgres(Context(), sys.argv[1])
print(found.connect().state, flush=True)
sys.stdin.readline()
found.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def test_a_second_process_waits_for_its_turn_and_then_does_without(
    server: EmbeddedPostgres, connect: Connect, observer: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_module, "WAIT_SECONDS", 0.3)
    argv = [sys.executable, "-c", OTHER, dsn(server, "monitor")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "ok"
        late = connect(dsn(server, "monitor"))
        reading = late.query("r", "SELECT 1")
        assert (reading.state, reading.known) == ("rate_limited", False)
        assert count(observer) == 1
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline().strip() == "closed"
        assert works(connect(dsn(server, "monitor")))
        other.stdin.write("\n")
        other.stdin.flush()


def test_the_turn_of_a_process_that_died_is_free(server: EmbeddedPostgres, connect: Connect) -> None:
    argv = [sys.executable, "-c", OTHER, dsn(server, "monitor")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "ok"
        other.kill()
        other.wait()
    assert works(connect(dsn(server, "monitor")))


@pytest.mark.parametrize("stranger", ["file", "link"])
def test_a_directory_of_locks_that_is_not_ours_is_not_used(
    server: EmbeddedPostgres, connect: Connect, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, stranger: str
) -> None:
    monkeypatch.setattr(turn_module.tempfile, "gettempdir", lambda: str(tmp_path))
    place = tmp_path / f"runbook-{os.geteuid()}"
    place.write_text("") if stranger == "file" else place.symlink_to("/etc")
    reading = connect(dsn(server, "monitor")).query("r", "SELECT 1")
    assert not reading.known
    assert "lock" in reading.reason
