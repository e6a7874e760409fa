"""What acts on a real PgBouncer, through its admin console, and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from runbook.actions import pgbouncer_console
from runbook.actions.plan import Order, Refused
from runbook.embedded import FAST, EmbeddedPostgres
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.connectors import poolers
from tests.integration.connectors.poolers import Pooler
from tests.support import wait_until

SIZE = {"database": "postgres", "pool_size": 3, "to": 6}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Ten usable slots; eight of them may be taken."""
    small = FAST | {"max_connections": "13", "superuser_reserved_connections": "3"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("behind") / "s", settings=small) as server:
        yield server


@pytest.fixture
def pooler(behind: EmbeddedPostgres, tmp_path: Path) -> Iterator[Pooler]:
    (tmp_path / "pooler").mkdir()
    databases = f"own = host=127.0.0.1 port={behind.port} dbname=postgres pool_size=2\n"
    with poolers.running(tmp_path / "pooler", postgres_port=behind.port, databases=databases,
                         logins={"postgres": _password(behind)}) as started:  # fmt: skip
        yield started


def _password(server: EmbeddedPostgres) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(server.superuser_dsn)["password"])


@pytest.fixture
def desk(pooler: Pooler, behind: EmbeddedPostgres, database: str, data: Path) -> Desk:
    postgres = {
        "pgbouncer_dsn": pooler.dsn("stats"),
        "pgbouncer_action_dsn": pooler.dsn("admin"),
        "dsn": behind.superuser_dsn,
    }
    return Desk({"store": {"url": database}, "postgres": postgres})


def said(pooler: Pooler, statement: str) -> list[dict[str, Any]]:
    """What an administrator gets for it."""
    with psycopg.connect(pooler.dsn("admin"), autocommit=True, row_factory=dict_row) as admin:
        cursor = admin.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def size(pooler: Pooler) -> int:
    return int(next(r["value"] for r in said(pooler, "SHOW CONFIG") if r["key"] == "default_pool_size"))


def paused(pooler: Pooler, name: str = "postgres") -> bool:
    return bool(next(int(r["paused"]) for r in said(pooler, "SHOW DATABASES") if r["name"] == name))


def through(pooler: Pooler, behind: EmbeddedPostgres) -> psycopg.Connection:
    """A client of the pooler."""
    return psycopg.connect(pooler.dsn("postgres", _password(behind), "postgres"), prepare_threshold=None,
                           autocommit=True)  # fmt: skip


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


# -- the size of pools -------------------------------------------------------------------------------------------------


def test_pools_grow_and_shrink_again(desk: Desk, pooler: Pooler) -> None:
    seen = []
    desk.symptom = lambda: seen.append(size(pooler)) or 0.0  # type: ignore[func-returns-value]
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order("pgbouncer.pool_size", [SIZE])))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (seen, verified["holds"], size(pooler)) == ([6], True, 3)


def test_clients_that_wait_for_a_full_pool_are_served_by_a_larger_one(
    desk: Desk, pooler: Pooler, behind: EmbeddedPostgres
) -> None:
    def waiting() -> float:
        return float(sum(int(row["cl_waiting"]) for row in said(pooler, "SHOW POOLS")))

    def served() -> float:
        wait_until(lambda: waiting() == 0, what="the client to be served")
        return waiting()

    asked = order("pgbouncer.pool_size", [SIZE], symptom={"label": "clients that wait", "value": 1.0, "breached": True})
    desk.symptom = served

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        return await desk.acting.verify(asked, ME)

    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(through(pooler, behind)).execute("BEGIN")
        late = stack.enter_context(through(pooler, behind))
        late.pgconn.send_query(b"SELECT 1")
        late.pgconn.flush()
        wait_until(lambda: waiting() == 1, what="a client that waits")
        assert desk.do(steps)["verdict"] == "fixed"
        result = late.pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"1"
        late.pgconn.get_result()


def test_a_size_that_somebody_has_set_since_stays(desk: Desk, pooler: Pooler) -> None:
    asked = order("pgbouncer.pool_size", [SIZE])
    effect = desk.do(lambda desk: desk.overtaken(asked, lambda: said(pooler, "SET default_pool_size = 4")))
    assert (effect.done, "4" in effect.said, size(pooler)) == (False, True, 4)


