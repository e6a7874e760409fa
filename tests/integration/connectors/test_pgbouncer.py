"""PgBouncer's console, on a real PgBouncer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from runbook.connectors import pgbouncer as pgbouncer_module
from runbook.connectors.base import Context
from runbook.connectors.pgbouncer import SHOWS, PgBouncer
from runbook.embedded import EmbeddedPostgres
from tests.integration.connectors.conftest import Connect
from tests.integration.connectors.poolers import Pooler, running
from tests.integration.connectors.servers import PASSWORD, garbage_listener
from tests.support import free_port


@pytest.fixture(scope="module")
def pooler(every_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    server: EmbeddedPostgres = every_server(18)
    with running(tmp_path_factory.mktemp("pgbouncer"), postgres_port=server.port) as started:
        yield started


@pytest.mark.parametrize("what", SHOWS)
def test_the_console_is_read_by_a_stats_user(pooler: Pooler, what: str) -> None:
    reading = PgBouncer(Context(), pooler.dsn()).show("r", what)
    assert (reading.state, reading.query) == ("ok", f"SHOW {what}"), reading.reason
    assert reading.value


def test_the_figures_that_the_rules_need_are_there(pooler: Pooler) -> None:
    console = PgBouncer(Context(), pooler.dsn())
    (pool, *_) = console.show("r", "POOLS").value
    assert {"cl_active", "cl_waiting", "sv_active", "maxwait", "pool_mode", "database", "user"} <= set(pool)
    config = {row["key"]: row["value"] for row in console.show("r", "CONFIG").value}
    assert (config["max_client_conn"], config["default_pool_size"]) == ("50", "3")
    assert PASSWORD not in repr(console.context.recorder.readings)


@pytest.mark.parametrize("word", ["PAUSE", "KILL", "SHUTDOWN", "POOLS; SHUTDOWN", "pools", ""])
def test_nothing_but_the_closed_list_is_ever_said(pooler: Pooler, word: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        PgBouncer(Context(), pooler.dsn("admin")).show("r", word)
    assert pooler.process.poll() is None


@pytest.mark.parametrize(
    ("user", "password", "database"),
    [("stats", "wrong", "pgbouncer"), ("nobody_at_all", PASSWORD, "pgbouncer"), ("other", PASSWORD, "pgbouncer")],
)
def test_a_user_who_may_not_is_auth_failed(pooler: Pooler, user: str, password: str, database: str) -> None:
    reading = PgBouncer(Context(), pooler.dsn(user, password, database)).show("r", "POOLS")
    assert (reading.state, reading.known) == ("auth_failed", False), reading.reason


def test_a_database_behind_it_is_not_its_console(pooler: Pooler) -> None:
    reading = PgBouncer(Context(), pooler.dsn("monitor", database="postgres")).show("r", "POOLS")
    assert not reading.known


def test_the_diagnosing_connection_may_go_through_it(pooler: Pooler, connect: Connect) -> None:
    postgres = connect(pooler.dsn("monitor", database="postgres"))
    assert postgres.connect().state == "ok"
    assert postgres.probe("headroom").state == "ok"
    assert postgres.query("r", "SELECT current_setting('transaction_read_only') AS ro").value == [{"ro": "on"}]


def test_none_that_runs_is_unreachable() -> None:
    reading = PgBouncer(Context(), f"postgresql://stats@127.0.0.1:{free_port()}/pgbouncer").show("r", "POOLS")
    assert reading.state == "unreachable"


def test_a_host_whose_name_says_auth_is_unreachable_all_the_same() -> None:
    reading = PgBouncer(Context(), "postgresql://stats@password-auth.invalid:6432/pgbouncer").show("r", "POOLS")
    assert reading.state == "unreachable", reading.reason


def test_none_that_is_configured_is_not_configured() -> None:
    reading = PgBouncer(Context(), None).show("r", "POOLS")
    assert (reading.state, reading.reason) == ("not_configured", "postgres.pgbouncer_dsn is not set")


def test_a_dsn_that_is_none_is_not_configured_and_no_part_of_it_is_shown() -> None:
    reading = PgBouncer(Context(), f"host=db password={PASSWORD} {PASSWORD}").show("r", "POOLS")
    assert reading.state == "not_configured"
    assert PASSWORD not in repr(reading)


def test_a_listener_that_speaks_something_else_is_unreachable() -> None:
    with garbage_listener() as port:
        assert (
            PgBouncer(Context(), f"postgresql://stats:x@127.0.0.1:{port}/pgbouncer").show("r", "POOLS").state
            == "unreachable"
        )


def test_one_that_hangs_is_a_timeout(pooler: Pooler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbouncer_module, "LIMIT_SECONDS", 0.5)
    os.kill(pooler.process.pid, signal.SIGSTOP)
    try:
        reading = PgBouncer(Context(), pooler.dsn()).show("r", "POOLS")
    finally:
        os.kill(pooler.process.pid, signal.SIGCONT)
    assert (reading.state, reading.known) == ("timeout", False)
