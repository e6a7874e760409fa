"""The hands that write to a BullMQ queue: the library's own scripts, and only on a queue of their version.

Scripts of another version lose jobs: those of version 6 keep a paused queue's jobs where version 5 does not look for
them. What is compared and what is changed are one step of Redis: the keys are watched, and a change to one of them in
between means that nothing is done. Source: contracts, section 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from runbook.actions.looking import context
from runbook.actions.plan import Refused
from runbook.actions.redis_acting import CLIENT_NAME, acting_url, reason
from runbook.connectors.bullmq import BullQueue
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.settings import Settings

T = TypeVar("T")

SCRIPTS_OF: Mapping[int, int] = {2: 5, 3: 6}
"""Which version of BullMQ the scripts of each version of its Python client belong to."""
ANSWER_SECONDS = 5.0
TRIES = 3
"""Whoever opens a queue writes to its ``meta``: so often is looked again before it counts as moved."""


class Hands:
    """One queue, opened for writing.

    Parameters
    ----------
    client
        A connection of :mod:`redis.asyncio` that acts.
    """

    def __init__(self, client: Any, prefix: str, name: str) -> None:
        from bullmq.redis_connection import RedisConnection
        from bullmq.scripts import Scripts

        self.client, self.prefix, self.name = client, prefix, name
        self._scripts = partial(Scripts, prefix, name)
        self._connection = partial(RedisConnection, client)

    def key(self, last: str) -> str:
        """The name of one of its keys."""
        return f"{self.prefix}:{self.name}:{last}"

    async def in_one_step(
        self, keys: Sequence[str], look: Callable[[Any], Awaitable[str]], act: Callable[[Any], Awaitable[Any]]
    ) -> tuple[str, Any]:
        """Look, and act if nothing speaks against it and none of ``keys`` changes meanwhile.

        Parameters
        ----------
        look
            Is given the connection; why nothing may be done, empty when it may.
        act
            Is given the library's scripts, and calls one of them.

        Returns
        -------
        Why nothing was done, empty when it was; and what the script answered.
        """
        from redis.exceptions import WatchError

        for _ in range(TRIES):
            async with self.client.pipeline(transaction=True) as pipe:
                await pipe.watch(*keys)
                if why := await look(pipe):
                    return why, None
                pipe.multi()
                await act(self._scripts_in(pipe))
                try:
                    return "", (await pipe.execute())[-1]
                except WatchError:
                    continue
        return "it changes all the time, and was left alone", None

    def _scripts_in(self, pipe: Any) -> Any:
        """The library's scripts, each sent as a part of the transaction."""
        scripts = self._scripts(self._connection())
        scripts.commands = {name: partial(script, client=pipe) for name, script in scripts.commands.items()}
        return scripts


def state_of(settings: Settings) -> dict[str, Any]:
    """The queue as it is now: the row ``queue_state`` of the connector, of a queue that may be written to.

    Raises
    ------
    Refused
        It is not there, cannot be read, or is of another version than the scripts that would write to it.
    """
    if not settings.queue.name:
        raise Refused("queue.name is not set")
    reading: Reading = BullQueue(context(settings), acting_url(settings), settings.queue).state()
    if not reading.known or not reading.rows:
        raise Refused(f"the queue cannot be read: {reading.reason}", remedy="See redis.action_url")
    state: dict[str, Any] = reading.rows[0]
    if not state["exists"]:
        raise Refused(f"there is no queue {settings.queue.name} under prefix {settings.queue.prefix}")
    client, scripts = _client_version()
    if state["major"] != scripts:
        raise Refused(
            f"the queue is of {state['version'] or 'an unknown version'}, and the scripts at hand (bullmq {client} for "
            f"Python) are of version {scripts}: those of another version lose jobs",
            remedy="Use the application's own library: see what to copy",
        )
    return state


def on_queue(settings: Settings, work: Callable[[Hands], Awaitable[T]]) -> T:
    """What ``work`` does with the queue opened for writing.

    Raises
    ------
    Refused
        It cannot be reached, or refuses.
    """
    return asyncio.run(_opened(settings, work))


async def _opened(settings: Settings, work: Callable[[Hands], Awaitable[T]]) -> T:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    client = redis.asyncio.Redis.from_url(
        acting_url(settings), protocol=2, decode_responses=True, client_name=CLIENT_NAME, retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS,
    )  # fmt: skip
    try:
        return await work(Hands(client, settings.queue.prefix, settings.queue.name))
    except redis.RedisError as error:
        raise Refused(f"Redis refuses: {reason(error)}", remedy="See what the action needs") from None
    finally:
        await client.aclose()


def _client_version() -> tuple[str, int | None]:
    """Version of the Python client, and of BullMQ whose scripts it carries; ``None`` when nobody knows."""
    try:
        import bullmq
    except ImportError:
        raise Refused("package bullmq is not installed", remedy="Install the extra sandbox") from None
    version = str(bullmq.__version__)
    major = version.partition(".")[0]
    return version, SCRIPTS_OF.get(int(major)) if major.isdigit() else None
