"""The stage on which a fault acts: sessions, child processes and changes that are undone in reverse order.

Everything that a fault does to the patient goes through its scene, so that nothing has to be remembered twice.
Closing a client does not free a backend that waits or sleeps, hence every session is also terminated on the server.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runbook.sandbox import patient, processes
from runbook.sandbox.waiting import wait_until

if TYPE_CHECKING:
    import psycopg

    from runbook.sandbox.faults.production import Production
    from runbook.sandbox.sandbox import Sandbox

T = TypeVar("T")
_WAIT_SECONDS = 30.0


class Scene:
    """What one fault has done so far.

    Parameters
    ----------
    sandbox
        Where it happens.
    thresholds
        The runbook's thresholds in force, so that a fault can wait until it is old enough to be seen.
    """

    def __init__(self, sandbox: Sandbox, thresholds: Mapping[str, Any]) -> None:
        self.sandbox = sandbox
        self.thresholds = thresholds
        #: Settings that the diagnosis needs for this fault, by section.
        self.settings: dict[str, dict[str, Any]] = {}
        #: Labels of the alert that this fault would raise, beside the usual ones.
        self.labels: dict[str, str] = {}
        #: Per cause, values that the verdict's details must name.
        self.named: dict[str, list[Any]] = {}
        #: Where the files of a system lie that this fault started for itself, by its name.
        self.places: dict[str, Path] = {}
        self._undo = contextlib.ExitStack()
        self._then: list[Callable[[], object]] = []
        self._admin: psycopg.Connection | None = None

    @cached_property
    def production(self) -> Production:
        """The application's side; the first touch marks what healing returns to."""
        from runbook.sandbox.faults.production import Production

        return Production(self)

    # -- doing --------------------------------------------------------------------------------

    def session(self, role: str, application: str, **options: Any) -> psycopg.Connection:
        """A session of ``role`` in the application's database that lasts until the fault heals."""
        import psycopg

        connection = psycopg.connect(
            self.sandbox.dsn(role), autocommit=True, application_name=application, connect_timeout=15, **options
        )
        self.undo(lambda: self._end_session(connection))
        return connection

    def sessions(self, count: int, role: str, application: str) -> list[psycopg.Connection]:
        """Several sessions alike."""
        return [self.session(role, application) for _ in range(count)]

    @staticmethod
    def send(connection: psycopg.Connection, statement: str) -> None:
        """Start a statement (or several, separated by semicolons) and do not wait for it."""
        connection.pgconn.send_query(statement.encode())
        connection.pgconn.flush()

    def child(self, module: str, arguments: Mapping[str, Any]) -> processes.Child:
        """A child process that ends when the fault heals."""
        child = processes.spawn(module, arguments)
        self.undo(child.end)
        return child

    @classmethod
    def send_instead(cls, connection: psycopg.Connection, statement: str) -> None:
        """Give up the statement under way, as a client does whose own limit is over, and start this one."""
        connection.cancel_safe()
        while connection.pgconn.get_result() is not None:
            pass
        cls.send(connection, statement)

    def then(self, action: Callable[[], object]) -> None:
        """What the fault's clients do when they go on by themselves; see :meth:`go_on`."""
        self._then.append(action)

    def go_on(self) -> None:
        """Have the clients go on: a session ends its transaction and begins another, a client sends a command."""
        for action in self._then:
            action()

    def change(self, do: str, undo: str, *, database: str = patient.DATABASE) -> None:
        """A statement of the superuser, with the one that takes it back."""
        self.as_superuser(do, database=database)
        self.undo(lambda: self.as_superuser(undo, database=database))

    def as_superuser(self, statement: str, *, database: str = patient.DATABASE) -> list[Any]:
        """Run one statement as superuser; its rows, if any."""
        with self.sandbox.superuser(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def undo(self, action: Callable[[], object]) -> None:
        """Something to do when the fault heals; the last one first."""
        self._undo.callback(action)

    def name(self, cause: str, *values: Any) -> None:
        """Values that a good verdict names for ``cause``: the application, the pid, the gid."""
        self.named.setdefault(cause, []).extend(values)

    # -- waiting --------------------------------------------------------------------------------

    def threshold(self, name: str, default: float) -> float:
        """A threshold of the runbook, in its own unit."""
        return float(self.thresholds.get(name, default))

    def grow_older_than(self, seconds: float) -> None:
        """Wait until what was just done is older than that."""
        time.sleep(seconds + 0.3)

    def wait_until(self, condition: Callable[[], T], what: str, *, seconds: float = _WAIT_SECONDS) -> T:
        """The first true value of ``condition``.

        Raises
        ------
        SandboxError
            It did not become true in time: the fault could not be injected.
        """
        return wait_until(condition, what, seconds=seconds, remedy="See the patient's log")

    def count(self, query: str) -> int:
        """The number that ``query`` answers, asked as superuser."""
        return int(self.as_superuser(query)[0][0])

    def wait_for_waiters(self, count: int) -> None:
        """Wait until that many sessions wait for locks."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'"
        )
        self.wait_until(lambda: self.count(query) >= count, f"{count} sessions waiting for locks")

    # -- undoing --------------------------------------------------------------------------------

    def heal(self) -> None:
        """Undo everything, last first. Every step is tried, also when an earlier one failed."""
        try:
            self._undo.close()
        finally:
            if self._admin is not None:
                self._admin.close()
                self._admin = None

    def _end_session(self, connection: psycopg.Connection) -> None:
        pid = connection.info.backend_pid
        application = connection.info.parameter_status("application_name") or ""
        self.terminate([pid], application)
        connection.close()

    def terminate(self, pids: Iterable[int], application: str) -> None:
        """End sessions of ``application`` on the server; those gone already are fine."""
        if self._admin is None or self._admin.closed:
            self._admin = self._undo_connection()
        for pid in pids:
            self._admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s",
                (pid, application),
            )

    def terminate_application(self, application: str) -> None:
        """End whatever sessions ``application`` has, on the server."""
        pids = self.as_superuser(f"SELECT pid FROM pg_stat_activity WHERE application_name = '{application}'")
        self.terminate([row[0] for row in pids], application)

    def _undo_connection(self) -> psycopg.Connection:
        import psycopg

        return psycopg.connect(
            self.sandbox.dsn("postgres"), autocommit=True, application_name="runbook:sandbox", connect_timeout=15
        )
