"""Processes of the disk faults: one writes a log without end, one keeps a deleted file, one fills a table.

Each writes at a set pace and never beyond its bound, so that a drill fills nothing but what is its own.
"""

from __future__ import annotations

import itertools
import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from runbook.sandbox import processes

MODULE = "runbook.sandbox.writers"
_PAUSE_SECONDS = 0.1


def log_without_end(given: Mapping[str, Any]) -> NoReturn:
    """Append ``bytes_per_second`` to ``path``, up to ``most_bytes``."""
    line = b"2026-01-01T00:00:00Z DEBUG pool checked out connection 17 of 20 for request 4711\n"
    with Path(given["path"]).open("ab", buffering=0) as out:
        written = out.write(line * 1000)
        processes.ready()
        while True:
            began = time.monotonic()
            if written < given["most_bytes"]:
                written += out.write(line * max(1, int(given["bytes_per_second"] * _PAUSE_SECONDS / len(line))))
            time.sleep(max(0.0, _PAUSE_SECONDS - (time.monotonic() - began)))


def deleted_file(given: Mapping[str, Any]) -> NoReturn:
    """Write ``bytes`` to ``path`` (as many as there is room for), delete it, and keep it open."""
    path = Path(given["path"])
    with path.open("wb", buffering=0) as out:
        left, block = given["bytes"], b"x" * 65536
        try:
            while left > 0:
                left -= out.write(block[: min(left, len(block))])
        except OSError as error:
            logging.getLogger(__name__).info("full: %s", error)
        path.unlink()
        processes.ready()
        while True:
            signal.pause()


def write_ahead(given: Mapping[str, Any]) -> NoReturn:
    """Make ``bytes_per_second`` of WAL, up to ``most_bytes``; the first ``at_once`` at once."""
    import psycopg

    statement = "SELECT pg_logical_emit_message(false, 'sandbox', repeat('x', %s))"
    with psycopg.connect(given["dsn"], autocommit=True, application_name=given["application"]) as session:
        written = 0
        while written < given["at_once"]:
            session.execute(statement, (4_000_000,))
            written += 4_000_000
        processes.ready()
        while True:
            if written < given["most_bytes"]:
                part = int(given["bytes_per_second"] * _PAUSE_SECONDS)
                session.execute(statement, (part,))
                written += part
            time.sleep(_PAUSE_SECONDS)


def fill_table(given: Mapping[str, Any]) -> NoReturn:
    """Insert ``bytes_per_second`` into ``table``, up to ``most_bytes``."""
    import psycopg
    from psycopg import sql

    rows = max(1, int(given["bytes_per_second"] * _PAUSE_SECONDS / 2000))
    statement = sql.SQL("INSERT INTO {} SELECT repeat('x', 1900) FROM generate_series(1, {})").format(
        sql.Identifier(given["table"]), sql.Literal(rows)
    )
    with psycopg.connect(given["dsn"], autocommit=True, application_name=given["application"]) as session:
        for number in itertools.count():
            if number * rows * 2000 < given["most_bytes"]:
                session.execute(statement)
            if number == 3:
                processes.ready()
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError("unreachable")


_ACTS: Mapping[str, Callable[[Mapping[str, Any]], NoReturn]] = {
    "log_without_end": log_without_end,
    "deleted_file": deleted_file,
    "write_ahead": write_ahead,
    "fill_table": fill_table,
}


def main() -> NoReturn:
    given = processes.arguments()
    _ACTS[given["act"]](given)


if __name__ == "__main__":
    main()
