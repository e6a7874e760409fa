"""Ending a session, or cancelling its statement: identity and act in one statement, session by session.

A session is the same when its pid, its start, and the moment of its last change are; one that has done anything since
the plan is another one, and is left alone. Never ours, a walsender, an autovacuum worker, a superuser, a replication
role, or a backup tool. Source: reference fault model, section 2, guarded statements A1 and A2.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from psycopg import sql

from runbook.actions.attempts import left_alone
from runbook.actions.kinds import Kind
from runbook.actions.one_by_one import one_by_one
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.postgres_acting import Connection, acting, refusals
from runbook.result import Precondition

DENIED = "^(pg_dump|pg_dumpall|pg_basebackup|pgbackrest|barman|wal-g|runbook)"
"""Application names, in lower case, that are never touched."""

_HEARD_SECONDS = 3.0

_LOOK = """
SELECT a.pid, a.backend_start, a.state_change, a.query_start, a.state, a.backend_type,
       coalesce(a.application_name, '') AS application_name, a.usename AS role, a.datname AS database,
       r.rolsuper, r.rolreplication,
       round(extract(epoch FROM clock_timestamp() - a.state_change)::numeric, 1)::float8 AS seconds,
       a.pid = pg_backend_pid() AS own, a.application_name ~* %(denied)s AS backup
  FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
 WHERE a.pid = ANY(%(pids)s)
"""

# Everything that the plan rests on once more, in the statement that acts.
_ACT = """
SELECT {function}(a.pid) AS done
  FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
 WHERE a.pid = %(pid)s AND a.backend_start = %(backend_start)s AND a.{moment} = %(moment)s AND {state}
   AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
   AND NOT r.rolsuper AND NOT r.rolreplication AND coalesce(a.application_name, '') !~* %(denied)s
"""


class _OnSessions(Kind):
    """What ending and cancelling have in common."""

    function: ClassVar[str]
    moment: ClassVar[str]
    state: ClassVar[str]
    #: What a session must be doing, as words and as a test of its row.
    doing: ClassVar[str]
    change: ClassVar[str]
    undo_text: ClassVar[str]
    risks: ClassVar[tuple[str, ...]]

    @staticmethod
    @abstractmethod
    def does(row: Mapping[str, Any]) -> bool:
        """Whether a session does that."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = {int(target["pid"]): target for target in order.targets if target.get("pid")}
        with acting(self.settings) as connection:
            rows = {row["pid"]: row for row in self._look(connection, list(wanted))}
        targets, left = [], []
        for pid, target in wanted.items():
            reason = self._why_not(rows.get(pid), target)
            if reason:
                left.append(f"pid {pid}: {reason}")
            else:
                targets.append(self._target(rows[pid]))
        if not targets:
            raise Refused("nothing is left to do: " + "; ".join(left or ["no session was named"]))
        return Draft(
            targets=targets, left_alone=left, risks=self.risks, undo=self.undo_text,
            preconditions=(Precondition(label=f"each session is still the same, and {self.doing}", holds=True),),
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        statement = sql.SQL(_ACT).format(
            function=sql.Identifier(self.function), moment=sql.Identifier(self.moment), state=sql.SQL(self.state)
        )
        with acting(self.settings) as connection:
            return one_by_one(plan.draft.targets, lambda target: self._ended(connection, statement, target))

    def _ended(self, connection: Connection, statement: sql.Composed, target: Target) -> Effect:
        identity = target.identity
        values = {"pid": identity["pid"], "backend_start": identity["backend_start"],
                  "moment": identity[self.moment], "denied": DENIED}  # fmt: skip
        with refusals():
            row = connection.execute(statement, values).fetchone()
        if row and row["done"]:
            return Effect(target=target.name, done=True, said=self.change)
        return left_alone(target.name, "it has moved on since the plan")

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`. A signal needs a moment to be heard."""
        done = {effect.target for effect in effects if effect.done}
        ours = [target for target in plan.draft.targets if target.name in done]
        deadline = time.monotonic() + _HEARD_SECONDS
        with acting(self.settings) as connection:
            while True:
                rows = {row["pid"]: row for row in self._look(connection, [int(t.identity["pid"]) for t in ours])}
                left = [t.name for t in ours if self._goes_on(rows.get(int(t.identity["pid"])), t.identity)]
                if not left or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        return (False, f"they go on: {', '.join(left)}") if left else (True, f"{len(ours)} do not go on")

    # -- helpers ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _look(connection: Connection, pids: Sequence[int]) -> list[dict[str, Any]]:
        return connection.execute(_LOOK, {"pids": list(pids), "denied": DENIED}).fetchall()

    def _is_same(self, row: Mapping[str, Any] | None, identity: Mapping[str, Any]) -> bool:
        return row is not None and all(
            _iso(row[name]) == _iso(identity.get(name)) for name in ("backend_start", self.moment)
        )

    def _goes_on(self, row: Mapping[str, Any] | None, identity: Mapping[str, Any]) -> bool:
        return row is not None and self._is_same(row, identity) and self.does(row)

    def _why_not(self, row: Mapping[str, Any] | None, target: Mapping[str, Any]) -> str:
        """Why a session must not be touched; empty when it may."""
        if row is None:
            return "it is gone"
        if row["own"]:
            return "it is our own"
        if row["backend_type"] is None or row["rolsuper"] is None:
            return "the acting role does not see whose it is (needs pg_read_all_stats), or nobody's"
        if row["backend_type"] != "client backend":
            return f"it is no client but a {row['backend_type']}"
        if row["rolsuper"] or row["rolreplication"]:
            return f"role {row['role']} is a superuser or replicates"
        if row["backup"]:
            return f"{row['application_name']} is never touched"
        if not self._is_same(row, target):
            return "it is another session by now, or has moved on"
        return "" if self.does(row) else f"it is not {self.doing} but {row['state']}"

    def _target(self, row: Mapping[str, Any]) -> Target:
        return Target(
            name=str(row["pid"]),
            identity={"pid": row["pid"]} | {name: _iso(row[name]) for name in ("backend_start", self.moment)},
            shown=f"pid {row['pid']}, {row['application_name'] or 'no application name'} as {row['role']} in "
            f"{row['database']}, {row['state']} for {row['seconds']:g} s",
            change=self.change,
        )  # fmt: skip


def _iso(value: Any) -> str:
    """A moment in one spelling, whether it came from the server or out of a document."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value)) if value else None
    return moment.astimezone(UTC).isoformat() if moment else ""


class Terminate(_OnSessions):
    """``postgres.terminate_session``: end sessions that idle in a transaction."""

    function = "pg_terminate_backend"
    moment = "state_change"
    state = "a.state LIKE 'idle in transaction%%'"
    doing = "idle in a transaction"
    change = "its session is ended, its transaction rolled back"
    undo_text = "irreversible: the open transaction of each session is rolled back; its client connects anew"
    risks = ("work in the open transactions is lost", "a client that does not reconnect stays without a session")

    @staticmethod
    def does(row: Mapping[str, Any]) -> bool:
        return str(row["state"]).startswith("idle in transaction")


class Cancel(_OnSessions):
    """``postgres.cancel_statement``: cancel what sessions run."""

    function = "pg_cancel_backend"
    moment = "query_start"
    state = "a.state = 'active'"
    doing = "running the same statement"
    change = "its statement is cancelled, its session stays"
    undo_text = "irreversible: the statement has to be sent again"
    risks = ("the client gets an error, and may send the same statement again",)

    @staticmethod
    def does(row: Mapping[str, Any]) -> bool:
        return bool(row["state"] == "active")
