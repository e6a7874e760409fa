"""Faults made of a connection pooler between the application and the server."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from runbook.embedded import die_with_parent, server_user
from runbook.sandbox import patient
from runbook.sandbox.faults.registry import fault, find_program
from runbook.sandbox.faults.scene import Scene

if TYPE_CHECKING:
    import psycopg

_ROLE = "web"


@fault("P10", "PgBouncer full while PostgreSQL is idle", programs={"pgbouncer": "pgbouncer"})
def pgbouncer_full(scene: Scene, *, pool_size: int = 3, clients: int = 12, application: str = "api") -> None:
    """Three server connections behind PgBouncer are busy for long; the other clients wait in line for one."""
    sessions = _clients(scene, pool_size, clients, application)
    for session in sessions:
        scene.send(session, "SELECT count(*), pg_sleep(3600) FROM content")
    _wait_in_line(scene, clients - pool_size)


@fault("P10:paused", "a database is paused at PgBouncer", programs={"pgbouncer": "pgbouncer"})
def pgbouncer_paused(scene: Scene, *, pool_size: int = 3, clients: int = 6, application: str = "api") -> None:
    """Somebody paused the database and forgot it: whoever asks something waits, however short it is."""
    import psycopg

    sessions = _clients(scene, pool_size, clients, application)
    with psycopg.connect(scene.settings["postgres"]["pgbouncer_action_dsn"], autocommit=True) as console:
        console.execute(f'PAUSE "{patient.DATABASE}"'.encode())
    for session in sessions:
        scene.send(session, "SELECT 1")
    _wait_in_line(scene, clients)


def _clients(scene: Scene, pool_size: int, count: int, application: str) -> list[psycopg.Connection]:
    """A PgBouncer that the diagnosis knows, and that many sessions of ``application`` through it."""
    import psycopg

    console_password, admin_password = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
    web_password = scene.sandbox.password(_ROLE)
    port = _start(scene, pool_size, {_ROLE: web_password, "stats": console_password, "admin": admin_password})
    # What PgBouncer's clients started goes on in the server when PgBouncer is gone.
    scene.undo(lambda: scene.terminate_application(application))
    through = f"postgresql://{_ROLE}:{quote(web_password)}@127.0.0.1:{port}/{patient.DATABASE}"
    sessions = []
    for _ in range(count):
        session = psycopg.connect(through, autocommit=True, application_name=application, connect_timeout=15)
        scene.undo(session.close)
        sessions.append(session)
    console = f"postgresql://stats:{quote(console_password)}@127.0.0.1:{port}/pgbouncer"
    scene.settings.setdefault("postgres", {})["pgbouncer_dsn"] = console
    scene.settings["postgres"]["pgbouncer_action_dsn"] = console.replace(
        f"stats:{quote(console_password)}", f"admin:{quote(admin_password)}"
    )
    scene.name("P10", patient.DATABASE)
    return sessions


def _wait_in_line(scene: Scene, count: int) -> None:
    """Until that many clients wait, for so long that it is a symptom: a wait of less than a second is none yet."""
    console = str(scene.settings["postgres"]["pgbouncer_dsn"])
    scene.wait_until(lambda: waiting_clients(console) >= count, "clients waiting in PgBouncer")
    scene.grow_older_than(1.2)


def waiting_clients(console: str) -> int:
    """Clients of the application's pool that wait for a server connection, by PgBouncer's console."""
    import psycopg

    with psycopg.connect(console, autocommit=True, connect_timeout=15) as connection:
        cursor = connection.execute("SHOW POOLS")
        names = [column.name for column in cursor.description or ()]
        pools = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return sum(int(pool["cl_waiting"]) for pool in pools if pool["database"] == patient.DATABASE)


def _start(scene: Scene, pool_size: int, passwords: Mapping[str, str]) -> int:
    """Start PgBouncer in a private directory of its own; the port on which it answers."""
    program = find_program("pgbouncer")
    assert program is not None  # the registry asks before it injects
    user = server_user()
    directory = Path(tempfile.mkdtemp(prefix="runbook-pgbouncer-"))
    scene.undo(lambda: shutil.rmtree(directory))
    scene.places["pgbouncer"] = directory
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    _write(directory / "users.txt", "".join(f'"{name}" "{password}"\n' for name, password in passwords.items()))
    _write(directory / "pgbouncer.ini", _configuration(scene.sandbox.port, port, pool_size))
    identity: dict[str, object] = {}
    if user.uid is not None and user.gid is not None:
        for path in (directory, *directory.iterdir()):
            os.chown(path, user.uid, user.gid)
        identity = {"user": user.uid, "group": user.gid, "extra_groups": []}
    # Relative names, read from the directory in which it stands: it need not be able to enter those above.
    process = subprocess.Popen(
        [str(program), "--quiet", "pgbouncer.ini"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent(),
        **identity,  # type: ignore[call-overload]
    )

    def end() -> None:
        process.terminate()
        process.wait(15)

    scene.undo(end)
    scene.wait_until(lambda: process.poll() is not None or _listens(port), "PgBouncer to listen")
    return port


def _configuration(server_port: int, port: int, pool_size: int) -> str:
    return f"""[databases]
{patient.DATABASE} = host=127.0.0.1 port={server_port} dbname={patient.DATABASE}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users.txt
admin_users = admin
stats_users = stats
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 100
query_wait_timeout = 0
logfile = pgbouncer.log
pidfile =
"""


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as out:
        out.write(text)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
