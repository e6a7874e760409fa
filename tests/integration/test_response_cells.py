"""The statements and shell texts of the response-time runbook, as they stand in the notebook, tried for real."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.latency_counts import Look
from runbook.connectors.postgres import Postgres
from runbook.connectors.shell import Shell
from runbook.connectors.traffic import Traffic
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.settings import Traffic as Section

SINCE = "2026-03-01T02:30:00+00:00"


def cell(name: str) -> str:
    """The body of the notebook's cell that binds this name."""
    notebook = json.loads(catalog.load("high_response_time").path.read_text(encoding="utf-8"))
    for one in notebook["cells"]:
        head, _, body = "".join(one["source"]).partition("\n")
        if one["cell_type"] == "code" and head.split()[1:2] == [name] and head.startswith("%%"):
            return body
    raise LookupError(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "s", settings=FAST) as made:
        with psycopg.connect(made.superuser_dsn, autocommit=True) as conn:
            conn.execute("CREATE ROLE monitor LOGIN PASSWORD 'Canary-0a1b2c3d'; GRANT pg_monitor TO monitor")
            conn.execute("CREATE TABLE owner AS SELECT i AS id FROM generate_series(1, 10) AS i")
            conn.execute("ALTER TABLE owner ADD PRIMARY KEY (id)")
            conn.execute(
                """CREATE TABLE "Or""ders" AS SELECT i AS id, i % 10 + 1 AS owner FROM generate_series(1, 5000) AS i"""
            )
            conn.execute("""ALTER TABLE "Or""ders" ADD CONSTRAINT of_owner FOREIGN KEY (owner) REFERENCES owner""")
            conn.execute("""ANALYZE "Or""ders" """)
        yield made


@pytest.fixture
def postgres(server: EmbeddedPostgres) -> Iterator[Postgres]:
    made = Postgres(Context(), server.dsn(user="monitor", password="Canary-0a1b2c3d"), None)
    yield made
    made.close()


def test_a_large_table_that_is_read_in_whole_is_listed_with_the_key_that_lacks_an_index(
    server: EmbeddedPostgres, postgres: Postgres
) -> None:
    with psycopg.connect(server.superuser_dsn, autocommit=True) as conn:
        conn.execute("""SELECT count(*) FROM "Or""ders" """)
        conn.execute("SELECT pg_stat_force_next_flush()")
    reading = postgres.query("missing_indexes", cell("missing_indexes"))
    assert reading.state == "ok", reading.reason
    row = next(row for row in reading.rows if row["relation"] == '"Or""ders"')
    assert (row["whole_scans"] > 0, row["keys_without_index"], row["rows_per_scan"]) == (True, "of_owner", 5000)


def test_a_statement_is_long_from_the_threshold_on(server: EmbeddedPostgres, postgres: Postgres) -> None:
    conn = psycopg.connect(server.superuser_dsn, autocommit=True, application_name="slow-app")
    with contextlib.closing(conn):
        conn.pgconn.send_query(b"SELECT pg_sleep(30), 'canary-4711'")
        conn.pgconn.flush()
        found: list[str] = []
        for _ in range(40):
            reading = postgres.query("long_queries", cell("long_queries"), {"threshold_ms": 100})
            found = [row["application"] for row in reading.rows]
            if found:
                break
        assert found == ["slow-app"]
        assert "canary-4711" not in json.dumps(reading.as_dict())
        later = postgres.query("long_queries", cell("long_queries"), {"threshold_ms": 600_000})
        assert later.rows == []
        conn.cancel_safe()


def test_time_limits_are_read_of_the_server_and_of_roles(server: EmbeddedPostgres, postgres: Postgres) -> None:
    with psycopg.connect(server.superuser_dsn, autocommit=True) as conn:
        conn.execute("ALTER ROLE monitor SET lock_timeout = '3s'")
    rows = postgres.query("time_limits", cell("time_limits")).rows
    assert {("statement_timeout", "(server)"), ("lock_timeout", "role monitor")} <= {
        (row["name"], row["applies_to"].strip()) for row in rows
    }


