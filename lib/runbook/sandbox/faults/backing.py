"""Faults of the application's database, as its users meet them: no slot, read-only, a column that is gone."""

from __future__ import annotations

from runbook.sandbox import patient
from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.requests import QUICK
from runbook.sandbox.faults.scene import Scene

_SHA = "9be2f6c40d8351a7ec1460fb58d2937a4e0cb6d5"


@fault("E03", "no database connection left", scaled=QUICK)
def no_connection_left(scene: Scene, *, application: str = "reporting") -> None:
    """Another application holds every slot, and ours is refused when it connects (SQLSTATE 53300)."""
    production = scene.production
    # Who reconnects all the time would keep the last slots from the other.
    with production.nobody_there():
        production.no_connections()
        _take_every_slot(scene, application)
    production.failing(0.3)
    production.fill_window()


def _take_every_slot(scene: Scene, application: str) -> None:
    """Sessions until one is refused: the scene's own connections count as well."""
    import psycopg

    for _ in range(patient.MAX_CONNECTIONS):
        try:
            scene.session("web", application)
        except psycopg.OperationalError:
            return


@fault("E04", "database read-only", scaled=QUICK)
def read_only(scene: Scene) -> None:
    """After a failover the application talks to a standby: it reads, and cannot write (SQLSTATE 25006)."""
    role = "ALTER ROLE web"
    # Undone last: a session keeps what it began with.
    scene.undo(scene.production.new_connections)
    scene.change(f"{role} SET default_transaction_read_only = on", f"{role} RESET default_transaction_read_only")
    scene.production.new_connections()
    scene.production.failing(0.08)
    scene.production.fill_window()


@fault("E05", "schema drift", scaled=QUICK)
def schema_drift(scene: Scene) -> None:
    """A migration renamed a column that the running release still asks for (SQLSTATE 42703)."""
    production = scene.production
    migration = {"filename": "prisma/migrations/20261120_rename_media/migration.sql", "status": "added"}
    production.deploy(_SHA, ref="main", description="Rename a column", files=[migration])
    scene.change(
        'ALTER TABLE content RENAME COLUMN "mediaUrl" TO media_url',
        'ALTER TABLE content RENAME COLUMN media_url TO "mediaUrl"',
    )
    production.failing(0.15)
    production.fill_window()
