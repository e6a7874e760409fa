"""DSNs, read before anybody is asked: which server, and whether it is a DSN at all.

libpq's own words on a bad DSN repeat parts of it, the password perhaps; so it is never asked with one.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Mapping

from runbook.connectors.base import Failure


def unusable(dsn: str | None, conninfo: Mapping[str, str]) -> Failure | None:
    """Why no attempt is made at all; ``None`` for a DSN that can be tried. ``conninfo`` is what it parsed to."""
    if not dsn:
        return Failure(state="not_configured", reason="postgres.dsn is not set")
    if not conninfo:
        return Failure(state="not_configured", reason="postgres.dsn is no connection string that libpq would take")
    port = conninfo.get("port") or "5432"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return Failure(state="not_configured", reason="postgres.dsn names a port that is none")
    return None


def parsed(dsn: str) -> dict[str, str]:
    """The first host of a DSN with what belongs to it, the environment's defaults included; empty when unusable."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        values = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.ProgrammingError:
        return {}
    defaults = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE", "password": "PGPASSWORD",
                "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}  # fmt: skip
    for key, variable in defaults.items():
        if key not in values and os.environ.get(variable):
            values[key] = os.environ[variable]
    if "user" not in values:
        with contextlib.suppress(KeyError, OSError):
            values["user"] = getpass.getuser()
    return values | {key: values[key].split(",")[0] for key in ("host", "hostaddr", "port") if key in values}


def target_of(conninfo: Mapping[str, str]) -> str:
    """How a server is called in readings: host, port and database, never with credentials."""
    host = conninfo.get("host") or "local"
    return f"{host}:{conninfo.get('port') or 5432}/{conninfo.get('dbname') or conninfo.get('user') or ''}"
