"""Answers of a Redis as rows: parsers that are fed by whatever listens on a port, and by whatever a version says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.connectors.redis_look import clients, latency, refusals, slow
from runbook.connectors.redis_walk import _error, _parsed

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_replies(data: bytes) -> None:
    found = _parsed(data)
    if found is not None:
        text, rest = found
        assert isinstance(text, str)
        assert data.endswith(rest)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"+PONG\r\n", ("+PONG", b"")),
        (b"-ERR x\r\n+OK\r\n", ("-ERR x", b"+OK\r\n")),
        (b"$5\r\nhello\r\n", ("hello", b"")),
        (b"$5\r\nhel", None),
        (b"$-1\r\n", None),
        (b"+PON", None),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
        (b"", None),
    ],
)
def test_a_reply_is_read_when_it_is_whole(data: bytes, expected: tuple[str, bytes] | None) -> None:
    assert _parsed(data) == expected


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("-ERR max number of clients reached", "MAXCLIENTS"),
        ("-LOADING Redis is loading the dataset in memory", "LOADING"),
        ("-ERR unknown command", "ERR"),
        ("-something new", "ERR"),
        ("", "ERR"),
    ],
)
def test_the_first_word_of_an_error_is_its_code(said: str, code: str) -> None:
    assert _error(said)[0] == code


@given(st.lists(st.dictionaries(st.sampled_from(["id", "addr", "name", "idle", "age", "flags", "cmd", "omem", "user"]),
                                st.text(max_size=12), max_size=9), max_size=12))  # fmt: skip
def test_clients_of_any_version_become_rows(listed: list[dict[str, str]]) -> None:
    rows = clients(listed)
    shown = [c for c in listed if not c.get("name", "").startswith("runbook") and "S" not in c.get("flags", "")]
    assert sum(row["connections"] for row in rows) == len(shown)


def test_a_client_that_waits_by_nature_or_for_a_module_is_not_held_back() -> None:
    listed = [
        {"id": str(n), "addr": "10.0.0.7:5000", "flags": "b", "cmd": command, "idle": "4"}
        for n, command in enumerate(("blpop", "xreadgroup", "ft.search", "NULL", "incrby", "client|pause"))
    ]
    [row] = clients([client | {"cmd": client["cmd"].lower()} for client in listed])
    assert (row["blocked"], row["held_back"], row["held_back_seconds"]) == (6, 2, 4)


def test_an_address_of_version_six_keeps_its_colons() -> None:
    [row] = clients([{"id": "1", "addr": "[2001:db8::7]:5000", "name": "api"}])
    assert row["host"] == "2001:db8::7"


def test_slow_commands_of_old_versions_have_no_client() -> None:
    began = int(NOW.timestamp()) - 30
    rows = slow([[1, began, 2_500_000, ["KEYS", "secret:*"]], [2, began, 9, ["GET", "a"], "10.0.0.7:51", "api"]], NOW)
    assert rows[0] == {
        "at": "2026-03-01T02:59:30+00:00", "seconds": 2.5, "ago_seconds": 30.0, "command": "KEYS", "arguments": 1,
        "client": "", "name": "",
    }  # fmt: skip
    assert (rows[1]["client"], rows[1]["name"]) == ("10.0.0.7", "api")


def test_refusals_name_who_and_what_and_leave_us_out() -> None:
    raw = [
        ["count", 3, "reason", "command", "context", "toplevel", "object", "incr", "username", "api", "age-seconds",
         "4.096", "client-info", "id=7 addr=10.0.0.7:5001 name= user=api"],
        ["count", 1, "reason", "command", "object", "config", "username", "api", "age-seconds", "0.1", "client-info",
         "id=9 addr=10.0.0.9:5001 name=runbook-diagnose user=api"],
    ]  # fmt: skip
    [row] = refusals(raw, NOW)
    assert (row["user"], row["object"], row["count"], row["age_seconds"], row["host"]) == (
        "api", "incr", 3, 4.1, "10.0.0.7"
    )  # fmt: skip


def test_latency_events_have_their_age() -> None:
    [row] = latency([["fork", int(NOW.timestamp()) - 60, 700, 900]], NOW)
    assert row == {"event": "fork", "ago_seconds": 60.0, "last_ms": 700, "max_ms": 900}