def test_a_size_that_somebody_has_set_after_ours_is_not_taken_back(desk: Desk, pooler: Pooler) -> None:
    asked = order("pgbouncer.pool_size", [SIZE])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        said(pooler, "SET default_pool_size = 5")
        return await desk.acting.undo(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, size(pooler)) == (False, 5)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({**SIZE, "database": "own"}, "a pool size of its own"),
        ({**SIZE, "database": "nobody"}, "knows no database"),
        ({**SIZE, "to": 7}, "no size to go to"),
        ({**SIZE, "to": 0}, "no size to go to"),
        ({**SIZE, "to": 3}, "nothing is left to do"),
        ({**SIZE, "to": "3; SHUTDOWN"}, "is no number"),
        ({"database": "postgres"}, "is no number"),
    ],
)
def test_a_size_that_changes_nothing_or_too_much_is_refused(
    desk: Desk, pooler: Pooler, target: dict[str, Any], reason: str
) -> None:
    _refused(desk, order("pgbouncer.pool_size", [target]), reason)
    assert size(pooler) == 3


def test_pools_do_not_grow_beyond_what_postgresql_has_room_for(
    desk: Desk, pooler: Pooler, behind: EmbeddedPostgres
) -> None:
    held = [psycopg.connect(behind.superuser_dsn, autocommit=True, application_name="holder") for _ in range(7)]
    try:
        _refused(desk, order("pgbouncer.pool_size", [SIZE]), "PostgreSQL has no room")
    finally:
        for connection in held:
            connection.close()
    assert size(pooler) == 3


# -- pause and resume --------------------------------------------------------------------------------------------------


def test_a_paused_database_is_resumed_and_paused_again(desk: Desk, pooler: Pooler, behind: EmbeddedPostgres) -> None:
    said(pooler, 'PAUSE "postgres"')
    answers = []

    def symptom() -> float:
        with through(pooler, behind) as client:
            answers.append(client.execute("SELECT 1").fetchone())
        return 0.0

    desk.symptom = symptom
    asked = order("pgbouncer.resume", [{"database": "postgres"}])
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(asked))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (answers, verified["holds"]) == ([(1,)], True)
    assert paused(pooler)


def test_a_database_is_paused_and_resumed_again(desk: Desk, pooler: Pooler) -> None:
    seen = []
    desk.symptom = lambda: seen.append(paused(pooler)) or 0.0  # type: ignore[func-returns-value]
    asked = order("pgbouncer.pause", [{"database": "postgres"}])
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(asked))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (seen, verified["holds"], paused(pooler)) == ([True], True, False)


def test_a_pause_that_waits_for_a_transaction_may_have_happened_and_is_verified(
    desk: Desk, pooler: Pooler, behind: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgbouncer_console, "SECONDS", 0.5)
    asked = order("pgbouncer.pause", [{"database": "postgres"}])
    with through(pooler, behind) as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        effects, verified, undone = desk.do(lambda desk: desk.there_and_back(asked))
        client.execute("COMMIT")
    assert (effects[0].done, "may have happened" in effects[0].said) == (True, True)
    assert verified["holds"] is True
    assert (undone[0].done, paused(pooler)) == (True, False)


@pytest.mark.parametrize(
    ("kind", "before", "between"),
    [
        ("pgbouncer.resume", "PAUSE postgres", "RESUME postgres"),
        ("pgbouncer.pause", None, "PAUSE postgres"),
    ],
)
def test_what_somebody_else_has_turned_meanwhile_is_left_alone(
    desk: Desk, pooler: Pooler, kind: str, before: str | None, between: str
) -> None:
    if before:
        said(pooler, before)
    effect = desk.do(lambda d: d.overtaken(order(kind, [{"database": "postgres"}]), lambda: said(pooler, between)))
    assert (effect.done, "by now" in effect.said) == (False, True)


