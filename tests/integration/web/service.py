"""The running service, for the tests that talk to it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from runbook.embedded import EmbeddedPostgres
from tests.integration.store.servers import new_database, write_notebooks
from tests.support import wait_until

TOKENS = {role: f"{role}-token-4711" for role in ("alerts", "viewer", "operator", "admin")}
START = "2026-11-23T07:25:13Z"


@dataclass
class Service:
    """The running service."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    database: str = ""
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def post_alert(self, **labels: str) -> httpx.Response:
        return self.client.post("/alerts/alertmanager", json=webhook(**labels))

    def run(self, run_id: str) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(f"/api/runs/{run_id}").json()
        return document

    def ended(self, run_id: str) -> dict[str, Any]:
        return wait_until(
            lambda: (d := self.run(run_id))["state"] not in ("queued", "running") and d, seconds=60, what="its end"
        )


def webhook(status: str = "firing", fingerprint: str = "f1", **labels: str) -> dict[str, Any]:
    alert = {
        "status": status,
        "labels": {"alertname": "ConnectionsHigh", "severity": "page", "service": "api"} | labels,
        "annotations": {},
        "startsAt": START,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example/graph",
        "fingerprint": fingerprint,
    }
    return {"version": "4", "status": status, "receiver": "runbook", "truncatedAlerts": 0, "alerts": [alert]}


@pytest.fixture
def environment(database: str, data: Path, notebooks: Path) -> dict[str, str]:
    return _environment(database, data, notebooks)


def _environment(database: str, data: Path, notebooks: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNBOOK_")}
    return kept | {
        "RUNBOOK_STORE__URL": database,
        "RUNBOOK_SERVER__PORT": "0",
        "RUNBOOK_DATA_DIR": str(data),
        "RUNBOOK_NOTEBOOKS": str(notebooks),
    }


def guarded_environment() -> dict[str, str]:
    """What configures a token for each role."""
    tokens = [
        {"name": role, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
        for role, token in TOKENS.items()
    ]
    return {"RUNBOOK_SERVER__TOKENS": json.dumps(tokens)}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service of this test's own, with these environment variables besides."""
    started: list[Service] = []

    def begin(**extra: str) -> Service:
        started.append(_started(environment | extra, tmp_path / f"service-{len(started)}.log"))
        return started[-1]

    yield begin
    for service in started:
        _stopped(service)


def _started(environment: dict[str, str], log: Path) -> Service:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.web.service_process"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        )
    assert process.stdout is not None
    url = next((line.strip() for line in process.stdout if line.startswith("http")), "")
    assert url, log.read_text()
    threading.Thread(target=_drain, args=(process, log), daemon=True).start()
    return Service(url, process, log)


def _drain(process: subprocess.Popen[str], log: Path) -> None:
    """structlog prints to standard output by default: kept with the log."""
    assert process.stdout is not None
    with log.open("a") as out:
        for line in process.stdout:
            out.write(line)
            out.flush()


def _stopped(service: Service) -> None:
    service.client.close()
    service.process.send_signal(signal.SIGTERM)
    try:
        service.process.wait(60)
    except subprocess.TimeoutExpired:
        service.process.kill()
        pytest.fail(f"the service did not stop: {service.log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Service]]:
    """A service for many tests, started when the first of them wants it: ``open`` or ``guarded`` by tokens."""
    services: dict[str, Service] = {}

    def ask(kind: str) -> Service:
        if kind not in services:
            place = tmp_path_factory.mktemp(kind)
            (place / "notebooks").mkdir()
            write_notebooks(place / "notebooks")
            database = new_database(postgres)
            environment = _environment(database, place / "data", place / "notebooks")
            if kind == "guarded":
                environment |= guarded_environment()
            services[kind] = _started(environment, place / "log")
            services[kind].database = database
        service = services[kind]
        with psycopg.connect(service.database, autocommit=True) as connection:
            connection.execute(
                "TRUNCATE runbook.runs, runbook.alerts, runbook.incidents, runbook.procrastinate_jobs CASCADE"
            )
        return service

    yield ask
    for service in services.values():
        _stopped(service)


@pytest.fixture
def service(shared: Callable[[str], Service]) -> Service:
    """The service without tokens, its store empty."""
    return shared("open")


@pytest.fixture
def guarded(shared: Callable[[str], Service]) -> Service:
    """The service with a token for each role, its store empty."""
    return shared("guarded")


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}
