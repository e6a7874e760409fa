"""Each fault: the state that it injects, asserted by plain SQL and sockets, and that nothing of it is left."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook import catalog
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import Injected, inject, known, plan, state
from runbook.sandbox.faults.poolers import waiting_clients
from tests.support import missing, require_program, wait_until

ACTIVITY = """
    SELECT count(*) FILTER (WHERE state = 'idle in transaction') AS idle_in_transaction,
           count(*) FILTER (WHERE state = 'idle') AS idle,
           count(*) FILTER (WHERE state = 'active' AND wait_event_type IS DISTINCT FROM 'Lock') AS running,
           count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting,
           count(*) FILTER (WHERE state = 'starting') AS starting,
           count(*) AS sessions
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name NOT LIKE 'runbook%' AND pid <> pg_backend_pid()"""


def rows(sandbox: Sandbox, query: str, database: str = "app") -> list[Any]:
    with sandbox.superuser(database) as connection:
        return connection.execute(query.encode()).fetchall()


def activity(sandbox: Sandbox) -> dict[str, int]:
    with sandbox.superuser() as connection:
        cursor = connection.execute(ACTIVITY.encode())
        names = [column.name for column in cursor.description or ()]
        return dict(zip(names, cursor.fetchall()[0], strict=True))


def login(sandbox: Sandbox, role: str, database: str = "app", **options: Any) -> str:
    """``ok``, or what the server said to a login of that role."""
    try:
        psycopg.connect(sandbox.dsn(role, database), connect_timeout=10, **options).close()
    except psycopg.OperationalError as error:
        return str(error)
    return "ok"


# -- what each of them looks like -----------------------------------------------------------------------------------


def idle_in_transaction(sandbox: Sandbox, injected: Injected) -> None:
    query = """SELECT application_name, count(*), min(extract(epoch FROM now() - state_change))::float
               FROM pg_stat_activity WHERE state = 'idle in transaction' GROUP BY 1"""
    [(application, sessions, age)] = rows(sandbox, query)
    assert (application, sessions) == ("api-leaky", 20)
    assert age >= 1
    assert activity(sandbox)["waiting"] == 0
    assert injected.named == {"P01": ("api-leaky",)}


def pile_up(sandbox: Sandbox, injected: Injected) -> None:
    now = activity(sandbox)
    assert (now["waiting"], now["idle_in_transaction"]) == (18, 1)
    assert roots(sandbox) == [injected.named["P02"][0]]
    assert "batch-import" in injected.named["P02"]


def ddl_in_the_middle(sandbox: Sandbox, injected: Injected) -> None:
    query = """SELECT l.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
               WHERE NOT l.granted AND l.mode = 'AccessExclusiveLock'"""
    [(pid, application)] = rows(sandbox, query)
    assert (pid, application) == (injected.named["P02a"][0], "migration")
    assert activity(sandbox)["waiting"] == 9
    behind = f"SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))"
    assert rows(sandbox, behind)[0][0] == 8
    [(root,)] = rows(sandbox, "SELECT application_name FROM pg_stat_activity WHERE pid = " + str(roots(sandbox)[0]))
    assert root == "report"


def prepared(sandbox: Sandbox, injected: Injected) -> None:
    assert rows(sandbox, "SELECT gid FROM pg_prepared_xacts") == [("payment-4711",)]
    assert roots(sandbox) == [0]
    assert activity(sandbox)["waiting"] == 10


def wraparound(sandbox: Sandbox, injected: Injected) -> None:
    [root] = roots(sandbox)
    [(backend, query)] = rows(sandbox, f"SELECT backend_type, query FROM pg_stat_activity WHERE pid = {root}")
    assert backend == "autovacuum worker"
    assert "(to prevent wraparound)" in query
    assert injected.named["P02c"] == (root,)
    assert activity(sandbox)["waiting"] == 9


def one_slow_statement(sandbox: Sandbox, injected: Injected) -> None:
    query = "SELECT count(*), count(DISTINCT query_id) FROM pg_stat_activity WHERE application_name = 'api-search'"
    assert rows(sandbox, query + " AND state = 'active' AND query_id IS NOT NULL") == [(14, 1)]
    assert activity(sandbox)["waiting"] == 0


def idle_pools(sandbox: Sandbox, injected: Injected) -> None:
    query = """SELECT application_name, count(*) FROM pg_stat_activity
               WHERE state = 'idle' AND application_name NOT LIKE 'runbook%' GROUP BY 1 ORDER BY 1"""
    assert rows(sandbox, query) == [("api", 12), ("jobs", 12)]


def storm(sandbox: Sandbox, injected: Injected) -> None:
    counter = (
        "SELECT sessions, extract(epoch FROM clock_timestamp())::float FROM pg_stat_database WHERE datname = 'app'"
    )
    [(first, began)] = rows(sandbox, counter)

    def rate() -> float:
        [(second, ended)] = rows(sandbox, counter)
        return float((second - first) / (ended - began)) if ended > began + 1 else 0.0

    assert wait_until(rate, every=0.3) > 5
    assert wait_until(lambda: activity(sandbox)["sessions"] >= 20)


def role_full(sandbox: Sandbox, injected: Injected) -> None:
    assert rows(sandbox, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'batch'") == [(4,)]
    assert 'too many connections for role "batch"' in login(sandbox, "batch")
    assert login(sandbox, "web") == "ok"


def database_full(sandbox: Sandbox, injected: Injected) -> None:
    for role in ("web", "monitor", "reserve"):
        assert 'too many connections for database "app"' in login(sandbox, role)
    assert login(sandbox, "monitor", "postgres") == "ok"


def half_open(sandbox: Sandbox, injected: Injected) -> None:
    assert activity(sandbox)["starting"] == 25
    assert "remaining connection slots are reserved" in login(sandbox, "web")
    assert login(sandbox, "reserve") == "ok"


def orphaned(sandbox: Sandbox, injected: Injected) -> None:
    query = "SELECT client_port, query_id FROM pg_stat_activity WHERE application_name = 'api-gone'"
    ports, statements = zip(*rows(sandbox, query + " AND state = 'active'"), strict=True)
    assert len(ports) == 7
    assert len(set(statements)) > 3
    ss = require_program("ss", package="iproute2")
    shown = subprocess.run([ss, "-Htn", "state", "close-wait"], capture_output=True, text=True, check=True).stdout
    closing = {int(port) for port in re.findall(rf"127\.0\.0\.1:{sandbox.port}\s+127\.0\.0\.1:(\d+)", shown)}
    assert set(ports) <= closing


def pooler_full(sandbox: Sandbox, injected: Injected) -> None:
    assert waiting_clients(injected.settings["postgres"]["pgbouncer_dsn"]) == 9
    assert activity(sandbox)["sessions"] == 3


def pooler_paused(sandbox: Sandbox, injected: Injected) -> None:
    assert waiting_clients(injected.settings["postgres"]["pgbouncer_dsn"]) == 6
    assert activity(sandbox)["running"] == 0


def pool_timeouts(sandbox: Sandbox, injected: Injected) -> None:
    lines = sandbox.app_log.read_text().splitlines()
    assert len(lines) >= 3
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR app .*PoolTimeout", line) for line in lines)
    assert activity(sandbox)["sessions"] == 2


def replication_full(sandbox: Sandbox, injected: Injected) -> None:
    assert rows(sandbox, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'") == [(3,)]
    assert "max_wal_senders" in login(sandbox, "replicator", replication="true")
    assert login(sandbox, "web") == "ok"


def superusers(sandbox: Sandbox, injected: Injected) -> None:
    query = """SELECT count(*) FILTER (WHERE rolsuper), count(*)
               FROM pg_stat_activity a JOIN pg_roles r ON r.oid = usesysid
               WHERE backend_type = 'client backend' AND application_name NOT LIKE 'runbook%'"""
    assert rows(sandbox, query) == [(14, 26)]
    assert "remaining connection slots are reserved" in login(sandbox, "web")
    assert login(sandbox, "reserve") == "ok"


def leak_and_pile_up(sandbox: Sandbox, injected: Injected) -> None:
    now = activity(sandbox)
    assert (now["idle_in_transaction"], now["waiting"]) == (9 + 1, 10)
    assert set(injected.named) == {"P01", "P02"}


def ordinary(sandbox: Sandbox, injected: Injected) -> None:
    now = activity(sandbox)
    assert now["sessions"] == 6
    assert (now["waiting"], now["idle_in_transaction"]) == (0, 0)
    assert login(sandbox, "web") == "ok"


def blinded(sandbox: Sandbox, injected: Injected) -> None:
    with psycopg.connect(injected.settings["postgres"]["dsn"]) as connection:
        hidden = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE pid > 0 AND backend_type IS NULL")
        assert (hidden.fetchone() or (0,))[0] >= 20
    assert injected.plan.expects == ()
    assert injected.plan.outcomes == ("undetermined",)


def roots(sandbox: Sandbox) -> list[int]:
    """Pids that block somebody and wait for nobody; 0 is a prepared transaction."""
    query = """WITH w AS MATERIALIZED (SELECT pid, pg_blocking_pids(pid) AS b FROM pg_stat_activity
                                       WHERE wait_event_type = 'Lock')
               SELECT DISTINCT x FROM w, unnest(b) AS x WHERE x NOT IN (SELECT pid FROM w)"""
    return [int(row[0]) for row in rows(sandbox, query)]


LOOKS: dict[str, Callable[[Sandbox, Injected], None]] = {
    "P01": idle_in_transaction,
    "P02": pile_up,
    "P02a": ddl_in_the_middle,
    "P02b": prepared,
    "P02c": wraparound,
    "P03": one_slow_statement,
    "P04": idle_pools,
    "P05": storm,
    "P06": role_full,
    "P07": database_full,
    "P08": half_open,
    "P09": orphaned,
    "P10": pooler_full,
    "P10:paused": pooler_paused,
    "P11": pool_timeouts,
    "P13": replication_full,
    "P14": superusers,
    "P01+P02": leak_and_pile_up,
    "healthy": ordinary,
    "P01~no_pg_monitor": blinded,
}


@pytest.mark.parametrize("fault", LOOKS)
def test_fault_is_as_described_and_gone_afterwards(sandbox: Sandbox, fault: str) -> None:
    lacking = plan(fault).missing()
    if lacking:
        missing(lacking.removeprefix("needs "))
    before = state.snapshot(sandbox)
    log_before = sandbox.app_log.read_bytes()
    with inject(fault, sandbox) as injected:
        LOOKS[fault](sandbox, injected)
    assert state.snapshot(sandbox) == before
    assert sandbox.app_log.read_bytes() == log_before
    assert login(sandbox, "web") == "ok"


def test_every_known_fault_is_looked_at() -> None:
    assert sorted(known(catalog.load("db_connection_exhaustion"))) == sorted(LOOKS)


# -- the machinery ----------------------------------------------------------------------------------------------------


def test_a_fault_heals_when_the_block_fails(sandbox: Sandbox) -> None:
    with pytest.raises(ZeroDivisionError), inject("P02", sandbox):
        raise ZeroDivisionError
    assert activity(sandbox)["sessions"] == 0


def test_what_somebody_else_left_is_told_by_name(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PATIENCE_SECONDS", 1.0)
    with (
        psycopg.connect(sandbox.dsn("web"), application_name="stray"),
        pytest.raises(SandboxError, match=r'not clean: .*application "stray"'),
        inject("P01", sandbox),
    ):
        pytest.fail("injected into a patient that was not clean")


def test_what_a_fault_leaves_is_told_by_name(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PATIENCE_SECONDS", 1.0)
    with sandbox.superuser() as connection:
        with pytest.raises(SandboxError, match="role left: web limit 3"), inject("P06", sandbox):
            connection.execute("ALTER ROLE web CONNECTION LIMIT 3")
        connection.execute("ALTER ROLE web CONNECTION LIMIT -1")


def test_a_fault_that_does_not_fit_is_undone_and_reported(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="could not be injected"), inject(plan("P01", sessions=60), sandbox):
        pytest.fail("60 sessions in 25 slots")
    assert activity(sandbox)["sessions"] == 0


def test_an_unlisted_compound_shares_the_slots(sandbox: Sandbox) -> None:
    with inject("P01+P04", sandbox):
        now = activity(sandbox)
        assert (now["idle_in_transaction"], now["idle"]) == (10, 12)


def test_sizes_and_names_can_be_chosen(sandbox: Sandbox) -> None:
    with inject(plan("P01", sessions=5, application="api-other"), sandbox) as injected:
        assert activity(sandbox)["idle_in_transaction"] == 5
        assert injected.named == {"P01": ("api-other",)}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("P99", "unknown fault 'P99'"),
        ("P01+P99", "unknown fault 'P99'"),
        ("P01~blindfold", "unknown handicap 'blindfold'"),
        ("", "unknown fault ''"),
    ],
)
def test_unknown_ids_are_refused_with_the_known_ones(fault: str, says: str) -> None:
    with pytest.raises(SandboxError, match=f"{says}.*Known: "):
        plan(fault)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(SandboxError, match="fault P01 has no size waiters"):
        plan("P01", waiters=3)


def test_a_missing_program_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("runbook.sandbox.faults.registry.SYSTEM_PATHS", ())
    assert plan("P10").missing() == "needs pgbouncer (Debian package pgbouncer)"
    assert plan("P01").missing() is None


def test_no_pooler_directory_is_left(sandbox: Sandbox) -> None:
    require_program("pgbouncer", package="pgbouncer")
    before = set(Path(tempfile.gettempdir()).glob("runbook-pgbouncer-*"))
    with inject("P10", sandbox):
        assert set(Path(tempfile.gettempdir()).glob("runbook-pgbouncer-*")) > before
    assert set(Path(tempfile.gettempdir()).glob("runbook-pgbouncer-*")) == before
