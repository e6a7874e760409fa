"""Requests that change something: sent once, to one origin, read up to a limit, and telling no credential."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from runbook.actions import http_acting
from runbook.actions.attempts import Unheard
from runbook.actions.http_acting import ActingApi, Declined, Method
from runbook.actions.plan import Refused
from tests.integration.connectors.web import Answer, says, web
from tests.support import free_port

SECRET = "Canary-0a1b2c3d"


class Heard:
    """What reached the server."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[str, str, Any, str]] = []
        self._answer = answer

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        said = json.loads(body) if body else None
        self.requests.append((handler.command, handler.path, said, handler.headers.get("authorization", "")))
        self._answer(handler)


def api(port: int, **more: Any) -> ActingApi:
    given = {"headers": {"Authorization": f"Bearer {SECRET}"}, "secrets": [SECRET]}
    return ActingApi("Vendor", f"http://127.0.0.1:{port}", **(given | more))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_is_sent_with_its_body_and_credential_and_answered(method: Method) -> None:
    heard = Heard(says('{"id": 7}', 201))
    with web(heard) as port:
        assert api(port).send(method, "/things", {"name": "x"}, {"wait": "true"}) == {"id": 7}
    assert heard.requests == [(method, "/things?wait=true", {"name": "x"}, f"Bearer {SECRET}")]


@pytest.mark.parametrize("body", ["", "no JSON", "[" * 100_000])
def test_a_success_without_json_is_one(body: str) -> None:
    with web(says(body, 200)) as port:
        assert api(port).send("DELETE", "/things/1") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429])
def test_what_a_vendor_refuses_is_refused_with_its_words_and_not_sent_again(status: int) -> None:
    heard = Heard(says(json.dumps({"message": f"not with {SECRET}"}), status, **{"Retry-After": "0"}))
    with web(heard) as port, pytest.raises(Declined, match=f"answered {status}") as caught:
        api(port).send("POST", "/things", {})
    assert (caught.value.status, len(heard.requests)) == (status, 1)
    assert "not with" in str(caught.value)
    assert SECRET not in str(caught.value)


def _breaks(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _hangs(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


@pytest.mark.parametrize("answer", [says("{}", 500), says("bad gateway", 502), says("{}", 503), _breaks, _hangs],
                         ids=["500", "502", "503", "breaks off", "hangs"])  # fmt: skip
def test_what_may_have_been_heard_is_unheard_and_never_sent_again(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_acting, "ACT_SECONDS", 0.5)
    heard = Heard(answer)
    with web(heard) as port, pytest.raises(Unheard, match="did not say what became of it") as caught:
        api(port).send("POST", "/things", {})
    assert len(heard.requests) == 1
    assert SECRET not in str(caught.value)


def test_nobody_who_listens_means_that_nothing_was_changed() -> None:
    with pytest.raises(Declined, match="not reached: Connection refused"):
        api(free_port()).send("POST", "/things", {})


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    elsewhere = Heard(says("{}"))
    with web(elsewhere) as other:
        there = says("", status, Location=f"http://127.0.0.1:{other}/things")
        with web(there) as port, pytest.raises(Refused):
            api(port).send("POST", "/things", {})
    assert elsewhere.requests == []


def test_no_path_leads_to_another_origin() -> None:
    elsewhere = Heard(says("{}"))
    with web(elsewhere) as other, pytest.raises(Declined, match="another origin"):
        api(1).send("POST", f"@127.0.0.1:{other}/things", {})
    assert elsewhere.requests == []


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(200):
            handler.wfile.write(b" " * 100_000)
    except OSError:
        pass


def _drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(30):
            handler.wfile.write(b" ")
            time.sleep(0.1)
    except OSError:
        pass


@pytest.mark.parametrize("answer", [_endless, _drips])
def test_an_answer_is_read_up_to_a_limit(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_acting, "ACT_SECONDS", 1.0)
    monkeypatch.setattr(http_acting, "MAX_BYTES", 300_000)
    began = time.monotonic()
    with web(answer) as port:
        assert api(port).send("POST", "/things", {}) is None
        assert time.monotonic() - began < 2.5


def test_looking_is_a_get_and_a_refusal_keeps_its_status() -> None:
    heard = Heard(says('{"message": "no"}', 404))
    with web(heard) as port, pytest.raises(Declined, match="answered 404") as caught:
        api(port).look("/things/1")
    assert caught.value.status == 404
    assert [request[0] for request in heard.requests] == ["GET"]


@pytest.mark.parametrize(
    "call",
    [lambda api: api.look("/things"), lambda api: api.send("POST", "/things", {})],
    ids=["looking", "changing"],
)
def test_a_credential_that_cannot_be_sent_is_told_to_nobody(call: Callable[[ActingApi], Any]) -> None:
    broken = f"{SECRET}\n\u20ac"
    with pytest.raises(Refused) as caught:
        call(api(free_port(), headers={"Authorization": f"Bearer {broken}"}, secrets=[broken]))
    assert SECRET not in str(caught.value)


def test_a_setting_that_is_lacking_is_named() -> None:
    with pytest.raises(Refused, match=r"vendor\.token is not set"):
        api(1, lacking="vendor.token")
