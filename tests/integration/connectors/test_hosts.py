"""Commands on several hosts: real OpenSSH servers on loopback, one of them down."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.connectors import hosts as hosts_module
from runbook.connectors.base import Context
from runbook.connectors.hosts import Hosts
from runbook.progress import Progress
from runbook.settings import Workers
from tests.integration.connectors.sshd import Home, Sshd, keygen
from tests.support import displayed, free_port, wait_until

DISK = """
printf 'filesystem\\tsize_kb\\tavailable_kb\\n'
df -Pk / | awk 'NR > 1 { printf "%s\\t%s\\t%s\\n", $1, $2, $4 }'
"""
HOSTILE = [
    "'; drop table content; --", "$(reboot)", "`touch {m}`", "'; touch {m}; '", '"; touch {m}', "a\nb; touch {m}",
    "a\r\n", "-rf", "*", "", "~", "!!", "$0 ${{PATH}}", "| touch {m}", "\\", "\\'", "é\u2028", "\t", "\x01\x1b[31m",
    "%s",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def servers(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sshd]]:
    place = tmp_path_factory.mktemp("sshd")
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("one", "two"):
            server = Sshd(place / name, home).start()
            stack.callback(server.stop)
            made.append(server)
        yield made


@pytest.fixture(autouse=True)
def at_home(home: Home, servers: list[Sshd], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home.configure("")
    home.trust(*servers)


def hosts(*names: str, watched: bool = False) -> Hosts:
    return Hosts(Context(progress=Progress(watched=watched)), Workers(hosts=list(names)))


def test_disk_space_of_three_hosts_is_one_table_that_names_the_one_that_is_down(servers: list[Sshd]) -> None:
    down = f"worker@127.0.0.1:{free_port()}"
    reading = hosts(servers[0].address, servers[1].address, down).script("worker_disk", DISK)
    assert [row["host"] for row in reading.rows] == [servers[0].address, servers[1].address, down]
    for row in reading.rows[:2]:
        assert list(row) == ["host", "filesystem", "size_kb", "available_kb"]
        assert row["size_kb"] > 0
    assert (reading.rows[2]["state"], reading.known) == ("unreachable", True)
    assert reading.state == "partial"
    assert down in reading.reason
    assert servers[0].address not in reading.reason


def test_this_host_is_asked_without_ssh(servers: list[Sshd]) -> None:
    reading = hosts("local", servers[0].address).script("r", "echo $PPID $0")
    assert (reading.state, [row["host"] for row in reading.rows]) == ("ok", ["local", servers[0].address])


def test_no_hosts_are_not_configured() -> None:
    reading = hosts().script("r", "echo")
    assert (reading.state, reading.reason, reading.query) == (
        "not_configured",
        "workers.hosts is not set",
        reading.query,
    )


@pytest.mark.parametrize("argument", HOSTILE)
def test_an_argument_is_data_on_the_other_host_too(servers: list[Sshd], tmp_path: Path, argument: str) -> None:
    argument = argument.format(m=tmp_path / "made")
    text = 'echo $#; printf %s "$1" | od -An -v -tx1 | tr -d " \\n"'
    reading = hosts(servers[0].address).script("r", text, [argument])
    assert [row["line"] for row in reading.rows] == ["1", *([argument.encode().hex()] if argument else [])]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["a\x00b", "\ud800"])
def test_an_argument_that_no_command_can_take_is_refused(servers: list[Sshd], argument: str) -> None:
    reading = hosts(servers[0].address).script("r", "echo", [argument])
    assert (reading.state, reading.value) == ("partial", None)
    assert "not run" in reading.reason


def test_a_command_elsewhere_sees_a_scrubbed_environment(servers: list[Sshd], home: Home) -> None:
    home.configure("Host *\n  SetEnv CANARY=1\n  SendEnv HOME\n")
    reading = hosts(servers[0].address).run("r", ["env"])
    # PWD is the shell's own.
    assert {row["line"].partition("=")[0] for row in reading.rows} == {"PATH", "LC_ALL", "TZ", "PWD"}


@pytest.mark.parametrize(
    ("text", "state", "rows"),
    [("echo a; echo why >&2; exit 3", "partial", ["a"]), ("kill -TERM $$", "partial", []), ("true", "ok", [])],
)
def test_how_a_command_ends_there_is_the_state(servers: list[Sshd], text: str, state: str, rows: list[str]) -> None:
    reading = hosts(servers[0].address).script("r", text)
    assert (reading.state, [row["line"] for row in reading.rows]) == (state, rows)


def test_what_a_failing_command_said_is_told_with_its_host(servers: list[Sshd]) -> None:
    reading = hosts(servers[0].address, "local").script("r", "echo why >&2; exit 3")
    assert f"{servers[0].address}: exit status 3: why" in reading.reason
    assert "local: exit status 3: why" in reading.reason


def test_a_late_host_does_not_cost_the_others_their_rows_and_its_command_is_ended(
    servers: list[Sshd], tmp_path: Path
) -> None:
    text = 'if mkdir "$1/first"; then echo done; else echo $$ > "$1/pid"; sleep 600; fi'
    reading = hosts(servers[0].address, servers[1].address).script("r", text, [str(tmp_path)], limit_seconds=3)
    assert reading.state == "partial"
    assert sorted(row.get("line") or row["state"] for row in reading.rows) == ["done", "timeout"]
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not _alive(pid), what="the end of the late command")


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


def test_a_host_that_takes_connections_and_says_nothing_is_late(servers: list[Sshd]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"u@127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        reading = hosts(servers[0].address, name).script("r", "echo x", limit_seconds=2)
    assert [row.get("line") or row["state"] for row in reading.rows] == ["x", "timeout"]
    assert time.monotonic() - began < 30


def test_when_all_hosts_fail_the_reading_is_unknown_with_the_worst_state() -> None:
    reading = hosts(f"u@127.0.0.1:{free_port()}", "u@no-such-host.invalid").script("r", "echo")
    assert (reading.state, reading.value) == ("unreachable", None)
    assert "no-such-host.invalid" in reading.reason


def test_output_beyond_the_cap_is_cut_and_said(servers: list[Sshd]) -> None:
    reading = hosts(servers[0].address).script("r", "yes 0123456789 | head -c 30000000")
    assert reading.state == "partial"
    assert "first" in reading.reason
    assert all(row["line"] == "0123456789" for row in reading.rows)


# -- who is trusted ---------------------------------------------------------------------------------------------------


def test_a_host_that_is_not_known_is_not_talked_to(servers: list[Sshd], home: Home) -> None:
    home.trust()
    reading = hosts(servers[0].address).script("r", "echo x")
    assert (reading.state, reading.code, reading.value) == ("auth_failed", "HOST_KEY", None)


def test_a_host_with_another_key_is_not_talked_to(servers: list[Sshd], home: Home, tmp_path: Path) -> None:
    home.trust(*servers, key=keygen(tmp_path / "other"))
    assert hosts(servers[0].address).script("r", "echo x").code == "HOST_KEY"


@pytest.mark.parametrize(
    "setting", ["UserKnownHostsFile none", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"]
)
def test_no_configuration_makes_an_unknown_host_trusted(servers: list[Sshd], home: Home, setting: str) -> None:
    home.trust()
    home.configure(f"Host *\n  {setting}\n")
    assert hosts(servers[0].address).script("r", "echo x").code == "HOST_KEY"


def test_a_name_of_the_openssh_configuration_is_a_host(servers: list[Sshd], home: Home) -> None:
    user, _, _ = servers[0].address.partition("@")
    home.configure(f"Host videos-1\n  HostName 127.0.0.1\n  Port {servers[0].port}\n  User {user}\n")
    reading = hosts("videos-1").script("r", "echo x")
    assert (reading.state, reading.rows) == ("ok", [{"host": "videos-1", "line": "x"}])


def test_a_host_behind_another_is_reached_through_it(servers: list[Sshd], home: Home) -> None:
    user, _, _ = servers[0].address.partition("@")
    home.configure(
        f"Host inner\n  HostName 127.0.0.1\n  Port {servers[1].port}\n  User {user}\n  ProxyJump jump\n"
        f"Host jump\n  HostName 127.0.0.1\n  Port {servers[0].port}\n  User {user}\n"
    )
    reading = hosts("inner").script("r", "echo x")
    assert (reading.state, reading.rows) == ("ok", [{"host": "inner", "line": "x"}]), reading.reason


def test_a_key_that_is_not_there_is_not_configured(servers: list[Sshd], home: Home) -> None:
    (home.directory / ".ssh" / "config").write_text("Host *\n  IdentityFile /nonexistent/key\n")
    reading = hosts(servers[0].address).script("r", "echo x")
    assert (reading.state, "/nonexistent/key" in reading.reason) == ("not_configured", True)


def test_a_resolver_that_hangs_costs_nobody_his_rows(servers: list[Sshd], monkeypatch: pytest.MonkeyPatch) -> None:
    original, release = socket.getaddrinfo, threading.Event()

    def slow(host: object, *args: object, **settings: object) -> object:
        if host == "worker.example":
            release.wait(30)
        return original(host, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    reading = hosts(servers[0].address, "u@worker.example").script("r", "echo x", limit_seconds=2)
    release.set()
    assert [row.get("line") or row["state"] for row in reading.rows] == ["x", "timeout"]


def test_a_login_that_is_refused_is_told(servers: list[Sshd], home: Home, tmp_path: Path) -> None:
    keygen(tmp_path / "other")
    (home.directory / ".ssh" / "config").write_text(f"Host *\n  IdentityFile {tmp_path}/other\n  IdentitiesOnly yes\n")
    reading = hosts(servers[0].address).script("r", "echo x")
    assert (reading.state, reading.code) == ("auth_failed", "LOGIN")


@pytest.mark.parametrize(
    "name", ["", "a b", "-oProxyCommand=reboot", "u@h:99999", "u@h:x", "u@h/etc", "u@;reboot", "a\n"]
)
def test_what_is_no_host_is_not_connected_to(name: str) -> None:
    reading = hosts(name).script("r", "echo x")
    assert (reading.state, reading.value) == ("not_configured", None)
    assert "is no host" in reading.reason


# -- many -------------------------------------------------------------------------------------------------------------


def test_no_more_hosts_are_asked_at_once_than_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts_module, "AT_ONCE", 3)
    under_way, most, lock = 0, 0, threading.Lock()

    def execute(*_: object, **__: object) -> object:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return hosts_module.shell.Output(out=b"x\n", err=b"", status=0)

    async def remote(*args: object, **settings: object) -> object:
        import asyncio

        return await asyncio.to_thread(execute, *args, **settings)

    monkeypatch.setattr(hosts_module.ssh, "execute", remote)
    reading = hosts(*(f"u@worker-{n}" for n in range(12))).script("r", "echo x")
    assert (reading.state, len(reading.rows), most) == ("ok", 12, 3)
    assert [row["host"] for row in reading.rows] == [f"u@worker-{n}" for n in range(12)]


def test_whoever_waits_sees_how_many_hosts_have_answered(servers: list[Sshd], monkeypatch: pytest.MonkeyPatch) -> None:
    said = displayed(monkeypatch)
    hosts("local", "-", servers[0].address, watched=True).script("r", "sleep 0.6")
    assert "hosts 1 of 3 answered" in said
    assert said[-1] == ""


def test_without_a_person_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said = displayed(monkeypatch)
    hosts("local", "-").script("r", "sleep 0.5")
    assert said == []
