"""What Redis says of itself and how it fails, on real servers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from runbook.connectors import redis_session as module
from runbook.connectors.base import Context
from runbook.connectors.redis_server import CLIENT_NAME, RedisServer
from runbook.redaction import Redactor
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.integration.connectors.servers import garbage_listener, listener
from tests.support import free_port, wait_until

PASSWORD = "Canary-9f8e7d6c"
READS = {"ping", "info", "client", "client|setname", "slowlog", "slowlog|get"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """With a password, and a user who may do next to nothing."""
    directory = tmp_path_factory.mktemp("locked")
    with running(directory, "--requirepass", PASSWORD, login={"password": PASSWORD}) as server:
        server.client(password=PASSWORD).acl_setuser(
            "narrow", enabled=True, passwords=[f"+{PASSWORD}"], commands=["+ping"]
        )
        yield server


def connector(url: str | None) -> RedisServer:
    return RedisServer(Context(redactor=Redactor([PASSWORD])), url)


def test_a_server_that_is_well_answers_pong(plain: RedisProcess) -> None:
    reading = connector(plain.url()).ping()
    assert (reading.state, reading.value["answer"]) == ("ok", "PONG")
    assert reading.value["milliseconds"] > 0
    assert reading.target == f"127.0.0.1:{plain.port}/0"


def test_the_figures_that_the_rules_need_are_there(plain: RedisProcess) -> None:
    with contextlib.suppress(redis.ResponseError):
        plain.client().execute_command("NOSUCH")
    reading = connector(plain.url()).info()
    row = reading.value
    assert reading.state == "ok", reading.reason
    assert (row["role"], row["loading"], row["maxmemory_policy"], row["maxclients"]) == (
        "master",
        False,
        "noeviction",
        10000,
    )
    assert row["used_memory"] > 0
    assert row["error_counts"]["ERR"] >= 1
    assert [key for key, value in row.items() if value is None] == []
    assert row["own_errors"] == {}


def test_errors_that_our_own_commands_meet_are_known_to_be_ours(plain: RedisProcess) -> None:
    asked = connector(plain.url())
    before = asked.info().value
    with module.Session(plain.url(), asked.own_errors) as session:
        session.batch([("NOSUCH",), ("GET",)])
    after = asked.info().value
    assert after["error_counts"]["ERR"] - before.get("error_counts", {}).get("ERR", 0) == 2
    assert after["own_errors"] == {"ERR": 2}


def test_our_connection_carries_our_name(plain: RedisProcess) -> None:
    with module.Session(plain.url()) as session:
        session.batch([("PING",)])
        assert CLIENT_NAME in [client["name"] for client in plain.client().client_list()]


def test_nothing_but_reading_commands_is_sent(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        asked = connector(server.url())
        asked.ping()
        asked.info()
        asked.slow_log()
        asked.load()
        sent = {key.removeprefix("cmdstat_") for key in server.client().info("commandstats")}
    assert sent <= READS


@pytest.mark.parametrize(
    ("login", "state", "code"),
    [
        ("", "auth_failed", "NOAUTH"),
        (":wrong-Canary1", "auth_failed", "WRONGPASS"),
        ("nobody:wrong-Canary1", "auth_failed", "WRONGPASS"),
        (f"narrow:{PASSWORD}", "permission_denied", "NOPERM"),
    ],
)
def test_who_may_not_is_told_by_state_and_code(locked: RedisProcess, login: str, state: str, code: str) -> None:
    reading = connector(locked.url(login)).info()
    assert (reading.state, reading.code, reading.known) == (state, code, False), reading.reason
    assert PASSWORD not in repr(reading)


def test_a_user_who_may_not_name_itself_is_answered_all_the_same(locked: RedisProcess) -> None:
    assert connector(locked.url(f"narrow:{PASSWORD}")).ping().state == "ok"


def test_the_right_password_is_let_in_and_never_shown(locked: RedisProcess) -> None:
    reading = connector(locked.url(f":{PASSWORD}")).info()
    assert reading.state == "ok"
    assert PASSWORD not in repr(reading)


def test_no_client_slot_left_is_unreachable_with_its_own_code(tmp_path: Path) -> None:
    with running(tmp_path, "--maxclients", "3") as server:
        held = [server.client() for _ in range(3)]
        for client in held:
            client.ping()
        reading = connector(server.url()).ping()
        for client in held:
            client.close()
    assert (reading.state, reading.code) == ("unreachable", "MAXCLIENTS"), reading.reason


def test_a_snapshot_that_fails_makes_ping_answer_misconf(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    with running(directory) as server:
        client = server.client()
        client.config_set("save", "3600 1")
        client.set("a", "1")
        shutil.rmtree(directory)
        client.execute_command("BGSAVE")
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the failed snapshot")
        reading = connector(server.url()).ping()
        info = connector(server.url()).info()
    assert (reading.state, reading.code, reading.known) == ("partial", "MISCONF", False)
    assert (info.state, info.value["rdb_last_bgsave_status"]) == ("ok", "err")


def test_a_script_that_never_ends_makes_it_busy(tmp_path: Path) -> None:
    with running(tmp_path, "--lua-time-limit", "50") as server:

        def spin() -> None:
            with contextlib.suppress(redis.RedisError):
                server.client().eval("while true do end", 0)

        threading.Thread(target=spin, daemon=True).start()
        asked = connector(server.url())
        reading = wait_until(lambda: r if (r := asked.ping()).code else None, what="a busy answer")
        info = asked.info()
        server.client().script_kill()
    assert (reading.state, reading.code) == ("partial", "BUSY")
    assert (info.state, info.code, info.value) == ("partial", "BUSY", None)


def test_a_server_that_still_loads_its_data_says_loading(tmp_path: Path) -> None:
    with running(tmp_path, "--rdbcompression", "no") as server:
        for n in range(200):
            server.client().set(f"key{n}", "x" * 100_000)
        server.client().save()
    with running(tmp_path, "--key-load-delay", "20000") as server:  # it looks up from loading every 2 MB
        reading = connector(server.url()).ping()
    assert (reading.state, reading.code, reading.known) == ("partial", "LOADING", False)


def test_none_that_runs_is_unreachable() -> None:
    reading = connector(f"redis://127.0.0.1:{free_port()}/0").ping()
    assert (reading.state, reading.code) == ("unreachable", "ECONNREFUSED")


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    reading = connector("redis://cache.invalid:6379/0").ping()
    assert (reading.state, reading.code) == ("unreachable", "DNS"), reading.reason


def test_one_that_hangs_is_a_timeout(plain: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_SECONDS", 1.5)
    os.kill(plain.process.pid, signal.SIGSTOP)
    try:
        reading = connector(plain.url()).ping()
    finally:
        os.kill(plain.process.pid, signal.SIGCONT)
    assert (reading.state, reading.known) == ("timeout", False)


def test_a_listener_that_speaks_something_else_is_not_known() -> None:
    with garbage_listener() as port:
        reading = connector(f"redis://127.0.0.1:{port}/0").ping()
    assert (reading.state, reading.known) == ("unreachable", False), reading.reason


def errors(line: str) -> Callable[[socket.socket], None]:
    """A server that answers every command with the same error."""

    def answer(stream: socket.socket) -> None:
        while said := stream.recv(4096):
            stream.sendall(line.encode() * len(re.findall(rb"(?m)^\*", said)))

    return answer


@pytest.mark.parametrize(
    ("line", "state", "code"),
    [
        ("-MOVED 5798 10.0.0.7:6379", "partial", "MOVED"),
        ("-CLUSTERDOWN The cluster is down", "partial", "CLUSTERDOWN"),
        ("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "partial", "MASTERDOWN"),
        ("-NOAUTH Authentication required.", "auth_failed", "NOAUTH"),
        ("-ERR unknown command", "partial", "ERR"),
        ("-NEWWORD of a later version", "partial", "NEWWORD"),
    ],
)
def test_the_first_word_of_an_error_is_its_code(line: str, state: str, code: str) -> None:
    with listener(errors(line + "\r\n")) as port:
        for reading in (
            connector(f"redis://127.0.0.1:{port}/0").ping(),
            connector(f"redis://127.0.0.1:{port}/0").info(),
        ):
            assert (reading.state, reading.code, reading.known) == (state, code, False), reading.reason


def test_a_server_that_turns_us_away_at_the_door_is_heard() -> None:
    def door(stream: socket.socket) -> None:
        stream.sendall(b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n")
        stream.recv(4096)

    with listener(door) as port:
        reading = connector(f"redis://127.0.0.1:{port}/0").ping()
    assert (reading.state, reading.code) == ("permission_denied", "DENIED"), reading.reason


def test_a_server_that_turns_us_away_again_and_again_is_heard_each_time_until_a_slot_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library's pool tries twice and hears "noise"; we listen for what it was, and by then a slot may be free."""
    patient = redis.Connection.can_read
    monkeypatch.setattr(redis.Connection, "can_read", lambda self, timeout=0: patient(self, timeout=0.3))
    turned_away: list[int] = []

    def door(stream: socket.socket) -> None:
        if len(turned_away) < 3 + 2 + 1:  # the pool keeps the connection on which it heard something
            turned_away.append(1)
            stream.sendall(b"-ERR max number of clients reached\r\n")
        while said := stream.recv(4096):
            stream.sendall(b"+PONG\r\n" * len(re.findall(rb"(?m)^\*", said)))

    with listener(door) as port, module.Session(f"redis://127.0.0.1:{port}/0") as session:
        for _ in range(2):
            with pytest.raises(redis.RedisError, match="max number of clients"):
                session.batch([("PING",)])
        assert session.batch([("PING",)]) == [True]
    assert len(turned_away) == 6