def test_a_name_that_leads_to_another_server_meanwhile_is_left_alone(desk: Desk, pooler: Pooler) -> None:
    def elsewhere() -> None:
        text = pooler.configuration.read_text()
        pooler.configuration.write_text(text.replace("postgres = host=127.0.0.1", "postgres = host=127.0.0.2"))
        said(pooler, "RELOAD")

    effect = desk.do(lambda d: d.overtaken(order("pgbouncer.pause", [{"database": "postgres"}]), elsewhere))
    assert (effect.done, "elsewhere" in effect.said, paused(pooler)) == (False, True, False)


def test_what_is_so_already_is_refused(desk: Desk, pooler: Pooler) -> None:
    _refused(desk, order("pgbouncer.resume", [{"database": "postgres"}]), "not paused already")
    said(pooler, "PAUSE postgres")
    _refused(desk, order("pgbouncer.pause", [{"database": "postgres"}]), "paused already")


def test_no_name_becomes_a_command(desk: Desk, pooler: Pooler) -> None:
    _refused(desk, order("pgbouncer.pause", [{"database": 'postgres"; SHUTDOWN; "'}]), "knows no database")
    _refused(desk, order("pgbouncer.pause", []), "names 0 targets")
    assert pooler.process.poll() is None


# -- reload ------------------------------------------------------------------------------------------------------------


def _write(pooler: Pooler, line: str) -> None:
    text = pooler.configuration.read_text()
    pooler.configuration.write_text(text.replace("default_pool_size = 3", line))


def test_the_files_are_read_anew_and_that_is_not_undone(desk: Desk, pooler: Pooler) -> None:
    asked = order("pgbouncer.reload", [{}])
    _write(pooler, "default_pool_size = 5")

    async def steps(desk: Desk) -> Any:
        effects = await desk.applied(asked)
        verified = await desk.acting.verify(asked, ME)
        with pytest.raises(Refused, match="cannot be undone"):
            await desk.acting.undo(asked, ME)
        return effects, verified

    (effect,), verified = desk.do(steps)
    assert (effect.done, size(pooler)) == (True, 5)
    assert (verified["holds"], "another one" in verified["effect"]) == (None, True)


def test_a_configuration_that_somebody_has_changed_since_is_not_read_anew(desk: Desk, pooler: Pooler) -> None:
    _write(pooler, "default_pool_size = 5")
    asked = order("pgbouncer.reload", [{}])
    effect = desk.do(lambda desk: desk.overtaken(asked, lambda: said(pooler, "SET max_client_conn = 60")))
    assert (effect.done, size(pooler)) == (False, 3)


@pytest.mark.parametrize("kind", ["pgbouncer.pause", "pgbouncer.resume", "pgbouncer.reload"])
def test_no_policy_pauses_resumes_or_reloads(desk: Desk, pooler: Pooler, kind: str) -> None:
    asked = order(kind, [{"database": "postgres"}])
    desk.plain["actions"] = {"policy": [{"kind": kind, "runbook": asked.runbook, "cause": asked.cause}]}
    assert desk.do(lambda desk: desk.acting.by_policy(asked, "worker-1")) is None
    assert not paused(pooler)


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "reason"),
    [
        (lambda pooler: None, "pgbouncer_action_dsn is not set"),
        (lambda pooler: pooler.dsn("stats"), "no administrator"),
        (lambda pooler: pooler.dsn("admin", "wrong-0a1b2c3d"), "lets nobody in"),
        (lambda pooler: "postgresql://admin@127.0.0.1:1/pgbouncer", "lets nobody in"),
    ],
    ids=["none", "looks only", "wrong", "nobody there"],
)
@pytest.mark.parametrize("kind", ["pgbouncer.pool_size", "pgbouncer.pause", "pgbouncer.reload"])
def test_only_an_administrator_of_the_console_acts(
    desk: Desk, pooler: Pooler, kind: str, dsn: Callable[[Pooler], str | None], reason: str
) -> None:
    desk.plain["postgres"]["pgbouncer_action_dsn"] = dsn(pooler)
    with pytest.raises(Refused, match=reason) as caught:
        desk.do(lambda desk: desk.acting.plan(order(kind, [SIZE]), ME))
    assert "wrong-0a1b2c3d" not in str(caught.value)
