"""The connection that acts on the PostgreSQL under diagnosis, by ``postgres.action_dsn`` and by no other login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from runbook.actions.plan import Refused

if TYPE_CHECKING:
    from runbook.settings import Settings

APPLICATION_NAME = "runbook:act"
_CONNECT_SECONDS = 5
_SESSION = "SET statement_timeout = '5s'; SET lock_timeout = '500ms'; SET timezone = 'UTC'"

Connection = psycopg.Connection[dict[str, Any]]


@contextmanager
def acting(settings: Settings, *, database: str | None = None) -> Iterator[Connection]:
    """A connection of the acting role, in autocommit mode.

    Parameters
    ----------
    database
        Another one than the login names: what concerns a database that is full can be done from beside it.

    Raises
    ------
    Refused
        It is not configured, it cannot be reached, it is the diagnosing role, or a superuser.
    """
    dsn = settings.postgres.action_dsn
    if dsn is None:
        raise Refused("postgres.action_dsn is not set", remedy="Do it by hand, or name a login that may act")
    diagnosing = settings.postgres.dsn
    try:
        connection = psycopg.connect(
            _named(dsn.get_secret_value(), database), autocommit=True, row_factory=dict_row,
            connect_timeout=_CONNECT_SECONDS, application_name=APPLICATION_NAME,
        )  # fmt: skip
    except psycopg.Error as error:
        raise Refused(f"the acting login does not get in: {_reason(error)}", remedy="See runbook doctor") from None
    with connection:
        # Not as a start-up option, which a pooler may refuse.
        connection.execute(_SESSION)
        role = connection.execute(
            "SELECT current_user AS name, rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert role is not None
        if role["rolsuper"]:
            raise Refused(f"role {role['name']} is a superuser, and no superuser acts", remedy="Use pg_signal_backend")
        if diagnosing is not None and _user(diagnosing.get_secret_value()) == role["name"]:
            raise Refused(
                f"role {role['name']} is the one that diagnoses, and that one never acts",
                remedy="Give postgres.action_dsn a role of its own",
            )
        with refusals():
            yield connection


@contextmanager
def refusals() -> Iterator[None]:
    """What the server says no to is a refusal."""
    try:
        yield
    except psycopg.Error as error:
        raise Refused(f"PostgreSQL refuses: {_reason(error)}", remedy="See what the action needs") from None


def _named(dsn: str, database: str | None) -> str:
    return make_conninfo(dsn, dbname=database) if database else dsn


def _user(dsn: str) -> str | None:
    try:
        user = conninfo_to_dict(dsn).get("user")
    except psycopg.Error:
        return None
    return str(user) if user else None


def _reason(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0] if lines else type(error).__name__}{f' ({error.sqlstate})' if error.sqlstate else ''}"