def test_tls_against_a_server_without_it_is_not_known(plain: RedisProcess) -> None:
    reading = connector(plain.url().replace("redis:", "rediss:")).ping()
    assert not reading.known
    assert reading.state in ("unreachable", "timeout")


@pytest.mark.parametrize("url", [None, ""])
def test_none_that_is_configured_is_not_configured(url: str | None) -> None:
    reading = connector(url).ping()
    assert (reading.state, reading.reason) == ("not_configured", "redis.url is not set")


@pytest.mark.parametrize("url", [f"http://{PASSWORD}@x", f"{PASSWORD}", f"redis://:{PASSWORD}@host:notaport/0"])
def test_a_url_that_is_none_is_not_configured_and_no_part_of_it_is_shown(url: str) -> None:
    reading = RedisServer(Context(), url).ping()
    assert reading.state == "not_configured"
    assert PASSWORD not in repr(reading)


def test_the_load_grows_by_what_was_asked(plain: RedisProcess) -> None:
    asked = connector(plain.url())
    client = plain.client()
    client.set("there", "1")
    before = asked.load().rows[0]
    for _ in range(30):
        client.get("there")
        client.get("not there")
    after = asked.load().rows[0]
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (30, 30)
    assert after["busy_ms"] >= before["busy_ms"]
    assert after["at"] > before["at"]
