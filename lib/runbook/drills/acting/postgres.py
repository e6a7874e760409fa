"""Actions on PostgreSQL and PgBouncer, on the faults of the connections' runbook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from runbook.drills.acting.case import Case, Scene
from runbook.errors import SandboxError

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox

RUNBOOK = "db_connection_exhaustion"


def member_of(role: str) -> Callable[[Sandbox], AbstractContextManager[None]]:
    """The role that acts is a member of this one as well: who owns a database may raise its limit."""

    @contextmanager
    def granted(sandbox: Sandbox) -> Iterator[None]:
        with sandbox.superuser() as connection:
            connection.execute(f"GRANT {role} TO oncall".encode())
        yield
        with sandbox.superuser() as connection:
            connection.execute(f"REVOKE {role} FROM oncall".encode())

    return granted


@contextmanager
def another_timeout(scene: Scene) -> Iterator[None]:
    """Somebody else sets the role's timeout."""
    (target,) = scene.plan.draft.targets
    role, setting = target.identity["role"], target.identity["setting"]
    with scene.sandbox.superuser() as connection:
        connection.execute(f"ALTER ROLE \"{role}\" SET {setting} = '17min'".encode())
    yield
    with scene.sandbox.superuser() as connection:
        kept = connection.execute(
            "SELECT setconfig FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole AND setdatabase = 0"
            " WHERE rolname = %s", [role]
        ).fetchone()  # fmt: skip
        connection.execute(f'ALTER ROLE "{role}" RESET {setting}'.encode())
    if kept is None or f"{setting}=17min" not in kept[0]:
        raise SandboxError(f"{setting} of {role} was changed although somebody else had set it: {kept}")


CASES = (
    Case(kind="postgres.terminate_session", runbook=RUNBOOK, fault="P01", verdict="fixed", sizes={"sessions": 9}),
    # Who waited goes on, and holds what it waited for: three are a pile-up, two are none.
    Case(kind="postgres.terminate_session", runbook=RUNBOOK, fault="P02", verdict="fixed", sizes={"waiters": 3}),
    Case(kind="postgres.cancel_statement", runbook=RUNBOOK, fault="P02a", verdict="fixed"),
    Case(kind="postgres.cancel_statement", runbook=RUNBOOK, fault="P03", verdict="fixed"),
    # It holds for sessions that begin afterwards: those that are there stay.
    Case(
        kind="postgres.set_role_timeout", runbook=RUNBOOK, fault="P01", verdict="unchanged", sizes={"sessions": 9},
        drift=another_timeout,
    ),
    Case(kind="postgres.raise_role_limit", runbook=RUNBOOK, fault="P06", verdict="fixed"),
    Case(
        kind="postgres.raise_database_limit", runbook=RUNBOOK, fault="P07", verdict="fixed",
        prepared=member_of("app_owner"),
    ),
    # Twice as many find room; what they are busy with takes an hour.
    Case(kind="pgbouncer.pool_size", runbook=RUNBOOK, fault="P10", verdict="fixed", sizes={"clients": 5}),
)  # fmt: skip
