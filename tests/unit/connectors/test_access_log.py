"""Lines of access logs: what is a request, what is not, and what nobody may see of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.connectors.access_log import MAX_LINE_BYTES, Parser, Request, attempts, moment

AT = datetime(2026, 10, 10, 13, 55, 36, tzinfo=UTC).timestamp()
LINE: dict[str, Any] = {
    "time": "2026-10-10T13:55:36Z", "method": "GET", "path": "/api/videos/42?token=x", "status": 503,
    "duration_ms": 12.5, "bytes": 10, "client": "203.0.113.9", "user": "u_1", "release": "2.4.0",
    "instance": "web-1:3000", "upstream": "api.pay.example", "upstream_status": 500, "upstream_connect_time": 0.01,
}  # fmt: skip
COMBINED = '203.0.113.9 - ann [10/Oct/2026:13:55:36 +0000] "GET /api/videos?page=2 HTTP/1.1" 502 157 "-" "curl/8"'


def parsed(line: str | bytes, form: str = "", **names: str) -> Request | None:
    found = Parser(form, names).request(line if isinstance(line, bytes) else line.encode())
    return found[1] if found is not None else None


def from_json(**changed: Any) -> Request | None:
    return parsed(json.dumps({key: value for key, value in (LINE | changed).items() if value is not ...}))


def test_a_json_line_is_a_request_without_its_query() -> None:
    assert from_json() == Request(
        AT, 503, 12.5, "203.0.113.9", "u_1", "GET", "/api/videos/42", "2.4.0", "web-1:3000", "api.pay.example", "500",
        "0.01",
    )  # fmt: skip


def test_a_combined_line_is_a_request_without_its_query_and_its_duration_is_unknown() -> None:
    assert parsed(COMBINED) == Request(
        AT, 502, None, "203.0.113.9", "ann", "GET", "/api/videos", None, None, None, None, None
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "path", "status"),
    [
        (COMBINED.replace('"GET /api/videos?page=2 HTTP/1.1"', r'"\x16\x03\x01\x00"'), None, 502),
        (COMBINED.replace('"GET /api/videos?page=2 HTTP/1.1" 502', '"" 400'), None, 400),
        (COMBINED.replace("/api/videos?page=2", r"/a\"b c"), r"/a\"b c", 502),
        (COMBINED.replace("ann", "ann of b [x]"), "/api/videos", 502),
        (COMBINED.rpartition(' "-" "curl/8"')[0], "/api/videos", 502),
        (COMBINED + ' "203.0.113.1" 0.120', "/api/videos", 502),
    ],
)
def test_what_clients_send_breaks_no_combined_line(line: str, path: str | None, status: int) -> None:
    request = parsed(line)
    assert request is not None
    assert (request.path, request.status) == (path, status)


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "{}", "[]", "null", "{'time': 1}",
        '{"time": "2026-10-10T13:55:36Z"}', '{"status": 200}', "\x00\x01\xff",
        json.dumps(LINE)[:-9], json.dumps(LINE | {"status": "abc"}), json.dumps(LINE | {"status": 42}),
        json.dumps(LINE | {"status": True}),
        json.dumps(LINE | {"time": "yesterday"}), json.dumps(LINE | {"time": None}),
        json.dumps(LINE | {"path": "x" * MAX_LINE_BYTES}), "{" * 60_000, '{"a":' * 12_000, COMBINED.replace("502", "5"),
        COMBINED.replace("Oct", "Foo"), COMBINED.replace("10/Oct", "99/Oct"), "2026/10/10 [error] upstream timed out",
    ],
)  # fmt: skip
def test_what_is_no_request_is_none(line: str) -> None:
    assert parsed(line) is None


@given(st.binary(max_size=300))
def test_no_line_is_an_error(line: bytes) -> None:
    parsed(line)
    parsed(b"{" + line)


@given(st.dictionaries(st.sampled_from(sorted(LINE)), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4,
)))  # fmt: skip
def test_no_value_in_a_line_is_an_error_and_what_comes_out_is_plain(changed: dict[str, Any]) -> None:
    request = from_json(**changed)
    if request is not None:
        assert 100 <= request.status <= 599
        assert all(text is None or isinstance(text, str) for text in request[3:])
        json.dumps(request._asdict(), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2026-10-10T13:55:36Z", AT),
        ("2026-10-10T13:55:36", AT),
        ("2026-10-10 13:55:36.500", AT + 0.5),
        ("2026-10-10T15:55:36.250000123+02:00", AT + 0.25),
        ("2026-10-10T06:55:36-0700", AT),
        ("10/Oct/2026:13:55:36 +0000", AT),
        ("10/Oct/2026:15:25:36 +0130", AT),
        ("10/Oct/2026:11:55:36 -0200", AT),
        (AT, AT),
        (int(AT), AT),
        (int(AT) * 1000, AT),
        (int(AT) * 1_000_000, AT),
        (int(AT) * 10**9, AT),
        (f"{AT:.3f}", AT),
        (str(int(AT * 1000)), AT),
        (str(int(AT)), AT),
        ("", None),
        (True, None),
        (0, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ("9999-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ([], None),
        ({}, None),
    ],
)
def test_times_of_every_usual_form_are_read(value: Any, seconds: float | None) -> None:
    found = moment(value)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=0.001)


def test_fields_of_another_name_are_found_also_within_objects() -> None:
    line = json.dumps({
        "ts": AT, "request": {"method": "PUT", "uri": "/x?y"}, "code": "504", "request_time": 1.5,
        "request.method": "GET", "remote": "203.0.113.9",
    })  # fmt: skip
    request = parsed(line, time="ts", method="request.method", path="request.uri", status="code",
                     duration_seconds="request_time", client="remote", user="request.user.name")  # fmt: skip
    assert request is not None
    assert (request.method, request.path, request.status, request.duration_ms) == ("GET", "/x", 504, 1500.0)
    assert (request.client, request.user, request.release) == ("203.0.113.9", None, None)


def test_what_the_log_does_not_say_is_not_what_says_that_nothing_came() -> None:
    silent = from_json(upstream_status=None, upstream_connect_time="-")
    absent = from_json(upstream_status=..., upstream_connect_time=...)
    assert silent is not None
    assert absent is not None
    assert (silent.upstream_status, silent.upstream_connect_time) == ("-", "-")
    assert (absent.upstream_status, absent.upstream_connect_time) == (None, None)


def test_only_the_configured_format_is_read() -> None:
    assert parsed(COMBINED, "json") is None
    assert parsed(json.dumps(LINE), "combined") is None
    assert parsed(json.dumps(LINE), "json") is not None


@pytest.mark.parametrize(
    ("upstream", "status", "connect", "expected"),
    [
        ("a:80", "502", "-", [("a:80", "502", "-")]),
        ("a:80, b:80", "502, 200", "0.001, 0.002", [("a:80", "502", "0.001"), ("b:80", "200", "0.002")]),
        ("a:80, b:80 : c:80", "-, 504 : 200", "-", [("a:80", "-", "-"), ("b:80", "504", "-"), ("c:80", "200", "-")]),
        ("unix:/run/app.sock", "200", None, [("unix:/run/app.sock", "200", None)]),
        ("a, b", "500", None, [("a", "-", None), ("b", "500", None)]),
        ("a", "500, 200", None, [("a", "200", None)]),
        ("[::1]:80, [::2]:80", None, None, [("[::1]:80", None, None), ("[::2]:80", None, None)]),
        (None, "200", None, []),
        ("-, a", "-, 200", None, [("a", "200", None)]),
    ],
)
def test_tries_at_upstreams_are_told_apart(
    upstream: str | None, status: str | None, connect: str | None, expected: list[tuple[str, str | None, str | None]]
) -> None:
    assert [tuple(tried) for tried in attempts(upstream, status, connect)] == expected


def test_a_stretch_without_its_beginning_and_a_line_that_is_being_written_lose_nothing_else() -> None:
    lines = [json.dumps(LINE | {"status": status}).encode() for status in (200, 201, 202)]
    data = lines[0][40:] + b"\n" + lines[1] + b"\n\n" + b"junk\xff\n" + lines[2][:50]
    found = Parser().parse(data, since=0, from_line_start=False)
    assert ([r.status for r in found.requests], found.unparsed, found.format) == ([201], 1, "json")
    whole = Parser().parse(b"\n".join(lines), since=0, from_line_start=True)
    assert [r.status for r in whole.until(AT)] == [200, 201, 202]
    assert (len(whole.requests), whole.unfinished is not None) == (2, True)


def test_a_stretch_and_the_one_that_follows_are_as_one() -> None:
    lines = [json.dumps(LINE | {"time": AT + n}).encode() + b"\n" for n in range(5)] + [b"junk\n"]
    whole = Parser().parse(b"".join(lines), since=AT + 1, from_line_start=True)
    first = Parser().parse(b"".join(lines[:3]), since=AT, from_line_start=True)
    rest = Parser().parse(b"".join(lines[3:]), since=AT, from_line_start=True)
    assert first.continued(rest, since=AT + 1) == whole


def test_requests_before_the_time_asked_for_are_left_out_and_still_tell_how_far_the_log_reaches() -> None:
    lines = [json.dumps(LINE | {"time": AT + n}).encode() for n in (5, -50, 9)]
    found = Parser().parse(b"\n".join(lines) + b"\n", since=AT, from_line_start=True)
    assert [r.at - AT for r in found.requests] == [5, 9]
    assert (found.oldest, found.newest) == (AT - 50, AT + 9)
