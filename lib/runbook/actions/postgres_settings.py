"""Settings and limits of a role or a database, for the sessions that begin afterwards; each can be put back.

The value is compared before it is changed and before it is put back: what somebody else has set since stays.
Source: reference fault model, R2 (P01, P06, P07): a role's setting holds for new sessions only.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from psycopg import sql

from runbook.actions.attempts import left_alone, only_target
from runbook.actions.one_value import OneValue
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.postgres_acting import Connection, acting
from runbook.result import Precondition

TIMEOUTS = frozenset({"idle_in_transaction_session_timeout", "idle_session_timeout", "statement_timeout",
                      "lock_timeout", "transaction_timeout"})  # fmt: skip
"""The only settings that are changed this way."""


class _OfOne(OneValue):
    """What is common: one named thing, a value of it, and the same value put back."""

    label: ClassVar[str]
    #: Which database it is done from; ``None`` = the one of the login.
    beside: ClassVar[str | None] = None

    @abstractmethod
    def value(self, connection: Connection, identity: dict[str, Any]) -> Any:
        """The value now; ``None`` = not set.

        Raises
        ------
        Refused
            There is no such thing.
        """

    @abstractmethod
    def statement(self, identity: dict[str, Any], value: Any) -> sql.Composed:
        """What sets the value; ``None`` takes the setting away."""

    @abstractmethod
    def wanted(self, target: dict[str, Any]) -> tuple[str, dict[str, Any], Any]:
        """Name, identity and new value that a proposal's target asks for."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        name, identity, after = self.wanted(dict(only_target(order)))
        with acting(self.settings, database=self.beside) as connection:
            before = self.value(connection, identity)
        if before == after:
            raise Refused(f"nothing is left to do: {self.label} of {name} is {after} already")
        shown = "not set" if before is None else before
        target = Target(name=name, identity=identity, shown=f"{self.label} of {name} is {shown}",
                        change=f"{self.label} becomes {after}", before=before, after=after)  # fmt: skip
        return Draft(
            targets=[target],
            risks=("holds for sessions that begin afterwards; those that are there keep what they have",),
            preconditions=(Precondition(label=f"{self.label} is still {shown}", holds=True, value=shown),),
            undo=f"{self.label} becomes {shown} again, unless somebody has changed it since",
        )

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        with acting(self.settings, database=self.beside) as connection:
            now = self.value(connection, dict(target.identity))
        return now == target.after, f"{self.label} is {now}"

    def set(self, target: Target, *, expected: Any, value: Any) -> Effect:
        """See :meth:`OneValue.set`."""
        identity = dict(target.identity)
        with acting(self.settings, database=self.beside) as connection, connection.transaction():
            now = self.value(connection, identity)
            if now != expected:
                return left_alone(target.name, f"it is {now} by now")
            connection.execute(self.statement(identity, value))
        return Effect(target=target.name, done=True, said=f"{self.label} is {'not set' if value is None else value}")


class RoleSetting(_OfOne):
    """``postgres.set_role_timeout``: a time limit for the sessions of a role."""

    label = "the time limit"

    def wanted(self, target: dict[str, Any]) -> tuple[str, dict[str, Any], Any]:
        """See :meth:`_OfOne.wanted`."""
        setting = str(target.get("setting"))
        if setting not in TIMEOUTS:
            raise Refused(f"{setting} is no time limit of a session")
        return str(target["role"]), {"role": str(target["role"]), "setting": setting}, str(target["to"])

    def value(self, connection: Connection, identity: dict[str, Any]) -> Any:
        """See :meth:`_OfOne.value`."""
        row = connection.execute(
            "SELECT s.setconfig FROM pg_roles r"
            " LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0 WHERE r.rolname = %s",
            (identity["role"],),
        ).fetchone()
        if row is None:
            raise Refused(f"there is no role {identity['role']}")
        pairs = (str(entry).partition("=") for entry in row["setconfig"] or [])
        return {name: value for name, _, value in pairs}.get(identity["setting"])

    def statement(self, identity: dict[str, Any], value: Any) -> sql.Composed:
        """See :meth:`_OfOne.statement`."""
        role, setting = sql.Identifier(identity["role"]), sql.Identifier(identity["setting"])
        if value is None:
            return sql.SQL("ALTER ROLE {} RESET {}").format(role, setting)
        return sql.SQL("ALTER ROLE {} SET {} = {}").format(role, setting, sql.Literal(str(value)))


class _Limit(_OfOne):
    label = "the connection limit"
    kind: ClassVar[str]
    query: ClassVar[str]

    def wanted(self, target: dict[str, Any]) -> tuple[str, dict[str, Any], Any]:
        """See :meth:`_OfOne.wanted`."""
        name, after = str(target[self.kind]), int(target["to"])
        if not 0 < after <= 10_000:
            raise Refused(f"{after} is no connection limit")
        return name, {self.kind: name}, after

    def value(self, connection: Connection, identity: dict[str, Any]) -> Any:
        """See :meth:`_OfOne.value`."""
        row = connection.execute(self.query.encode(), (identity[self.kind],)).fetchone()
        if row is None:
            raise Refused(f"there is no {self.kind} {identity[self.kind]}")
        return int(row["value"])

    def statement(self, identity: dict[str, Any], value: Any) -> sql.Composed:
        """See :meth:`_OfOne.statement`."""
        return sql.SQL("ALTER {} {} CONNECTION LIMIT {}").format(
            sql.SQL(self.kind.upper()), sql.Identifier(identity[self.kind]), sql.Literal(int(value))
        )


class RoleLimit(_Limit):
    """``postgres.raise_role_limit``: how many sessions a role may have."""

    kind = "role"
    query = "SELECT rolconnlimit AS value FROM pg_roles WHERE rolname = %s"


class DatabaseLimit(_Limit):
    """``postgres.raise_database_limit``: how many sessions a database may have."""

    kind = "database"
    beside = "postgres"
    query = "SELECT datconnlimit AS value FROM pg_database WHERE datname = %s"
