"""PostgreSQL, read only: one diagnosing connection, one statement at a time, nothing that could make things worse.

Each statement goes alone, by the extended protocol, inside ``BEGIN READ ONLY`` with ``statement_timeout`` and
``lock_timeout``, and its rows are capped. Read-only is no guard against functions that act, so with a role that is
superuser or may signal only statements that ship with the library are run. When the server has no slot left, the
reason is learned from the raw start-up conversation and the reserve is tried. Works on versions 13 to 18.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import json
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from runbook.connectors import postgres_startup
from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.connectors.postgres_conninfo import parsed, target_of, unusable
from runbook.connectors.postgres_values import plain, use_lenient_loaders
from runbook.connectors.postgres_wire import cut
from runbook.connectors.turn import turn
from runbook.result import Reading, ReadingState

if TYPE_CHECKING:
    import psycopg

APPLICATION_NAME = "runbook:diagnose"
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 5
LIMIT_SECONDS = 12.0
"""Whole time for one reading: waiting for the turn, connecting (twice at most), the statement, its rows."""
MAX_HANGS, HANG_SECONDS = 2, 60.0
"""After so many readings in a row that hung, the server is not asked again for so long."""
ROW_CAP = 1000
IDLE_CLOSE_SECONDS = 3.0
"""A diagnosing connection that nothing asked for so long gives its slot back."""

# One simple-protocol message; SET LOCAL, since a transaction pooler keeps nothing else (and refuses ``options``).
_BEGIN = (
    "BEGIN READ ONLY; "
    f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL lock_timeout = '500ms'; "
    "SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL TimeZone = 'UTC'; "
    "SET LOCAL search_path = "
)
_PLACEHOLDER = re.compile(r"%\((\w+)\)[sbt]")
_STATES: dict[str, ReadingState] = {
    "57014": "timeout",
    "55P03": "timeout",
    "25P03": "timeout",
    "25P04": "timeout",
    "42501": "permission_denied",
    "25006": "permission_denied",  # it would have written
    "42P01": "not_configured",  # the relation of an extension that is not installed
    "42883": "not_configured",
    "55000": "not_configured",  # installed, and not in shared_preload_libraries
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """How the connection came about and what its role can see and do."""

    #: ``dsn``, ``maintenance database`` or ``reserve``.
    via: str
    facts: Mapping[str, Any]

    @property
    def dangerous(self) -> str:
        """What the role could do that a diagnosing role should not; empty for a proper one."""
        powers = {
            "superuser": "is a superuser",
            "may_signal": "may signal other sessions",
            "may_touch_host": "may run programs or write files on the host",
            "replication": "may drop replication slots",  # which a read-only transaction lets it
        }
        return ", ".join(text for key, text in powers.items() if self.facts.get(key))


@functools.lru_cache(maxsize=64)
def probe_sql(name: str) -> str:
    """The text of one of the library's own statements (``connectors/sql/<name>.sql``)."""
    return importlib.resources.files("runbook.connectors").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def probe_names() -> list[str]:
    """Names of the library's own statements."""
    here = importlib.resources.files("runbook.connectors").joinpath("sql")
    return sorted(file.name.removesuffix(".sql") for file in here.iterdir() if file.name.endswith(".sql"))


