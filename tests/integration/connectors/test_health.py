"""Health endpoints of real servers, in every convention, healthy, ill and mute."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from runbook.connectors import health as health_module
from runbook.connectors.base import Context
from runbook.connectors.health import Health, body_says, endpoints
from runbook.settings import App
from tests.integration.connectors.certificates import Authority
from tests.integration.connectors.servers import garbage_listener
from tests.integration.connectors.web import says, web
from tests.support import free_port

DRAFT = {
    "status": "warn",
    "checks": {
        "db:connections": [{"status": "warn", "observedValue": 95, "output": "nearly full"}],
        "cache": [{"status": "pass"}, {"status": "fail", "output": "timeout"}],
    },
}
ACTUATOR = {
    "status": "OUT_OF_SERVICE",
    "components": {
        "db": {"status": "UP", "details": {"pool": {"active": 9, "max": 10}}},
        "redis": {"status": "DOWN", "details": {"error": "connection refused"}},
        "group": {"status": "UP", "components": {"inner": {"status": "UNKNOWN"}}},
    },
}
TERMINUS = {
    "status": "error",
    "info": {"redis": {"status": "up"}},
    "error": {"database": {"status": "down", "message": "timeout of 1000ms exceeded"}},
    "details": {"redis": {"status": "up"}, "database": {"status": "down", "message": "timeout of 1000ms exceeded"}},
}


def check(**section: Any) -> list[dict[str, Any]]:
    reading = Health(Context(), App(**section)).check()
    assert reading.state == "ok"
    return reading.rows


def one(body: Any, status: int = 200, kind: str = "application/json") -> dict[str, Any]:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    with web(says(text, status, kind)) as port:
        return check(health_url=f"http://127.0.0.1:{port}/health")[0]


@pytest.mark.parametrize(
    ("body", "http", "status", "form", "disagrees"),
    [
        (DRAFT, 200, "warn", "health+json", False),
        (DRAFT | {"status": "pass"}, 200, "pass", "health+json", False),
        (DRAFT | {"status": "FAIL"}, 503, "fail", "health+json", False),
        (DRAFT | {"status": "fail"}, 200, "fail", "health+json", True),
        (DRAFT | {"status": "pass"}, 503, "fail", "health+json", True),
        (ACTUATOR, 503, "fail", "actuator", False),
        (ACTUATOR | {"status": "UP"}, 200, "pass", "actuator", False),
        (ACTUATOR | {"status": "UNKNOWN"}, 200, "unknown", "actuator", False),
        (TERMINUS, 503, "fail", "terminus", False),
        (TERMINUS | {"status": "ok"}, 200, "pass", "terminus", False),
        (TERMINUS | {"status": "shutting_down"}, 503, "fail", "terminus", False),
        ({"ok": True}, 200, "pass", "json", False),
        ({"healthy": False}, 200, "fail", "json", True),
        ({"status": "sideways"}, 200, "unknown", "json", False),
        ({"checks": [{"name": "db", "status": "down"}]}, 200, "fail", "json", True),
        ({"services": {"db": "ok", "redis": "degraded"}}, 200, "warn", "json", False),
        ({"uptime": 5}, 200, "unknown", "json", False),
        ("ok", 200, "pass", "text", False),
        ("OK\n", 200, "pass", "text", False),
        ("", 200, "pass", "empty", False),
        ("", 204, "pass", "empty", False),
        ("", 503, "fail", "empty", False),
        ("unhealthy", 200, "fail", "text", True),
        ("I am alive!", 200, "pass", "text", False),
        ("Service Unavailable", 503, "fail", "text", False),
        ("OK", 503, "fail", "text", True),
        ("<html>Welcome to nginx</html>", 200, "unknown", "text", False),
        ('{"status": "pa', 200, "unknown", "text", False),
        ("no such page", 404, "unknown", "text", False),
        ("", 302, "unknown", "empty", False),
        ("", 401, "unknown", "empty", False),
        ([], 200, "unknown", "json", False),
        ("[" * 50_000, 200, "unknown", "text", False),
        (b"\xff\xfe\x00", 200, "unknown", "text", False),
    ],
)
def test_every_convention_is_read_and_the_worse_of_status_and_body_counts(
    body: Any, http: int, status: str, form: str, disagrees: bool
) -> None:
    row = one(body, http)
    assert (row["status"], row["format"], row["disagrees"]) == (status, form, disagrees)
    assert row["http_status"] == http
    assert ("the worse counts" in row["reason"]) == disagrees


def test_the_checks_within_are_named_with_what_they_said() -> None:
    assert one(DRAFT)["checks"] == [
        {"name": "db:connections", "status": "warn", "output": "nearly full"},
        {"name": "cache", "status": "pass", "output": ""},
        {"name": "cache", "status": "fail", "output": "timeout"},
    ]
    assert one(ACTUATOR, 503)["checks"] == [
        {"name": "db", "status": "pass", "output": ""},
        {"name": "redis", "status": "fail", "output": "connection refused"},
        {"name": "group", "status": "pass", "output": ""},
        {"name": "group/inner", "status": "unknown", "output": ""},
    ]
    assert one(TERMINUS, 503)["checks"][1]["output"] == "timeout of 1000ms exceeded"


@pytest.mark.parametrize(
    ("body", "pool"),
    [
        (ACTUATOR, {"used": 9, "size": 10}),
        ({"status": "ok", "database": {"used": 4, "size": 20}}, {"used": 4, "size": 20}),
        ({"status": "ok", "pool": {"active": 0, "limit": 5}}, {"used": 0, "size": 5}),
        ({"status": "ok", "checks": {"db": [{"status": "pass", "details": {"inUse": 1, "max": 2}}]}}, None),
        ({"status": "ok", "details": {"database": {"status": "up", "in_use": 1, "max": 2}}}, {"used": 1, "size": 2}),
        ({"pool": {"used": 4, "size": 4, "waiting": 7}}, {"used": 4, "size": 4, "waiting": 7}),
        ({"status": "ok", "disk": {"used": 4, "size": 20}}, None),
        ({"status": "ok", "database": {"used": True, "size": 20}}, None),
    ],
)
def test_a_pool_is_found_where_the_body_tells_of_one(body: Any, pool: dict[str, int] | None) -> None:
    if pool is None and "checks" in body:
        pool = {"used": 1, "size": 2}
    assert one(body)["pool"] == pool


def test_every_instance_is_asked_for_every_endpoint() -> None:
    def answer(handler: Any) -> None:
        says("{}" if handler.path == "/live" else '{"status":"down"}', 200 if handler.path == "/live" else 503)(handler)

    with web(answer) as one_port, web(says('{"status":"ok"}')) as other_port:
        rows = check(
            ready_url="http://shop.example/api/ready",
            live_url="http://shop.example/live",
            instances=[f"127.0.0.1:{one_port}", f"http://127.0.0.1:{other_port}/"],
        )
    found = {(row["endpoint"], row["instance"].rpartition(":")[2]): row["status"] for row in rows}
    assert found == {
        ("ready", str(one_port)): "fail",
        ("ready", str(other_port)): "pass",
        ("live", str(one_port)): "unknown",
        ("live", str(other_port)): "pass",
    }


def test_an_endpoint_without_instances_is_asked_where_it_points() -> None:
    assert [e.url for e in endpoints({"health": "https://shop.example/health?full=1"}, [])] == [
        "https://shop.example/health?full=1"
    ]
    assert [e.url for e in endpoints({"health": "https://shop.example/h"}, ["10.0.0.1:3000"])] == [
        "https://10.0.0.1:3000/h"
    ]


def test_what_cannot_be_reached_has_failed_with_its_code() -> None:
    rows = check(health_url=f"http://127.0.0.1:{free_port()}/", ready_url="http://no-such-host.invalid/")
    assert [(row["status"], row["code"], row["http_status"]) for row in rows] == [
        ("fail", "ECONNREFUSED", None), ("fail", "DNS", None)
    ]  # fmt: skip


def test_a_hung_instance_has_failed_and_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "ANSWER_SECONDS", 0.5)
    release = threading.Event()

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not release.wait(0.1):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    with web(lambda handler: release.wait(20) or None) as hung, web(drip) as slow, web(says("ok")) as well:
        rows = check(health_url="http://x/h", instances=[f"127.0.0.1:{port}" for port in (hung, slow, well)])
        release.set()
    assert [(row["status"], row["code"]) for row in rows] == [("fail", "TIMEOUT"), ("fail", "TIMEOUT"), ("pass", "")]


def test_a_certificate_is_looked_at_where_users_see_it_and_not_where_a_balancer_does_not(tmp_path: Path) -> None:
    with web(says("ok"), Authority(tmp_path).server(signed=False)) as port:
        public = check(health_url=f"https://localhost:{port}/health")[0]
        instance = check(health_url="https://shop.example/health", instances=[f"127.0.0.1:{port}"])[0]
    assert (public["status"], public["code"]) == ("fail", "TLS18")
    assert (instance["status"], instance["http_status"]) == ("pass", 200)


def test_what_speaks_no_http_has_failed() -> None:
    with garbage_listener() as port:
        row = check(health_url=f"http://127.0.0.1:{port}/")[0]
    assert row["status"] in ("fail", "unknown")
    assert row["status"] != "pass"


@pytest.mark.parametrize("url", ["nonsense", "ftp://h/", "http://", "http://[::1/", "http://h:99999/"])
def test_what_is_no_url_is_unknown_and_no_error(url: str) -> None:
    row = check(health_url=url)[0]
    assert row["status"] in ("unknown", "fail")
    assert row["http_status"] is None


def test_a_page_without_end_is_not_read_to_its_end() -> None:
    row = one(b'{"status":"ok"' + b" " * 3_000_000)
    assert row["status"] == "unknown"


def test_no_endpoint_configured_is_not_configured() -> None:
    reading = Health(Context(), App()).check()
    assert (reading.state, reading.value) == ("not_configured", None)


def test_a_redirect_is_not_followed() -> None:
    with web(says('{"status":"ok"}')) as other, web(says("", 302, Location=f"http://127.0.0.1:{other}/")) as port:
        assert check(health_url=f"http://127.0.0.1:{port}/")[0]["status"] == "unknown"


def test_a_secret_in_a_body_is_out_of_the_reading() -> None:
    row = one({"status": "down", "components": {"db": {"status": "DOWN", "details": {"error": "://u:swordfish9@h/d"}}}})
    assert "swordfish9" not in json.dumps(row)


@pytest.mark.parametrize("body", [b"null", b"1", b'"ok"', b"true", b'{"status":{"a":1}}', b'{"checks":{"a":null}}'])
def test_odd_bodies_are_read_without_an_error(body: bytes) -> None:
    assert body_says("application/json", body).status in ("pass", "fail", "unknown")
