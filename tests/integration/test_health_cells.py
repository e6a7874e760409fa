"""The statement and shell texts of the health runbook, as they stand in the notebook, on a server and in a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from tests.integration.connectors.certificates import Authority
from tests.integration.connectors.web import says, web

HOSTILE = ("'; drop table content; --", "$(touch {marker})", "`touch {marker}`", "-e x", "--", "%s", 'a"b\\', "-help")


def cell(name: str) -> str:
    """The body of the notebook's cell that binds this name."""
    notebook = json.loads(catalog.load("health_check_failure").path.read_text(encoding="utf-8"))
    for one in notebook["cells"]:
        head, _, body = "".join(one["source"]).partition("\n")
        if one["cell_type"] == "code" and head.split()[1:2] == [name] and head.startswith("%%"):
            return body
    raise LookupError(name)


def shell(name: str, *arguments: str) -> Reading:
    return Shell(Context()).script(name, cell(name), arguments)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "s", settings=FAST) as made:
        with psycopg.connect(made.superuser_dsn, autocommit=True) as conn:
            conn.execute("CREATE ROLE monitor LOGIN PASSWORD 'Canary-0a1b2c3d'; GRANT pg_monitor TO monitor")
        yield made


def test_the_database_says_whether_it_serves(server: EmbeddedPostgres) -> None:
    postgres = Postgres(Context(), server.dsn(user="monitor", password="Canary-0a1b2c3d"), None)
    found = postgres.query("database_serves", cell("database_serves"), {})
    assert found.state == "ok", found.reason
    (row,) = found.rows
    assert (row["standby"], row["read_only"], row["waiting_for_a_lock"], row["long_statements"]) == (False, "off", 0, 0)
    postgres.close()


def test_the_log_is_read_for_last_words_within_the_window(tmp_path: Path) -> None:
    log, now = tmp_path / "app.log", datetime.now(UTC)
    lines = {
        "Error: listen EADDRINUSE: address already in use :::3000": 5,
        "ENOSPC: no space left on device, write": 4,
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory": 3,
        "Error: EMFILE: too many open files": 2,
        "running migrations": 2,
        "Server started, listening on 0.0.0.0:8080": 1,
        "SIGTERM received, shutting down": 1,
        "connect ECONNREFUSED 127.0.0.1:6379": 1,
        "request served": 1,
    }
    old = (now - timedelta(hours=3)).isoformat()
    text = [f"{(now - timedelta(minutes=minutes)).isoformat()} ERROR {line}" for line, minutes in lines.items()]
    log.write_text("\n".join([f"{old} ERROR ENOSPC: no space left on device", *text]) + "\n")
    found = shell("app_errors", (now - timedelta(hours=1)).isoformat(timespec="seconds"), str(log))
    assert found.state == "ok", found.reason
    assert {row["pattern"]: int(row["count"]) for row in found.rows} == dict.fromkeys(
        ("EADDRINUSE", "ENOSPC", "out of memory", "EMFILE", "migration", "listening", "shutting down",
         "no connection to something"), 1
    )  # fmt: skip


def test_a_log_that_cannot_be_read_is_unknown_and_none_is_not_configured(tmp_path: Path) -> None:
    since = datetime.now(UTC).isoformat()
    assert shell("app_errors", since).state == "not_configured"
    missing = shell("app_errors", since, str(tmp_path / "none.log"))
    assert missing.state == "partial"
    assert "cannot be read" in missing.reason


def test_a_name_has_its_addresses_and_one_that_is_gone_has_none() -> None:
    assert "127.0.0.1" in {row["address"] for row in shell("name_here", "localhost").rows}
    gone = shell("name_here", "health.invalid")
    assert (gone.state, gone.rows) == ("ok", [])
    assert shell("name_here", "").rows == []


def test_the_certificate_that_is_served_is_read_whoever_trusts_it(tmp_path: Path) -> None:
    with web(says("ok"), Authority(tmp_path).server("shop.example", days=-3)) as port:
        found = shell("certificate_served", "127.0.0.1", str(port))
    assert found.state == "ok", found.reason
    fields = {row["field"]: row["content"] for row in found.rows}
    ends = datetime.strptime(fields["notAfter"], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert abs(ends - datetime.now(UTC) + timedelta(days=3)) < timedelta(minutes=5)
    assert "test authority" in fields["issuer"]
    assert shell("certificate_served", "", "443").rows == []


def test_a_host_tells_its_addresses() -> None:
    assert "127.0.0.1" in {row["address"] for row in shell("instance_addresses").rows}


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_stay_data(value: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    given = value.format(marker=marker) if "{marker}" in value else value
    for name, arguments in (
        ("name_here", (given,)), ("certificate_served", (given, "443")), ("certificate_served", ("127.0.0.1", given)),
        ("app_errors", (given, str(tmp_path / "none"))), ("app_errors", ("2026-01-01T00:00:00+00:00", given)),
    ):  # fmt: skip
        shell(name, *arguments)
    assert not marker.exists()