def digest(sql: str) -> str:
    """Identity of a statement whatever its white space."""
    return hashlib.sha256(" ".join(sql.split()).encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def shipped_digests() -> frozenset[str]:
    """Digests of the statements that ship in the notebooks; ``runbook lint`` holds the list against them."""
    listed = importlib.resources.files("runbook.connectors").joinpath("sql", "shipped.json").read_text(encoding="utf-8")
    return frozenset(json.loads(listed).values())


def placeholders(sql: str) -> list[str]:
    """Names of the bind parameters ``%(name)s`` in a statement."""
    return list(dict.fromkeys(_PLACEHOLDER.findall(sql)))


class Postgres(Connector):
    """One server, as the diagnosing role sees it.

    Parameters
    ----------
    dsn
        The diagnosing role; ``None`` when not configured.
    reserve_dsn
        A role that may use reserved slots; asked only when ``dsn`` is refused for want of a slot.
    """

    source = "postgresql"
    statements = None

    def __init__(self, context: Context, dsn: str | None, reserve_dsn: str | None = None) -> None:
        import psycopg

        self.failures = (psycopg.Error, OSError, UnicodeError)
        self._dsn, self._reserve_dsn = dsn, reserve_dsn
        self._conninfo = parsed(dsn) if dsn else {}
        self._unusable = unusable(dsn, self._conninfo)
        self._conn: psycopg.Connection[Any] | None = None
        self._turn: contextlib.ExitStack | None = None
        self._lock = threading.RLock()
        self._idle: threading.Timer | None = None
        self._refusal: tuple[float, Failure] | None = None
        self._hangs = 0
        self.access: Access | None = None
        #: The refusal that the configured role met, when the connection came about in another way or not at all.
        self.refused: postgres_startup.Startup | None = None
        super().__init__(context, target_of(self._conninfo) if dsn else "postgresql")

    @property
    def is_local(self) -> bool:
        """Whether the server listens on this very host, so that its processes and sockets can be looked at."""
        host = self._conninfo.get("host", "")
        return bool(self._dsn) and (host.startswith(("/", "@")) or host in ("", "localhost", "127.0.0.1", "::1"))

    @property
    def port(self) -> int:
        """TCP port (or socket number) of the server."""
        return 0 if self._unusable else int(self._conninfo.get("port") or 5432)

    # -- readings ---------------------------------------------------------------------------------------------------

    def probe(self, name: str, *, label: str = "", row_cap: int = 5000) -> Reading:
        """One of the library's own statements, read under its own name or under ``label``."""
        return self._query(label or name, probe_sql(name), None, row_cap=row_cap, own=True)

    def pulse(self) -> None:
        """One sample of the symptom: the headroom and what running sessions do."""
        self.probe("headroom")
        self.probe("activity")

    def query(
        self, name: str, sql: str, parameters: Mapping[str, Any] | None = None, *, row_cap: int = ROW_CAP
    ) -> Reading:
        """One statement of an author's, its parameters bound, never interpolated.

        Raises
        ------
        KeyError
            A placeholder has no value.
        """
        wanted = placeholders(sql)
        bound = {key: (parameters or {})[key] for key in wanted} if wanted else None
        return self._query(name, sql, bound, row_cap=row_cap, own=digest(sql) in shipped_digests())

    def connect(self, name: str = "connection") -> Reading:
        """Whether and how the configured role gets a connection: the first reading of a run."""
        if self._unusable:
            return self.missing(name, "(connect)", self._unusable)

        def fetch() -> Fetched:
            with self._lock:
                self._connected()
                self._rest()
                assert self.access is not None
                refused = self.refused
                return Fetched(
                    value={
                        "via": self.access.via,
                        "refused": refused is not None,
                        "refused_code": refused.code if refused else "",
                        "refused_stage": refused.stage if refused else "",
                        "refused_message": refused.message if refused else "",
                        "powers": self.access.dangerous,
                        **self.access.facts,
                    }
                )

        return self.read(name, "(connect) " + probe_sql("access"), fetch, limit_seconds=LIMIT_SECONDS)

    def replication_startup(self, name: str = "replication_startup") -> Reading:
        """Whether a replication connection would be let in, asked without logging in or holding a walsender slot."""
        if self._unusable:
            return self.missing(name, "(replication start-up message)", self._unusable)

        def fetch() -> Fetched:
            answer = postgres_startup.attempt(self._conninfo, seconds=CONNECT_SECONDS, replication=True)
            if answer.stage == "network":
                raise Unavailable(postgres_startup.failure(answer))
            return Fetched(value={"refused": bool(answer.code), "code": answer.code, "message": answer.message})

        return self.read(name, "(replication start-up message)", fetch, limit_seconds=LIMIT_SECONDS)

    def _query(self, name: str, sql: str, parameters: Mapping[str, Any] | None, *, row_cap: int, own: bool) -> Reading:
        if self._unusable:
            return self.missing(name, sql, self._unusable)

        def fetch() -> Fetched:
            with self._lock:
                conn = self._connected()
                try:
                    self._refuse_unless_safe(own)
                    harmless = self.access is not None and not self.access.dangerous
                    path = "pg_catalog, public" if harmless else "pg_catalog"
                    rows, more = _rows(conn, sql, parameters, row_cap, path)
                    self._hangs = 0
                finally:
                    self._rest()
            return Fetched(value=rows, partial=f"only the first {row_cap} rows" if more else "")

        return self.read(name, sql.strip(), fetch, limit_seconds=LIMIT_SECONDS)

    def _refuse_unless_safe(self, own: bool) -> None:
        if not own and self.access is not None and self.access.dangerous:
            raise Unavailable(
                Failure(
                    state="permission_denied",
                    reason=f"not run: the diagnosing role {self.access.dangerous}, and with such a role only "
                    "statements that ship with the library are run",
                )
            )

    # -- the connection ---------------------------------------------------------------------------------------------

    def _connected(self) -> psycopg.Connection[Any]:
        if self._idle is not None:
            self._idle.cancel()
        if self._conn is not None and not self._conn.closed:
            return self._conn
        if self._refusal is not None and time.monotonic() < self._refusal[0]:
            raise Unavailable(self._refusal[1])  # a burning server is not asked again for every cell
        self._close()
        began = time.monotonic()
        held = contextlib.ExitStack()
        try:
            held.enter_context(turn(self.target))
            self._conn, via = self._open()
        except Unavailable as unavailable:
            held.close()
            now = time.monotonic()
            self._refusal = (now + max(1.0, 5 * (now - began)), unavailable.failure)
            raise
        except BaseException:
            held.close()
            raise
        self._turn = held
        try:
            rows, _ = _rows(self._conn, probe_sql("access"), None, 1)
            if not rows:
                raise Unavailable(Failure(state="partial", reason="the server does not know its own role"))
        except BaseException:
            self._close()
            raise
        self.access = Access(via=via, facts=rows[0])
        return self._conn

    def _open(self) -> tuple[psycopg.Connection[Any], str]:
        """A connection and how it was had: the role's own, by another database, or by the reserve."""
        import psycopg

        assert self._dsn is not None
        try:
            conn = _psycopg_connect(self._dsn)
        except psycopg.errors.ConnectionTimeout:
            raise Unavailable(Failure(state="timeout", reason=f"no connection within {CONNECT_SECONDS} s")) from None
        except (psycopg.OperationalError, UnicodeError):
            startup = postgres_startup.attempt(self._conninfo, seconds=CONNECT_SECONDS)
        else:
            self.refused = None
            return conn, "dsn"
        if startup.stage == "accepted":  # it was a passing refusal, or a method that only libpq speaks
            with contextlib.suppress(psycopg.OperationalError):
                return _psycopg_connect(self._dsn), "dsn"
            startup = replace(
                startup, stage="network", code="", message="libpq is refused what the start-up is granted"
            )
        self.refused = startup
        if startup.refused_for_slots:
            for via, dsn in self._ways_in(startup):
                with contextlib.suppress(psycopg.Error, UnicodeError):
                    return _psycopg_connect(dsn), via
        raise Unavailable(postgres_startup.failure(startup))

    def _ways_in(self, startup: postgres_startup.Startup) -> Iterator[tuple[str, str]]:
        from psycopg.conninfo import make_conninfo

        if startup.stage == "after_authentication":  # the limit may be the database's own: look in by another door
            for database in ("postgres", "template1"):
                if database != self._conninfo.get("dbname"):
                    yield "maintenance database", make_conninfo(self._dsn or "", dbname=database)
        if self._reserve_dsn:
            yield "reserve", self._reserve_dsn

    def _rest(self) -> None:
        """Give the slot back when nobody asks again soon."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = threading.Timer(IDLE_CLOSE_SECONDS, self.close)
        self._idle.daemon = True
        self._idle.start()

    def close(self) -> None:
        """Give the connection and the turn back; the next reading opens them again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._conn is not None:
            self._conn.close()
            self._conn = None
        if self._turn is not None:
            self._turn.close()
            self._turn = None

    def abort(self) -> None:
        """Cut the socket under a statement that did not end; the connection is dropped."""
        self._hangs += 1
        if self._hangs >= MAX_HANGS:
            self._refusal = (time.monotonic() + HANG_SECONDS, Failure(state="timeout", reason="it hung before"))
        cut(self._conn)

    def failure(self, error: Exception) -> Failure:
        import psycopg

        if isinstance(error, psycopg.Error):
            code = error.sqlstate or ""
            said = error.diag.message_primary or str(error).strip().split("\n")[0]
            state = _STATES.get(code)
            if code == "42P01" and self.access is not None and self.access.dangerous:
                # Only pg_catalog is in the search path of a role that could act.
                state, said = "permission_denied", f"{said}: this role {self.access.dangerous}; use one that cannot act"
            if state is None:
                # Without a code it is libpq that speaks (the connection is gone) or psycopg (this cannot be sent).
                gone = code.startswith(("08", "57")) if code else isinstance(error, psycopg.OperationalError)
                state = "unreachable" if gone else "partial"
            return Failure(state=state, reason=f"{said} (SQLSTATE {code})" if code else said, code=code)
        if isinstance(error, UnicodeError):
            return Failure(
                state="partial", reason=f"a text that is none ({error.reason if hasattr(error, 'reason') else error})"
            )
        return Failure(state="unreachable", reason=str(error))


def _psycopg_connect(dsn: str) -> psycopg.Connection[Any]:
    import psycopg

    conn = psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        application_name=APPLICATION_NAME,
        client_encoding="utf8",
        prepare_threshold=None,
        keepalives=1,
        keepalives_idle=5,
        tcp_user_timeout=STATEMENT_SECONDS * 2000,
    )
    if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
        # Bytes of any kind, which the server would hold against the client's encoding and refuse to send.
        conn.execute("SET client_encoding TO SQL_ASCII")
    use_lenient_loaders(conn)
    return conn