def test_what_the_log_says_of_waiting_is_counted_by_kind_within_the_window(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(
        "2026-03-01T03:00:00Z ERROR P2024: Timed out fetching a new connection from the connection pool\n"
        "2026-03-01T03:05:00Z ERROR request failed: psycopg_pool.PoolTimeout: couldn't get a connection after 0.3 s\n"
        "2026-03-01T03:06:00Z ERROR canceling statement due to statement timeout (SQLSTATE 57014)\n"
        "2026-03-01T03:07:00Z ERROR connect ETIMEDOUT 10.0.0.9:443\n"
        "2026-03-01T01:00:00Z ERROR P2024 of the hour before\n"
        "2026-03-01T03:09:00Z INFO all is well\n"
    )
    reading = Shell(Context()).script("app_waits", cell("app_waits"), [SINCE, str(log)])
    assert reading.state == "ok", reading.reason
    counts = {row["pattern"]: row["count"] for row in reading.rows}
    assert counts == {"pool time-out": 2, "statement cancelled": 1, "time-out": 1}


def test_a_log_that_cannot_be_read_is_named_and_none_is_not_configured(tmp_path: Path) -> None:
    reading = Shell(Context()).script("app_waits", cell("app_waits"), [SINCE, str(tmp_path / "no.log")])
    assert reading.state == "partial"
    assert "no.log" in reading.reason
    assert Shell(Context()).script("app_waits", cell("app_waits"), [SINCE]).state == "not_configured"


@pytest.mark.parametrize("name", ["$(touch {marker})", "`touch {marker}`", "-e x", "a'b; touch {marker}", "%s"])
def test_a_log_is_a_name_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "reached"
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / name.replace("{marker}", "reached").replace("/", "_")
    log.write_text("2026-03-01T03:00:00Z ERROR P2024: Timed out\n")
    reading = Shell(Context()).script("app_waits", cell("app_waits"), [SINCE, str(log)])
    assert [(row["log"], row["count"]) for row in reading.rows] == [(str(log), 1)]
    assert not marker.exists()


def test_disks_are_measured_over_a_moment() -> None:
    reading = Shell(Context()).script("disk_io", cell("disk_io"), [])
    assert reading.state in ("ok", "not_configured"), reading.reason
    assert all(float(row["busy_percent"]) >= 0 for row in reading.rows)


@pytest.mark.parametrize("exclude", [".*", "$(reboot)", "'; drop table x; --", "(?:", "a" * 300])
def test_words_that_are_left_out_are_words_and_no_pattern(exclude: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    line = {"time": "2026-03-01T03:00:00Z", "status": 200, "duration_ms": 30, "path": "/api/items", "method": "GET"}
    log.write_text(json.dumps(line) + "\n")
    made = Traffic(Context(), Section(access_log=str(log)))
    reading = made.latency(1e9, look=Look(slow_ms=1000, exclude=exclude), curve_minutes=1)
    assert (reading.rows[0]["requests"], reading.rows[0]["excluded"]) == (1, 0)


def test_a_log_without_durations_says_so_and_has_no_percentile(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text('{"time": "2026-03-01T03:00:00Z", "status": 200, "path": "/"}\n' * 300)
    reading = Traffic(Context(), Section(access_log=str(log))).latency(1e9, look=Look(slow_ms=1000), curve_minutes=1)
    assert reading.state == "partial"
    assert "no line carries a duration" in reading.reason
    assert (reading.rows[0]["p95_ms"], reading.rows[0]["without_duration"]) == (None, 300)


def test_without_a_log_and_without_metrics_nothing_is_known() -> None:
    made = Traffic(Context(), Section())
    assert made.latency(300, look=Look(slow_ms=1000), curve_minutes=60).state == "not_configured"
    told = {r.name: r.state for r in made.context.recorder.readings}
    assert {told[n] for n in ("latency_splits", "latency_baseline", "latency_curve")} == {"not_configured"}
