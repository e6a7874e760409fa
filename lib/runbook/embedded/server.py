"""Runs the PostgreSQL that comes in a wheel: as the product's own store and as the patient of the sandbox.

It starts the wheel's ``initdb`` and ``postgres`` themselves. It must never run them as root, never open up a directory
that somebody else made, never trust a connection without a password, and never signal a process that it has not
recognised as the server of its own data directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import structlog

from runbook.embedded.binaries import die_with_parent, installation, server_user
from runbook.errors import EmbeddedServerError

log = structlog.get_logger(__name__)

SUPERUSER = "postgres"

FAST: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings for a server whose data nobody will miss. Never for the store."""

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_LOG_LIMIT_BYTES = 1_000_000
_SOCKET_PATH_LIMIT = 90


class EmbeddedPostgres:
    """One PostgreSQL server in ``directory``.

    Parameters
    ----------
    directory
        Ours alone: data, superuser password (0600), log and locks. It may lie under directories that the server's
        user cannot enter.
    port
        TCP port on loopback; ``None`` = a free one.
    settings
        Server settings of this start, by name. The defaults are durable; see :data:`FAST`.
    version
        Major version, 16 or 18. Fixed by the first start in a directory.
    bind
        ``tcp``: loopback only. ``unix``: no port at all, a socket in the 0700 data directory (loopback where its path
        is too long for a socket).
    owned
        Stop the server when the thread that started it ends, however it ends.

    Notes
    -----
    Several processes may use one directory: the first ``start`` starts the server, later ones join it (with the
    settings it already runs with), and the ``stop`` of the last one stops it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        version: Literal[16, 18] = 18,
        bind: Literal["tcp", "unix"] = "tcp",
        owned: bool = False,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.data = self.directory / "data"
        self.log_path = self.directory / "log"
        self._port = port
        self._settings = dict(settings or {})
        self._version = version
        # A socket's path has little room (sun_path); beyond that, loopback.
        self._bind = bind if len(os.fsencode(self.data)) <= _SOCKET_PATH_LIMIT else "tcp"
        self._owned = owned
        self._user = server_user()
        self._users_fd: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- life --------------------------------------------------------------------------------

    def start(self) -> EmbeddedPostgres:
        """Start the server, or join the one that runs in this directory; returns when it accepts connections.

        Raises
        ------
        EmbeddedServerError
            It could not be started; the message ends with what the server said.
        """
        self._make_directory()
        with self._start_lock():
            self._join_users()
            try:
                if self.pid is None:
                    self._initialise()
                    self._launch()
                else:
                    self._wait_until_ready()
            except BaseException:
                self.leave()
                raise
        return self

    def stop(self, *, force: bool = False) -> bool:
        """Leave, and stop the server unless somebody else still uses it (``force``: even then).

        Returns whether the server is down now.
        """
        if not self.directory.is_dir():
            return True
        with self._start_lock():
            self.leave()
            if not force and self._others_use_it():
                return False
            pid = self.pid
            if pid is not None:
                self._shut_down(pid)
        return True

    def leave(self) -> None:
        """Stop counting as a user of the server, which goes on running."""
        if self._users_fd is not None:
            os.close(self._users_fd)
            self._users_fd = None

    def remove(self) -> None:
        """Stop the server and delete its directory."""
        self.stop(force=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> EmbeddedPostgres:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- facts --------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Process id of the running server, ``None`` when there is none."""
        lines = self._pid_file()
        if not lines or not lines[0].lstrip("-").isdigit():
            return None
        pid = abs(int(lines[0]))
        return pid if self._is_our_server(pid) else None

    @property
    def port(self) -> int:
        """Port that the running server was started with."""
        lines = self._pid_file()
        if len(lines) < 4 or not lines[3].isdigit():
            raise EmbeddedServerError(f"no PostgreSQL runs in {self.directory}", remedy="Start it first")
        return int(lines[3])

    @property
    def superuser_dsn(self) -> str:
        """Connection URL of the superuser."""
        return self.dsn(user=SUPERUSER, password=self._password())

    def dsn(self, user: str | None = None, database: str = "postgres", password: str | None = None) -> str:
        """Connection URL; without ``user`` that of the superuser, with its password."""
        if user is None:
            user, password = SUPERUSER, self._password()
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        lines = self._pid_file()
        if len(lines) > 5 and lines[5]:
            return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"
        where = quote(str(self.data), safe="")
        return f"postgresql://{login}@/{quote(database, safe='')}?host={where}&port={self.port}"

    def binary(self, name: str) -> Path:
        """Path of one of the wheel's programs (``psql``, ``pg_receivewal``), reachable for the server's user."""
        return installation(self._version, self._user) / "bin" / name

    # -- starting --------------------------------------------------------------------------------

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedServerError(
                f"directory {self.directory} cannot be made: {error.strerror}",
                remedy="Choose another with RUNBOOK_DATA_DIR",
            ) from None

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Only one process at a time starts or stops the server of a directory."""
        fd = self._open_lock("lock")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _open_lock(self, name: str) -> int:
        try:
            return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedServerError(
                f"{self.directory / name} cannot be opened: {error.strerror}",
                remedy="Choose another directory with RUNBOOK_DATA_DIR",
            ) from None

    def _join_users(self) -> None:
        if self._users_fd is None:
            fd = self._open_lock("users")
            fcntl.flock(fd, fcntl.LOCK_SH)
            self._users_fd = fd

    def _others_use_it(self) -> bool:
        fd = self._open_lock("users")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _initialise(self) -> None:
        """``initdb`` into a directory beside the final one, so that a half-made cluster is never taken for one."""
        if self.data.is_dir():
            found = (self.data / "PG_VERSION").read_text().strip()
            if found != str(self._version):
                raise EmbeddedServerError(
                    f"{self.data} holds PostgreSQL {found} data, not {self._version}",
                    remedy="Choose another directory with RUNBOOK_DATA_DIR",
                )
            return
        fresh = self.directory / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        password = secrets.token_urlsafe(24)
        _write_private(self.directory / "password", password)
        with tempfile.TemporaryFile() as password_file:
            password_file.write(password.encode() + b"\n")
            password_file.seek(0)
            if self._user.uid is not None and self._user.gid is not None:
                os.chown(fresh, self._user.uid, self._user.gid)
                os.fchown(password_file.fileno(), self._user.uid, self._user.gid)
            self._run_initdb(fresh, password_file.fileno())
        fresh.rename(self.data)

    def _run_initdb(self, directory: Path, password_fd: int) -> None:
        argv = ["--username", SUPERUSER, "--auth", "scram-sha-256", f"--pwfile=/dev/fd/{password_fd}"]
        argv += ["--encoding=UTF8", "--no-instructions"]
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self._version >= 17 else []
        argv += ["--locale=C"] if self._version < 17 else []
        argv += ["--no-sync"] if self._settings.get("fsync") == "off" else []
        with self._as_server_sees(directory) as (seen, fd):
            done = subprocess.run(
                [str(self.binary("initdb")), "-D", seen, *argv],
                **self._identity(),
                pass_fds=(fd, password_fd),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise EmbeddedServerError(f"initdb in {directory} failed: {said}", remedy="See the message above")

    def _launch(self) -> None:
        """Start ``postgres``; a free port may be taken between choosing and binding it, hence three tries."""
        self._disown_stranger()
        for attempt in range(3):
            port = self._port if self._port is not None else (free_port() if self._bind == "tcp" else 5432)
            self._spawn(port)
            try:
                self._wait_until_ready()
            except EmbeddedServerError as error:
                taken = "could not create any TCP/IP sockets" in str(error)
                if self._port is None and taken and attempt < 2:
                    continue
                raise
            log.debug("postgresql started", directory=str(self.directory), port=port, pid=self.pid)
            return

    def _disown_stranger(self) -> None:
        """Make a pid file left by a crash harmless when its number belongs to another process by now.

        PostgreSQL would take that process for a running server and refuse to start. It does not mind its own
        parent's number, and then still looks for sessions that use the old server's shared memory.
        """
        lines = self._pid_file()
        if lines and self.pid is None:
            (self.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    def _spawn(self, port: int) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_name("log.1"))
        with self._as_server_sees(self.data) as (seen, fd), self.log_path.open("ab") as out:
            self._process = subprocess.Popen(
                [str(self.binary("postgres")), "-D", seen, *self._arguments(port)],
                **self._identity(),
                pass_fds=(fd,),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # Ctrl-C on the terminal belongs to the command, not to the server.
                start_new_session=True,
                preexec_fn=die_with_parent() if self._owned else None,
            )

    def _arguments(self, port: int) -> list[str]:
        settings = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        if self._bind == "unix":
            # The server stands in its data directory: "." needs no path that it would have to be able to enter.
            settings |= {"listen_addresses": "", "unix_socket_directories": ".", "unix_socket_permissions": "0700"}
        settings |= self._settings
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _identity(self) -> dict[str, Any]:
        kept: dict[str, Any] = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, "umask": 0o077}
        if self._user.uid is not None:
            kept |= {"user": self._user.uid, "group": self._user.gid, "extra_groups": []}
        return kept

    @contextlib.contextmanager
    def _as_server_sees(self, path: Path) -> Iterator[tuple[str, int]]:
        """``path`` as the server may name it, and the descriptor it must inherit for that.

        Another user than we may lack the right to enter a directory above. The descriptor of the directory itself
        spares us from opening up those parents for everybody.
        """
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield (str(path) if self._user.uid is None else f"/proc/self/fd/{fd}"), fd
        finally:
            os.close(fd)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            lines = self._pid_file()
            if self.pid is not None and len(lines) > 7 and lines[7].strip() == "ready":
                return
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended at once" if ended else f"was not ready after {_START_SECONDS:g} s"
                raise EmbeddedServerError(
                    f"PostgreSQL in {self.directory} {what}: {self._last_words()}", remedy=f"See {self.log_path}"
                )
            time.sleep(0.01)

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()[-20:]
        except OSError:
            return "(no log)"
        return " / ".join(line for line in lines if "FATAL" in line or "PANIC" in line or "HINT" in line) or "(no word)"

    # -- stopping --------------------------------------------------------------------------------

    def _shut_down(self, pid: int) -> None:
        """Fast shutdown, then an immediate one (which recovers at the next start), each by the pid just checked."""
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            if self._gone_within(pid, _STOP_SECONDS):
                return
        raise EmbeddedServerError(f"PostgreSQL in {self.directory} (pid {pid}) does not stop", remedy="Stop it by hand")

    def _gone_within(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._is_our_server(pid):
            if self._process is not None:
                self._process.poll()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        if self._process is not None and self._process.pid == pid:
            self._process.wait()
        return True

    # -- what is on disk --------------------------------------------------------------------------------

    def _pid_file(self) -> list[str]:
        """Lines of postmaster.pid: pid, directory, start time, port, socket directory, address, key, status."""
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _is_our_server(self, pid: int) -> bool:
        """A server stands in its data directory; a stranger that got the number of a dead one does not."""
        try:
            return Path(f"/proc/{pid}/cwd").samefile(self.data)
        except OSError:
            return False

    def _password(self) -> str:
        try:
            return (self.directory / "password").read_text()
        except OSError as error:
            raise EmbeddedServerError(
                f"password of the PostgreSQL in {self.directory} cannot be read: {error.strerror}",
                remedy="Use it as the user who made it",
            ) from None


def free_port() -> int:
    """A port of loopback on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write_private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as out:
        os.fchmod(fd, 0o600)
        out.write(text)
