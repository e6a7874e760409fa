"""The connection that acts on the Redis under diagnosis, by ``redis.action_url`` and by no other login."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from runbook.actions.plan import Refused
from runbook.connectors.redis_session import Command, Session, error_code

if TYPE_CHECKING:
    from runbook.settings import Settings

CLIENT_NAME = "runbook-act"
SLOT_SECONDS = 5.0
"""So long is waited for a slot of a server that has none left."""
_AGAIN_SECONDS = 0.2


@contextmanager
def acting(settings: Settings) -> Iterator[Session]:
    """A connection of the acting login. A server that is busy with a script lets it in, and answers ``BUSY``.

    Raises
    ------
    Refused
        It is not configured, it cannot be reached, or it is the login that diagnoses.
    """
    import redis

    with Session(acting_url(settings), name=CLIENT_NAME) as session:
        try:
            _let_in(session)
        except redis.RedisError as error:
            if error_code(error) == "MAXCLIENTS":
                raise Refused(
                    f"it has no slot for one client more, and none became free within {SLOT_SECONDS:g} s",
                    remedy="Stop one of its clients, e.g. an instance of the application, then plan it again",
                ) from None
            raise Refused(f"the acting login does not get in: {reason(error)}", remedy="See redis.action_url") from None
        try:
            yield session
        except redis.RedisError as error:
            raise Refused(f"Redis refuses: {reason(error)}", remedy="See what the action needs") from None


def acting_url(settings: Settings) -> str:
    """The URL of the login that acts.

    Raises
    ------
    Refused
        It is not set, leads to another server than ``redis.url``, or names the user that diagnoses.
    """
    if settings.redis.action_url is None:
        raise Refused("redis.action_url is not set", remedy="Do it by hand, or name a login that may act")
    url = settings.redis.action_url.get_secret_value()
    if settings.redis.url is None:
        return url
    ours, theirs = urlsplit(url), urlsplit(settings.redis.url.get_secret_value())
    if _place(ours) != _place(theirs):
        raise Refused(
            "redis.action_url leads to another server than redis.url", remedy="Write both with the same host and port"
        )
    user = ours.username or "default"
    if user != "default" and user == theirs.username:
        raise Refused(
            f"user {user} is the one that diagnoses, and that one never acts",
            remedy="Give redis.action_url a user of its own",
        )
    return url


def place(settings: Settings) -> str:
    """The server in a word: what a person types to confirm an action on it."""
    parts = urlsplit(acting_url(settings))
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


def shared_login(settings: Settings) -> tuple[str, ...]:
    """What to say where one login diagnoses and acts, as on a server without users of its own."""
    url = settings.redis.url
    if url is None or urlsplit(url.get_secret_value()).username not in (None, "", "default"):
        return ()
    if urlsplit(acting_url(settings)).username not in (None, "", "default"):
        return ()
    return ("this Redis knows one login for diagnosing and for acting: an ACL user that only reads would be safer",)


def asked(session: Session, commands: Sequence[Command]) -> list[Any]:
    """The answers to these commands.

    Raises
    ------
    Refused
        One of them was refused, or the connection broke.
    """
    import redis

    try:
        answers = session.batch(commands)
    except redis.RedisError as error:
        raise Refused(f"Redis refuses: {reason(error)}") from None
    for command, answer in zip(commands, answers, strict=True):
        if isinstance(answer, Exception):
            raise Refused(f"Redis refuses {command[0]}: {reason(answer)}", remedy="See what the action needs")
    return answers


def reason(error: Exception) -> str:
    """The first line of what was said."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _place(parts: SplitResult) -> tuple[str, int, str]:
    local = parts.path if parts.scheme == "unix" else ""
    return (parts.hostname or "", parts.port or 6379, local)


def _let_in(session: Session) -> None:
    """Return once the server answers anything; a slot becomes free as soon as one of its clients leaves."""
    import redis

    deadline = time.monotonic() + SLOT_SECONDS
    while True:
        try:
            session.batch([("PING",)])
        except redis.RedisError as error:
            if error_code(error) != "MAXCLIENTS" or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_SECONDS)
        else:
            return
