"""The way to Redis step by step, and what one that lets us in tells, on real servers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runbook.connectors.base import Context
from runbook.connectors.redis_server import CLIENT_NAME, RedisServer
from runbook.connectors.redis_walk import STEPS
from runbook.redaction import Redactor
from runbook.result import Reading
from tests.integration.connectors.certificates import Authority
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.integration.connectors.servers import garbage_listener, listener
from tests.support import free_port, wait_until

PASSWORD = "Canary-9f8e7d6c"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with running(tmp_path, "--requirepass", PASSWORD, login={"password": PASSWORD}) as up:
        yield up


def connector(url: str) -> RedisServer:
    return RedisServer(Context(redactor=Redactor([PASSWORD])), url)


def walk(url: str, *, answer: float = 0.5, patience: float = 0.5) -> dict[str, dict[str, Any]]:
    reading = connector(url).walk(answer, patience)
    assert reading.state == "ok", reading.reason
    assert PASSWORD not in repr(reading)
    rows = {row["step"]: row for row in reading.rows}
    assert set(rows) - {"late"} == set(STEPS)
    return rows


def ends(rows: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """The step where the way ends, and its code."""
    return next(((step, rows[step]["code"]) for step in STEPS if rows[step]["answer"] == "no"), ("", ""))


def test_the_whole_way_is_walked_and_nothing_is_written(server: RedisProcess) -> None:
    admin = server.client(password=PASSWORD)
    rows = walk(server.url(f":{PASSWORD}"))
    assert ends(rows) == ("", "")
    assert (rows["greeting"]["code"], rows["auth"]["answer"], rows["ping"]["answer"]) == ("NOAUTH", "yes", "yes")
    assert rows["write"]["answer"] == "cannot tell"
    assert admin.dbsize() == 0
    written = [name for name in admin.info("commandstats") if name.partition("_")[2] in ("set", "del", "config|set")]
    assert written == []


@pytest.mark.parametrize(
    ("login", "step", "code"),
    [("", "auth", "NOAUTH"), (":wrong", "auth", "WRONGPASS"), ("nobody:wrong", "auth", "WRONGPASS")],
)
def test_a_login_that_is_refused_ends_it_at_auth(server: RedisProcess, login: str, step: str, code: str) -> None:
    assert ends(walk(server.url(login))) == (step, code)


def test_a_password_for_a_server_without_one_is_told(tmp_path: Path) -> None:
    with running(tmp_path) as open_to_all:
        assert ends(walk(open_to_all.url(f":{PASSWORD}"))) == ("auth", "NOPASSWORD")


def test_a_server_without_a_slot_ends_it_at_the_greeting(tmp_path: Path) -> None:
    with running(tmp_path, "--maxclients", "3") as full:
        held = [full.client() for _ in range(3)]
        for client in held:
            client.ping()
        assert ends(walk(full.url())) == ("greeting", "MAXCLIENTS")
        for client in held:
            client.close()


def test_a_server_that_is_stopped_is_silent_and_one_that_is_paused_is_not(server: RedisProcess) -> None:
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        assert ends(walk(server.url(f":{PASSWORD}"))) == ("greeting", "SILENT")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    server.client(password=PASSWORD).execute_command("CLIENT", "PAUSE", 60_000)
    assert ends(walk(server.url(f":{PASSWORD}"))) == ("auth", "PAUSED")


def test_a_pause_without_a_password_is_told_from_silence_too(tmp_path: Path) -> None:
    with running(tmp_path) as open_to_all:
        open_to_all.client().execute_command("CLIENT", "PAUSE", 1200)
        rows = walk(open_to_all.url(), answer=0.4, patience=5)
    assert ends(rows) == ("", "")
    assert rows["late"]["code"] == "PAUSED"
    assert 500 < rows["late"]["milliseconds"] < 5000


def test_an_answer_that_comes_late_is_late_and_not_never(server: RedisProcess) -> None:
    os.kill(server.process.pid, signal.SIGSTOP)
    threading.Timer(1.6, os.kill, (server.process.pid, signal.SIGCONT)).start()
    rows = walk(server.url(f":{PASSWORD}"), answer=0.4, patience=6)
    assert ends(rows) == ("", "")
    assert rows["late"]["code"] == "LATE"


def test_what_is_refused_and_what_does_not_resolve_have_their_codes() -> None:
    assert ends(walk(f"redis://127.0.0.1:{free_port()}/0")) == ("tcp", "ECONNREFUSED")
    assert ends(walk("redis://cache.invalid:6379/0")) == ("name", "DNS")
    assert ends(walk("unix:///nowhere/redis.sock")) == ("tcp", "ENOENT")


def test_a_connect_that_nobody_answers_is_a_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", port))
            waiting.append(sock)
        time.sleep(0.1)
        assert ends(walk(f"redis://127.0.0.1:{port}/0")) == ("tcp", "ETIMEDOUT")
        for sock in waiting:
            sock.close()


def test_plain_to_a_server_that_speaks_tls_is_told(tmp_path: Path) -> None:
    context = Authority(tmp_path).server()

    def secure(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True):
            pass

    with listener(secure) as port:
        assert ends(walk(f"redis://127.0.0.1:{port}/0")) == ("greeting", "TLS")


def test_tls_to_a_server_that_speaks_plain_is_told(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbook.connectors.redis_walk.TLS_SECONDS", 0.5)
    url = server.url(f":{PASSWORD}").replace("redis:", "rediss:")
    assert ends(walk(url)) == ("tls", "PLAIN")


def test_a_certificate_that_is_not_accepted_has_its_verify_code(tmp_path: Path) -> None:
    context = Authority(tmp_path).server(signed=False)

    def secure(stream: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(stream, server_side=True):
            pass

    with listener(secure) as port:
        step, code = ends(walk(f"rediss://localhost:{port}/0"))
    assert step == "tls"
    assert code.startswith("TLS")
    assert code[3:].isdigit()


def test_a_certificate_of_the_authority_that_the_url_names_is_accepted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server()

    def secure(stream: socket.socket) -> None:
        with context.wrap_socket(stream, server_side=True) as inside:
            inside.recv(64)
            inside.sendall(b"+PONG\r\n")
            inside.recv(64)

    with listener(secure) as port:
        rows = walk(f"rediss://localhost:{port}/0?ssl_ca_certs={authority.file}")
        missing = walk(f"rediss://localhost:{port}/0?ssl_ca_certs=/nowhere/ca.pem")
    assert (rows["tls"]["answer"], rows["greeting"]["answer"]) == ("yes", "yes")
    assert ends(missing) == ("tls", "TLSFILES")


def test_a_server_that_turns_everybody_away_at_the_door_is_heard() -> None:
    def door(stream: socket.socket) -> None:
        stream.sendall(b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n")
        stream.recv(4096)

    with listener(door) as port:
        assert ends(walk(f"redis://127.0.0.1:{port}/0")) == ("greeting", "DENIED")


def test_what_is_no_redis_is_said_to_be_none() -> None:
    with garbage_listener() as port:
        step, code = ends(walk(f"redis://127.0.0.1:{port}/0"))
    assert step == "greeting"
    assert code in ("GARBAGE", "CLOSED")


def test_an_answer_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    def endless(stream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream.sendall(b"+" + b"x" * 65_536)

    with listener(endless) as port:
        began = time.monotonic()
        assert ends(walk(f"redis://127.0.0.1:{port}/0"))[0] == "greeting"
    assert time.monotonic() - began < 5


def test_a_busy_server_says_so_at_ping(tmp_path: Path) -> None:
    with running(tmp_path, "--lua-time-limit", "50") as busy:

        def spin() -> None:
            with contextlib.suppress(redis.RedisError):
                busy.client().eval("while true do end", 0)

        threading.Thread(target=spin, daemon=True).start()
        wait_until(lambda: connector(busy.url()).ping().code == "BUSY", what="a busy answer")
        assert ends(walk(busy.url())) == ("ping", "BUSY")
        busy.client().script_kill()


def test_a_replica_and_a_full_memory_take_no_write_by_their_own_word(server: RedisProcess) -> None:
    admin = server.client(password=PASSWORD)
    admin.config_set("maxmemory", 1)
    assert walk(server.url(f":{PASSWORD}"))["write"]["code"] == "OOM"
    admin.config_set("maxmemory", 0)
    admin.execute_command("REPLICAOF", "127.0.0.1", free_port())
    assert walk(server.url(f":{PASSWORD}"))["write"]["code"] == "READONLY"


def test_a_database_that_does_not_exist_is_told(server: RedisProcess) -> None:
    assert ends(walk(server.url(f":{PASSWORD}").replace("/0", "/99"))) == ("database", "ERR")


def of_version_7(dry_run: bytes) -> Callable[[socket.socket], None]:
    """A server that says it is 7.0 and answers ``ACL DRYRUN`` so; anything else it would run is an error."""
    info = b"redis_version:7.0.15\r\nrole:master\r\n"
    answers = {
        b"PING": b"+PONG\r\n",
        b"INFO": b"$%d\r\n%s\r\n" % (len(info), info),
        b"WHOAMI": b"$6\r\nreader\r\n",
        b"DRYRUN": dry_run,
    }

    def answer(stream: socket.socket) -> None:
        while said := stream.recv(4096):
            known = next((reply for word, reply in answers.items() if word in said), b"-ERR unknown command\r\n")
            stream.sendall(known)

    return answer


@pytest.mark.parametrize(
    ("dry_run", "answer", "code"),
    [
        (b"+OK\r\n", "cannot tell", ""),
        (b"$55\r\nUser reader has no permissions to run the 'set' command\r\n", "no", "NOPERM"),
        (b"-NOPERM this user has no permissions to run the 'acl' command\r\n", "cannot tell", ""),
    ],
)
def test_rights_are_asked_for_and_not_tried_where_the_server_can_tell(dry_run: bytes, answer: str, code: str) -> None:
    with listener(of_version_7(dry_run)) as port:
        rows = walk(f"redis://127.0.0.1:{port}/0")
    assert (rows["write"]["answer"], rows["write"]["code"]) == (answer, code)


# -- what one that lets us in tells -----------------------------------------------------------------------------------


def look(url: str) -> dict[str, Reading]:
    return {reading.name: reading for reading in connector(url).look()}


def test_clients_are_grouped_and_we_are_not_among_them(server: RedisProcess) -> None:
    held = [server.client(password=PASSWORD, client_name="report-worker") for _ in range(5)]
    for client in held:
        client.ping()
    rows = look(server.url(f":{PASSWORD}"))["redis_clients"].rows
    group = next(row for row in rows if row["name"] == "report-worker")
    assert (group["connections"], group["host"], group["held_back"]) == (5, "127.0.0.1", 0)
    assert {"id", "addr", "idle_seconds", "age_seconds"} == set(group["longest_idle"][0])
    assert CLIENT_NAME not in {row["name"] for row in rows}


def test_writers_that_are_paused_are_held_back_and_workers_that_wait_are_not(server: RedisProcess) -> None:
    def wait_for_a_job() -> None:
        with contextlib.suppress(redis.RedisError):
            server.client(password=PASSWORD, client_name="worker").blpop("wait", 10)

    def write() -> None:
        with contextlib.suppress(redis.RedisError):
            server.client(password=PASSWORD, client_name="writer").set("a", "b")

    threading.Thread(target=wait_for_a_job, daemon=True).start()
    time.sleep(0.2)
    server.client(password=PASSWORD).execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    threading.Thread(target=write, daemon=True).start()
    time.sleep(0.2)
    rows = {row["name"]: row for row in look(server.url(f":{PASSWORD}"))["redis_clients"].rows}
    assert (rows["writer"]["held_back"], rows["worker"]["held_back"], rows["worker"]["blocked"]) == (1, 0, 1)
    server.client(password=PASSWORD).execute_command("CLIENT", "UNPAUSE")


def test_a_slow_command_is_named_without_its_arguments(server: RedisProcess) -> None:
    admin = server.client(password=PASSWORD)
    admin.config_set("slowlog-log-slower-than", 0)
    admin.set("a-secret-key", "a-secret-value")
    admin.config_set("slowlog-log-slower-than", 10**9)
    reading = look(server.url(f":{PASSWORD}"))["redis_slowlog"]
    slow = next(row for row in reading.rows if row["command"] == "SET")
    assert (slow["arguments"], slow["ago_seconds"] < 60) == (2, True)
    assert "a-secret" not in repr(reading)


def test_refusals_are_those_of_others(server: RedisProcess) -> None:
    admin = server.client(password=PASSWORD)
    admin.acl_setuser(
        "api", enabled=True, passwords=[f"+{PASSWORD}"], keys=["feed:*"], commands=["+get", "+ping", "+client|setname"]
    )
    api = server.client(username="api", password=PASSWORD)
    for refused in (("SET", "feed:1", "x"), ("GET", "other:1")):
        with contextlib.suppress(redis.ResponseError):
            api.execute_command(*refused)
    connector(server.url(f"api:{PASSWORD}")).look()
    rows = look(server.url(f":{PASSWORD}"))["redis_refusals"].rows
    assert {(row["reason"], row["object"], row["user"]) for row in rows} == {
        ("command", "set", "api"),
        ("key", "other:1", "api"),
    }


def test_who_may_not_ask_one_thing_is_told_the_others(server: RedisProcess) -> None:
    admin = server.client(password=PASSWORD)
    admin.acl_setuser(
        "narrow",
        enabled=True,
        passwords=[f"+{PASSWORD}"],
        keys=["*"],
        commands=["+@all", "-config", "-client", "+client|setname"],
    )
    found = look(server.url(f"narrow:{PASSWORD}"))
    assert (found["redis_config"].state, found["redis_config"].code) == ("permission_denied", "NOPERM")
    assert (found["redis_clients"].state, found["redis_clients"].known) == ("permission_denied", False)
    assert found["redis_slowlog"].state == "ok"


def test_a_member_of_a_cluster_tells_its_state(tmp_path: Path) -> None:
    with running(tmp_path, "--cluster-enabled", "yes") as member:
        assert look(member.url())["redis_cluster"].rows[0] | {"nodes": 1} == {
            "enabled": True, "state": "fail", "slots_ok": 0, "slots_fail": 0, "nodes": 1
        }  # fmt: skip


def test_a_server_that_hangs_takes_one_wait_and_not_one_for_each_reading(server: RedisProcess) -> None:
    asked = connector(server.url(f":{PASSWORD}"))
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        asked.walk(0.4, 0.2)
        began = time.monotonic()
        readings = [*asked.beat(), *asked.look()]
        taken = time.monotonic() - began
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert {reading.state for reading in readings} == {"timeout"}
    assert taken < 2.5


def test_nothing_but_reading_commands_is_sent_and_nothing_is_changed(tmp_path: Path) -> None:
    reads = {"ping", "auth", "hello", "info", "client", "client|setname", "client|list", "select", "slowlog",
             "slowlog|get", "config", "config|get", "acl", "acl|log", "acl|whoami", "acl|dryrun", "latency",
             "latency|latest", "cluster", "cluster|info"}  # fmt: skip
    with running(tmp_path) as server:
        before = server.client().config_get("*")
        asked = connector(server.url().replace("/0", "/3"))
        asked.walk(0.5, 0.5)
        asked.beat()
        asked.look()
        sent = {key.removeprefix("cmdstat_") for key in server.client().info("commandstats")}
        persistence = server.client().info("persistence")
        assert server.client().config_get("*") == before
        assert server.client().info("keyspace") == {}
    assert sent <= reads
    assert persistence["rdb_changes_since_last_save"] == 0
