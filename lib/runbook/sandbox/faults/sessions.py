"""Faults made of sessions that hold slots: leaks, saturation, oversized pools, superusers, and none at all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runbook.sandbox.faults import machine
from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene

if TYPE_CHECKING:
    import psycopg

TRAFFIC_MODULE = "runbook.sandbox.clients"

CONTROLS = ("P00", "V00", "L00", "D16", "M00", "H00", "K00", "Q10")
"""Causes that stand for *nothing wrong*; each runbook names its own, where it has one."""
_BROWSE = "SELECT id, title FROM content WHERE status = 'READY' ORDER BY \"createdAt\" DESC LIMIT 20"


@fault("P01", "idle-in-transaction leak", scaled={"idle_after_seconds": 1})
def idle_in_transaction_leak(scene: Scene, *, sessions: int = 20, application: str = "api-leaky") -> None:
    """Sessions of one application began a transaction, read something, and never ended it."""
    for session in scene.sessions(sessions, "web", application):
        _begin(session)
        scene.then(session.commit)
        scene.then(partial(_begin, session))
    scene.grow_older_than(scene.threshold("idle_after_seconds", 30))
    scene.name("P01", application)


def _begin(session: psycopg.Connection) -> None:
    session.execute("BEGIN")
    session.execute("SELECT count(*) FROM content WHERE status = 'PROCESSING'")


# The number of cores is given, so that the drill means the same on a machine with many.
@fault("P03", "slow-query saturation", scaled={"cores": 2})
def slow_query_saturation(scene: Scene, *, sessions: int = 14, application: str = "api-search") -> None:
    """One statement, run by many sessions at once, that takes minutes. It sleeps by the row and spares the machine."""
    statement = """SELECT c.id, pg_sleep(0.25) FROM content c WHERE c.title LIKE '%title%7%' OR c.title > 'T'"""
    searching = scene.sessions(sessions, "web", application)
    for session in searching:
        scene.send(session, statement)
        scene.then(partial(scene.send_instead, session, statement))
    query = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name = '{application}'"
    scene.wait_until(lambda: scene.count(query) == sessions, f"{sessions} slow statements")
    scene.name("P03", application)


@fault("P04", "pools oversized")
def oversized_pools(scene: Scene, *, sessions: int = 12) -> None:
    """Two applications keep as many idle sessions as their pools allow, and together fill the server."""
    for application, role in (("api", "web"), ("jobs", "worker")):
        for session in scene.sessions(sessions, role, application):
            session.execute(_BROWSE.encode())


@fault("P14", "superusers eat into the reserve")
def superusers_in_the_reserve(scene: Scene, *, superusers: int = 14, ordinary: int = 12) -> None:
    """An application that logs in as a superuser takes slots that ordinary roles are then refused.

    One session more and ``pg_use_reserved_connections`` would not get in either.
    """
    for session in [*scene.sessions(ordinary, "web", "api"), *scene.sessions(superusers, "legacy_admin", "backoffice")]:
        session.execute(_BROWSE.encode())
    scene.name("P14", "backoffice")


@fault("healthy", "ordinary traffic", expects=CONTROLS, outcomes=("healthy", "no_current_fault"))
def ordinary_traffic(scene: Scene, *, idle: int = 4) -> None:
    """A few idle sessions of a pool, and two that run short statements all the time.

    An alert of a disk names one that has room: how full the machine's own are is not the sandbox's.
    """
    if quiet := machine.roomy_filesystem():
        scene.labels["mountpoint"] = quiet
    for session in scene.sessions(idle, "web", "api"):
        session.execute(_BROWSE.encode())
    scene.child(
        TRAFFIC_MODULE,
        {"act": "short_queries", "dsn": scene.sandbox.dsn("worker"), "application": "jobs", "sessions": 2},
    )
