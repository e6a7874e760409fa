"""Every statement that ships, on every supported version of PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources

import pytest

from runbook import catalog
from runbook.connectors.postgres import placeholders
from runbook.embedded import EmbeddedPostgres
from tests.integration.connectors.conftest import Connect
from tests.integration.connectors.servers import VERSIONS, dsn, holding

PROBES = sorted(
    p.name.removesuffix(".sql")
    for p in resources.files("runbook.connectors").joinpath("sql").iterdir()
    if p.name.endswith(".sql")
)


OF_STATISTICS = ("statements", "slowest_statements")
"""They need pg_stat_statements, which not every server has."""
SINCE = {"checkpointer": 17}
"""Versions that brought what a probe reads."""
MONITORS = ("disk_spills", "disk_wal")
"""They list files of the server, which only pg_monitor may."""


def shipped() -> list[tuple[str, str]]:
    found = []
    for name in catalog.names():
        for cell in json.loads(catalog.load(name).path.read_text())["cells"]:
            head, _, body = "".join(cell["source"]).partition("\n")
            if head.startswith("%%sql "):
                found.append((head.split()[1], body))
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("role", ["monitor", "plain", "super"])
def test_every_probe_and_every_statement_of_a_notebook_runs(
    every_server: Callable[[int], EmbeddedPostgres], connect: Connect, version: int, role: str
) -> None:
    server = every_server(version)
    postgres = connect(dsn(server, role))
    values = {p.name: p.default for r in catalog.load_all() for p in r.parameters.values()}
    values["since"] = "2026-11-23T10:00:00+00:00"
    with holding(server, "app", 1) as (session,):
        session.execute("SELECT 'a literal that is somebody''s data'")
        readings = [postgres.connect(), *(postgres.probe(name) for name in PROBES)]
        absent = {r.name: r.state for r in readings if r.name in OF_STATISTICS or SINCE.get(r.name, 0) > version}
        wanted = {"permission_denied"} if role == "super" else {"not_configured"}
        assert set(absent.values()) <= wanted | {"ok"}
        refused = {r.name: r.state for r in readings if r.state != "ok" and r.name not in absent}
        assert refused == (dict.fromkeys(MONITORS, "permission_denied") if role == "plain" else {})
        assert int(readings[0].value["version_num"]) // 10000 == version
        for name, body in shipped():
            reading = postgres.query(name, body, {key: values[key] for key in placeholders(body)})
            allowed = {"ok", "not_configured"} if name in OF_STATISTICS else {"ok"}
            if role == "super" and (name in OF_STATISTICS or "content" in body):
                allowed = {"ok", "permission_denied"}  # what is not in pg_catalog is out of such a role's sight
            assert reading.state in allowed, (name, reading.reason)
    assert "somebody" not in repr(postgres.context.recorder.readings)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_role_without_pg_monitor_is_told_how_much_it_does_not_see(
    every_server: Callable[[int], EmbeddedPostgres], connect: Connect, version: int
) -> None:
    server = every_server(version)
    with holding(server, "app", 3):
        plain = connect(dsn(server, "plain"))
        assert plain.probe("headroom").value[0]["hidden_rows"] >= 3
        plain.close()  # one diagnosing connection a database
        assert connect(dsn(server, "monitor")).probe("headroom").value[0]["hidden_rows"] == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_kept_only_reserved_slots_is_told_by_its_code(
    every_server: Callable[[int], EmbeddedPostgres], connect: Connect, version: int
) -> None:
    server = every_server(version)
    with holding(server, "app"):
        postgres = connect(dsn(server, "monitor"))
        reading = postgres.connect()
        assert (reading.state, reading.code) == ("unreachable", "53300")
        assert postgres.refused is not None
        assert postgres.refused.stage == "after_authentication"
        assert postgres.probe("headroom").state == "unreachable"
        postgres.close()
        with_reserve = connect(dsn(server, "monitor"), dsn(server, "super"))
        reading = with_reserve.connect()
        assert (reading.state, reading.value["via"], reading.value["refused_code"]) == ("ok", "reserve", "53300")
        assert with_reserve.probe("headroom").known


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_without_any_slot_is_told_by_its_code_before_authentication(
    every_server: Callable[[int], EmbeddedPostgres], connect: Connect, version: int
) -> None:
    server = every_server(version)
    with holding(server, "super"):
        postgres = connect(dsn(server, "monitor"), dsn(server, "super"))
        reading = postgres.connect()
        assert (reading.state, reading.code, reading.known) == ("unreachable", "53300", False)
        assert postgres.refused is not None
        assert postgres.refused.stage == "before_authentication"
