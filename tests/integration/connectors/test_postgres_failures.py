"""How a server may fail to answer, and what is said of it: a state, a reason, no secret, no traceback."""

# ruff: noqa: E501
from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runbook.connectors import postgres as postgres_module
from runbook.connectors import postgres_startup
from runbook.embedded import EmbeddedPostgres
from tests.integration.connectors.conftest import Connect
from tests.integration.connectors.servers import PASSWORD, dsn, error, execute, garbage, holding, listener, message
from tests.support import free_port

CANARY = "hunter2-Canary"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "CONNECT_SECONDS", 2)  # psycopg takes less for two


def to(port: int, host: str = "127.0.0.1", **options: str) -> str:
    return f"postgresql://monitor:{CANARY}@{host}:{port}/app?" + "&".join(f"{k}={v}" for k, v in options.items())


def silent(stream: socket.socket) -> None:
    time.sleep(30)


def giant(stream: socket.socket) -> None:
    stream.recv(1000)
    stream.sendall(b"N")
    stream.recv(1000)
    stream.sendall(b"E" + struct.pack("!i", 2**31 - 1) + b"x" * 1000)


def at_once(stream: socket.socket) -> None:
    return


def after_hello(stream: socket.socket) -> None:
    stream.recv(1000)


def speaking(*answers: bytes) -> Callable[[socket.socket], None]:
    """Refuses TLS, then answers each message that comes with the next of these."""

    def answer(stream: socket.socket) -> None:
        if stream.recv(8)[4:] == struct.pack("!i", postgres_startup.SSL_REQUEST):
            stream.sendall(b"N")
            stream.recv(1000)
        for reply in answers:
            stream.sendall(reply)
            stream.recv(1000)

    return answer


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (silent, "timeout"),
        (garbage, "unreachable"),
        (giant, "unreachable"),
        (at_once, "unreachable"),
        (after_hello, "unreachable"),
        (speaking(error("57P03", "the database system is starting up")), "unreachable"),
        (speaking(error("53300", "sorry, too many clients already")), "unreachable"),
        (speaking(error("28P01", "nein")), "auth_failed"),
        (speaking(error("28000", "no pg_hba.conf entry")), "auth_failed"),
        (speaking(error("42501", "permission denied for database")), "permission_denied"),
        (speaking(error("no-sqlstate", "x")), "unreachable"),
        (speaking(message(b"R", b"")), "unreachable"),
        (speaking(message(b"R", b"\0\0\0\x0a")), "unreachable"),
        (speaking(message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b"R", b"\0\0\0\x0bgarbage")), "unreachable"),
        (speaking(message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b"R", b"\0\0\0\x0br=,s=,i=x")), "unreachable"),
        (speaking(message(b"R", b"\0\0\0\x07")), "unreachable"),
    ],
)
def test_a_listener_that_is_no_healthy_server_is_a_state(
    connect: Connect, answer: Callable[[socket.socket], None], state: str
) -> None:
    with listener(answer) as port:
        postgres = connect(to(port))
        reading = postgres.connect()
        assert (reading.state, reading.known) == (state, False), reading.reason
        assert reading.reason
        assert postgres.probe("headroom").state == state
        replication = postgres.replication_startup()
        assert replication.duration_ms < 10_000
    assert CANARY not in repr(postgres.context.recorder.readings)


@pytest.mark.parametrize("seed", range(20))
def test_no_bytes_of_a_server_make_the_start_up_conversation_raise(seed: int) -> None:
    chance = random.Random(seed)
    kinds = [b"R", b"E", b"S", b"Z", b"N", b"v", b"K", bytes([chance.randrange(256)])]
    heads = [
        b"\0\0\0\0",
        b"\0\0\0\x03",
        b"\0\0\0\x05abcd",
        b"\0\0\0\x0aSCRAM-SHA-256\0\0",
        b"\0\0\0\x0b",
        b"\0\0\0\x0c",
        b"",
    ]
    replies = [
        message(chance.choice(kinds), chance.choice(heads) + chance.randbytes(chance.randrange(20))) for _ in range(6)
    ]
    with listener(speaking(*replies)) as port:
        conninfo = {"host": "127.0.0.1", "port": str(port), "user": "u", "password": "p", "dbname": "d"}
        found = postgres_startup.attempt(conninfo, seconds=0.3)
        postgres_startup.failure(found)


