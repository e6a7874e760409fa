"""The HTTP side of the boundary, against a server that answers in every way a vendor may."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runbook.connectors.base import Context, Fetched
from runbook.connectors.http import Exchange, HttpConnector, as_rows

Reply = tuple[int, dict[str, str], bytes]


class Api(HttpConnector):
    """A vendor of no name."""

    source = "vendor"


@dataclass
class Vendor:
    """A server that answers as it is told, and remembers what it was asked."""

    answer: Callable[[int, str], Reply]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    state = Vendor(lambda number, path: (200, {}, b"[]"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked.append((self.path, dict(self.headers)))
            status, headers, body = state.answer(len(state.asked), self.path)
            self.send_response(status)
            for name, value in (
                {"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def api(vendor: Vendor, **how: str) -> Api:
    return Api(Context(), vendor.url, headers={"Authorization": "Bearer not-a-secret"}, **how)


@pytest.mark.parametrize(
    ("status", "headers", "body", "state", "code"),
    [
        (401, {}, b'{"detail": "Invalid token"}', "auth_failed", "401"),
        (403, {}, b'{"message": "Forbidden"}', "permission_denied", "403"),
        (403, {"x-ratelimit-remaining": "0"}, b"{}", "rate_limited", "403"),
        (404, {}, b"", "permission_denied", "404"),
        (422, {}, b'{"errors": [{"message": "no"}]}', "partial", "422"),
        (429, {"Retry-After": "3600"}, b"{}", "rate_limited", "429"),
        (500, {}, b"oh", "unreachable", "500"),
        (200, {}, b'{"half": ', "partial", ""),
        (200, {"Content-Type": "text/html"}, b"<html>sign in</html>", "partial", ""),
        (200, {}, b'{"message": "an object"}', "partial", ""),
        (200, {}, b"[" * 100_000, "partial", ""),
        (304, {}, b"", "unreachable", "304"),
    ],
)
def test_what_a_vendor_answers_becomes_a_state(
    vendor: Vendor, status: int, headers: dict[str, str], body: bytes, state: str, code: str
) -> None:
    vendor.answer = lambda number, path: (status, headers, body)
    reading = api(vendor).get("things", "/things", parse=as_rows)
    assert (reading.state, reading.code, reading.known) == (state, code, False)
    assert reading.reason


def test_what_the_error_says_is_told(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (403, {}, b'{"error": {"messages": ["token lacks video:read"]}}')
    assert "token lacks video:read" in api(vendor).get("things", "/", parse=as_rows).reason


def test_a_server_error_is_asked_again(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (503, {}, b"") if number == 1 else (200, {}, b'[{"id": 1}]')
    assert api(vendor).get("things", "/", parse=as_rows).value == [{"id": 1}]


def test_a_throttled_request_waits_as_long_as_it_is_told(vendor: Vendor) -> None:
    at: list[float] = []

    def answer(number: int, path: str) -> Reply:
        at.append(time.monotonic())
        return (429, {"Retry-After": "0.7"}, b"{}") if number == 1 else (200, {}, b"[]")

    vendor.answer = answer
    assert api(vendor).get("things", "/", parse=as_rows).state == "ok"
    assert at[1] - at[0] >= 0.7


def test_a_wait_longer_than_the_limit_is_not_waited_for(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (429, {"Retry-After": "30"}, b"{}")
    reading = api(vendor).get("things", "/", parse=as_rows)
    assert (reading.state, len(vendor.asked)) == ("rate_limited", 1)
    assert "30 s" in reading.reason


def test_a_redirect_within_the_origin_is_followed(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (301, {"Location": "/new"}, b"") if path == "/old" else (200, {}, b"[]")
    assert api(vendor).get("things", "/old", parse=as_rows).state == "ok"


def test_no_request_follows_a_redirect_to_another_origin(vendor: Vendor) -> None:
    port = vendor.url.rpartition(":")[2]
    vendor.answer = lambda number, path: (302, {"Location": f"http://localhost:{port}/elsewhere"}, b"")
    reading = api(vendor).get("things", "/", parse=as_rows)
    assert (reading.state, len(vendor.asked)) == ("unreachable", 1)
    assert "localhost" in reading.reason


def test_a_next_page_elsewhere_is_not_asked_for(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (200, {"Link": '<http://localhost:1/x>; rel="next"'}, b"[]")

    def take(exchange: Exchange) -> Fetched:
        return Fetched(value=[page.value for page, _ in exchange.pages("/things")])

    reading = api(vendor).gather("things", "GET /things", take)
    assert (reading.state, len(vendor.asked)) == ("unreachable", 1)


def test_pages_are_followed_to_the_last_and_no_further_than_the_cap(vendor: Vendor) -> None:
    def answer(number: int, path: str) -> Reply:
        link = f'<{vendor.url}/things?page={number + 1}>; rel="next"; results="{"true" if number < 3 else "false"}"'
        return 200, {"Link": link}, json.dumps([{"n": number}]).encode()

    def take(most: int) -> Callable[[Exchange], Fetched]:
        return lambda exchange: Fetched(
            value=[[page.value[0]["n"], more] for page, more in exchange.pages("/things", {"page": 1}, most=most)]
        )

    vendor.answer = answer
    assert api(vendor).gather("things", "GET", take(9)).value == [[1, False], [2, False], [3, False]]
    vendor.asked.clear()
    assert api(vendor).gather("things", "GET", take(2)).value == [[1, False], [2, True]]


def test_an_endless_answer_is_not_read_to_its_end(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (200, {}, b'["' + b"x" * 50_000_000 + b'"]')
    reading = api(vendor).get("things", "/", parse=as_rows)
    assert (reading.state, reading.value) == ("partial", None)
    assert "more than" in reading.reason


def test_silence_is_a_time_out_within_the_limit(vendor: Vendor) -> None:
    free = threading.Event()
    vendor.answer = lambda number, path: (free.wait(20), (200, {}, b"[]"))[1]
    reading = api(vendor).get("things", "/", parse=as_rows, limit_seconds=0.5)
    free.set()
    assert reading.state == "timeout"
    assert reading.duration_ms < 5000


@pytest.mark.parametrize(
    ("url", "code"), [("http://127.0.0.1:1", "ECONNREFUSED"), ("http://does-not-exist.invalid", "DNS")]
)
def test_no_connection_is_told_with_its_code(url: str, code: str) -> None:
    reading = Api(Context(), url).get("things", "/", parse=as_rows)
    assert (reading.state, reading.code) == ("unreachable", code)


def test_without_its_setting_nothing_is_asked(vendor: Vendor) -> None:
    reading = api(vendor, lacking="vendor.token").get("things", "/", parse=as_rows)
    assert (reading.state, reading.reason, vendor.asked) == ("not_configured", "vendor.token is not set", [])


def test_the_credential_stands_in_no_reading(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (401, {}, b'{"message": "bad token Bearer n0t-one-of-ours"}')
    reading = api(vendor).get("things", "/", parse=as_rows)
    assert vendor.asked[0][1]["Authorization"] == "Bearer not-a-secret"
    assert "n0t-one-of-ours" not in json.dumps(reading.as_dict())


@pytest.mark.parametrize("url", ["http://[::bad", "http://host:port", "not a url", "http://"])
def test_an_address_that_is_none_is_told_and_not_raised(url: str) -> None:
    reading = Api(Context(), url).get("things", "/", parse=as_rows)
    assert (reading.state, reading.known) == ("unreachable", False)


def test_a_credential_that_no_header_can_carry_is_told_and_not_raised(vendor: Vendor) -> None:
    reading = Api(Context(), vendor.url, headers={"Authorization": "Bearer ключ"}).get("things", "/", parse=as_rows)
    assert (reading.state, vendor.asked) == ("unreachable", [])


def test_names_that_begin_like_statements_stay_as_they_are(vendor: Vendor) -> None:
    vendor.answer = lambda number, path: (200, {}, b'[{"release": "release/2.4.0", "message": "Set pool to 5"}]')
    reading = api(vendor).get("things", "/", parse=as_rows)
    assert reading.value == [{"release": "release/2.4.0", "message": "Set pool to 5"}]
