"""Statement statistics, which the servers of the wheel do not carry: on Debian's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runbook import catalog
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses.limits import Limits
from runbook.diagnosis.responses.statements import MIN_SECONDS, Database
from runbook.embedded import FAST
from tests.integration.connectors import servers
from tests.integration.connectors.conftest import Connect
from tests.support import open_to_others, require_program


class Debian(servers.OtherPostgres):
    """The server of Debian's package."""

    def __init__(self, directory: Path, programs: Path) -> None:
        super().__init__(directory, version=15, settings={**FAST, "shared_preload_libraries": "pg_stat_statements"})
        self.home = programs


def statement(name: str, runbook: str = "db_connection_exhaustion") -> str:
    """The text of the notebook's ``%%sql NAME`` cell."""
    notebook = json.loads(catalog.load(runbook).path.read_text(encoding="utf-8"))
    cells = ("".join(cell["source"]).partition("\n") for cell in notebook["cells"])
    return next(body for head, _, body in cells if head.split()[:2] == ["%%sql", name])


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    programs = Path(require_program("postgres", package="postgresql")).parent
    directory = tmp_path_factory.mktemp("debian")
    open_to_others(directory)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RUNBOOK_TEST_POSTGRES", str(programs))
        with Debian(directory / "server", programs) as server:
            servers.execute(server, servers.ROLES)
            servers.execute(server, "CREATE EXTENSION pg_stat_statements")
            yield server


def test_slow_statements_are_read_without_their_literals(debian: Debian, connect: Connect) -> None:
    servers.execute(debian, "SELECT pg_sleep(0.05), 'canary-4711'")
    postgres = connect(servers.dsn(debian, "monitor"))
    readings = [
        postgres.query("statements", statement("statements")),
        postgres.query("slowest_statements", statement("slowest_statements", "high_response_time")),
        postgres.probe("statements"),
    ]
    assert [reading.state for reading in readings] == ["ok", "ok", "ok"]
    assert any("pg_sleep" in row["query"] for row in readings[0].rows)
    assert any("pg_sleep" in row["query"] for row in readings[2].rows)
    assert "canary-4711" not in json.dumps([reading.as_dict() for reading in readings])


def test_a_dropped_index_shows_between_two_looks_with_the_statement_it_slows(debian: Debian, connect: Connect) -> None:
    """What the rule for slow statements rests on: id, mean against before, blocks a call, and the table read whole."""
    postgres = connect(servers.dsn(debian, "monitor"))
    with psycopg.connect(servers.dsn(debian, "super"), autocommit=True, prepare_threshold=None) as app:
        app.execute("CREATE TABLE orders AS SELECT i AS id, 'c' || i AS email FROM generate_series(1, 60000) AS i")
        app.execute("CREATE INDEX orders_email ON orders (email)")
        app.execute("ANALYZE orders")

        def ask(times: int) -> None:
            for number in range(times):
                app.execute("SELECT id FROM orders WHERE email = %s", (f"c{number}",))

        ask(200)
        app.execute("DROP INDEX orders_email")
        readings = [postgres.connect(), postgres.probe("headroom"), *map(postgres.probe, ("statements", "scans"))]
        ask(30)
        time.sleep(MIN_SECONDS)  # of a shorter time the rule says nothing, and a quick machine asks in less
        app.execute("SELECT pg_stat_force_next_flush()" if app.info.server_version >= 150000 else "SELECT 1")
        readings += map(postgres.probe, ("statements", "scans"))
        (row,) = app.execute(
            "SELECT queryid::text FROM pg_stat_statements WHERE query LIKE 'SELECT id FROM orders WHERE email%'"
        ).fetchall()
    database = Database(Readings(readings), Limits())
    leading = database.leading
    assert leading is not None
    assert leading.query_id == row[0]
    assert leading.share > 0.5
    assert leading.mean_ratio is not None
    assert leading.mean_ratio >= 3
    assert (leading.blocks_ratio or 0) > 3
    table = database.read_whole(leading)
    assert table is not None
    assert (table.relation, table.rows_per_scan) == ("orders", 60_000)
    assert table.whole_scans >= 30
