"""The application's way to its database: a small pool that connects when it has to, and errors that name a SQLSTATE."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

POOL_SIZE = 4
APPLICATION_NAME = "web-app"
WORKER_NAME = "web-worker"
"""What their sessions are called, so that the sandbox does not take them for somebody's leftovers."""

#: A refused login carries no SQLSTATE in psycopg, only text.
_REFUSALS = {
    "connection slots are reserved": "53300",
    "too many clients": "53300",
    "too many connections": "53300",
    "password authentication failed": "28P01",
    "starting up": "57P03",
    "shutting down": "57P03",
}


class DatabaseFailed(Exception):
    """A statement failed; the message is what the application logs."""


class Database:
    """At most :data:`POOL_SIZE` sessions."""

    def __init__(self, dsn: str, *, application_name: str = APPLICATION_NAME) -> None:
        self._application_name = application_name
        self.dsn = dsn
        self._slots = asyncio.Semaphore(POOL_SIZE)
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self.used = 0
        #: Statements that wait for a session, how many have waited so far, and for how long together.
        self.waiting = 0
        self.waits = 0
        self.waited_seconds = 0.0

    async def rows(
        self, statement: str, parameters: Sequence[Any] = (), *, dsn: str = "", hold_seconds: float = 0.0
    ) -> list[Any]:
        """Run one statement; its rows, none for one that returns nothing. Its session is kept for ``hold_seconds``.

        Raises
        ------
        DatabaseFailed
            It could not connect, or the server refused the statement.
        """
        with _named_errors():
            await self._session_free()
            self.used += 1
            try:
                found = await self._ask(statement, parameters, dsn or self.dsn)
                await asyncio.sleep(hold_seconds)
                return found
            finally:
                self.used -= 1
                self._slots.release()

    async def _session_free(self) -> None:
        """Return when this statement may have one of the sessions."""
        began = time.perf_counter()
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
            self.waits += 1
            self.waited_seconds += time.perf_counter() - began

    async def close_idle(self) -> None:
        """Close every session that is not in use."""
        while self._idle:
            await self._idle.pop().close()

    async def _ask(self, statement: str, parameters: Sequence[Any], dsn: str) -> list[Any]:
        import psycopg

        while True:
            kept = self._idle.pop() if self._idle and dsn == self.dsn else None
            session = kept or await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, application_name=self._application_name, connect_timeout=3
            )
            try:
                cursor = await session.execute(statement.encode(), parameters)
                return await cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                # A session that the server ended while it was idle has not heard the statement.
                if kept is None or not session.closed:
                    raise
            finally:
                if session.closed or dsn != self.dsn:
                    await session.close()
                else:
                    self._idle.append(session)


@contextmanager
def _named_errors() -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        text = str(error).strip().replace("\n", " ")
        code = error.sqlstate or next((code for sign, code in _REFUSALS.items() if sign in text), None)
        named = f" (SQLSTATE {code})" if code else ""
        raise DatabaseFailed(f"{type(error).__name__}: {text}{named}") from None
