from __future__ import annotations

import concurrent.futures
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from runbook.embedded import FAST, EmbeddedPostgres
from tests.integration.web.service import START, TOKENS, Service, bearer, webhook
from tests.support import free_port, wait_until

# -- alerts -----------------------------------------------------------------------------------------------------------


def test_an_alert_becomes_a_report(service: Service) -> None:
    response = service.post_alert()
    assert response.status_code == 202
    (answer,) = response.json()["alerts"]
    assert set(answer) == {"alert_id", "fate", "run_id"}
    assert answer["fate"] == "queued"
    document = service.ended(answer["run_id"])
    assert (document["schema"], document["state"], document["outcome"]) == (1, "succeeded", "diagnosed")
    report = service.client.get(f"/reports/{answer['run_id']}")
    assert report.status_code == 200
    assert "P01 api-leaky" in report.text
    assert report.headers["content-security-policy"] == (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
    )
    assert report.headers["x-content-type-options"] == "nosniff"
    assert report.headers["referrer-policy"] == "no-referrer"


def test_a_generic_alert_is_accepted(service: Service) -> None:
    body = {"name": "ConnectionsHigh", "service": "api", "starts_at": START}
    response = service.client.post("/alerts/generic", json=body)
    assert response.status_code == 202
    assert response.json()["alerts"][0]["fate"] == "queued"


def test_the_message_is_shown_where_no_webhook_is_configured(service: Service) -> None:
    (answer,) = service.post_alert().json()["alerts"]
    service.ended(answer["run_id"])
    wait_until(lambda: "message not sent: no discord.webhook_url" in service.log.read_text())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"alerts":' + b"[" * 60 + b"]" * 60 + b"}", 400),
        (b"[]", 400),
        (b'{"alerts": NaN}', 400),
        (b"{}", 422),
        (b'{"alerts": 7}', 422),
        (b'{"alerts": [{"status": "melting", "labels": {"alertname": "x"}}]}', 422),
        (b'{"alerts": [{"status": "firing", "labels": ["secret-label-value"]}]}', 422),
    ],
)
def test_a_malformed_body_gets_one_line_that_names_the_problem(service: Service, body: bytes, status: int) -> None:
    response = service.client.post("/alerts/alertmanager", content=body)
    assert response.status_code == status
    (error,) = response.json().values()
    assert error
    assert "\n" not in error
    assert "Traceback" not in response.text
    assert "secret-label-value" not in response.text + service.log.read_text()
    assert service.client.get("/healthz").status_code == 200


def test_an_unknown_source_is_named_with_the_known_ones(service: Service) -> None:
    response = service.client.post("/alerts/pigeon", json={})
    assert response.status_code == 404
    assert "alertmanager" in response.json()["error"]


