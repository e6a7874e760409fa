"""What vendors answer at their worst: the right state, within the time limit, and no credential elsewhere.

The misbehaving server is a real one on loopback; every connector meets every behaviour.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pydantic import SecretStr

from runbook import settings
from runbook.connectors.github import GitHub
from runbook.connectors.mux import Mux
from runbook.connectors.pagerduty import PagerDuty
from runbook.connectors.prometheus import Prometheus
from runbook.connectors.sentry import Sentry
from runbook.connectors.status_pages import StatusPages
from runbook.connectors.stream import Stream
from runbook.result import Reading
from tests.support import free_port
from tests.vendor_stub import SECRET, context, respond, serving

SINCE = datetime.now(UTC) - timedelta(hours=1)
TOKEN = SecretStr(SECRET)
Fetch = Callable[[str], Reading]


def sentry(url: str) -> Sentry:
    return Sentry(context(), settings.Sentry(base_url=url, organization="acme", project="api", token=TOKEN))


def github(url: str) -> GitHub:
    return GitHub(context(), settings.GitHub(base_url=url, repository="acme/api", token=TOKEN))


def mux(url: str) -> Mux:
    return Mux(context(), settings.Mux(base_url=url, token_id="id", token_secret=TOKEN))


def stream(url: str) -> Stream:
    return Stream(context(), settings.Cloudflare(base_url=url, account_id="acc", token=TOKEN))


FETCHES: dict[str, Fetch] = {
    "sentry issues": lambda url: sentry(url).issues(60),
    "sentry event": lambda url: sentry(url).latest_event("1"),
    "sentry curve": lambda url: sentry(url).error_curve(60),
    "sentry releases": lambda url: sentry(url).releases(),
    "sentry outcomes": lambda url: sentry(url).outcomes(60),
    "github deployments": lambda url: github(url).deployments(),
    "github runs": lambda url: github(url).workflow_runs(SINCE),
    "github commits": lambda url: github(url).commits(SINCE),
    "github compare": lambda url: github(url).compare("a", "b"),
    "mux assets": lambda url: mux(url).assets(SINCE),
    "mux uploads": lambda url: mux(url).uploads(),
    "stream videos": lambda url: stream(url).videos(SINCE),
    "stream token": lambda url: stream(url).token(),
    "stream storage": lambda url: stream(url).storage(),
    "prometheus": lambda url: Prometheus(context(), url).query("up", "up"),
    "prometheus weekly": lambda url: Prometheus(context(), url).weekly_peaks(),
    "pagerduty": lambda url: PagerDuty(
        context(), settings.PagerDuty(base_url=url, token=TOKEN)
    ).incidents(SINCE),
    "status page": lambda url: StatusPages(context(), {"vendor": url}).all(),
    "aws events": lambda url: StatusPages(context(), {"aws": f"{url}/currentevents"}).all(),
}  # fmt: skip
Behaviour = Callable[[BaseHTTPRequestHandler], None]


def failed(reading: Reading) -> tuple[str, str]:
    """State and reason of a reading that must hold nothing; of a status page as its row tells it."""
    assert SECRET not in str(reading.as_dict())
    if reading.source == "status_pages":
        (row,) = reading.rows
        assert (reading.state, row["answered"], row["indicator"]) == ("partial", False, "unknown")
        state, _, reason = row["reason"].partition(": ")
        return state.replace(" ", "_"), reason
    assert reading.value is None
    assert not reading.known
    return reading.state, reading.reason


def everybody(ask: Callable[[Fetch], Reading]) -> tuple[dict[str, str], dict[str, str]]:
    """States and reasons by connector; all are asked at the same time."""
    with ThreadPoolExecutor(max_workers=len(FETCHES)) as pool:
        readings = dict(zip(FETCHES, pool.map(ask, FETCHES.values()), strict=True))
    found = {name: failed(reading) for name, reading in readings.items()}
    return {name: state for name, (state, _) in found.items()}, {name: reason for name, (_, reason) in found.items()}


def meeting(behave: Callable[[], Behaviour]) -> Callable[[Fetch], Reading]:
    """A connector's fetch from a server of its own that behaves so."""

    def ask(fetch: Fetch) -> Reading:
        with serving(behaviour=behave()) as stub:
            return fetch(stub.url)

    return ask


def answering(status: int, body: Any, headers: dict[str, str] | None = None) -> Callable[[], Behaviour]:
    return lambda: lambda handler: respond(handler, status, body, headers)


def all_are(state: str) -> dict[str, str]:
    return dict.fromkeys(FETCHES, state)


def lacking(words: str, reasons: dict[str, str]) -> dict[str, str]:
    """The reasons that do not say so."""
    return {name: reason for name, reason in reasons.items() if words not in reason}


