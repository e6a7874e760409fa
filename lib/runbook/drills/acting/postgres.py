"""Actions on PostgreSQL and PgBouncer, on the faults of the connections' runbook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from runbook.drills.acting.case import Case, Look, Scene, drift
from runbook.errors import SandboxError
from runbook.sandbox.patient import DATABASE
from runbook.sandbox.waiting import wait_until

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox

RUNBOOK = "db_connection_exhaustion"
_SESSIONS = """
SELECT pid, backend_start, state, state_change, query_start FROM pg_stat_activity WHERE pid = ANY(%s) ORDER BY pid
"""
_OTHERS = """
SELECT pid, backend_start FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND application_name NOT LIKE 'runbook%' ORDER BY pid
"""
_LIMITS = {
    "role": "SELECT rolconnlimit FROM pg_roles WHERE rolname = %s",
    "database": "SELECT datconnlimit FROM pg_database WHERE datname = %s",
}


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


@drift
def sessions_go_on(scene: Scene) -> Look:
    """Each session ends what it does and begins the like: number and start stay, the moment does not."""
    pids, looked = scene.identities("pid"), partial(_asked, scene, _SESSIONS)
    before = {row[0]: row for row in looked(pids)}
    scene.injected.go_on()
    if still := [row for row in looked(pids) if row == before[row[0]]]:
        raise SandboxError(f"these did not go on: {still}")
    return partial(looked, pids)


@drift
def sessions_ended(scene: Scene) -> Look:
    """Somebody else has ended the sessions: of the others nobody may be."""
    for pid in scene.identities("pid"):
        _asked(scene, "SELECT pg_terminate_backend(%s, 5000)", pid)
    return partial(_asked, scene, _OTHERS)


@drift
def statements_ended(scene: Scene) -> Look:
    """The statements have ended, the sessions are there still and do nothing."""
    pids, looked = scene.identities("pid"), partial(_asked, scene, _SESSIONS)
    for pid in pids:
        _asked(scene, "SELECT pg_cancel_backend(%s)", pid)
    wait_until(lambda: all(row[2] != "active" for row in looked(pids)), "the statements to end")
    return partial(looked, pids)


@drift
def another_limit(scene: Scene) -> Look:
    """Somebody else raises the limit of the role, or of the database, to another number."""
    ((thing, name),) = scene.target.identity.items()
    limit = int(scene.target.before) + 1
    _asked(scene, f'ALTER {thing} "{name}" CONNECTION LIMIT {limit}', database="postgres")
    return partial(_asked, scene, _LIMITS[thing], name, database="postgres")


@drift
def another_pool_size(scene: Scene) -> Look:
    """Somebody else sets the size of the pools."""
    name = scene.target.name
    _console(scene, f"SET {name} = {int(scene.target.before) + 1}")
    return lambda: [row["value"] for row in _console(scene, "SHOW CONFIG") if row["key"] == name]


@drift
def resumed(scene: Scene) -> Look:
    """Somebody else resumes the database."""
    name = scene.target.name
    _console(scene, f'RESUME "{name}"')
    return lambda: [row["paused"] for row in _console(scene, "SHOW DATABASES") if row["name"] == name]


def _asked(scene: Scene, statement: str, *values: Any, database: str = DATABASE) -> list[tuple[Any, ...]]:
    with scene.sandbox.superuser(database) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def _console(scene: Scene, statement: str) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    dsn = scene.settings.postgres.pgbouncer_action_dsn
    assert dsn is not None
    with psycopg.connect(dsn.get_secret_value(), autocommit=True, row_factory=dict_row) as console:
        cursor = console.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


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
    Case(
        kind="postgres.terminate_session", runbook=RUNBOOK, fault="P01", verdict="fixed", sizes={"sessions": 9},
        drift=sessions_go_on,
    ),
    # Who waited goes on, and holds what it waited for: three are a pile-up, two are none.
    Case(
        kind="postgres.terminate_session", runbook=RUNBOOK, fault="P02", verdict="fixed", sizes={"waiters": 3},
        drift=sessions_ended,
    ),
    Case(
        kind="postgres.cancel_statement", runbook=RUNBOOK, fault="P02a", verdict="fixed", drift=statements_ended
    ),
    Case(kind="postgres.cancel_statement", runbook=RUNBOOK, fault="P03", verdict="fixed", drift=sessions_go_on),
    # It holds for sessions that begin afterwards: those that are there stay.
    Case(
        kind="postgres.set_role_timeout", runbook=RUNBOOK, fault="P01", verdict="unchanged", sizes={"sessions": 9},
        drift=another_timeout,
    ),
    Case(kind="postgres.raise_role_limit", runbook=RUNBOOK, fault="P06", verdict="fixed", drift=another_limit),
    Case(
        kind="postgres.raise_database_limit", runbook=RUNBOOK, fault="P07", verdict="fixed",
        prepared=member_of("app_owner"), drift=another_limit,
    ),
    # Twice as many find room; what they are busy with takes an hour.
    Case(
        kind="pgbouncer.pool_size", runbook=RUNBOOK, fault="P10", verdict="fixed", sizes={"clients": 5},
        drift=another_pool_size,
    ),
    Case(kind="pgbouncer.resume", runbook=RUNBOOK, fault="P10:paused", verdict="fixed", drift=resumed),
)  # fmt: skip
