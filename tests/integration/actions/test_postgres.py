"""What acts on a real PostgreSQL: the right session ends, and no other one ever does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook.actions.plan import Order, Refused
from runbook.sandbox import Sandbox
from tests.integration.actions.desk import ME, Desk, order
from tests.support import wait_until

TERMINATE, CANCEL = "postgres.terminate_session", "postgres.cancel_statement"
SESSION = "SELECT pid, backend_start, state_change, query_start FROM pg_stat_activity WHERE pid = %s"


@pytest.fixture
def desk(patient: Sandbox, database: str, data: Path) -> Desk:
    return Desk({**patient.settings(), "store": {"url": database}})


@contextmanager
def idle(patient: Sandbox, role: str = "web", application: str = "cart") -> Iterator[psycopg.Connection]:
    """A session that idles in a transaction."""
    with psycopg.connect(patient.dsn(role), application_name=application) as connection:
        connection.execute("SELECT 1")
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def busy(patient: Sandbox, role: str = "web", application: str = "cart") -> Iterator[psycopg.Connection]:
    """A session that runs a statement."""
    with psycopg.connect(patient.dsn(role), application_name=application, autocommit=True) as connection:
        connection.pgconn.send_query(b"SELECT pg_sleep(30)")
        connection.pgconn.flush()
        try:
            yield connection
        finally:
            connection.close()


def seen(patient: Sandbox, connection: psycopg.Connection) -> dict[str, Any]:
    """The session as a run saw it."""

    def settled() -> Any:
        with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
            row = admin.execute(SESSION, (connection.info.backend_pid,)).fetchone()
        return row if row and time.time() - row[2].timestamp() > 0.2 else None

    pid, start, change, query = wait_until(settled)
    return {"pid": pid, "backend_start": start.isoformat(), "state_change": change.isoformat(),
            "query_start": query.isoformat() if query else None}  # fmt: skip


def alive(patient: Sandbox, connection: psycopg.Connection) -> bool:
    with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
        return bool(admin.execute(SESSION, (connection.info.backend_pid,)).fetchone())


def test_an_idle_transaction_is_ended_and_what_follows_is_verified(desk: Desk, patient: Sandbox) -> None:
    with idle(patient) as session:
        asked = order(TERMINATE, [seen(patient, session)])
        desk.symptom = lambda: 5.0 * alive(patient, session)

        async def steps(desk: Desk) -> Any:
            effects = await desk.applied(asked)
            return effects, await desk.acting.verify(asked, ME), await desk.events(asked)

        effects, verified, events = desk.do(steps)
        assert [effect.done for effect in effects] == [True]
        assert not alive(patient, session)
    assert (verified["verdict"], verified["holds"]) == ("fixed", True)
    assert "20 before, 0 now" in verified["said"]
    assert events == ["planned", "approved", "applying", "applied", "verified"]


def test_a_statement_is_cancelled_and_its_session_stays(desk: Desk, patient: Sandbox) -> None:
    with busy(patient) as session:
        asked = order(CANCEL, [seen(patient, session)])

        async def steps(desk: Desk) -> Any:
            await desk.applied(asked)
            return await desk.acting.verify(asked, ME)

        assert desk.do(steps)["holds"] is True
        assert alive(patient, session)
        result = session.pgconn.get_result()
        assert result is not None
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"  # query_canceled


def _answers(session: psycopg.Connection) -> None:
    session.execute("SELECT 2")
    session.rollback()
    session.execute("SELECT 3")


def test_a_session_that_did_something_between_plan_and_apply_is_left_alone(desk: Desk, patient: Sandbox) -> None:
    with idle(patient) as session:
        asked = order(TERMINATE, [seen(patient, session)])

        async def steps(desk: Desk) -> Any:
            await desk.approved(asked)
            _answers(session)
            return await desk.acting.apply(asked, ME), await desk.events(asked)

        effects, events = desk.do(steps)
        assert [(effect.done, "moved on" in effect.said) for effect in effects] == [(False, True)]
        assert alive(patient, session)
    assert events[-1] == "refused"


def test_what_was_ended_before_the_server_refused_is_told(
    desk: Desk, patient: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal is no part of a transaction: the first session is gone whatever becomes of the second."""
    from runbook.actions import postgres_sessions as module

    ended, count = module.Terminate._ended, iter(range(9))

    def second_fails(kind: Any, connection: Any, statement: Any, target: Any) -> Any:
        if next(count):
            raise Refused("PostgreSQL refuses: permission denied")
        return ended(kind, connection, statement, target)

    monkeypatch.setattr(module.Terminate, "_ended", second_fails)
    with idle(patient) as first, idle(patient) as second:
        asked = order(TERMINATE, [seen(patient, first), seen(patient, second)])
        effects = desk.do(lambda desk: desk.applied(asked))
        assert [effect.done for effect in effects] == [True, False]
        assert "permission denied" in effects[1].said
        assert (alive(patient, first), alive(patient, second)) == (False, True)


def test_a_session_that_did_something_since_the_run_is_not_planned(desk: Desk, patient: Sandbox) -> None:
    with idle(patient) as session:
        asked = order(TERMINATE, [seen(patient, session)])
        _answers(session)
        with pytest.raises(Refused, match="moved on"):
            desk.do(lambda desk: desk.acting.plan(asked, ME))
        assert alive(patient, session)


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