@pytest.mark.parametrize(
    ("status", "headers", "state", "words"),
    [
        (401, {}, "auth_failed", "answered 401"),
        (403, {}, "permission_denied", "answered 403"),
        (403, {"x-ratelimit-remaining": "0"}, "rate_limited", "answered 403"),
        (404, {}, "permission_denied", "not found, or not visible to this token"),
        (429, {"Retry-After": "3600"}, "rate_limited", "asks to wait 3600 s"),
        (500, {}, "unreachable", "answered 500"),
        (503, {}, "unreachable", "answered 503"),
    ],
)
def test_a_refusal_has_its_state_and_its_words(status: int, headers: dict[str, str], state: str, words: str) -> None:
    states, reasons = everybody(meeting(answering(status, {"message": "no, thank you"}, headers)))
    assert states == all_are(state)
    assert lacking(words, reasons) == {}
    assert lacking("no, thank you", reasons) == {}


def test_a_wait_that_fits_the_limit_is_waited_out() -> None:
    def first_busy() -> Behaviour:
        asked = itertools.count()
        return lambda handler: respond(handler, *((401, {}, {}) if next(asked) else (429, {}, {"Retry-After": "1"})))

    states, _ = everybody(meeting(first_busy))
    assert states == all_are("auth_failed")


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'[{"id": 1, "title": "cut o', "application/json", "not JSON (application/json)"),
        (b"<!doctype html><h1>Sign in</h1>", "text/html; charset=utf-8", "not JSON (text/html)"),
        (b"", "application/json", "not JSON"),
        (b"[" * 100_000, "application/json", "not JSON"),
        (b"null", "application/json", "another form than documented"),
        (b'"all well"', "application/json", "another form than documented"),
    ],
    ids=["truncated", "html", "empty", "deep", "null", "text"],
)
def test_what_is_not_the_documented_json_is_partial_and_empty(body: bytes, kind: str, words: str) -> None:
    states, reasons = everybody(meeting(answering(200, body, {"Content-Type": kind})))
    assert states == all_are("partial")
    assert lacking(words, reasons) == {}


def test_an_answer_that_breaks_off_is_not_taken_for_a_short_one() -> None:
    states, _ = everybody(meeting(answering(200, b"[]", {"Content-Length": "5000"})))
    assert states == all_are("unreachable")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_credential_follows_a_redirect_to_another_host(status: int) -> None:
    with serving({}) as elsewhere:
        states, reasons = everybody(meeting(answering(status, b"", {"Location": f"{elsewhere.url}/login"})))
        assert elsewhere.asked == []
    assert states == all_are("unreachable")
    assert lacking("another origin", reasons) == {}


def test_a_redirect_within_the_host_is_followed() -> None:
    def moved() -> Behaviour:
        return lambda handler: (
            respond(handler, 401, {}) if handler.path == "/new" else respond(handler, 301, b"", {"Location": "/new"})
        )

    states, _ = everybody(meeting(moved))
    assert states == all_are("auth_failed")


def test_fifty_megabytes_are_not_read_to_their_end() -> None:
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(50_000_000))
        handler.end_headers()
        handler.wfile.write(b"[")
        for number in range(499):
            handler.wfile.write(b" " * 100_000)
            sent.append(number)

    states, reasons = everybody(meeting(lambda: endless))
    assert states == all_are("partial")
    assert lacking("5,000,000 bytes", reasons) == {}
    assert max(sent) < 250, "what the sockets hold, and no more"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://host:port", "vendor"])
def test_an_address_where_nobody_is_is_unreachable(url: str) -> None:
    states, _ = everybody(lambda fetch: fetch(url.format(port=free_port())))
    assert states == all_are("unreachable")


def test_a_name_that_does_not_resolve_is_unreachable_and_says_so() -> None:
    states, reasons = everybody(lambda fetch: fetch("http://vendor.invalid"))
    assert set(states.values()) <= {"unreachable", "timeout"}, "a resolver may be slow"
    unresolved = {name: reason for name, reason in reasons.items() if states[name] == "unreachable"}
    assert lacking("resolve", unresolved) == {}


@pytest.mark.slow
@pytest.mark.parametrize("drip", [False, True], ids=["silence", "a byte a second"])
def test_silence_ends_with_the_time_limit(drip: bool) -> None:
    def silent(handler: BaseHTTPRequestHandler) -> None:
        server: Any = handler.server
        if drip:
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
        while not server.stopping.wait(1):
            if drip:
                handler.wfile.write(b" ")
                handler.wfile.flush()

    states, _ = everybody(meeting(lambda: silent))  # it never answers: that this ends is the limit's doing
    assert states == all_are("timeout")


@pytest.mark.slow
def test_a_status_page_that_keeps_silent_costs_the_others_nothing() -> None:
    page = {"status": {"indicator": "none", "description": "well"}, "incidents": []}

    def silent(handler: BaseHTTPRequestHandler) -> None:
        server: Any = handler.server
        server.stopping.wait()

    with serving(behaviour=answering(200, page)()) as well, serving(behaviour=silent) as quiet:
        reading = StatusPages(context(), {"quiet": quiet.url, "well": well.url}).all()
    assert [(row["vendor"], row["indicator"]) for row in reading.rows] == [("quiet", "unknown"), ("well", "none")]
    assert (reading.state, reading.reason) == ("partial", "no answer from quiet")
