"""The way to a health endpoint, layer by layer, on real servers that are well and that fail at each layer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from runbook.connectors import reach as reach_module
from runbook.connectors import walk as walk_module
from runbook.connectors.base import Context
from runbook.connectors.systems import Systems, is_loopback
from runbook.connectors.walk import Walk, stops_of
from runbook.result import Reading
from runbook.settings import App, Settings, Workers
from tests.integration.connectors.certificates import Authority
from tests.integration.connectors.servers import listener
from tests.integration.connectors.web import says, web
from tests.support import free_port

Certificate = Callable[..., ssl.SSLContext]
WELL = says('{"status": "ok", "version": "2.4.0", "uptime": 12.5, "details": {"redis": {"status": "up"}}}')


def look(
    seconds: float = 2.0, *, url: str = "", instance: str = "", context: Context | None = None, **app: Any
) -> Reading:
    return Walk(Context(), App(**app)).look(url, instance, seconds=seconds)


def row(url: str, seconds: float = 2.0) -> dict[str, Any]:
    """The one row of a look at this URL from outside."""
    reading = look(seconds, url=url)
    assert (reading.state, len(reading.rows)) == ("ok", 1), reading.reason
    return reading.rows[0]


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


# -- well -------------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_is_well_passes_every_layer_and_each_has_its_time() -> None:
    with web(WELL) as port:
        found = row(f"http://localhost:{port}/ready")
    assert (found["layer"], found["http_status"], found["status"]) == ("", 200, "pass")
    assert (found["dns"], found["tcp"], found["tls"], found["address"]) == ("ok", "ok", None, "127.0.0.1")
    assert (found["release"], found["uptime_seconds"], found["format"]) == ("2.4.0", 12.5, "terminus")
    times = [found[key] for key in ("dns_ms", "tcp_ms", "first_byte_ms")]
    assert all(t >= 0 for t in times)
    assert sum(times) <= found["total_ms"] + 1
    assert abs(found["skew_seconds"]) < 60


def test_over_tls_the_certificate_is_told_and_its_layer_has_a_time(certificate: Certificate) -> None:
    with web(WELL, certificate()) as port:
        found = row(f"https://localhost:{port}/ready")
    assert (found["layer"], found["tls"], found["verify_code"], found["http_status"]) == ("", "ok", 0, 200)
    assert found["certificate"]["names"] == ["localhost"]
    assert found["certificate"]["days_left"] == pytest.approx(20, abs=0.1)
    assert (found["certificate"]["expired"], found["certificate"]["names_host"]) == (False, True)
    assert found["tls_ms"] > 0


# -- each layer -------------------------------------------------------------------------------------------------------


def test_a_name_without_an_address_ends_at_the_name() -> None:
    found = row("http://health.invalid/ready")
    assert (found["layer"], found["code"], found["dns"], found["tcp"]) == ("dns", "DNS", "failed", "")


def test_a_port_at_which_nobody_listens_refuses() -> None:
    found = row(f"http://127.0.0.1:{free_port()}/ready")
    assert (found["layer"], found["code"], found["tcp"]) == ("tcp", "ECONNREFUSED", "failed")


def test_a_full_accept_queue_takes_no_connection() -> None:
    with socket.socket() as server, contextlib.ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        found = row(f"http://127.0.0.1:{server.getsockname()[1]}/ready", seconds=0.6)
    assert (found["layer"], found["code"], found["tcp"]) == ("tcp", "TIMEOUT", "failed")


def test_a_stopped_process_takes_the_connection_and_says_nothing() -> None:
    code = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler); " \
           "print(s.server_port, flush=True); s.serve_forever()"  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGSTOP)
        found = row(f"http://127.0.0.1:{port}/ready", seconds=0.5)
    finally:
        child.kill()
        child.wait()
    assert (found["layer"], found["code"], found["tcp"], found["http_status"]) == ("http", "TIMEOUT", "ok", None)


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [
        ({"days": -3}, 10, {"expired": True, "names_host": True}),
        ({"host": "other.example"}, 62, {"expired": False, "names_host": False}),
        ({"signed": False}, 18, {"expired": False, "self_signed": True}),
        ({"signed": False, "days": -3}, 18, {"expired": True, "self_signed": True}),
    ],
)
def test_a_certificate_that_is_not_accepted_is_read_again_and_the_walk_goes_on_behind_it(
    certificate: Certificate, kind: dict[str, Any], code: int, told: dict[str, Any]
) -> None:
    with web(says('{"status": "error"}', 503), certificate(**kind)) as port:
        found = row(f"https://localhost:{port}/ready")
    assert (found["layer"], found["tls"], found["verify_code"]) == ("tls", "not accepted", code)
    assert {key: found["certificate"][key] for key in told} == told
    assert found["http_status"] == 503, "a second fault behind it is seen as well"
    assert found["code"] == f"TLS{code}"


def test_what_speaks_no_tls_fails_at_tls() -> None:
    with web(WELL) as port:
        found = row(f"https://127.0.0.1:{port}/ready")
    assert (found["layer"], found["tls"], found["code"]) == ("tls", "failed", "TLS")


def test_what_speaks_no_http_fails_at_http() -> None:
    with listener(lambda connection: connection.sendall(b"-ERR unknown command 'GET'\r\n")) as port:
        found = row(f"http://127.0.0.1:{port}/ready")
    assert (found["layer"], found["http_status"]) == ("http", None)


@pytest.mark.parametrize(
    ("answer", "layer", "code"),
    [
        (says("", 301, Location="/healthz?token=x"), "http", "301"),
        (says("", 401), "http", "401"),
        (says("", 404), "http", "404"),
        (says('{"status": "error", "error": {"redis": {"status": "down"}}}', 503), "http", "503"),
        (says('{"status": "degraded", "checks": [{"name": "redis", "status": "down"}]}'), "body", "200"),
        (says("OK", kind="text/plain"), "", None),
        (says("<html>fine</html>", kind="text/html"), "", None),
        (says("", 204), "", None),
    ],
)
def test_status_and_body_are_layers_of_their_own(answer: Callable[[Any], None], layer: str, code: str | None) -> None:
    with web(answer) as port:
        found = row(f"http://127.0.0.1:{port}/ready")
    assert (found["layer"], found["code"]) == (layer, code)
    assert found["location"] in (None, "/healthz"), "no redirect is followed, and no secret of it kept"


def test_an_answer_that_comes_late_is_an_answer_while_we_wait_for_it() -> None:
    def late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        WELL(handler)

    with web(late) as port:
        assert row(f"http://127.0.0.1:{port}/ready", seconds=2.0)["total_ms"] >= 500
        gave_up = row(f"http://127.0.0.1:{port}/ready", seconds=0.2)
    assert (gave_up["layer"], gave_up["code"]) == ("http", "TIMEOUT")


def test_an_answer_that_trickles_holds_up_nothing() -> None:
    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

    began = time.monotonic()
    with listener(trickle) as port:
        found = row(f"http://127.0.0.1:{port}/ready", seconds=0.4)
    assert (found["layer"], found["code"]) == ("http", "TIMEOUT")
    assert time.monotonic() - began < 3


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_the_endpoint_the_others_the_public_address_and_each_instance_are_asked() -> None:
    app = App(
        ready_url="https://app.internal/ready?full=1", live_url="https://app.internal/live",
        public_url="https://www.app.example", instances=["10.0.0.1:3000", "http://10.0.0.2:3001/base"],
    )  # fmt: skip
    asked = [(s.vantage, s.endpoint, s.url) for s in stops_of(app)]
    assert asked == [
        ("outside", "check", "https://app.internal/ready?full=1"),
        ("outside", "live", "https://app.internal/live"),
        ("outside", "public", "https://www.app.example/ready?full=1"),
        ("inside", "check", "https://10.0.0.1:3000/ready?full=1"),
        ("inside", "check", "http://10.0.0.2:3001/base/ready?full=1"),
        ("inside", "live", "https://10.0.0.1:3000/live"),
        ("inside", "live", "http://10.0.0.2:3001/base/live"),
    ]


def test_an_instance_behind_what_ends_the_tls_is_asked_without() -> None:
    with web(WELL) as port:
        rows = look(ready_url=f"https://127.0.0.1:{free_port()}/ready", instances=[f"127.0.0.1:{port}"]).rows
    inside = next(r for r in rows if r["vantage"] == "inside")
    assert (inside["layer"], inside["url"]) == ("", f"http://127.0.0.1:{port}/ready")


def test_an_instance_of_an_alert_is_asked_only_on_a_host_that_the_settings_know() -> None:
    app = App(ready_url="http://10.0.0.9/ready", instances=["10.0.0.1:3000"])

    def inside(named: str) -> list[str]:
        return [s.instance for s in stops_of(app, "", named) if s.vantage == "inside"]

    assert inside("10.0.0.1:3001") == ["10.0.0.1:3001", "10.0.0.1:3000"]
    for stranger in ("169.254.169.254:80", "http://169.254.169.254/", "evil.example:80", "[", "", "10.0.0.1.evil:1"):
        assert inside(stranger) == ["10.0.0.1:3000"]


def test_nothing_configured_is_said_and_asks_nobody() -> None:
    reading = look()
    assert (reading.state, reading.source) == ("not_configured", "walk")
    assert "app.ready_url" in reading.reason


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://", "http://[::1", "nonsense", "http://a b/\r\nX: y"])
def test_what_is_no_url_is_no_health(url: str) -> None:
    found = row(url, seconds=1.0)
    assert found["layer"] in ("url", "dns", "http", "tcp")
    assert found["http_status"] is None


def test_only_get_is_sent_with_the_login_of_the_url_and_no_login_is_shown() -> None:
    seen: list[tuple[str, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.command, handler.headers.get("Authorization", "")))
        WELL(handler)

    with web(answer) as port:
        reading = look(url=f"http://probe:Canary-0a1b2c3d@127.0.0.1:{port}/ready")
    assert seen == [("GET", "Basic cHJvYmU6Q2FuYXJ5LTBhMWIyYzNk")]
    assert "Canary" not in str(reading.as_dict())


def test_a_walk_that_breaks_down_is_not_taken_for_health(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> tuple[list[str], str]:
        time.sleep(3)
        return [], ""

    monkeypatch.setattr(walk_module, "resolved", hang)
    found = row("http://slow.example/ready", seconds=0.3)
    assert (found["layer"], found["code"]) == ("dns", "TIMEOUT")


# -- hosts of instances -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.1:80", True), ("http://localhost:3000/x", True), ("http://[::1]:1/", True), ("10.0.0.1:80", False),
     ("http://app.example/", False), ("http://[", False), ("", False)],
)  # fmt: skip
def test_loopback_is_this_host(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def test_this_host_is_looked_at_when_an_instance_is_here() -> None:
    def hosts(**sections: Any) -> list[str]:
        return Systems(Context(), Settings(**sections)).instance_host().hosts

    assert hosts() == []
    assert hosts(app=App(instances=["127.0.0.1:3000"])) == ["local"]
    assert hosts(app=App(ready_url="http://10.0.0.1/"), workers=Workers(hosts=["a@b"])) == ["a@b"]


def test_a_listening_socket_names_its_process_and_its_state() -> None:
    code = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(3); " \
           "print(s.getsockname()[1], flush=True); time.sleep(60)"  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        host = Systems(Context(), Settings(workers=Workers(hosts=["local"]))).host

        def seen() -> dict[str, Any]:
            return next(r for r in host.sockets().rows if r["local"] == f"127.0.0.1:{port}")

        first = seen()
        os.kill(child.pid, signal.SIGSTOP)
        second = seen()
    finally:
        child.kill()
        child.wait()
    assert (first["pid"], first["processes"], first["state"], first["backlog"]) == (child.pid, 1, "S", 3)
    assert second["state"] == "T"
    assert "socket, time" in first["command"]
    assert 3 <= first["open_files"] < first["open_files_limit"]
    assert first["age_seconds"] < 60
