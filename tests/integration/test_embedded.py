"""The PostgreSQL from the wheel: who it runs as, who may connect, who joins whom, and what is left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runbook.embedded import FAST, EmbeddedPostgres, server_user
from runbook.errors import EmbeddedServerError
from tests.support import missing, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    instance = EmbeddedPostgres(tmp_path / "pg", settings=FAST)
    yield instance
    instance.remove()


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("version", [16, 18])
@pytest.mark.parametrize("bind", ["tcp", "unix"])
def test_starts_answers_and_stops(tmp_path: Path, version: int, bind: str) -> None:
    with EmbeddedPostgres(tmp_path / "pg", version=version, bind=bind, settings=FAST) as server:  # type: ignore[arg-type]
        pid = server.pid
        assert pid is not None
        assert str(value(server.superuser_dsn, "SHOW server_version")).startswith(str(version))
    assert server.pid is None
    assert not Path(f"/proc/{pid}").exists()


def test_data_outlives_a_stop(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.stop()
    server.start()
    assert value(server.superuser_dsn, "SELECT answer FROM kept") == 42


def test_durable_unless_told_otherwise(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as server:
        assert value(server.superuser_dsn, "SHOW fsync") == "on"
        assert value(server.superuser_dsn, "SHOW synchronous_commit") == "on"


def test_settings_are_applied(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg", settings={**FAST, "max_connections": "17"}) as server:
        assert value(server.superuser_dsn, "SHOW max_connections") == "17"


def test_a_setting_that_does_not_exist_is_reported_with_what_the_server_said(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", settings={"no_such_setting": "1"})
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        server.start()
    server.remove()


# -- who it runs as, and who may connect --------------------------------------------------------------------------


@as_root
def test_root_runs_it_as_nobody_even_below_a_directory_that_nobody_cannot_enter(server: EmbeddedPostgres) -> None:
    assert mode(server.directory.parent) & 0o077 == 0
    server.start()
    assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "Groups:\t \n" in status or "Groups:\t\n" in status
    assert mode(server.directory.parent) & 0o077 == 0


def test_an_ordinary_user_runs_it_as_itself() -> None:
    """A forked child becomes nobody for good and starts a server of its own."""
    if os.geteuid() != 0:
        missing("root")
    nobody = server_user()
    if not nobody.may_enter(Path(psycopg.__file__).parent):
        missing("a virtual environment that nobody may read")
    import importlib.metadata  # noqa: F401 - the child may not be able to read the standard library

    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        own = Path(place) / "own"
        own.mkdir(mode=0o700)
        assert nobody.uid is not None
        os.chown(own, nobody.uid, nobody.uid)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(nobody.gid or nobody.uid)
                os.setuid(nobody.uid)
                with EmbeddedPostgres(own / "pg", settings=FAST) as server:
                    uid = Path(f"/proc/{server.pid}").stat().st_uid
                    code = 0 if uid == os.geteuid() and value(server.superuser_dsn, "SELECT 1") == 1 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@as_root
def test_binaries_that_nobody_cannot_reach_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Path(tempfile.mkdtemp(dir="/var/tmp"))
    shared.chmod(0o755)
    monkeypatch.setattr("runbook.embedded.binaries.SHARED_BINARIES", shared / "cache")
    monkeypatch.setattr("runbook.embedded.binaries.ServerUser.may_enter", lambda self, path: False)
    try:
        for directory in ("one", "two"):
            with EmbeddedPostgres(tmp_path / directory, settings=FAST) as server:
                assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(shared)
                assert value(server.superuser_dsn, "SELECT 1") == 1
        [copy] = (shared / "cache").iterdir()
        assert copy.name.startswith("postgresql-18-")
    finally:
        shutil.rmtree(shared)


def test_files_are_private(server: EmbeddedPostgres) -> None:
    server.start()
    assert mode(server.directory) == 0o700
    assert mode(server.data) == 0o700
    assert mode(server.directory / "password") == 0o600


@pytest.mark.parametrize("bind", ["tcp", "unix"])
def test_nobody_is_trusted_without_the_password(tmp_path: Path, bind: str) -> None:
    with EmbeddedPostgres(tmp_path / "pg", bind=bind, settings=FAST) as server:  # type: ignore[arg-type]
        for dsn in (server.dsn(user="postgres"), server.dsn(user="postgres", password="wrong")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(dsn, passfile="/dev/null")
        assert value(server.superuser_dsn, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'") == 0


def test_tcp_listens_on_loopback_only(server: EmbeddedPostgres) -> None:
    server.start()
    assert value(server.superuser_dsn, "SHOW listen_addresses") == "127.0.0.1"


def test_unix_opens_no_port(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg", bind="unix", settings=FAST) as server:
        assert value(server.superuser_dsn, "SHOW listen_addresses") == ""
        assert "127.0.0.1" not in server.superuser_dsn


def test_unix_in_a_directory_too_long_for_a_socket_falls_back_to_loopback(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / ("long" * 25), bind="unix", settings=FAST) as server:
        assert value(server.superuser_dsn, "SELECT 1") == 1
        assert "127.0.0.1" in server.superuser_dsn


# -- joining, racing, crashing ------------------------------------------------------------------------------------


def test_a_second_start_joins_and_the_last_stop_stops(server: EmbeddedPostgres) -> None:
    server.start()
    other = EmbeddedPostgres(server.directory).start()
    assert other.pid == server.pid
    assert other.superuser_dsn == server.superuser_dsn
    assert server.stop() is False
    assert value(other.superuser_dsn, "SELECT 1") == 1
    assert other.stop() is True
    assert other.pid is None


def test_force_stops_it_under_the_others(server: EmbeddedPostgres) -> None:
    server.start()
    other = EmbeddedPostgres(server.directory).start()
    assert server.stop(force=True) is True
    assert other.pid is None
    other.leave()


def test_processes_that_race_start_one_server(tmp_path: Path) -> None:
    directory = tmp_path / "pg"
    code = (
        "import sys; from pathlib import Path; from runbook.embedded import EmbeddedPostgres, FAST\n"
        "s = EmbeddedPostgres(Path(sys.argv[1]), settings=FAST).start()\n"
        "print(s.pid, flush=True); sys.stdin.read(); s.stop()"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    pids = set()
    for racer in racers:
        assert racer.stdout is not None
        lines = iter(racer.stdout.readline, "")
        pids.add(next(line for line in lines if line.strip().isdigit()))
    assert len(pids) == 1
    for racer in racers:
        racer.communicate("")
        assert racer.returncode == 0
    assert EmbeddedPostgres(directory).pid is None


def test_after_a_crash_it_starts_again_with_what_was_committed(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg").start()
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    crashed = server.pid
    assert crashed is not None
    os.kill(crashed, signal.SIGKILL)
    wait_until(lambda: server.pid is None, what="the server to die")
    server.leave()
    again = EmbeddedPostgres(server.directory)

    def restarted() -> bool:
        # Orphaned backends keep the shared memory for a moment, and PostgreSQL refuses to start beside them.
        try:
            again.start()
        except EmbeddedServerError:
            return False
        return True

    wait_until(restarted, what="a start after the crash")
    assert value(again.superuser_dsn, "SELECT answer FROM kept") == 42
    again.remove()


def test_a_stranger_with_the_pid_of_a_dead_server_is_neither_signalled_nor_in_the_way(server: EmbeddedPostgres) -> None:
    server.start()
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    assert server.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
    assert server.pid is None
    assert server.stop(force=True)
    assert stranger.poll() is None
    server.start()
    assert value(server.superuser_dsn, "SELECT 1") == 1
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_owned_ends_with_its_owner(tmp_path: Path) -> None:
    directory = tmp_path / "pg"
    code = (
        "import os, signal, sys; from pathlib import Path; from runbook.embedded import EmbeddedPostgres, FAST\n"
        "EmbeddedPostgres(Path(sys.argv[1]), settings=FAST, owned=True).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=False, stdout=subprocess.DEVNULL)
    wait_until(lambda: EmbeddedPostgres(directory).pid is None, what="the owned server to stop")


def test_not_owned_outlives_the_one_who_started_it(tmp_path: Path) -> None:
    directory = tmp_path / "pg"
    code = (
        "import sys; from pathlib import Path; from runbook.embedded import EmbeddedPostgres, FAST\n"
        "EmbeddedPostgres(Path(sys.argv[1]), settings=FAST).start().leave()"
    )
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True, stdout=subprocess.DEVNULL)
    server = EmbeddedPostgres(directory)
    assert server.pid is not None
    assert value(server.superuser_dsn, "SELECT 1") == 1
    server.remove()


# -- bad input ----------------------------------------------------------------------------------------------------


def test_another_version_is_refused(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    with pytest.raises(EmbeddedServerError, match="holds PostgreSQL 18 data, not 16"):
        EmbeddedPostgres(server.directory, version=16).start()


def test_an_interrupted_initdb_is_made_anew(server: EmbeddedPostgres) -> None:
    half = server.directory / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    server.start()
    assert value(server.superuser_dsn, "SELECT 1") == 1
    assert not half.exists()


def test_a_port_that_is_taken_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedPostgres(tmp_path / "pg", port=taken.getsockname()[1], settings=FAST)
        with pytest.raises(EmbeddedServerError, match="could not create any TCP/IP sockets"):
            server.start()
        server.remove()


def test_a_directory_that_cannot_be_made_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="cannot be made: Not a directory"):
        EmbeddedPostgres(tmp_path / "file" / "pg").start()
