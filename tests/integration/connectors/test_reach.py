"""Hosts that are called: names, connections and certificates, real ones and broken ones."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from runbook.connectors import reach as reach_module
from runbook.connectors.base import Context
from runbook.connectors.reach import Reach
from tests.integration.connectors.certificates import Authority
from tests.integration.connectors.servers import garbage_listener, listener
from tests.integration.connectors.web import says, web
from tests.support import free_port

Certificate = Callable[..., ssl.SSLContext]


def rows(*entries: str) -> list[dict[str, Any]]:
    reading = Reach(Context(), list(entries)).all()
    assert reading.state == "ok", reading.reason
    return reading.rows


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def certificate(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Certificate]:
    """Makes certificates of an authority that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    reach_module.verifying.cache_clear()
    yield authority.server
    reach_module.verifying.cache_clear()


def test_a_host_that_answers_is_well_and_its_certificate_has_days_left(certificate: Certificate) -> None:
    with web(says("", 404), certificate()) as port:
        row = rows(f"api.pay.example=https://localhost:{port}/probe")[0]
    assert (row["host"], row["dns"], row["tls"], row["verify_code"]) == ("api.pay.example", "ok", "ok", 0)
    assert (row["http_status"], row["answered"], row["code"]) == (404, True, "")
    assert row["days_left"] == pytest.approx(20, abs=0.1)
    assert abs(row["skew_seconds"]) < 60
    assert row["tcp_ms"] >= 0


@pytest.mark.parametrize(
    ("kind", "verify_code", "days"),
    [
        ({"days": -3}, 10, -3),
        ({"host": "other.example"}, 62, 20),
        ({"signed": False}, 18, 20),
    ],
    ids=["expired", "wrong host", "self-signed"],
)
def test_a_certificate_that_is_not_accepted_is_told_with_its_code_and_its_days(
    certificate: Certificate, kind: dict[str, Any], verify_code: int, days: float
) -> None:
    with web(says("ok"), certificate(**kind)) as port:
        row = rows(f"h=https://localhost:{port}/")[0]
    assert (row["dns"], row["tls"], row["verify_code"], row["answered"]) == ("ok", "failed", verify_code, False)
    assert row["code"] == f"TLS{verify_code}"
    assert row["days_left"] == pytest.approx(days, abs=0.1)
    assert row["reason"]


def test_an_authority_that_nobody_trusts_is_told(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    context = certificate()
    monkeypatch.delenv("SSL_CERT_FILE")
    reach_module.verifying.cache_clear()
    with web(says("ok"), context) as port:
        assert rows(f"h=https://localhost:{port}/")[0]["verify_code"] == 20


def test_nothing_is_sent_to_a_host_whose_certificate_is_not_accepted(certificate: Certificate) -> None:
    asked: list[str] = []
    with web(lambda handler: asked.append(handler.path), certificate(days=-1)) as port:
        rows(f"h=https://localhost:{port}/")
    assert asked == []


def test_only_the_head_of_the_probe_url_is_asked_for_and_without_a_credential() -> None:
    asked: list[tuple[str, str, list[str]]] = []

    def answer(handler: Any) -> None:
        asked.append((handler.command, handler.path, sorted(name.lower() for name in handler.headers)))
        says("")(handler)

    with web(answer) as port:
        rows(f"h=http://127.0.0.1:{port}/gateway/pay")
    assert asked == [("HEAD", "/gateway/pay", ["accept", "connection", "host", "user-agent"])]


def test_how_far_a_connection_gets_is_told_for_each_host() -> None:
    with web(says("", 503)) as ill:
        found = rows(
            f"ill=http://127.0.0.1:{ill}/", f"gone=http://127.0.0.1:{free_port()}/", "nowhere=https://no-such.invalid/"
        )
    assert [(r["dns"], r["http_status"], r["answered"], r["code"]) for r in found] == [
        ("ok", 503, True, ""), ("ok", None, False, "ECONNREFUSED"), ("failed", None, False, "DNS")
    ]  # fmt: skip
    assert [row["tls"] for row in found] == [None, None, None]


def test_a_host_without_a_probe_url_is_asked_at_its_root_over_tls() -> None:
    reading = Reach(Context(), [f"127.0.0.1:{free_port()}"]).all()
    assert reading.rows[0]["url"].startswith("https://127.0.0.1:")
    assert reading.rows[0]["code"] == "ECONNREFUSED"


@contextlib.contextmanager
def silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_hosts_that_say_nothing_are_late_and_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "STEP_SECONDS", 0.4)
    with silent() as mute, web(says("")) as well:
        found = rows(f"a=http://127.0.0.1:{mute}/", f"b=https://127.0.0.1:{mute}/", f"c=http://127.0.0.1:{well}/")
    assert [(r["code"], r["tls"], r["answered"]) for r in found] == [
        ("TIMEOUT", None, False), ("TIMEOUT", "failed", False), ("", None, True)
    ]  # fmt: skip
    assert ["answer" in found[0]["reason"], "handshake" in found[1]["reason"]] == [True, True]


def test_what_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "STEP_SECONDS", 0.5)

    def drip(stream: socket.socket) -> None:
        for _ in range(100):
            stream.sendall(b"x")
            time.sleep(0.05)

    with listener(drip) as port:
        row = rows(f"h=http://127.0.0.1:{port}/")[0]
    assert (row["answered"], row["http_status"]) == (False, None)


def test_what_speaks_another_language_is_no_answer() -> None:
    with garbage_listener() as port:
        found = rows(f"a=https://127.0.0.1:{port}/")
    assert (found[0]["tls"], found[0]["answered"]) == ("failed", False)
    with listener(lambda stream: stream.sendall(b"220 mail.example ESMTP\r\n\r\n")) as port:
        assert rows(f"a=http://127.0.0.1:{port}/")[0]["code"] in ("HTTP", "ECONNRESET")
    with listener(lambda stream: stream.recv(1000) and None) as port:  # type: ignore[arg-type]
        assert rows(f"a=http://127.0.0.1:{port}/")[0]["code"] in ("HTTP", "ECONNRESET")


def test_how_far_the_clocks_are_apart_is_told() -> None:
    def answer(handler: Any) -> None:
        handler.send_response_only(200)
        handler.send_header("Date", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))
        handler.end_headers()

    with web(answer) as port:
        assert rows(f"h=http://127.0.0.1:{port}/")[0]["skew_seconds"] == pytest.approx(3600, abs=30)


@pytest.mark.parametrize(
    "entry", ["", "=", "h=", "h=nonsense", "h=file:///etc/passwd", "h=http://[::1/", "a b", "x" * 300]
)
def test_what_is_no_host_is_told_and_no_error(entry: str) -> None:
    row = rows(entry)[0]
    assert (row["answered"], row["http_status"]) == (False, None)
    assert row["code"]


def test_no_hosts_are_not_configured() -> None:
    reading = Reach(Context(), []).all()
    assert (reading.state, reading.reason) == ("not_configured", "traffic.upstream_hosts is not set")


def test_how_long_each_step_takes_is_told(certificate: Certificate) -> None:
    """Name, connection, handshake and answer, each by itself: a slow answer is no slow name."""

    def late(handler: Any) -> None:
        time.sleep(0.3)
        says("")(handler)

    with web(late) as port:
        (row,) = rows(f"slow.example=http://127.0.0.1:{port}/")
    assert row["answer_ms"] >= 300
    assert max(row["dns_ms"], row["tcp_ms"]) < 300
    assert row["tls_ms"] is None
