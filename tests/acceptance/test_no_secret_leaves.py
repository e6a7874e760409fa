"""A canary in every place where secrets come from is in nothing that leaves: archive, logs, responses, messages."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest

from runbook import catalog
from runbook.drills.alerts import alertmanager_body
from runbook.sandbox.sandbox import as_environment
from tests.acceptance.conftest import BIN, QUICK, RUNBOOK, Leaky
from tests.support import free_port, wait_until

CANARIES = {name: f"canary{name}{secrets.token_hex(8)}" for name in ("dsn", "env", "query", "label", "annotation")}


@pytest.fixture
def canary_dsn(leaky: Leaky) -> Iterator[str]:
    """A diagnosing role whose password is a canary, while sessions of others carry one in their query texts."""
    sandbox = leaky.sandbox
    with sandbox.superuser() as admin:
        admin.execute("DROP ROLE IF EXISTS canary")
        admin.execute(f"CREATE ROLE canary LOGIN PASSWORD '{CANARIES['dsn']}' IN ROLE pg_monitor".encode())
        with psycopg.connect(sandbox.dsn("web"), application_name="api-leaky") as loud:
            loud.execute(f"SELECT '{CANARIES['query']}' AS token /* {CANARIES['query']} */".encode())
            yield sandbox.dsn("web").replace("//web:", "//canary:").replace(sandbox.password("web"), CANARIES["dsn"])
        admin.execute("DROP ROLE canary")


def test_a_canary_is_in_no_file_no_log_and_no_response(canary_dsn: str, leaky: Leaky, tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "postgres": {"dsn": canary_dsn},
        "server": {"port": port},
        "thresholds": {RUNBOOK: QUICK},
        "discord": {"webhook_url": leaky.settings["discord"]["webhook_url"]},
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RUNBOOK_")}
    environment |= as_environment(settings)
    environment |= {"RUNBOOK_DATA_DIR": str(tmp_path / "data"), "PAYMENT_API_TOKEN": CANARIES["env"]}
    tmp_path.chmod(0o755)
    responses: list[bytes] = []
    with (tmp_path / "service.log").open("w") as log:
        service = subprocess.Popen([BIN / "runbook", "serve"], env=environment, cwd=tmp_path, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                wait_until(lambda: _answers(http, "/readyz"), seconds=90, what="the service")
                body = alertmanager_body(
                    catalog.load(RUNBOOK),
                    {"service": "app", "customer": CANARIES["label"], "api_key": CANARIES["label"]},
                    datetime.now(UTC),
                )
                body["alerts"][0]["annotations"]["description"] = f"password={CANARIES['annotation']} is wrong"
                accepted = http.post("/alerts/alertmanager", json=body)
                assert accepted.status_code == 202
                run_id = accepted.json()["alerts"][0]["run_id"]
                path = f"/api/runs/{run_id}"
                document = wait_until(lambda: _finished(http, path), seconds=90, what="the run")
                assert document["outcome"] == "diagnosed"
                pages = (path, "/api/runs", "/api/reports?q=api", "/api/alerts", f"/reports/{run_id}",
                         f"/runs/{run_id}", f"/runbooks/{RUNBOOK}", "/metrics")  # fmt: skip
                responses = [accepted.content, *(http.get(page).content for page in pages)]
        finally:
            service.terminate()
            service.wait(60)
    left = {str(p): p.read_bytes() for p in (tmp_path / "data" / "archive").rglob("*") if p.is_file()}
    assert {Path(p).name for p in left} == {"notebook.ipynb", "readings.jsonl.gz", "report.html", "result.json"}
    left |= {name: gzip.decompress(content) for name, content in left.items() if name.endswith(".gz")}
    left["log"] = (tmp_path / "service.log").read_bytes()
    left |= {f"response {n}": content for n, content in enumerate(responses)}
    left["messages"] = json.dumps(leaky.sandbox.vendors.state("discord")).encode()
    assert b"leaky" in left["messages"]
    found = [(where, name) for where, content in left.items() for name, c in CANARIES.items() if c.encode() in content]
    assert found == []


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).status_code == 200
    except httpx.TransportError:
        return False


def _finished(http: httpx.Client, path: str) -> dict[str, str] | None:
    document = http.get(path).json()
    return document if document["state"] not in ("queued", "running") else None
