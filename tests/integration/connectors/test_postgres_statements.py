"""Statement statistics, which the servers of the wheel do not carry: on Debian's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbook import catalog
from runbook.embedded import FAST
from tests.integration.connectors import servers
from tests.integration.connectors.conftest import Connect
from tests.support import open_to_others, require_program


class Debian(servers.OtherPostgres):
    """The server of Debian's package."""

    def __init__(self, directory: Path, programs: Path) -> None:
        super().__init__(directory, version=15, settings={**FAST, "shared_preload_libraries": "pg_stat_statements"})
        self.home = programs


def statement(name: str) -> str:
    """The text of the notebook's ``%%sql NAME`` cell."""
    notebook = json.loads(catalog.load("db_connection_exhaustion").path.read_text(encoding="utf-8"))
    cells = ("".join(cell["source"]).partition("\n") for cell in notebook["cells"])
    return next(body for head, _, body in cells if head.split()[:2] == ["%%sql", name])


def test_slow_statements_are_read_without_their_literals(
    tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Path(require_program("postgres", package="postgresql")).parent
    monkeypatch.setenv("RUNBOOK_TEST_POSTGRES", str(programs))
    open_to_others(tmp_path)
    server = Debian(tmp_path / "server", programs)
    with server:
        servers.execute(server, servers.ROLES)
        servers.execute(server, "CREATE EXTENSION pg_stat_statements")
        servers.execute(server, "SELECT pg_sleep(0.05), 'canary-4711'")
        reading = connect(servers.dsn(server, "monitor")).query("statements", statement("statements"))
    assert reading.state == "ok"
    assert any("pg_sleep" in row["query"] for row in reading.rows)
    assert "canary-4711" not in json.dumps(reading.as_dict())
