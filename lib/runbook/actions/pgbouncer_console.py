"""PgBouncer's admin console for those who act: a closed list of commands, one database or setting at a time.

The console knows neither transactions nor conditions: what is looked at and what is changed follow one another on one
connection, and whoever changes the same in between is not seen.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from runbook.actions.attempts import Unheard
from runbook.actions.plan import Refused
from runbook.connectors.postgres_conninfo import parsed
from runbook.connectors.postgres_wire import cut

if TYPE_CHECKING:
    from runbook.settings import Settings

SECONDS = 5.0
"""Time for one command."""
_NAME = re.compile(r'[^"\x00-\x1f\x7f]{1,63}')


class Console:
    """One connection to the console."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]], address: str, user: str) -> None:
        self._connection = connection
        self.address = address
        self._user = user

    def config(self) -> dict[str, str | None]:
        """Every setting as it is now."""
        return {str(row["key"]): row["value"] for row in self._rows("SHOW CONFIG")}

    def database(self, name: str) -> dict[str, Any]:
        """What the console says about one database.

        Raises
        ------
        Refused
            It does not know it.
        """
        row = next((row for row in self._rows("SHOW DATABASES") if row["name"] == name), None)
        if row is None:
            raise Refused(f"PgBouncer at {self.address} knows no database {name}")
        return row

    def databases(self) -> list[dict[str, Any]]:
        """All of them, its own console left out."""
        return [row for row in self._rows("SHOW DATABASES") if row["name"] != "pgbouncer"]

    def pools(self) -> int:
        """How many pools there are now: one for each database and user."""
        return sum(row["database"] != "pgbouncer" for row in self._rows("SHOW POOLS"))

    def set_number(self, setting: str, value: int) -> None:
        """``SET setting = value``."""
        self._do(f"SET {setting} = {int(value)}")

    def pause(self, database: str) -> None:
        """``PAUSE``: no statement of it is begun; answers when those under way have ended.

        Raises
        ------
        Unheard
            They have not ended in time; the database is paused all the same.
        """
        self._do(f"PAUSE {_quoted(database)}")

    def resume(self, database: str) -> None:
        """``RESUME``."""
        self._do(f"RESUME {_quoted(database)}")

    def reload(self) -> None:
        """``RELOAD``: read the files of the configuration anew."""
        self._do("RELOAD")

    def must_be_admin(self) -> None:
        """Whoever is no administrator can look, and change nothing.

        Raises
        ------
        Refused
            The login is none.
        """
        admins = {name.strip() for name in str(self.config().get("admin_users") or "").split(",")}
        if self._user not in admins:
            raise Refused(f"{self._user} is no administrator of PgBouncer", remedy="Name it in admin_users, or another")

    def _rows(self, statement: str) -> list[dict[str, Any]]:
        with self._in_time():
            return self._connection.execute(statement.encode()).fetchall()

    def _do(self, statement: str) -> None:
        try:
            with self._in_time():
                self._connection.execute(statement.encode())
        except psycopg.OperationalError as error:
            if self._connection.closed:
                raise Unheard(f"PgBouncer at {self.address} did not answer {statement} within {SECONDS:g} s") from None
            raise Refused(f"PgBouncer refuses {statement}: {_reason(error)}") from None
        except psycopg.Error as error:
            raise Refused(f"PgBouncer refuses {statement}: {_reason(error)}") from None

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        timer = threading.Timer(SECONDS, cut, (self._connection,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def console(settings: Settings) -> Iterator[Console]:
    """The console of ``postgres.pgbouncer_action_dsn``.

    Raises
    ------
    Refused
        It is not configured, cannot be reached, or refuses.
    """
    dsn = settings.postgres.pgbouncer_action_dsn
    info = parsed(dsn.get_secret_value()) if dsn else {}
    if dsn is None or not info:
        raise Refused("postgres.pgbouncer_action_dsn is not set, or none", remedy="Name PgBouncer's admin console")
    address = f"{info.get('host') or 'local'}:{info.get('port') or 6432}"
    try:
        connection = psycopg.connect(
            dsn.get_secret_value(), autocommit=True, connect_timeout=3, application_name="runbook:act",
            prepare_threshold=None, row_factory=dict_row,
        )  # fmt: skip
    except psycopg.Error as error:
        raise Refused(f"PgBouncer at {address} lets nobody in: {_reason(error)}", remedy="See runbook doctor") from None
    with connection:
        try:
            yield Console(connection, address, str(info.get("user") or ""))
        except psycopg.Error as error:
            raise Refused(f"PgBouncer at {address} refuses: {_reason(error)}") from None


def _quoted(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused("a database of that name cannot be named to PgBouncer")
    return f'"{name}"'


def _reason(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
