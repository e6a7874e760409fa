"""The connection to the store: where it is, its pool, its schema; alerts and runs hang off it.

Opening it starts the embedded server when none is configured. A store that cannot be reached raises
:class:`~runbook.errors.StoreError` within seconds, whose text never carries the URL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from runbook.errors import StoreError
from runbook.settings import data_dir
from runbook.store.alerts import Alerts
from runbook.store.migrate import SCHEMA, migrate
from runbook.store.runs import Runs

if TYPE_CHECKING:
    from runbook.embedded import EmbeddedPostgres
    from runbook.settings import Settings

log = structlog.get_logger(__name__)

Connection = psycopg.AsyncConnection[Any]

_CONNECT_SECONDS = 5
_POOL_WAIT_SECONDS = 3.0
_SESSION = (
    f"-c search_path={SCHEMA} -c timezone=UTC -c statement_timeout=15s -c idle_in_transaction_session_timeout=30s"
)


class Store:
    """The store of one process; use as an asynchronous context manager.

    Parameters
    ----------
    settings
        ``store.url`` names a PostgreSQL; empty = the embedded one in the data directory.
    """

    def __init__(self, settings: Settings, *, connections: int = 8) -> None:
        url = settings.store.url
        self._url = url.get_secret_value() if url else ""
        self._connections = connections
        self._server: EmbeddedPostgres | None = None
        self._pool: AsyncConnectionPool[Connection] | None = None
        self.alerts = Alerts(self)
        self.runs = Runs(self)

    async def __aenter__(self) -> Store:
        try:
            conninfo, kwargs = await self._address()
            await self._migrate(conninfo, kwargs)
            self._pool = AsyncConnectionPool(
                conninfo,
                kwargs=kwargs,
                configure=_autocommit,
                min_size=2,
                max_size=self._connections,
                timeout=_POOL_WAIT_SECONDS,
                reconnect_timeout=30,
                # A pooled connection may be dead since the server was restarted: asked before it is handed out.
                check=AsyncConnectionPool.check_connection,
                open=False,
                name="runbook-store",
            )
            await self._pool.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back, and leave the embedded server (the last to leave stops it)."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        if self._server is not None:
            server, self._server = self._server, None
            await asyncio.to_thread(server.stop)

    @property
    def pool(self) -> AsyncConnectionPool[Connection]:
        """The pool itself, for the queue that shares it."""
        if self._pool is None:
            raise StoreError("the store is not open", remedy="Use it inside 'async with'")
        return self._pool

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection in autocommit mode.

        Raises
        ------
        StoreError
            The store cannot be reached, or refused a statement.
        """
        try:
            async with self.pool.connection() as connection:
                yield connection
        except (PoolTimeout, PoolClosed, TooManyRequests) as error:
            raise StoreError("the store cannot be reached", remedy="It is retried; see runbook doctor") from error
        except psycopg.Error as error:
            raise StoreError(f"the store failed: {_reason(error)}", remedy="See the log of its server") from error

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """A connection inside a transaction: all of it is durable when the block ends without error, or none."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def check(self) -> None:
        """Raise :class:`StoreError` unless the store answers."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    async def listen(self, channel: str) -> AsyncIterator[str]:
        """Payloads notified on ``channel``, on a connection of its own, for as long as that lives."""
        conninfo, kwargs = await self._address()
        try:
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **kwargs) as connection:
                await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
                async for notification in connection.notifies():
                    yield notification.payload
        except psycopg.Error as error:
            raise StoreError(f"the store cannot be listened to: {_reason(error)}", remedy="It is retried") from error

    async def _address(self) -> tuple[str, dict[str, Any]]:
        """Where to connect, and how every session is set up."""
        url = self._url or await asyncio.to_thread(self._embedded)
        try:
            options = str(conninfo_to_dict(url).get("options") or "")
        except psycopg.ProgrammingError:
            raise StoreError("store.url is no PostgreSQL URL", remedy="Write postgresql://user@host/database") from None
        return url, {
            "application_name": "runbook",
            "connect_timeout": _CONNECT_SECONDS,
            "options": f"{options} {_SESSION}".strip(),
        }

    def _embedded(self) -> str:
        from runbook.embedded import EmbeddedPostgres

        if self._server is None:
            server = EmbeddedPostgres(data_dir() / "store", bind="unix")
            server.start()
            self._server = server
        return self._server.superuser_dsn

    async def _migrate(self, conninfo: str, kwargs: dict[str, Any]) -> None:
        try:
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **kwargs) as connection:
                await migrate(connection)
        except psycopg.Error as error:
            raise StoreError(
                f"the store cannot be opened: {_reason(error)}", remedy="Check store.url and the server it names"
            ) from None


async def _autocommit(connection: Connection) -> None:
    # Not among the pool's arguments: Procrastinate reuses those for a connection of its own and adds this itself.
    await connection.set_autocommit(True)


def _reason(error: psycopg.Error) -> str:
    """What went wrong, on one line and without anything of ours in it."""
    if error.sqlstate:
        return f"{type(error).__name__} ({error.sqlstate}: {(error.diag.message_primary or '').splitlines()[0:1]})"
    return type(error).__name__
