"""PostgreSQL servers of every supported version, and listeners that only pretend to be one."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from runbook.embedded import FAST, EmbeddedPostgres
from tests.support import missing, open_to_others

IN_WHEEL = (16, 18)
VERSIONS = (13, 14, 15, 16, 17, 18)
PASSWORD = "Canary-0a1b2c3d"
ROLES = f"""
    CREATE ROLE monitor LOGIN PASSWORD '{PASSWORD}'; GRANT pg_monitor TO monitor;
    CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}';
    CREATE ROLE app LOGIN PASSWORD '{PASSWORD}';
    CREATE ROLE super LOGIN SUPERUSER PASSWORD '{PASSWORD}';
    CREATE ROLE signal LOGIN PASSWORD '{PASSWORD}'; GRANT pg_monitor, pg_signal_backend TO signal;
    CREATE ROLE writer LOGIN CREATEDB PASSWORD '{PASSWORD}'; GRANT pg_monitor TO writer;
    CREATE TABLE content (id int PRIMARY KEY, title text, "creatorId" text, status text, "mediaUrl" text,
                          "createdAt" timestamp(3) DEFAULT now(), "updatedAt" timestamp(3) DEFAULT now());
    GRANT INSERT ON content TO writer; GRANT SELECT ON content TO monitor, plain;
    INSERT INTO content SELECT n, 'title ' || n FROM generate_series(1, 100) n;
"""


class OtherPostgres(EmbeddedPostgres):
    """A server of a version that no wheel carries, from ``RUNBOOK_TEST_POSTGRES``/<major>/bin."""

    def __init__(self, directory: Path, *, version: int, settings: dict[str, str]) -> None:
        super().__init__(directory, version=version, settings=settings)  # type: ignore[arg-type]
        self.home = Path(os.environ["RUNBOOK_TEST_POSTGRES"]) / str(version) / "bin"

    def binary(self, name: str) -> Path:
        if name != "initdb" or self._version > 13:
            return self.home / name
        wrapper = self.directory.parent / f"initdb-{self._version}"  # initdb of 13 does not know --no-instructions
        wrapper.write_text(
            '#!/bin/sh\nfor a; do shift; [ "$a" = --no-instructions ] || set -- "$@" "$a"; done\n'
            f'exec {self.home / name} "$@"\n'
        )
        wrapper.chmod(0o755)
        return wrapper


def server(version: int, directory: Path, **settings: str) -> EmbeddedPostgres:
    """A started server with :data:`ROLES`; skips when that version is not at hand."""
    wanted = {**FAST, "max_connections": "20", "max_prepared_transactions": "5", **settings}
    if version in IN_WHEEL:
        made = EmbeddedPostgres(directory, version=version, settings=wanted)  # type: ignore[arg-type]
    else:
        home = Path(os.environ.get("RUNBOOK_TEST_POSTGRES", "/nonexistent")) / str(version)
        if not (home / "bin" / "postgres").is_file():
            missing(f"PostgreSQL {version} in RUNBOOK_TEST_POSTGRES (tests/fetch_postgres)")
        open_to_others(directory.parent)
        made = OtherPostgres(directory, version=version, settings=wanted)
    made.start()
    execute(made, ROLES)
    return made


def execute(made: EmbeddedPostgres, sql: str, *, database: str = "postgres") -> None:
    """Statements as the superuser."""
    with psycopg.connect(made.dsn(database=database), autocommit=True) as conn:
        conn.execute(sql)


def dsn(made: EmbeddedPostgres, role: str, *, password: str = PASSWORD, database: str = "postgres") -> str:
    return made.dsn(user=role, password=password, database=database)


@contextlib.contextmanager
def holding(made: EmbeddedPostgres, role: str, count: int = 1000, *, database: str = "postgres") -> Iterator[list[Any]]:
    """Up to ``count`` sessions of a role, as many as the server lets in."""
    with contextlib.ExitStack() as held:
        sessions = []
        for _ in range(count):
            try:
                conn = psycopg.connect(dsn(made, role, database=database), application_name="holder", autocommit=True)
            except psycopg.OperationalError:
                break
            sessions.append(held.enter_context(contextlib.closing(conn)))
        yield sessions


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("!i", len(payload) + 4) + payload


def error(code: str, text: str) -> bytes:
    return message(b"E", b"SFATAL\0C" + code.encode() + b"\0M" + text.encode() + b"\0\0")


@contextlib.contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which ``answer`` handles each connection, and closes it when it returns."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stopped = threading.Event()

        def serve() -> None:
            while not stopped.is_set():
                try:
                    stream, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(stream,), daemon=True).start()

        def handle(stream: socket.socket) -> None:
            with stream, contextlib.suppress(OSError):
                answer(stream)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            stopped.set()
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


def garbage(stream: socket.socket) -> None:
    """Answers as a web server would."""
    stream.recv(1000)
    stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    stream.recv(1000)


def garbage_listener() -> contextlib.AbstractContextManager[int]:
    return listener(garbage)
