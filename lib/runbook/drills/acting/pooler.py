"""What a person orders of a real PgBouncer: a pause, its files read anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from runbook.drills.acting.case import Case, Place, Scene
from runbook.errors import SandboxError
from runbook.sandbox import patient
from runbook.sandbox.waiting import wait_until

if TYPE_CHECKING:
    import psycopg

RUNBOOK, FAULT = "db_connection_exhaustion", "P10"
SIZE = "default_pool_size"
ENOUGH, OTHER = 12, 4
"""Connections for every client of the fault, and for one more than before."""


def database(place: Place) -> Mapping[str, Any]:
    """The order for the application's database."""
    return {"database": patient.DATABASE}


def larger_pool(place: Place) -> Mapping[str, Any]:
    """Somebody has written a larger pool into the file; the order is to read it."""
    file = place.injected.places["pgbouncer"] / "pgbouncer.ini"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(SIZE)]
    file.write_text("\n".join([*lines, f"{SIZE} = {ENOUGH}", ""]))
    return {}


@contextmanager
def paused_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody pauses it; what is under way has not ended, so that his command does not answer."""
    # His command answers when it is over: that connection is closed, and waits for nothing.
    with closing(_console(scene)) as somebody, closing(_console(scene)) as other:
        somebody.pgconn.send_query(f'PAUSE "{patient.DATABASE}"'.encode())
        somebody.pgconn.flush()
        wait_until(lambda: _paused(other), f"{patient.DATABASE} to be paused")
        yield
        still = _paused(other)
        other.execute(f'RESUME "{patient.DATABASE}"'.encode())
    if not still:
        raise SandboxError(f"{patient.DATABASE} was resumed although somebody else had paused it")


@contextmanager
def set_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody sets another size at the console, which reading the files would undo."""
    with closing(_console(scene)) as console:
        console.execute(f"SET {SIZE} = {OTHER}".encode())
        yield
        config = {str(row[0]): row[1] for row in console.execute(b"SHOW CONFIG").fetchall()}
    if int(config[SIZE]) != OTHER:
        raise SandboxError(f"{SIZE} is {config[SIZE]} although somebody else had set {OTHER}")


def _console(scene: Scene) -> psycopg.Connection:
    import psycopg

    dsn = scene.injected.settings["postgres"]["pgbouncer_action_dsn"]
    return psycopg.connect(dsn, autocommit=True, connect_timeout=15, prepare_threshold=None)


def _paused(console: psycopg.Connection) -> bool:
    cursor = console.execute(b"SHOW DATABASES")
    names = [column.name for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return any(row["name"] == patient.DATABASE and int(row["paused"]) for row in rows)


CASES = (
    # Who waits goes on waiting, and more wait.
    Case(
        kind="pgbouncer.pause", runbook=RUNBOOK, fault=FAULT, verdict="unchanged", wanted=database,
        drift=paused_by_somebody,
    ),
    # PgBouncer does not tell when it read its files.
    Case(
        kind="pgbouncer.reload", runbook=RUNBOOK, fault=FAULT, verdict="fixed", wanted=larger_pool,
        drift=set_by_somebody, holds=None,
    ),
)  # fmt: skip