def test_a_server_that_drips_does_not_hold_us_longer_than_the_limit() -> None:
    def drip(stream: socket.socket) -> None:
        stream.recv(1000)
        stream.sendall(b"N")
        while True:
            stream.sendall(b"N\0\0\0\x04")
            time.sleep(0.05)

    with listener(drip) as port:
        found = postgres_startup.attempt({"host": "127.0.0.1", "port": str(port), "user": "u"}, seconds=0.5)
    assert (found.stage, found.code) == ("network", "ETIMEDOUT")


@pytest.mark.parametrize("particular", [{"require_auth": "scram-sha-256"}, {"channel_binding": "require"}])
def test_a_password_is_not_sent_in_clear_where_the_dsn_forbids_it(particular: dict[str, str]) -> None:
    heard: list[bytes] = []

    def ask(stream: socket.socket) -> None:
        stream.recv(1000)
        stream.sendall(b"N")
        stream.recv(1000)
        stream.sendall(message(b"R", b"\0\0\0\x03"))
        heard.append(stream.recv(1000))

    conninfo = {"host": "127.0.0.1", "user": "u", "password": CANARY, **particular}
    with listener(ask) as port:
        postgres_startup.attempt({**conninfo, "port": str(port)}, seconds=2)
    assert CANARY.encode() not in b"".join(heard)


# -- the network ------------------------------------------------------------------------------------------------------


def test_a_port_on_which_nobody_listens_is_unreachable(connect: Connect) -> None:
    reading = connect(to(free_port())).connect()
    assert (reading.state, reading.code) == ("unreachable", "ECONNREFUSED")


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "a" * 70 + ".invalid", "..", "%2Fno%2Fsuch%2Fdirectory", "%40no-such-abstract"]
)
def test_a_host_that_is_not_there_is_unreachable(connect: Connect, host: str) -> None:
    postgres = connect(to(5432, host))
    assert postgres.connect().state == "unreachable"
    assert not postgres.replication_startup().known


def test_a_server_without_tls_is_named_where_tls_is_required(connect: Connect) -> None:
    with listener(speaking(error("28000", "x"))) as port:
        reading = connect(to(port, sslmode="require")).connect()
    assert (reading.state, reading.code) == ("unreachable", "TLS")


@pytest.mark.parametrize(
    "bad",
    [
        f"host=db password={CANARY} {CANARY}2",
        f"postgresql://u:{CANARY}@db:port/app",
        f"host=db port=x password={CANARY}",
        f"host=db port=99999 password={CANARY}",
        f"postgresql://u:{CANARY}@db:-1/app",
        f"postgresql://u:{CANARY}%zz@db/app",
        f"host=db nonsense={CANARY}",
        f"postgresql://u:{CANARY}@[::1/app",
        CANARY,
    ],
)
def test_a_dsn_that_is_none_is_not_configured_and_no_part_of_it_is_shown(connect: Connect, bad: str) -> None:
    postgres = connect(bad)
    postgres.context = type(postgres.context)()  # knows no secret: the message must not hold any
    readings = [
        postgres.connect(),
        postgres.probe("headroom"),
        postgres.replication_startup(),
        postgres.query("q", "SELECT 1"),
    ]
    assert {r.state for r in readings} == {"not_configured"}
    assert CANARY not in repr([(r.reason, r.value, r.code) for r in readings])
    assert isinstance(postgres.port, int)


def test_no_dsn_is_not_configured(connect: Connect) -> None:
    assert connect(None).connect().reason == "postgres.dsn is not set"


def test_a_server_that_refuses_is_not_asked_again_for_every_cell(connect: Connect) -> None:
    knocks = []

    def refuse(stream: socket.socket) -> None:
        knocks.append(1)
        speaking(error("28P01", "nein"))(stream)

    with listener(refuse) as port:
        postgres = connect(to(port))
        postgres.connect()
        first = len(knocks)
        for _ in range(10):
            assert postgres.probe("headroom").state == "auth_failed"
    assert len(knocks) == first


