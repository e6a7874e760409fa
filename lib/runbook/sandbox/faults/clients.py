"""Faults made by client processes: a reconnect storm, orphans of killed clients, a pool that is too small."""

from __future__ import annotations

from runbook.sandbox import patient
from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene

MODULE = "runbook.sandbox.clients"


@fault("P05", "reconnect storm")
def reconnect_storm(scene: Scene, *, sessions: int = 21, application: str = "api-reconnect") -> None:
    """A client that opens a session for each request and closes it soon after, as fast as it can."""
    arguments = {"act": "reconnect", "dsn": scene.sandbox.dsn("web"), "application": application, "sessions": sessions}
    scene.child(MODULE, arguments)
    scene.undo(lambda: scene.terminate_application(application))
    scene.grow_older_than(2)
    scene.name("P05", application)


@fault("P09", "orphaned sessions of dead clients")
def orphans(scene: Scene, *, sessions: int = 7, application: str = "api-gone") -> None:
    """Clients were killed while their statements ran; the server notices when it next writes to them."""
    child = scene.child(
        MODULE,
        {"act": "long_statements", "dsn": scene.sandbox.dsn("web"), "application": application, "sessions": sessions},
    )
    scene.undo(lambda: scene.terminate(child.greeting["pids"], application))
    child.kill()
    query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}' AND state = 'active'"
    scene.wait_until(lambda: scene.count(query) == sessions, f"{sessions} orphaned statements")
    scene.name("P09", application)


@fault("P11", "pool of the application exhausted", modules={"psycopg_pool": "sandbox"})
def application_pool(scene: Scene, *, threads: int = 6, application: str = "api") -> None:
    """An application with a pool of two whose holders are slow; the others time out and say so in the log."""
    app_log = scene.sandbox.app_log
    length = app_log.stat().st_size
    scene.undo(lambda: _truncate(scene, length))
    scene.undo(lambda: scene.terminate_application(application))
    scene.child(
        MODULE,
        {
            "act": "small_pool",
            "dsn": scene.sandbox.dsn("web", patient.DATABASE),
            "application": application,
            "sessions": 2,
            "threads": threads,
            "log": str(app_log),
        },
    )
    scene.wait_until(lambda: app_log.stat().st_size > length + 500, "timeouts in the application's log")


def _truncate(scene: Scene, length: int) -> None:
    with scene.sandbox.app_log.open("r+b") as log:
        log.truncate(length)
