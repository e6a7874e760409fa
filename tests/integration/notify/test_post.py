"""Posting to a stub that answers as Discord's documentation says it does."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest

from runbook.notify import discord
from tests.integration.dispatch.tiny import document
from tests.support import free_port

Answer = tuple[int, dict[str, Any] | bytes, dict[str, str]]
SECRET = "tokentokentokentoken-tokentokentokentoken"
SENT: Answer = (200, {"id": "1234567890"}, {})
LIMITED = {"message": "You are being rate limited.", "retry_after": 1.337, "global": False}


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v10/webhooks/42/{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        status, said, headers = self.server.answers.pop(0) if self.server.answers else SENT
        self.send_response(status)
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(discord, "_disabled", {})
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class Clock:
    """Notes the waits instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


BODY = discord.message(document("20261123T072513042-k3f9qa7m"), "https://runbook.example/reports/r", "<@&42>")


def test_a_message_is_saved_before_it_counts_as_sent(stub: Stub) -> None:
    posted = discord.post(stub.webhook, BODY)
    assert (posted.state, posted.message_id) == ("sent", "1234567890")
    ((path, body),) = stub.requests
    assert parse_qs(urlsplit(path).query) == {"wait": ["true"]}
    assert body == BODY


def test_a_thread_named_in_the_url_stays_in_it(stub: Stub) -> None:
    discord.post(stub.webhook + "?thread_id=7", BODY)
    assert parse_qs(urlsplit(stub.requests[0][0]).query) == {"thread_id": ["7"], "wait": ["true"]}


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        ((429, LIMITED, {"Retry-After": "2"}), 1.337),
        ((429, {}, {"Retry-After": "3"}), 3.0),
        ((429, b"<html>slow down", {"Retry-After": "4"}), 4.0),
        ((429, {"retry_after": "soon"}, {"X-RateLimit-Reset-After": "0.5"}), 0.5),
    ],
)
def test_a_rate_limit_is_waited_for_as_long_as_discord_says(stub: Stub, answer: Answer, wait: float) -> None:
    stub.answers = [answer]
    clock = Clock()
    assert discord.post(stub.webhook, BODY, sleep=clock).state == "sent"
    assert clock.waits == [wait]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_failing_server_is_asked_again(stub: Stub, status: int) -> None:
    stub.answers = [(status, {}, {}), (status, b"", {})]
    clock = Clock()
    assert discord.post(stub.webhook, BODY, sleep=clock).state == "sent"
    assert len(clock.waits) == 2


def test_waiting_is_bounded(stub: Stub) -> None:
    stub.answers = [(429, {"retry_after": 3600}, {})] * 5
    clock = Clock()
    posted = discord.post(stub.webhook, BODY, sleep=clock)
    assert (posted.state, clock.waits) == ("failed", [])
    assert posted.reason == "Discord limits the rate"


@pytest.mark.parametrize(("status", "code"), [(404, 10015), (401, 50027), (404, None), (401, None)])
def test_a_webhook_that_is_gone_is_never_asked_again(stub: Stub, status: int, code: int | None) -> None:
    stub.answers = [(status, {"message": "Unknown Webhook", "code": code}, {})]
    first = discord.post(stub.webhook, BODY)
    second = discord.post(stub.webhook, BODY)
    assert (first.state, second.state) == ("disabled", "disabled")
    assert first.reason
    assert len(stub.requests) == 1
    assert SECRET not in repr((first, second))


def test_a_refused_body_is_not_repeated(stub: Stub) -> None:
    stub.answers = [(400, {"code": 50035, "message": "Invalid Form Body"}, {})]
    posted = discord.post(stub.webhook, BODY)
    assert (posted.state, posted.reason) == ("failed", "Discord answered 400, code 50035")
    assert len(stub.requests) == 1
    assert discord.post(stub.webhook, BODY).state == "sent"


def test_an_unreachable_discord_fails_in_bounded_time() -> None:
    clock = Clock()
    url = f"http://127.0.0.1:{free_port()}/api/webhooks/42/{SECRET}"
    posted = discord.post(url, BODY, total_seconds=0.0, sleep=clock)
    assert posted.state == "failed"
    assert SECRET not in repr(posted)


@pytest.mark.parametrize("url", ["not a url", "ftp://x/webhooks/1/" + SECRET, "http://[/webhooks/1/" + SECRET, ""])
def test_a_url_that_is_none_is_said_to_be_none(url: str) -> None:
    posted = discord.post(url, BODY)
    assert posted.state == "disabled"
    assert SECRET not in repr(posted)


def test_the_url_is_in_no_log(stub: Stub, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        stub.answers = [(500, {}, {}), (404, {"code": 10015}, {})]
        discord.post(stub.webhook, BODY, sleep=lambda _: None)
        discord.post(stub.webhook, BODY)
    captured = capsys.readouterr()
    assert SECRET not in caplog.text + captured.out + captured.err


def test_the_body_is_what_discords_specification_allows(stub: Stub) -> None:
    folder = os.environ.get("RUNBOOK_CONTRACTS")
    if not folder:
        pytest.skip("needs RUNBOOK_CONTRACTS, the folder of published specifications")
    specification = json.loads((Path(folder) / "discord.json").read_text())
    schema = {"$ref": "#/components/schemas/IncomingWebhookRequestPartial", "components": specification["components"]}
    discord.post(stub.webhook, BODY)
    jsonschema.Draft202012Validator(schema).validate(stub.requests[0][1])
