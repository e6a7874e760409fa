"""PgBouncer's admin console: ``SHOW`` and nothing else.

The console speaks the simple protocol only and knows no transactions; it is a place where one word can pause
everything, so the statements are a closed list.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runbook.connectors.base import Connector, Context, Failure, Fetched
from runbook.connectors.postgres_conninfo import parsed
from runbook.connectors.postgres_values import plain
from runbook.connectors.postgres_wire import cut
from runbook.result import Reading

SHOWS = ("POOLS", "DATABASES", "CONFIG", "STATS")
if TYPE_CHECKING:
    import psycopg

LIMIT_SECONDS = 5.0
_COLUMNS = {
    "POOLS": (
        "database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_login", "maxwait",
        "maxwait_us", "pool_mode",
    ),
    "DATABASES": ("name", "host", "port", "database", "pool_size", "reserve_pool", "max_connections",
                  "current_connections", "paused", "disabled"),
    "CONFIG": ("key", "value"),
}  # fmt: skip
# Its errors carry no code that could be relied on; not a mere "auth", which may stand in a host's name.
_REFUSED = re.compile(r"authentication failed|no such user|not allowed|no password supplied|SASL", re.IGNORECASE)
_CONFIG_KEYS = frozenset(
    {"max_client_conn", "default_pool_size", "reserve_pool_size", "query_wait_timeout", "pool_mode"}
)


class PgBouncer(Connector):
    """One PgBouncer, seen through its admin console (a ``stats_users`` role is enough)."""

    source = "pgbouncer"
    statements = None

    def __init__(self, context: Context, dsn: str | None) -> None:
        import psycopg

        self.failures = (psycopg.Error, OSError, UnicodeError)
        self._dsn = dsn
        self._conn: psycopg.Connection[Any] | None = None
        info = parsed(dsn) if dsn else {}
        # libpq's own words on a bad DSN repeat parts of it.
        self._unusable = "" if info else "is no connection string that libpq would take" if dsn else "is not set"
        super().__init__(context, f"{info.get('host') or 'local'}:{info.get('port') or 6432}" if info else "pgbouncer")

    def show(self, name: str, what: str) -> Reading:
        """One of :data:`SHOWS`, the columns that the rules need."""
        if what not in SHOWS:
            raise ValueError(f"SHOW {what} is not one of {', '.join(SHOWS)}")
        if self._unusable:
            reason = f"postgres.pgbouncer_dsn {self._unusable}"
            return self.missing(name, f"SHOW {what}", Failure(state="not_configured", reason=reason))
        return self.read(name, f"SHOW {what}", lambda: Fetched(value=self._rows(what)), limit_seconds=LIMIT_SECONDS)

    def _rows(self, what: str) -> list[dict[str, Any]]:
        import psycopg
        from psycopg.rows import dict_row

        assert self._dsn is not None
        with psycopg.connect(
            self._dsn, autocommit=True, connect_timeout=3, application_name="runbook:diagnose", prepare_threshold=None
        ) as conn:
            self._conn = conn
            cursor = conn.cursor(row_factory=dict_row)
            cursor.execute(f"SHOW {what}".encode())
            wanted = _COLUMNS.get(what)
            rows = [
                {key: plain(value) for key, value in row.items() if wanted is None or key in wanted} for row in cursor
            ]
        return [row for row in rows if row["key"] in _CONFIG_KEYS] if what == "CONFIG" else rows

    def abort(self) -> None:
        cut(self._conn)

    def failure(self, error: Exception) -> Failure:
        text = str(error).strip().split("\n")[0]
        if _REFUSED.search(text):
            return Failure(state="auth_failed", reason=text)
        return Failure(state="unreachable", reason=text)
