"""One connection to a Redis for each reading, and what an error of it means.

Redis says much of what is wrong with it in the first word of an error (``LOADING``, ``MISCONF``, ``NOAUTH``), so that
word is always kept as the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.connectors.http import connection_error
from runbook.connectors.redis_walk import CONNECT_SECONDS
from runbook.result import Reading, ReadingState

LIMIT_SECONDS = 5.0
CLIENT_NAME = "runbook-diagnose"
_UNSENT = "Connection not ready"
"""What the library's pool says of a connection on which the server spoke first; nothing has been sent by then."""

Command = tuple[str | int | float, ...]

_STATES: dict[str, ReadingState] = {
    "NOAUTH": "auth_failed",
    "WRONGPASS": "auth_failed",
    "NOPERM": "permission_denied",
    "DENIED": "permission_denied",
    "MAXCLIENTS": "unreachable",
}


class RedisConnector(Connector):
    """What the connectors to a Redis share: one short connection for each reading, and what an error means.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` or ``unix://``; ``None`` when it is not configured.
    lacking
        Why nothing can be asked although there is a URL; empty when it can.
    """

    def __init__(self, context: Context, url: str | None, *, lacking: str = "") -> None:
        import redis

        self.failures = (redis.RedisError, OSError)
        #: Errors that our own commands were answered with, by code: the server counts them as it counts everybody's.
        self.own_errors: Counter[str] = Counter()
        self._answer_seconds = LIMIT_SECONDS - 1
        self._url = url or ""
        self._lacking = lacking if url else "redis.url is not set"
        usable = bool(url) and _usable(self._url)
        if url and not usable:
            self._lacking = "redis.url is no URL of the form redis://host:port/0"
        super().__init__(context, _place(self._url) if usable else "redis")

    def ask(self, name: str, query: str, fetch: Callable[[Session], Fetched]) -> Reading:
        """The reading ``name``; ``fetch`` is given an open session."""
        if self._lacking:
            return self.missing(name, query, Failure(state="not_configured", reason=self._lacking))
        return self.read(name, query, lambda: self._fetched(fetch), limit_seconds=LIMIT_SECONDS)

    def _fetched(self, fetch: Callable[[Session], Fetched]) -> Fetched:
        with Session(self._url, self.own_errors, self._answer_seconds) as session:
            return fetch(session)

    def failure(self, error: Exception) -> Failure:
        import redis

        code = error_code(error)
        if code:
            return Failure(state=_STATES.get(code, "partial"), reason=_said(error, code), code=code)
        if isinstance(error, redis.TimeoutError):
            if "connecting" in str(error).lower():
                return Failure(state="timeout", reason="no connection in time", code="ETIMEDOUT")
            return Failure(state="timeout", reason="connected, and no answer in time", code="SILENT")
        code, reason = connection_error(error)
        return Failure(state="timeout" if code == "ETIMEDOUT" else "unreachable", reason=reason, code=code)


def _usable(url: str) -> bool:
    import redis

    try:
        redis.ConnectionPool.from_url(url)
    except ValueError:
        return False
    return True


def _place(url: str) -> str:
    """Host, port and database number of a URL, without what is secret in it."""
    parts = urlsplit(url)
    place = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}{parts.path}"
    return place.removesuffix("/")


class Session:
    """One connection. Commands go out in batches, each batch one round trip; ``errors`` counts what is refused.

    ``name`` is how the server lists it among its clients.
    """

    def __init__(
        self,
        url: str,
        errors: Counter[str] | None = None,
        answer_seconds: float = LIMIT_SECONDS - 1,
        *,
        name: str = CLIENT_NAME,
    ) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._redis = redis.Redis.from_url(
            url,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=answer_seconds,
            retry=Retry(NoBackoff(), 0),
            **_unannounced(),
        )
        self.round_trips = 0
        self._is_in = False
        self._name = name
        self._errors = errors if errors is not None else Counter()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def batch(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to ``commands`` in their order; one that was refused is the exception it was refused with.

        Raises
        ------
        redis.RedisError
            No connection came about, or it broke.
        """
        import redis

        if not commands:
            return []
        # Said here and not at connect time, where a user who may not name itself would get no connection at all.
        naming: list[Command] = [] if self._is_in else [("CLIENT SETNAME", self._name)]
        self.round_trips += 1
        try:
            answers = self._sent([*naming, *commands])
        except redis.RedisError as error:
            self._errors[error_code(error)] += 1
            if not isinstance(error, redis.ConnectionError):
                raise
            if self._is_in or error_code(error) or connection_error(error)[0]:
                raise
            self._turned_away()
            if str(error) != _UNSENT:
                raise
            answers = self._sent([*naming, *commands])  # it lets us in by now
        self._is_in = True
        self._errors.update(error_code(a) for a in answers if isinstance(a, Exception))
        return answers[len(naming) :]

    def _sent(self, commands: Sequence[Command]) -> list[Any]:
        pipeline: Any = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=False))

    def _turned_away(self) -> None:
        """Raise what a server says that closes at once; the library's pool takes it for noise on the line.

        Returns where the server answers now: a slot has become free in the meantime.
        """
        connection: Any = self._redis.connection_pool.make_connection()
        try:
            connection.connect()
            connection.send_command("PING")
            connection.read_response()
        finally:
            connection.disconnect()


def _unannounced() -> dict[str, None]:
    """Keeps the library from telling its own name and version first, which takes two round trips."""
    import redis

    return {"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}


def answered(answer: Any) -> Any:
    """An answer that is no error; access that was refused is the state of the reading, anything else its code."""
    if isinstance(answer, Exception):
        code = error_code(answer) or "ERR"
        raise Unavailable(Failure(state=_STATES.get(code, "partial"), reason=_said(answer, code), code=code))
    return answer


def error_code(error: Exception) -> str:
    """First word of an error reply; ``MAXCLIENTS`` where no slot was left; empty for what is no reply of a server."""
    import redis

    said = str(error)
    if "max number of clients reached" in said:  # a plain ConnectionError for the library
        return "MAXCLIENTS"
    known = str(getattr(error, "status_code", None) or "")
    if known and known != "ERR":
        return known
    for kind, code in _codes():
        if isinstance(error, kind):
            return "WRONGPASS" if code == "NOAUTH" and "invalid" in said.lower() else code
    first = said.split(" ", 1)[0]
    if isinstance(error, redis.ResponseError):
        return first if first.isupper() and first.isalpha() else "ERR"
    return first if first in _STATES else ""


def _codes() -> Sequence[tuple[type[Exception], str]]:
    """Exceptions from which the library takes the first word away, the more special ones first.

    The authentication errors are connection errors to the library, so they are looked at before those.
    """
    from redis import exceptions

    return (
        (exceptions.AuthenticationError, "NOAUTH"),
        (exceptions.AuthorizationError, "NOPERM"),
        (exceptions.NoPermissionError, "NOPERM"),
        (exceptions.BusyLoadingError, "LOADING"),
        (exceptions.ReadOnlyError, "READONLY"),
        (exceptions.MovedError, "MOVED"),
        (exceptions.MasterDownError, "MASTERDOWN"),
        (exceptions.ClusterDownError, "CLUSTERDOWN"),
    )


def _said(error: Exception, code: str) -> str:
    said = str(error).strip().split("\n")[0]
    return said if said.startswith(code) else f"{code} {said}"
