"""What the doctor says of each kind of role, on a real server, and with which status the command ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from runbook.doctor import Check, examine
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.settings import from_plain
from tests.support import free_port

PASSWORD = "Canary-0a1b2c3d"
ROLES = f"""
    CREATE ROLE proper LOGIN PASSWORD '{PASSWORD}'; GRANT pg_monitor TO proper;
    CREATE ROLE "odd ""user" LOGIN PASSWORD '{PASSWORD}';
    CREATE ROLE boss LOGIN SUPERUSER PASSWORD '{PASSWORD}';
    CREATE ROLE writer LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}'; GRANT pg_monitor TO writer;
    CREATE ROLE acting LOGIN PASSWORD '{PASSWORD}'; GRANT pg_signal_backend, pg_read_all_stats TO acting;
    CREATE ROLE reserve LOGIN PASSWORD '{PASSWORD}'; GRANT pg_monitor, pg_use_reserved_connections TO reserve;
    CREATE TABLE content (id int); GRANT INSERT ON content TO writer;
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "s", settings=FAST) as made:
        with psycopg.connect(made.superuser_dsn, autocommit=True) as conn:
            conn.execute(ROLES)
        yield made


def checks(server: EmbeddedPostgres, *, archive: Any = "/tmp", **roles: str) -> dict[str, Check]:
    section = {
        f"{key}_dsn" if key != "dsn" else key: server.dsn(user=role, password=PASSWORD) for key, role in roles.items()
    }
    found = examine(from_plain({"postgres": section, "archive": {"url": f"file:{archive}"}}))
    assert PASSWORD not in repr(found)
    return {f"{c.system}: {c.check}": c for c in found}


def bad(found: dict[str, Check]) -> dict[str, Check]:
    return {key: check for key, check in found.items() if check.ok is False}


def test_a_proper_role_passes_every_check(server: EmbeddedPostgres, tmp_path: Any) -> None:
    found = checks(server, dsn="proper", archive=tmp_path)
    assert bad(found) == {}
    assert found["postgres.dsn: version"].seen.startswith("PostgreSQL 18")
    assert "as proper" in found["postgres.dsn: reachable"].seen


def test_a_role_that_sees_nothing_is_given_the_grant_that_is_missing(server: EmbeddedPostgres, tmp_path: Any) -> None:
    found = bad(checks(server, dsn='odd "user', archive=tmp_path))
    assert set(found) == {"postgres.dsn: sees all sessions", "postgres.dsn: reads all settings"}
    grant = found["postgres.dsn: sees all sessions"].remedy
    assert grant == 'GRANT pg_monitor TO "odd ""user";'
    with psycopg.connect(server.superuser_dsn) as conn:
        conn.execute(grant.encode())
        conn.rollback()


def test_a_superuser_is_too_much(server: EmbeddedPostgres, tmp_path: Any) -> None:
    found = bad(checks(server, dsn="boss", archive=tmp_path))
    assert "superuser" in found["postgres.dsn: cannot act"].seen
    assert "CREATE ROLE" in found["postgres.dsn: cannot act"].remedy


def test_a_role_that_may_write_is_told_what(server: EmbeddedPostgres, tmp_path: Any) -> None:
    (check,) = bad(checks(server, dsn="writer", archive=tmp_path)).values()
    assert check.check == "cannot write"
    for power in ("create roles", "create databases", "write 1 tables"):
        assert power in check.seen


def test_an_acting_role_and_a_reserve_are_judged_by_what_they_are_for(server: EmbeddedPostgres, tmp_path: Any) -> None:
    assert bad(checks(server, action="acting", reserve="reserve", archive=tmp_path)) == {}
    found = bad(checks(server, action="proper", reserve="proper", archive=tmp_path))
    assert found["postgres.action_dsn: may end sessions"].remedy == 'GRANT pg_signal_backend TO "proper";'
    assert "pg_use_reserved_connections" in found["postgres.reserve_dsn: may use reserved slots"].remedy


def test_what_cannot_be_reached_is_told_with_the_reason(tmp_path: Any) -> None:
    port = free_port()
    found = {c.system: c for c in examine(from_plain({
        "postgres": {"dsn": f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/d", "pgbouncer_dsn": f"postgresql://u@127.0.0.1:{port}/d",
                     "action_dsn": f"host=x password={PASSWORD} {PASSWORD}"},
        "archive": {"url": f"file:{tmp_path}"},
    }))}  # fmt: skip
    assert found["postgres.dsn"].seen.startswith("unreachable")
    assert found["postgres.pgbouncer_dsn"].ok is False
    assert found["postgres.action_dsn"].ok is False
    assert PASSWORD not in repr(found)


def test_what_is_not_configured_is_no_fault(tmp_path: Any) -> None:
    found = examine(from_plain({"archive": {"url": f"file:{tmp_path}"}}))
    assert [c.system for c in found if c.ok is False] == []
    assert [c.seen for c in found if c.system == "postgres.dsn"] == ["not configured"]


def test_an_archive_that_cannot_be_written_is_a_fault(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    (archive,) = [c for c in examine(from_plain({"archive": {"url": f"file:{tmp_path}/file/x"}})) if c.ok is False]
    assert (archive.system, archive.check) == ("archive", "writable")


def test_a_service_with_a_database_of_its_own_is_examined_there(server: EmbeddedPostgres, tmp_path: Any) -> None:
    proper, boss = (server.dsn(user=role, password=PASSWORD) for role in ("proper", "boss"))
    found = examine(from_plain({
        "postgres": {"dsn": proper},
        "services": {"billing": {"postgres": {"dsn": boss}}, "other": {"queue": {"name": "q"}}},
        "archive": {"url": f"file:{tmp_path}"},
    }))  # fmt: skip
    assert {c.system for c in found if c.ok is False} == {"services.billing.postgres.dsn"}
    assert not [c for c in found if c.system.startswith("services.other")]
