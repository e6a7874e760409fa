"""A real PgBouncer in front of a PostgreSQL, ended by whoever started it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.connectors.servers import PASSWORD
from tests.support import free_port, open_to_others, require_program, wait_until

_USERS = ("stats", "admin", "monitor", "other")


class Pooler:
    """One running PgBouncer, with ``postgres`` behind it; more databases by lines of its configuration."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], configuration: Path) -> None:
        self.port, self.process, self.configuration = port, process, configuration

    def dsn(self, user: str = "stats", password: str = PASSWORD, database: str = "pgbouncer") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"


@contextmanager
def running(
    directory: Path, *, postgres_port: int, databases: str = "", logins: dict[str, str] | None = None
) -> Iterator[Pooler]:
    """A PgBouncer whose users have the tests' password, or those of ``logins``."""
    program, port = require_program("pgbouncer", package="pgbouncer"), free_port()
    passwords = dict.fromkeys(_USERS, PASSWORD) | (logins or {})
    (directory / "users").write_text("".join(f'"{name}" "{word}"\n' for name, word in passwords.items()))
    configuration = directory / "ini"
    configuration.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={postgres_port}\n{databases}[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
        f"auth_file = {directory}/users\npool_mode = transaction\nmax_client_conn = 50\ndefault_pool_size = 3\n"
        "stats_users = stats\nadmin_users = admin\n"
    )
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (directory, directory / "users", configuration):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        open_to_others(directory.parent)
    process = subprocess.Popen([program, str(configuration)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               **user)  # fmt: skip

    def listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listening, what="PgBouncer")
        yield Pooler(port, process, configuration)
    finally:
        process.kill()
        process.wait()