@pytest.mark.parametrize(
    ("role", "application", "reason"),
    [
        ("legacy_admin", "cart", "superuser"),
        ("replicator", "cart", "replicates"),
        ("web", "pg_dump", "never touched"),
        ("web", "WAL-G", "never touched"),
        ("web", "runbook:diagnose", "never touched"),
    ],
)
def test_some_sessions_are_never_touched(
    desk: Desk, patient: Sandbox, role: str, application: str, reason: str
) -> None:
    with idle(patient, role, application) as session:
        _refused(desk, order(TERMINATE, [seen(patient, session)]), reason)
        assert alive(patient, session)


def test_a_walsender_is_never_touched(desk: Desk, patient: Sandbox) -> None:
    with psycopg.connect(f"{patient.dsn('replicator')}?replication=database", autocommit=True) as session:
        _refused(desk, order(TERMINATE, [seen(patient, session)]), "walsender|replicates")
        assert alive(patient, session)


def test_a_server_process_is_never_touched(desk: Desk, patient: Sandbox) -> None:
    with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
        row = admin.execute(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'"
        )
        pid, start = row.fetchone() or (0, None)
    target = {"pid": pid, "backend_start": start.isoformat() if start else None, "state_change": None}
    _refused(desk, order(TERMINATE, [target]), "no client|nobody's")


def test_our_own_session_is_never_touched(desk: Desk, patient: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from runbook.actions import postgres_sessions as module

    look = module.Terminate._look

    def own(connection: psycopg.Connection[Any], pids: Any) -> list[dict[str, Any]]:
        return [row | {"pid": 4711} for row in look(connection, [connection.info.backend_pid])]

    monkeypatch.setattr(module.Terminate, "_look", staticmethod(own))
    _refused(desk, order(TERMINATE, [{"pid": 4711}]), "our own")


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        (lambda patient: None, "action_dsn is not set"),
        (lambda patient: patient.dsn("monitor"), "the one that diagnoses"),
        (lambda patient: patient.dsn("legacy_admin"), "is a superuser"),
        (lambda patient: patient.dsn("oncall").replace("@", "x@", 1), "does not get in"),
        (lambda patient: patient.dsn("nobody_special"), "does not see whose it is"),
    ],
    ids=["none", "diagnosing", "superuser", "wrong", "powerless"],
)
def test_only_a_role_of_its_own_acts(
    desk: Desk, patient: Sandbox, dsn: Callable[[Sandbox], str | None], reason: str
) -> None:
    desk.plain["postgres"] = {**desk.plain["postgres"], "action_dsn": dsn(patient)}
    with idle(patient) as session:
        _refused(desk, order(TERMINATE, [seen(patient, session)]), reason)
        assert alive(patient, session)


# -- settings of roles -------------------------------------------------------------------------------------------------


TIMEOUT = {"role": "web", "setting": "idle_in_transaction_session_timeout", "to": "60s"}


def config(patient: Sandbox, role: str) -> list[str]:
    with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
        row = admin.execute("SELECT setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole"
                            " WHERE rolname = %s AND setdatabase = 0", (role,)).fetchone()  # fmt: skip
    return list(row[0]) if row else []


def test_a_role_gets_a_time_limit_and_loses_it_again(desk: Desk, patient: Sandbox) -> None:
    asked = order("postgres.set_role_timeout", [TIMEOUT])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        now = config(patient, "web")
        verified = await desk.acting.verify(asked, ME)
        undone = await desk.acting.undo(asked, ME)
        return now, verified, undone

    now, verified, undone = desk.do(steps)
    assert now == ["idle_in_transaction_session_timeout=60s"]
    assert verified["holds"] is True
    assert [effect.done for effect in undone] == [True]
    assert config(patient, "web") == []


def test_what_somebody_else_has_set_since_stays(desk: Desk, patient: Sandbox) -> None:
    asked = order("postgres.set_role_timeout", [TIMEOUT])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
            admin.execute("ALTER ROLE web SET idle_in_transaction_session_timeout = '5min'")
        return await desk.acting.undo(asked, ME)

    try:
        (effect,) = desk.do(steps)
        assert (effect.done, "5min" in effect.said) == (False, True)
        assert config(patient, "web") == ["idle_in_transaction_session_timeout=5min"]
    finally:
        with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
            admin.execute("ALTER ROLE web RESET ALL")


def test_no_other_setting_than_a_time_limit_is_changed(desk: Desk) -> None:
    _refused(desk, order("postgres.set_role_timeout", [TIMEOUT | {"setting": "session_preload_libraries"}]),
             "no time limit")  # fmt: skip


def test_a_role_gets_more_sessions_and_its_old_limit_again(desk: Desk, patient: Sandbox) -> None:
    def limit() -> Any:
        with psycopg.connect(patient.dsn("postgres"), autocommit=True) as admin:
            return (admin.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'web'").fetchone() or [None])[0]

    asked = order("postgres.raise_role_limit", [{"role": "web", "limit": -1, "to": 12}])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        now = limit()
        await desk.acting.undo(asked, ME)
        return now

    assert desk.do(steps) == 12
    assert limit() == -1
