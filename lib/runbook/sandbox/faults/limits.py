"""Faults made of limits other than the number of slots: of a role, a database, replication, and of authentication."""

from __future__ import annotations

import socket
import struct

from runbook.errors import SandboxError
from runbook.sandbox import patient
from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene

_PROTOCOL_3 = 196608


@fault("P06", "role limit reached")
def role_limit(scene: Scene, *, sessions: int = 4, role: str = "batch", application: str = "jobs") -> None:
    """A role may have four sessions and has four."""
    scene.change(f"ALTER ROLE {role} CONNECTION LIMIT {sessions}", f"ALTER ROLE {role} CONNECTION LIMIT -1")
    scene.sessions(sessions, role, application)
    scene.name("P06", role)


@fault("P07", "database limit reached")
def database_limit(scene: Scene, *, sessions: int = 8, application: str = "api") -> None:
    """A database may have eight sessions and has eight; the diagnosing role is refused there as well."""
    name = patient.DATABASE
    scene.change(
        f"ALTER DATABASE {name} CONNECTION LIMIT {sessions}",
        f"ALTER DATABASE {name} CONNECTION LIMIT -1",
        database="postgres",
    )
    scene.sessions(sessions, "web", application)
    scene.name("P07", name)


@fault("P08", "half-authenticated sessions hold the slots")
def half_authenticated(scene: Scene, *, sessions: int = patient.USABLE) -> None:
    """Clients that introduce themselves, are asked for a password, and say nothing more."""
    for _ in range(sessions):
        client = begin_startup(scene.sandbox.port, "web", patient.DATABASE)
        scene.undo(client.close)
    if not refused(scene):
        raise SandboxError(f"{sessions} half-authenticated sessions did not exhaust the slots")


@fault("P13", "replication connections exhausted")
def walsenders_exhausted(scene: Scene, *, receivers: int = 3) -> None:
    """As many replication connections as max_wal_senders allows; only replication is refused."""
    for _ in range(receivers):
        scene.session("replicator", "pg_receivewal", replication="true")


def begin_startup(port: int, user: str, database: str) -> socket.socket:
    """Send a startup message and wait until the server has asked for authentication; the open socket."""
    body = struct.pack("!i", _PROTOCOL_3) + b"".join(
        part.encode() + b"\0" for part in ("user", user, "database", database, "")
    )
    client = socket.create_connection(("127.0.0.1", port), timeout=15)
    client.sendall(struct.pack("!i", len(body) + 4) + body)
    answer = client.recv(1)
    if answer != b"R":
        client.close()
        raise SandboxError(f"the server answered a startup message with {answer!r}, not with a request for a password")
    return client


def refused(scene: Scene) -> bool:
    """Whether an ordinary login finds no slot."""
    import psycopg

    try:
        psycopg.connect(scene.sandbox.dsn("web"), connect_timeout=15).close()
    except psycopg.OperationalError as error:
        return "slots are reserved" in str(error) or "too many clients" in str(error)
    return False
