"""Orders at the command line: what a tired person types, what stands there then, and how a refusal ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runbook.reporting.archive import RESULT, Archive
from tests.integration.dispatch.tiny import document
from tests.integration.store.servers import data, database, postgres

__all__ = ["data", "database", "postgres"]

RUN = "20261129T120000000-k3f9qa7m"
LABELS = {"alertname": "ConnectionsHigh", "service": "api"}
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def actions(database: str, data: Path) -> Callable[..., Done]:
    """Runs ``runbook actions …`` where one run is in the archive."""
    alert = {"source": "alertmanager", "fingerprint": "f00d", "labels": LABELS}
    started = datetime(2026, 11, 23, 7, tzinfo=UTC)
    files = {"report.html": b"", RESULT: json.dumps(document(RUN) | {"alert": alert}).encode()}
    Archive(data / "archive").write(RUN, started, files)

    def run(*arguments: str) -> Done:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RUNBOOK_")}
        env |= {"RUNBOOK_DATA_DIR": str(data), "RUNBOOK_STORE__URL": database, "COLUMNS": "80"}
        argv = [sys.executable, "-m", "runbook.cli", "actions", *arguments]
        return subprocess.run(argv, env=env, cwd=data, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_an_order_is_told_with_what_to_type_next_and_found_again(actions: Callable[..., Done]) -> None:
    ordered = actions("order", RUN, "silence", "-t", "minutes=30", "-t", "comment=a known leak")
    assert ordered.returncode == 0, ordered.stderr
    assert "Nothing is changed yet" in ordered.stdout
    assert ordered.stdout.splitlines()[-1] == f"runbook actions approve {RUN}:ordered-1"
    (_, made) = json.loads(actions("list", RUN, "--json").stdout)["actions"]
    assert (made["kind"], made["state"], made["can_be_applied"]) == ("alertmanager.silence", "proposed", True)
    assert made["targets"] == [{"labels": LABELS, "minutes": 30.0, "comment": "a known leak"}]
    shown = actions("show", made["id"]).stdout
    assert f"alertmanager.silence, proposed; ordered by {made['ordered_by']}" in shown
    assert '"comment": "a known leak"' in shown
    planned = actions("plan", made["id"])
    assert (planned.returncode, planned.stdout) == (1, "")
    assert "alertmanager.url is not set" in planned.stderr
    assert json.loads(actions("audit", "--verify", "--json").stdout) == {"entries": 1, "problems": []}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("silence", "-t", "minute=30"), 2, "knows no minute"),
        (("pause",), 2, "queue.pause or pgbouncer.pause"),
        (("aws.scale",), 1, "never ordered"),
    ],
)
def test_what_does_not_fit_is_one_line(
    actions: Callable[..., Done], arguments: tuple[str, ...], status: int, said: str
) -> None:
    refused = actions("order", RUN, *arguments)
    assert (refused.returncode, refused.stdout, len(refused.stderr.strip().splitlines())) == (status, "", 1)
    assert said in refused.stderr
