"""Faults made of locks: who holds one, who waits for it, and what turns a wait into an outage."""

from __future__ import annotations

from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene

_TOUCH = 'UPDATE content SET "updatedAt" = "updatedAt" WHERE id = \'content-1\''
_READ = "SELECT title FROM {table} LIMIT 1"
_ADD_COLUMN = "BEGIN; ALTER TABLE {table} ADD COLUMN reviewed_by text"


@fault("P02", "lock pile-up behind an open transaction")
def lock_pile_up(
    scene: Scene, *, waiters: int = 18, root_application: str = "batch-import", application: str = "api"
) -> None:
    """A transaction changed one row, then its client went to do something else; everybody wants that row."""
    root = scene.session("worker", root_application)
    root.execute("BEGIN")
    root.execute(_TOUCH.encode())
    for session in scene.sessions(waiters, "web", application):
        scene.send(session, f"BEGIN; {_TOUCH}")
    scene.wait_for_waiters(waiters)
    scene.name("P02", root.info.backend_pid, root_application)


@fault("P02a", "lock queue behind DDL without lock_timeout")
def ddl_queue(scene: Scene, *, readers: int = 8, application: str = "api") -> None:
    """A long report reads the table, a migration waits for the report, and every new reader waits for the migration."""
    report = scene.session("worker", "report")
    scene.send(report, "SELECT count(*), pg_sleep(3600) FROM content")
    scene.wait_until(
        lambda: scene.count(
            "SELECT count(*) FROM pg_locks WHERE relation = 'content'::regclass AND mode = 'AccessShareLock'"
        ),
        "the report to read",
    )
    pid = _queue_behind_ddl(scene, "content", readers, application)
    scene.name("P02a", pid)


@fault("P02b", "lock held by a prepared transaction")
def prepared_transaction(
    scene: Scene, *, waiters: int = 10, gid: str = "payment-4711", application: str = "api"
) -> None:
    """A two-phase commit whose coordinator vanished between the phases: nobody's session holds the lock."""
    coordinator = scene.session("worker", "coordinator")
    coordinator.execute("BEGIN")
    coordinator.execute(_TOUCH.encode())
    coordinator.execute(f"PREPARE TRANSACTION '{gid}'".encode())
    scene.undo(lambda: scene.as_superuser(f"ROLLBACK PREPARED '{gid}'"))
    for session in scene.sessions(waiters, "web", application):
        scene.send(session, f"BEGIN; {_TOUCH}")
    scene.wait_for_waiters(waiters)
    scene.name("P02b", gid)


@fault("P02c", "DDL waits for an anti-wraparound autovacuum")
def wraparound_autovacuum(scene: Scene, *, readers: int = 8, application: str = "api") -> None:
    """Autovacuum against wraparound does not yield, so a migration waits for it and readers for the migration."""
    # Switched off, so that an ordinary vacuum or analyze does not come first; against wraparound it comes all the same.
    scene.as_superuser(
        "CREATE TABLE ledger (id int, title text) WITH (autovacuum_enabled = false, autovacuum_freeze_max_age = 100000,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
    )
    scene.undo(lambda: _drop_under_vacuum(scene))
    scene.as_superuser("ALTER TABLE ledger OWNER TO app_owner")
    scene.as_superuser("GRANT SELECT ON ledger TO web")
    scene.as_superuser("INSERT INTO ledger SELECT i, repeat('entry ', 150) FROM generate_series(1, 30000) AS i")
    scene.as_superuser(
        "DO $$ BEGIN FOR i IN 1..101000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    )
    pid = scene.wait_until(lambda: _vacuum_pid(scene), "the anti-wraparound autovacuum", seconds=60)
    _queue_behind_ddl(scene, "ledger", readers, application)
    scene.name("P02c", pid)


def _queue_behind_ddl(scene: Scene, table: str, readers: int, application: str) -> int:
    """A migration that waits for ``table`` and readers that wait for it; the migration's pid."""
    migration = scene.session("worker", "migration")
    scene.send(migration, _ADD_COLUMN.format(table=table))
    scene.wait_for_waiters(1)
    for session in scene.sessions(readers, "web", application):
        scene.send(session, _READ.format(table=table))
    scene.wait_for_waiters(readers + 1)
    return migration.info.backend_pid


def _vacuum_pid(scene: Scene) -> int | None:
    rows = scene.as_superuser(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
        " AND query LIKE '%ledger%(to prevent wraparound)%'"
    )
    return int(rows[0][0]) if rows else None


def _drop_under_vacuum(scene: Scene) -> None:
    """Queue the DROP first, then end the worker: it would come again at once, and find the table gone."""
    with scene.sandbox.superuser() as dropping:
        scene.send(dropping, "DROP TABLE ledger")

        def gone() -> bool:
            scene.as_superuser(
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
                " WHERE backend_type = 'autovacuum worker' AND query LIKE '%ledger%'"
            )
            dropping.pgconn.consume_input()
            return not dropping.pgconn.is_busy()

        scene.wait_until(gone, "the table to be dropped")
        while dropping.pgconn.get_result() is not None:
            pass
