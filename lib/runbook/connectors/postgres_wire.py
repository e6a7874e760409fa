"""The socket under a psycopg connection, for when the library waits on it and nothing comes."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg


def cut(conn: psycopg.Connection[Any] | None) -> None:
    """Shut the socket down, so that whoever waits on it wakes up with an error; the connection is of no use then."""
    import psycopg

    if conn is None or conn.closed:
        return
    with (  # it may be closed meanwhile
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(conn.fileno())) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)
