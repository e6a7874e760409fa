"""The real Alertmanager posts to the real service."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.web.service import Service, bearer, guarded_environment
from tests.support import free_port, require_program, wait_until

CONFIGURATION = """
route:
  receiver: runbook
  group_by: [alertname]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1s
receivers:
- name: runbook
  webhook_configs:
  - url: {url}/alerts/alertmanager
    send_resolved: true
    http_config:
      authorization:
        credentials: {token}
"""


@pytest.fixture
def alertmanager(start: Callable[..., Service], tmp_path: Path) -> Iterator[tuple[Service, str]]:
    program = require_program("prometheus-alertmanager", package="prometheus-alertmanager")
    service = start(**guarded_environment())
    configuration = tmp_path / "alertmanager.yml"
    token = bearer("alerts")["Authorization"].removeprefix("Bearer ")
    configuration.write_text(CONFIGURATION.format(url=service.url, token=token))
    url = f"http://127.0.0.1:{free_port()}"
    with (tmp_path / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.path={tmp_path / 'alertmanager'}",
                f"--web.listen-address={url.removeprefix('http://')}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _ready(url), what="Alertmanager")
        yield service, url
    finally:
        process.terminate()
        process.wait(20)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_firing_repeating_and_resolving(alertmanager: tuple[Service, str]) -> None:
    service, url = alertmanager
    service.client.headers.update(bearer("viewer"))
    alert = {
        "labels": {"alertname": "ConnectionsHigh", "severity": "page", "service": "api"},
        "annotations": {"summary": "slots run out"},
        "startsAt": "2026-11-23T07:25:13.123456789Z",
    }
    assert httpx.post(f"{url}/api/v2/alerts", json=[alert]).status_code == 200

    def alerts() -> list[dict[str, object]]:
        found: list[dict[str, object]] = service.client.get("/api/alerts").json()["alerts"]
        return found

    def received(status: str) -> int:
        return next((int(str(a["received"])) for a in alerts() if a["status"] == status), 0)

    wait_until(lambda: received("firing") >= 2, seconds=60, what="a repeated notification")
    (run,) = service.client.get("/api/runs").json()["runs"]
    assert service.ended(run["run_id"])["state"] == "succeeded"
    over = alert | {"endsAt": "2026-11-23T07:26:00Z"}
    assert httpx.post(f"{url}/api/v2/alerts", json=[over]).status_code == 200
    wait_until(lambda: received("resolved") >= 1, seconds=60, what="the resolved notification")
    assert len(alerts()) == 2
    assert all(a["resolved_at"] for a in alerts() if a["status"] == "firing")
    assert len(service.client.get("/api/runs").json()["runs"]) == 1
    document = service.run(run["run_id"])
    assert json.dumps(document["alert"]["starts_at"]) == '"2026-11-23T07:25:13.123456Z"'
