"""One Redis server, asked with read-only commands: does it answer, how does one get there, and how is it.

Nothing is ever configured or written here; the one thing said about ourselves is our connection's name, so that whoever
lists the clients knows us.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property

from runbook.connectors import redis_figures, redis_look
from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.redis_session import (
    CLIENT_NAME,
    LIMIT_SECONDS,
    Command,
    RedisConnector,
    Session,
    answered,
    error_code,
)
from runbook.connectors.redis_walk import CONNECT_SECONDS, Place, Walk
from runbook.result import Reading

__all__ = ["CLIENT_NAME", "Command", "RedisConnector", "RedisServer", "Session", "error_code"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_INFO = (
    "role", "loading", "used_memory", "maxmemory", "maxmemory_policy", "evicted_keys", "connected_clients",
    "blocked_clients", "maxclients", "rejected_connections", "rdb_last_bgsave_status",
)  # fmt: skip
_MORE_INFO = (
    "process_id", "tcp_port", "used_memory_rss", "mem_fragmentation_ratio", "mem_clients_normal",
    "total_connections_received", "instantaneous_ops_per_sec", "keyspace_hits", "keyspace_misses", "cluster_enabled",
    "master_link_status", "master_host", "connected_slaves", "min_slaves_good_slaves", "loading_eta_seconds",
    "loading_loaded_perc", "rdb_bgsave_in_progress", "rdb_last_save_time", "latest_fork_usec", "aof_enabled",
    "aof_last_write_status", "aof_last_bgrewrite_status", "aof_rewrite_in_progress", "aof_delayed_fsync",
    "client_output_buffer_limit_disconnections", "total_error_replies", "paused_reason",
)  # fmt: skip
"""Told by some versions, or in some states only."""


class RedisServer(RedisConnector):
    """The server itself."""

    source = "redis"

    def __init__(self, context: Context, url: str | None, *, lacking: str = "") -> None:
        super().__init__(context, url, lacking=lacking)
        # One connection of ours at a time: a server that is short of them has none for the second.
        self._turn = threading.Lock()

    def ask(self, name: str, query: str, fetch: Callable[[Session], Fetched]) -> Reading:
        """The reading ``name``, when nothing else is asked."""
        with self._turn:
            return super().ask(name, query, fetch)

    @cached_property
    def place(self) -> Place | None:
        """Where the URL leads; ``None`` without a usable one."""
        return Place.of(self._url) if self._url and not self._lacking else None

    @property
    def host(self) -> str:
        """Its host; empty where there is none."""
        return self.place.host if self.place is not None and not self.place.path else ""

    @property
    def port(self) -> int | str:
        """Its TCP port; empty where there is none."""
        return self.place.port if self.place is not None and not self.place.path else ""

    @property
    def is_local(self) -> bool:
        """Whether it is said to run on this host."""
        return self.place is not None and (bool(self.place.path) or self.place.host in LOOPBACK)

    def ping(self) -> Reading:
        """``redis_ping``: ``{answer, milliseconds}``; connecting counts.

        A server that answers with an error is there and in trouble: the reading is partial and without a value, its
        code is the error's first word (``LOADING``, ``MISCONF``, ``BUSY``).
        """
        return self.ask("redis_ping", "PING", _ping)

    def info(self) -> Reading:
        """``redis_info``: the figures that the rules need; what this server's version does not tell is ``None``."""
        return self.ask("redis_info", "INFO", lambda session: _info(session, self.own_errors))

    def memory(self) -> Reading:
        """``redis_memory``: what it uses and for what, in bytes, and the limits; see :mod:`.redis_figures`."""
        return self.ask("redis_memory", "INFO", redis_figures.memory)

    def load(self) -> Reading:
        """``redis_load``: running totals of what it worked and of hits and misses; take two for a rate."""
        query = "INFO stats, commandstats, cpu"
        return self.ask("redis_load", query, lambda session: redis_figures.load(session, self.context.now()))

    def slow_log(self) -> Reading:
        """Rows of ``redis_slowlog``, the slowest first; see :func:`.redis_look.slow`."""
        query = redis_look.QUERIES["redis_slowlog"]
        return self.ask("redis_slowlog", query, lambda session: redis_look.slow_log(session, self.context.now()))

    def beat(self) -> list[Reading]:
        """``redis_ping`` and ``redis_info`` of one moment; who did not answer the one is not asked for the other."""
        ping = self.ping()
        if ping.state in ("unreachable", "timeout", "auth_failed", "not_configured"):
            return [
                ping,
                self.missing("redis_info", "INFO", Failure(state=ping.state, reason=ping.reason, code=ping.code)),
            ]
        return [ping, self.info()]

    def walk(self, answer_seconds: float = 2.0, patience_seconds: float = 6.0) -> Reading:
        """Rows of ``redis_walk``: how far one gets, step by step; see :mod:`.redis_walk`.

        What is asked later waits no longer for an answer than this was told to.
        """
        query = "connect; PING; AUTH; PING; SELECT; INFO; ACL DRYRUN"
        if self.place is None:
            return self.missing("redis_walk", query, Failure(state="not_configured", reason=self._lacking))
        self._answer_seconds = min(answer_seconds, LIMIT_SECONDS - 1)
        walk = Walk(self.place, CLIENT_NAME, answer_seconds=answer_seconds, patience_seconds=patience_seconds)
        limit = 8 * CONNECT_SECONDS + 8 * answer_seconds + 2 * patience_seconds
        with self._turn:
            return self.read("redis_walk", query, lambda: Fetched(value=walk.steps()), limit_seconds=limit)

    def look(self) -> list[Reading]:
        """Clients, slow commands, configuration, refusals and latency of one moment; see :mod:`.redis_look`."""
        found: dict[str, Fetched | Exception] = {}

        def all_at_once(session: Session) -> Fetched:
            found.update(redis_look.taken(session, self.context.now()))
            return redis_look.outcome(found["redis_clients"])

        first = self.ask("redis_clients", redis_look.QUERIES["redis_clients"], all_at_once)
        same = Failure(state=first.state, reason=first.reason, code=first.code)
        return [first, *(self._with_it(name, found.get(name), same) for name in list(redis_look.QUERIES)[1:])]

    def _with_it(self, name: str, outcome: Fetched | Exception | None, otherwise: Failure) -> Reading:
        query = redis_look.QUERIES[name]
        if outcome is None:
            return self.missing(name, query, otherwise)
        return self.read(name, query, lambda: redis_look.outcome(outcome), limit_seconds=LIMIT_SECONDS)


def _ping(session: Session) -> Fetched:
    began = time.perf_counter()
    answer = answered(session.batch([("PING",)])[0])
    milliseconds = round((time.perf_counter() - began) * 1000, 2)
    return Fetched(value={"answer": "PONG" if answer in (True, "PONG") else str(answer), "milliseconds": milliseconds})


def _info(session: Session, own_errors: Mapping[str, int]) -> Fetched:
    answer = answered(session.batch([("INFO",)])[0])
    row = {"version": answer.get("redis_version"), **{key: answer.get(key) for key in _INFO}}
    row |= {key: answer[key] for key in _MORE_INFO if key in answer}
    row["loading"] = None if row["loading"] is None else bool(row["loading"])
    row["uptime_seconds"] = answer.get("uptime_in_seconds")
    row["error_counts"] = {
        key.removeprefix("errorstat_"): int(found["count"])
        for key, found in answer.items()
        if key.startswith("errorstat_") and isinstance(found, dict) and "count" in found
    }
    row["own_errors"] = {code: count for code, count in own_errors.items() if code}
    return Fetched(value=row)