def test_a_body_that_is_declared_too_large_is_refused_unread(service: Service) -> None:
    connection = http.client.HTTPConnection(httpx.URL(service.url).host, httpx.URL(service.url).port or 80, timeout=10)
    connection.putrequest("POST", "/alerts/generic")
    connection.putheader("Content-Length", str(1024 * 1024 + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_a_chunked_body_is_cut_off_at_the_limit(service: Service) -> None:
    url = httpx.URL(service.url)
    sent = 0
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(b"POST /alerts/generic HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        answer = b""
        try:
            while sent < 200 * 0x10000:
                connection.sendall(chunk)
                sent += 0x10000
                connection.settimeout(0.001)
                try:
                    answer = connection.recv(4096)
                except TimeoutError:
                    pass
                else:
                    break
                connection.settimeout(10)
        except (BrokenPipeError, ConnectionResetError):
            answer = answer or b"HTTP/1.1 413 (closed)"
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert sent < 50 * 0x10000, "it went on reading"
    assert service.client.get("/healthz").status_code == 200


def test_concurrent_duplicate_posts_start_exactly_one_run(service: Service) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = [f.result().json()["alerts"][0] for f in [threads.submit(service.post_alert) for _ in range(40)]]
    assert sorted(a["fate"] for a in answers) == ["duplicate"] * 39 + ["queued"]
    assert len({a["run_id"] for a in answers}) == 1
    assert len(service.client.get("/api/runs").json()["runs"]) == 1


def test_unrouted_alerts_are_listed(service: Service) -> None:
    assert service.post_alert(alertname="Strange").json()["alerts"][0]["fate"] == "unrouted"
    (alert,) = service.client.get("/api/alerts", params={"fate": "unrouted"}).json()["alerts"]
    assert alert["name"] == "Strange"
    assert "Strange" in service.client.get("/").text


def test_while_the_store_is_down_alerts_get_503_and_none_is_lost(start: Callable[..., Service], tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "pg", settings=FAST, port=free_port()) as server:
        service = start(RUNBOOK_STORE__URL=server.superuser_dsn)
        accepted = [service.post_alert(instance="a")]
        server.stop(force=True)
        refused = service.client.post("/alerts/alertmanager", json=webhook(fingerprint="f2"))
        assert refused.status_code == 503
        assert service.client.get("/readyz").status_code == 503
        assert service.client.get("/healthz").status_code == 200
        assert service.process.poll() is None
        server.start()
        wait_until(lambda: service.client.get("/readyz").status_code == 200, seconds=30)
        again = service.client.post("/alerts/alertmanager", json=webhook(fingerprint="f2"))
        assert again.json()["alerts"][0]["fate"] == "queued"
        for response in (*accepted, again):
            (answer,) = response.json()["alerts"]
            assert service.ended(answer["run_id"])["state"] == "succeeded"
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(30)


def test_alerts_that_were_accepted_survive_a_kill(start: Callable[..., Service], database: str) -> None:
    service = start()
    answers = [
        service.client.post("/alerts/alertmanager", json=webhook(fingerprint=f"f{n}")).json()["alerts"][0]
        for n in range(20)
    ]
    service.process.kill()
    service.process.wait()
    with psycopg.connect(database) as connection:
        kept = {row[0] for row in connection.execute("SELECT id FROM runbook.runs")}
    assert {a["run_id"] for a in answers} == kept
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE runbook.runs SET lease_until = now() WHERE state = 'running'")
    second = start()
    for answer in answers:
        assert second.ended(answer["run_id"])["state"] == "succeeded"


# -- who may do what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic !!", "Bearer " + "x" * 5000, "Digest a"])
def test_a_missing_or_wrong_token_gets_401_and_is_not_repeated(guarded: Service, header: str) -> None:
    response = guarded.client.post("/alerts/alertmanager", json=webhook(), headers={"Authorization": header})
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert list(response.json()) == ["error"]
    if len(header) > 10:
        assert header.split()[1] not in response.text + guarded.log.read_text()


@pytest.mark.parametrize(
    ("role", "alerts", "read", "run"),
    [
        ("alerts", 202, 403, 403),
        ("viewer", 403, 200, 403),
        ("operator", 202, 200, 202),
        ("admin", 202, 200, 202),
    ],
)
def test_a_role_may_do_its_part(guarded: Service, role: str, alerts: int, read: int, run: int) -> None:
    headers = bearer(role)
    assert guarded.client.post("/alerts/alertmanager", json=webhook(), headers=headers).status_code == alerts
    for path in ("/", "/api/runs", "/api/reports", "/api/alerts", "/runbooks/connections", "/metrics"):
        assert guarded.client.get(path, headers=headers).status_code == read
    order = {"runbook": "connections"}
    assert guarded.client.post("/api/runs", json=order, headers=headers).status_code == run


def test_a_browser_may_send_the_token_as_a_password(guarded: Service) -> None:
    assert guarded.client.get("/").headers["www-authenticate"].startswith("Basic")
    assert guarded.client.get("/", auth=("anyone", TOKENS["viewer"])).status_code == 200


def test_health_needs_no_token(guarded: Service) -> None:
    assert guarded.client.get("/healthz").status_code == 200
    assert guarded.client.get("/readyz").status_code == 200


def test_no_token_is_in_any_log(guarded: Service) -> None:
    guarded.client.get("/api/runs", headers=bearer("viewer"), params={"token": TOKENS["viewer"]})
    guarded.client.get(f"/{TOKENS['viewer']}")
    guarded.client.post("/alerts/alertmanager", json=webhook(), headers=bearer("alerts"))
    wait_until(lambda: "/alerts/{source}" in guarded.log.read_text(), what="the access log")
    assert not any(token in guarded.log.read_text() for token in TOKENS.values())


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "runbook.attacker.example"},
        {"Origin": "https://attacker.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "203.0.113.9"},
    ],
)
def test_without_tokens_another_site_or_machine_may_not_post(service: Service, headers: dict[str, str]) -> None:
    assert service.client.post("/alerts/alertmanager", json=webhook(), headers=headers).status_code == 403
    assert service.client.get("/api/runs").json()["runs"] == []


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"RUNBOOK_SERVER__HOST": "0.0.0.0"}, "no token is configured"),
        ({"RUNBOOK_ROUTES": '[{"match": {}, "runbook": "gone"}]'}, "unknown runbook 'gone'"),
        ({"RUNBOOK_ARCHIVE__URL": "file:/proc/nowhere"}, "archive"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(
    environment: dict[str, str], extra: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.web.service_process"],
        env=environment | extra,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]


# -- runs, events, pages ----------------------------------------------------------------------------------------------


def test_a_run_may_be_started_by_hand(service: Service) -> None:
    order = {"runbook": "connections", "parameters": {"service": "api", "samples": 3}}
    response = service.client.post("/api/runs", json=order)
    assert response.status_code == 202
    assert (response.json()["state"], response.json()["schema"]) == ("queued", 1)
    document = service.ended(response.json()["run_id"])
    assert document["parameters"]["samples"] == 3


@pytest.mark.parametrize(
    ("order", "status", "said"),
    [
        ({"runbook": "nonesuch"}, 422, "Known: connections, uploads"),
        ({"runbook": "connections", "parameters": {"sampels": 1}}, 422, "no parameter 'sampels'"),
        ({"runbook": "connections", "parameters": {"samples": "many"}}, 422, "samples"),
        ({"runbook": "connections", "parameters": {"samples": 10_000}}, 422, "1..20"),
        ({"parameters": {}}, 422, "runbook"),
        ({"runbook": "connections", "surprise": 1}, 422, "surprise"),
    ],
)
def test_a_wrong_order_is_answered_with_what_is_allowed(
    service: Service, order: dict[str, Any], status: int, said: str
) -> None:
    response = service.client.post("/api/runs", json=order)
    assert response.status_code == status
    assert said in response.json()["error"]
    assert service.client.get("/api/runs").json()["runs"] == []


def test_a_form_may_not_start_a_run(service: Service) -> None:
    response = service.client.post(
        "/api/runs", content=b'{"runbook": "connections"}', headers={"Content-Type": "text/plain"}
    )
    assert response.status_code == 415


def test_events_tell_every_cell_and_the_end(service: Service) -> None:
    order = {"runbook": "connections", "parameters": {"hold_seconds": 1.5}}
    run_id = service.client.post("/api/runs", json=order).json()["run_id"]
    events: list[tuple[str, dict[str, Any]]] = []
    with service.client.stream("GET", f"/api/runs/{run_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("state", "end")
    assert (3, "ok") in [(data["cell"], data["state"]) for name, data in events if name == "cell"]
    assert events[-1][1]["state"] == "succeeded"


def test_an_open_stream_of_events_does_not_hold_up_the_end_of_the_service(start: Callable[..., Service]) -> None:
    service = start()
    order = {"runbook": "connections", "parameters": {"hold_seconds": 60}}
    run_id = service.client.post("/api/runs", json=order).json()["run_id"]
    with service.client.stream("GET", f"/api/runs/{run_id}/events") as response:
        next(response.iter_lines())
        service.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        service.process.wait(60)
    assert time.monotonic() - began < 50
    assert service.process.returncode == 0


def test_reports_are_found(service: Service) -> None:
    (answer,) = service.post_alert().json()["alerts"]
    service.ended(answer["run_id"])
    found = service.client.get("/api/reports", params={"q": "api-leaky"}).json()["reports"]
    assert [r["run_id"] for r in found] == [answer["run_id"]]
    assert found[0]["report"].endswith(f"/reports/{answer['run_id']}")
    assert service.client.get("/api/reports", params={"q": "nothing-like-this"}).json()["reports"] == []


@pytest.mark.parametrize("path", ["/api/runs/{}", "/api/runs/{}/events", "/runs/{}", "/reports/{}"])
@pytest.mark.parametrize("run_id", ["nonesuch", "20261123T072513042-aaaaaaaa", "..%2f..%2fetc%2fpasswd", "%00", "'"])
def test_a_run_that_does_not_exist_is_404(service: Service, path: str, run_id: str) -> None:
    response = service.client.get(path.format(run_id))
    assert response.status_code == 404
    assert list(response.json()) == ["error"]


def test_pages_show_what_an_alert_says_as_text(service: Service) -> None:
    hostile = "<script>alert(1)</script>"
    body = webhook(instance=hostile)
    body["alerts"][0]["annotations"]["runbook_url"] = "https://x.example/runbooks/connections"
    body["alerts"][0]["labels"]["alertname"] = hostile
    (answer,) = service.client.post("/alerts/alertmanager", json=body).json()["alerts"]
    service.post_alert(alertname=hostile + "2")
    service.ended(answer["run_id"])
    for path in ("/", f"/runs/{answer['run_id']}", "/runbooks/connections"):
        page = service.client.get(path)
        assert page.status_code == 200
        assert "<script" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "&lt;script&gt;" in service.client.get(f"/runs/{answer['run_id']}").text


def test_the_run_page_leads_to_the_report_and_shows_the_actions(service: Service) -> None:
    (answer,) = service.post_alert().json()["alerts"]
    service.ended(answer["run_id"])
    page = service.client.get(f"/runs/{answer['run_id']}").text
    assert f'href="/reports/{answer["run_id"]}"' in page
    assert f"<code>runbook jupyter {answer['run_id']}</code>" in page
    assert f'href="http://127.0.0.1:8341/runbook/runs/{answer["run_id"]}"' in page
    assert "Terminate 24 leaked sessions" in page


def test_the_runbook_page_shows_parameters_with_their_bounds(service: Service) -> None:
    page = service.client.get("/runbooks/connections").text
    assert "int in 1..20" in page
    assert service.client.get("/runbooks/nonesuch").status_code == 404


def test_metrics_count_alerts_by_fate(start: Callable[..., Service]) -> None:
    service = start()
    service.post_alert()
    service.post_alert()
    text = service.client.get("/metrics").text
    assert 'runbook_alerts_total{fate="queued",source="alertmanager"} 1.0' in text
    assert 'runbook_alerts_total{fate="duplicate",source="alertmanager"} 1.0' in text
