"""Client processes of the faults: what a badly behaved application does to its database, in a process of its own."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from runbook.sandbox import processes

MODULE = "runbook.sandbox.clients"

#: Statements of different shape, so that no single one stands out.
_LONG = (
    "SELECT pg_sleep(3600)",
    "SELECT count(*), pg_sleep(3600) FROM content",
    "SELECT max(title), pg_sleep(3600) FROM content",
    "SELECT min(\"createdAt\"), pg_sleep(3600) FROM content WHERE status = 'READY'",
    'SELECT "creatorId", pg_sleep(3600) FROM content LIMIT 1',
    "SELECT id, pg_sleep(3600) FROM content ORDER BY id LIMIT 1",
    "SELECT pg_sleep(3600) FROM content WHERE id = 'content-7'",
)


def long_statements(given: Mapping[str, Any]) -> NoReturn:
    """Start statements that take an hour, report the sessions' pids, and wait to be killed."""
    import psycopg

    pids = []
    kept = []
    for _, statement in zip(range(given["sessions"]), itertools.cycle(_LONG), strict=False):
        session = psycopg.connect(given["dsn"], autocommit=True, application_name=given["application"])
        session.pgconn.send_query(statement.encode())
        session.pgconn.flush()
        pids.append(session.info.backend_pid)
        kept.append(session)
    processes.ready(pids=pids)
    while True:
        signal.pause()


def reconnect(given: Mapping[str, Any]) -> NoReturn:
    """Keep that many sessions open, always closing the oldest for a new one; refusals do not stop it."""
    import psycopg

    held: deque[psycopg.Connection] = deque()
    said = False
    while True:
        if len(held) >= given["sessions"]:
            if not said:
                processes.ready()
                said = True
            held.popleft().close()
        try:
            session = psycopg.connect(given["dsn"], autocommit=True, application_name=given["application"])
            session.execute("SELECT title FROM content WHERE id = 'content-9'")
            held.append(session)
        except psycopg.OperationalError:
            time.sleep(0.05)
        time.sleep(0.02)


def short_queries(given: Mapping[str, Any]) -> NoReturn:
    """A few sessions that ask something short, pause, and ask again."""
    import psycopg

    sessions = [
        psycopg.connect(given["dsn"], autocommit=True, application_name=given["application"])
        for _ in range(given["sessions"])
    ]
    processes.ready()
    while True:
        for session in sessions:
            session.execute("SELECT count(*) FROM content WHERE status = 'PROCESSING'")
        time.sleep(0.1)


def small_pool(given: Mapping[str, Any]) -> NoReturn:
    """An application whose pool is held by slow work; the threads that wait in vain log what their pool tells them."""
    from psycopg_pool import ConnectionPool, PoolTimeout

    logger = _application_log(given["log"])
    pool = ConnectionPool(
        given["dsn"],
        min_size=given["sessions"],
        max_size=given["sessions"],
        kwargs={"application_name": given["application"], "autocommit": True},
        open=True,
    )
    pool.wait(30)

    def hold() -> None:
        # The session is idle: what takes so long happens elsewhere, with the connection in hand.
        with pool.connection() as connection:
            connection.execute("SELECT title FROM content WHERE id = 'content-9'")
            threading.Event().wait()

    def ask() -> None:
        while True:
            try:
                with pool.connection(timeout=0.3):
                    pass
            except PoolTimeout as error:
                logger.error("request failed: psycopg_pool.PoolTimeout: %s", error)
            time.sleep(0.05)

    for work in [hold] * given["sessions"] + [ask] * given["threads"]:
        threading.Thread(target=work, daemon=True).start()
    processes.ready()
    while True:
        signal.pause()


def hold_lock(given: Mapping[str, Any]) -> NoReturn:
    """Lock a table against writes again and again, for a while each time, as a batch does."""
    import psycopg

    session = psycopg.connect(given["dsn"], application_name=given["application"])
    processes.ready(pid=session.info.backend_pid)
    while True:
        session.execute(f"LOCK TABLE {given['table']} IN EXCLUSIVE MODE".encode())
        time.sleep(given["seconds"])
        session.commit()
        time.sleep(0.08)


_BUSY_SCRIPT = """
local now = redis.call('TIME')
local till = now[1] * 1000000 + now[2] + ARGV[1]
repeat now = redis.call('TIME') until now[1] * 1000000 + now[2] >= till
return 1
"""


def long_scripts(given: Mapping[str, Any]) -> NoReturn:
    """Run a script in Redis that takes so long, again and again: meanwhile it answers nobody."""
    import redis

    client = redis.Redis.from_url(given["url"], client_name=given["name"])
    client.ping()
    processes.ready()
    while True:
        client.eval(_BUSY_SCRIPT, 0, int(given["seconds"] * 1_000_000))
        time.sleep(0.08)


def _application_log(path: str) -> logging.Logger:
    handler = logging.FileHandler(path)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s app %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.propagate = False
    return logger


_ACTS: Mapping[str, Callable[[Mapping[str, Any]], NoReturn]] = {
    "long_statements": long_statements,
    "reconnect": reconnect,
    "short_queries": short_queries,
    "small_pool": small_pool,
    "hold_lock": hold_lock,
    "long_scripts": long_scripts,
}


def main() -> None:
    """Do what the arguments ask for, until ended by a signal."""
    given = processes.arguments()
    _ACTS[given["act"]](given)


if __name__ == "__main__":
    main()
