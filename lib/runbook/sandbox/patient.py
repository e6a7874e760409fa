"""The patient: a small PostgreSQL with an application's roles, one table of content, and few connection slots.

Small on purpose: 25 usable slots fill within a second. Its data is worthless and its settings are the fast ones; it
must never be pointed at by a store.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runbook.embedded import FAST

if TYPE_CHECKING:
    import psycopg

DATABASE = "app"

SETTINGS: Mapping[str, str] = {
    **FAST,
    "max_connections": "30",
    "superuser_reserved_connections": "3",
    "reserved_connections": "2",
    "max_prepared_transactions": "10",
    "max_wal_senders": "3",
    "shared_buffers": "128MB",
    # Without pg_stat_statements nothing else switches query identifiers on.
    "compute_query_id": "on",
    # Half-authenticated sessions live this long; the default of 60 s could end in the middle of a drill.
    "authentication_timeout": "300s",
    # The anti-wraparound worker of P02c should come within seconds.
    "autovacuum_naptime": "1s",
    "timezone": "UTC",
}
MAX_CONNECTIONS = 30
USABLE = 25
"""Slots that ordinary roles can use: 30, less 3 for superusers, less 2 for ``pg_use_reserved_connections``."""

ROLES: Mapping[str, str] = {
    "web": "",
    "worker": "GRANT app_owner TO worker",
    "batch": "",
    "monitor": "GRANT pg_monitor TO monitor",
    "oncall": "GRANT pg_signal_backend, pg_read_all_stats TO oncall; ALTER ROLE oncall CREATEROLE;"
    " GRANT web, worker, batch TO oncall WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
    "reserve": "GRANT pg_monitor, pg_use_reserved_connections TO reserve",
    "nobody_special": "",
    "replicator": "ALTER ROLE replicator REPLICATION",
    "legacy_admin": "ALTER ROLE legacy_admin SUPERUSER",
}
"""Login roles and what each is granted."""

PLAYS = "SELECT i, 'content-' || i % 3000, 'Content-' || i FROM generate_series(1, 3000) AS i"
PLAYS_INDEX = "plays_reference ON plays (lower(reference))"
"""A table that a fault makes large, and the index that its searches need."""
_CONTENT = (
    """CREATE TYPE "ContentStatus" AS ENUM ('UPLOADING', 'PROCESSING', 'PENDING_REVIEW', 'READY', 'FAILED')""",
    """CREATE TABLE content (
        id text PRIMARY KEY,
        "creatorId" text NOT NULL,
        title text NOT NULL,
        status "ContentStatus" NOT NULL,
        "mediaUrl" text,
        "createdAt" timestamp(3) NOT NULL,
        "updatedAt" timestamp(3) NOT NULL)""",
    """INSERT INTO content
        SELECT 'content-' || i, 'creator-' || i % 97, 'Title ' || i,
               (CASE WHEN i % 61 = 0 THEN 'FAILED' WHEN i <= 3 THEN 'PROCESSING' WHEN i % 23 = 0 THEN 'PENDING_REVIEW'
                     ELSE 'READY' END)::"ContentStatus",
               CASE WHEN i % 61 <> 0 AND i > 3 THEN 'https://media.example/' || i END,
               timezone('UTC', now()) - i * interval '2 min', timezone('UTC', now()) - i * interval '110 s'
        FROM generate_series(1, 3000) AS i""",
    """CREATE INDEX content_created ON content ("createdAt")""",
    "ALTER TABLE content OWNER TO app_owner",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON content TO web, worker",
    "GRANT SELECT ON content TO monitor, oncall, reserve",
    """GRANT UPDATE (status, "updatedAt") ON content TO oncall""",
    "CREATE TABLE plays (id bigint PRIMARY KEY, content_id text NOT NULL, reference text NOT NULL)",
    f"INSERT INTO plays {PLAYS}",
    f"CREATE INDEX {PLAYS_INDEX}",
    "ALTER TABLE plays OWNER TO app_owner",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON plays TO web, worker",
    "GRANT SELECT ON plays TO monitor, oncall, reserve",
    "VACUUM (ANALYZE) content, plays",
)


def new_passwords() -> dict[str, str]:
    """A random password for each login role."""
    return {role: secrets.token_urlsafe(18) for role in ROLES}


def create_roles(connection: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    """Roles and the empty database; ``connection`` is a superuser's, with autocommit."""
    from psycopg import sql

    connection.execute("CREATE ROLE app_owner NOLOGIN")
    for role, grant in ROLES.items():
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        connection.execute(create.format(sql.Identifier(role), sql.Literal(passwords[role])))
        if grant:
            connection.execute(grant.encode())
    connection.execute(sql.SQL("CREATE DATABASE {} OWNER app_owner").format(sql.Identifier(DATABASE)))


def create_content(connection: psycopg.Connection) -> None:
    """Tables ``content`` and ``plays`` with a few thousand rows each.

    ``connection`` is a superuser's on the application's database.
    """
    for statement in _CONTENT:
        connection.execute(statement.encode())