def _rows(
    conn: psycopg.Connection[Any], sql: str, parameters: Mapping[str, Any] | None, cap: int, path: str = "pg_catalog"
) -> tuple[list[dict[str, Any]], bool]:
    """At most ``cap`` rows of one statement, and whether there were more.

    ``path`` is the search path. Schema *public* is in it only for a role without powers: up to version 14 anybody may
    put a function there that is then called in the name of whoever looks.

    ``stream`` sends by the extended protocol, which takes one statement and no more, and lets us stop reading.
    """
    from psycopg.rows import dict_row

    conn.execute(_BEGIN + path)
    try:
        found: list[dict[str, Any]] = []
        with conn.cursor(row_factory=dict_row) as cursor:
            stream = cast("Generator[dict[str, Any]]", cursor.stream(sql, parameters))
            with contextlib.closing(stream):
                for row in stream:
                    if len(found) == cap:
                        return found, True
                    found.append({key: plain(value) for key, value in row.items()})
        return found, False
    finally:
        _roll_back(conn)


def _roll_back(conn: psycopg.Connection[Any]) -> None:
    """End the transaction; a connection that cannot (left in a COPY, say) is closed, so that none is reused unclean."""
    import psycopg
    from psycopg.pq import TransactionStatus

    if conn.closed:
        return
    with contextlib.suppress(psycopg.Error):
        if conn.info.transaction_status != TransactionStatus.ACTIVE:
            conn.execute("ROLLBACK")
    if conn.info.transaction_status != TransactionStatus.IDLE:
        conn.close()
