"""PostgreSQL and PgBouncer: reachable, which version, what our role sees, what it could do and should not.

The GRANT that is missing is printed, not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runbook.connectors.base import Context
from runbook.doctor.check import Check

if TYPE_CHECKING:
    from runbook.settings import Settings

VERSIONS = range(13, 19)
"""Major versions of PostgreSQL that the probes were tried on."""


def databases(prefix: str, settings: Settings, context: Context) -> Iterator[Check]:
    """What is configured under ``postgres``, each DSN by its purpose."""
    section = settings.postgres
    yield from _postgres(f"{prefix}postgres.dsn", section.dsn, context, _diagnosing)
    yield from _postgres(f"{prefix}postgres.reserve_dsn", section.reserve_dsn, context, _reserve)
    yield from _postgres(f"{prefix}postgres.action_dsn", section.action_dsn, context, _acting)
    yield from _pgbouncer(f"{prefix}postgres.pgbouncer_dsn", section.pgbouncer_dsn, context)


def _postgres(key: str, dsn: Any, context: Context, judge: Any) -> Iterator[Check]:
    from runbook.connectors.postgres import Postgres

    if dsn is None:
        yield Check(system=key, check="configured", ok=None, seen="not configured")
        return
    postgres = Postgres(context, dsn.get_secret_value())
    try:
        connection, powers = postgres.connect(), postgres.probe("powers")
    finally:
        postgres.close()
    if not connection.known:
        yield Check(system=key, check="reachable", ok=False, seen=f"{connection.state}: {connection.reason}",
                    remedy="Check host, port, role and password; a full server needs postgres.reserve_dsn")  # fmt: skip
        return
    facts = connection.rows[0] | (powers.rows[0] if powers.known and powers.rows else {})
    via = "" if facts["via"] == "dsn" else f", by way of the {facts['via']}: {facts['refused_message']}"
    seen = f"{connection.target} as {facts['role']}{via}"
    yield Check(system=key, check="reachable", ok=not facts["refused"], seen=seen,
                remedy="The role is refused at this database; see its connection limit")  # fmt: skip
    major = int(facts["version_num"]) // 10000
    yield Check(system=key, check="version", ok=major in VERSIONS, seen=f"PostgreSQL {facts['version']}",
                remedy=f"Tried on {VERSIONS.start} to {VERSIONS.stop - 1}")  # fmt: skip
    yield from judge(key, facts)


def _diagnosing(key: str, facts: Mapping[str, Any]) -> Iterator[Check]:
    role = _quoted(facts["role"])
    yield Check(system=key, check="sees all sessions", ok=bool(facts["sees_all"]),
                seen="has pg_read_all_stats" if facts["sees_all"] else f"{facts['hidden_rows']} sessions are hidden",
                remedy=f"GRANT pg_monitor TO {role};")  # fmt: skip
    yield Check(system=key, check="reads all settings", ok=bool(facts["reads_settings"]),
                seen="has pg_read_all_settings" if facts["reads_settings"] else "some settings are hidden",
                remedy=f"GRANT pg_monitor TO {role};")  # fmt: skip
    yield Check(system=key, check="cannot act", ok=not facts["powers"], seen=facts["powers"] or "cannot signal or act",
                remedy="Use a role of its own: CREATE ROLE runbook LOGIN; GRANT pg_monitor TO runbook;")  # fmt: skip
    can = [text for name, text in (("createrole", "create roles"), ("createdb", "create databases"),
                                   ("replication", "replicate"), ("may_create_schemas", "create schemas"))
           if facts.get(name)]  # fmt: skip
    if facts.get("writable_tables"):
        can.append(f"write {facts['writable_tables']} tables")
    yield Check(system=key, check="cannot write", ok=not can, seen=f"may {', '.join(can)}" if can else "writes nothing",
                remedy=f"REVOKE what {role} does not need to read statistics")  # fmt: skip
    statements = facts.get("has_statements")
    yield Check(system=key, check="pg_stat_statements", ok=True if statements else None,
                seen="installed" if statements else "not in this database: slow statements stay unknown")  # fmt: skip


def _reserve(key: str, facts: Mapping[str, Any]) -> Iterator[Check]:
    reserved = facts.get("uses_reserve") or facts.get("superuser")
    old = int(facts["version_num"]) < 160000
    grant = f"GRANT pg_use_reserved_connections TO {_quoted(facts['role'])}; and set reserved_connections"
    yield Check(system=key, check="may use reserved slots", ok=bool(reserved),
                seen="yes" if reserved else "no reserved slot for this role",
                remedy="Before version 16 only a superuser has one" if old else grant)  # fmt: skip
    yield Check(system=key, check="sees all sessions", ok=bool(facts["sees_all"]),
                seen="has pg_read_all_stats" if facts["sees_all"] else f"{facts['hidden_rows']} sessions are hidden",
                remedy=f"GRANT pg_monitor TO {_quoted(facts['role'])};")  # fmt: skip


def _acting(key: str, facts: Mapping[str, Any]) -> Iterator[Check]:
    role = _quoted(facts["role"])
    yield Check(system=key, check="may end sessions", ok=bool(facts["may_signal"]),
                seen="has pg_signal_backend" if facts["may_signal"] else "cannot signal",
                remedy=f"GRANT pg_signal_backend TO {role};")  # fmt: skip
    yield Check(system=key, check="sees whom it acts on", ok=bool(facts["sees_all"]),
                seen="has pg_read_all_stats" if facts["sees_all"] else "identities of sessions are hidden",
                remedy=f"GRANT pg_read_all_stats TO {role};")  # fmt: skip
    yield Check(system=key, check="no superuser", ok=not facts["superuser"],
                seen="superuser" if facts["superuser"] else "ordinary role",
                remedy="An acting role needs pg_signal_backend and pg_read_all_stats, no more")  # fmt: skip


def _pgbouncer(key: str, dsn: Any, context: Context) -> Iterator[Check]:
    from runbook.connectors.pgbouncer import PgBouncer

    if dsn is None:
        yield Check(system=key, check="configured", ok=None, seen="not configured")
        return
    reading = PgBouncer(context, dsn.get_secret_value()).show("pools", "POOLS")
    yield Check(system=key, check="SHOW POOLS", ok=reading.known,
                seen=f"{len(reading.rows)} pools" if reading.known else f"{reading.state}: {reading.reason}",
                remedy="The user must be in stats_users or admin_users")  # fmt: skip


def _quoted(name: Any) -> str:
    """As an identifier, always in quotes: a role may be called ``user``."""
    return '"' + str(name).replace('"', '""') + '"'