# -- the server's own refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "password", "database", "state", "code"),
    [
        ("monitor", CANARY, "postgres", "auth_failed", "28P01"),
        ("nobody_at_all", CANARY, "postgres", "auth_failed", "28P01"),
        ("monitor", PASSWORD, "no_such_database", "unreachable", "3D000"),
        ("monitor", PASSWORD, "closed", "permission_denied", "42501"),
    ],
)
def test_a_refusal_is_told_by_its_code(
    server: EmbeddedPostgres, connect: Connect, role: str, password: str, database: str, state: str, code: str
) -> None:
    if database == "closed":
        execute(server, "DROP DATABASE IF EXISTS closed")
        execute(server, "CREATE DATABASE closed")
        execute(server, "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    reading = connect(dsn(server, role, password=password, database=database)).connect()
    assert (reading.state, reading.code) == (state, code)
    assert password not in repr(reading)


def test_the_password_may_stand_in_the_environment(
    server: EmbeddedPostgres, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert connect(f"host=127.0.0.1 port={server.port} user=monitor dbname=postgres").connect().state == "ok"


def test_a_database_that_has_reached_its_limit_is_looked_at_from_another(
    server: EmbeddedPostgres, connect: Connect
) -> None:
    execute(server, "DROP DATABASE IF EXISTS narrow")
    execute(server, "CREATE DATABASE narrow CONNECTION LIMIT 1")
    with holding(server, "app", 1, database="narrow"):
        postgres = connect(dsn(server, "monitor", database="narrow"))
        reading = postgres.connect()
        assert (reading.state, reading.value["via"], reading.value["refused_code"]) == (
            "ok",
            "maintenance database",
            "53300",
        )
        (limit,) = [r for r in postgres.probe("limits").value if r["name"] == "narrow"]
    assert (limit["connection_limit"], limit["used"]) == (1, 1)


def test_a_role_that_has_reached_its_own_limit_is_told_so(server: EmbeddedPostgres, connect: Connect) -> None:
    execute(server, f"DROP ROLE IF EXISTS single; CREATE ROLE single LOGIN CONNECTION LIMIT 1 PASSWORD '{PASSWORD}'")
    with holding(server, "single", 1):
        reading = connect(dsn(server, "single")).connect()
    assert (reading.state, reading.code) == ("unreachable", "53300")
    assert "single" in reading.reason


@pytest.mark.parametrize("method", ["md5", "password", "trust", "scram-sha-256"])
def test_the_start_up_conversation_goes_through_every_way_of_login(server: EmbeddedPostgres, method: str) -> None:
    hba = server.data / "pg_hba.conf"
    kept = hba.read_text()
    encryption = "md5" if method == "md5" else "scram-sha-256"
    execute(
        server,
        f"DROP ROLE IF EXISTS login; SET password_encryption = '{encryption}'; CREATE ROLE login LOGIN PASSWORD '{PASSWORD}'",
    )
    try:
        hba.write_text(f"host all login 127.0.0.1/32 {method}\n{kept}")
        execute(server, "SELECT pg_reload_conf()")
        time.sleep(0.3)
        conninfo = {"host": "127.0.0.1", "port": str(server.port), "user": "login", "dbname": "postgres"}
        assert postgres_startup.attempt({**conninfo, "password": PASSWORD}).stage == "accepted"
        after = postgres_startup.attempt({**conninfo, "password": PASSWORD, "dbname": "no_such_database"})
        assert (after.stage, after.code) == ("after_authentication", "3D000")
        wrong = postgres_startup.attempt({**conninfo, "password": "wrong"})
        assert (wrong.stage, wrong.code) == (
            ("accepted", "") if method == "trust" else ("before_authentication", "28P01")
        )
    finally:
        hba.write_text(kept)
        execute(server, "SELECT pg_reload_conf()")


def test_a_replication_start_up_is_let_in_and_holds_nothing(server: EmbeddedPostgres, connect: Connect) -> None:
    reading = connect(dsn(server, "monitor")).replication_startup()
    assert (reading.state, reading.value["refused"]) == ("ok", False)


def test_a_reserve_that_does_not_work_either_changes_nothing(server: EmbeddedPostgres, connect: Connect) -> None:
    with holding(server, "app"):
        for reserve in (f"host=db password={CANARY} {CANARY}", to(free_port()), dsn(server, "plain")):
            postgres = connect(dsn(server, "monitor"), reserve)
            reading = postgres.connect()
            postgres.close()
            assert (reading.state, reading.code) == ("unreachable", "53300")
            assert CANARY not in repr(reading)


def test_nothing_of_a_run_is_left_behind(server: EmbeddedPostgres, connect: Connect) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        postgres = connect(dsn(server, "monitor", password=CANARY))
        postgres.connect()
        postgres.replication_startup()
        postgres.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
