"""A runbook run again from a notebook with other values: a real headless run, archived, found, opened as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook import settings as settings_module
from runbook.broker.working_copy import run_of
from runbook.broker_client import BrokerClient, BrokerRefused
from runbook.dispatch.reports import search
from tests.integration.broker.conftest import Serving, indexed

pytestmark = pytest.mark.slow

NAME = "db_connection_exhaustion"
QUICK = {"samples": 1, "sample_seconds": 0.1}


@pytest.fixture
def client(serving: Serving, data: Path) -> Iterator[BrokerClient]:
    """Of a broker whose JupyterLab shows the working copies."""
    with serving(root=data / "work") as broker:
        yield BrokerClient(str(broker.path), broker.token)


def test_it_is_a_run_of_its_own_that_says_who_asked_for_it(client: BrokerClient, data: Path, database: str) -> None:
    told = client.again(NAME, QUICK | {"window_minutes": 7})
    (archived,) = (data / "archive").glob(f"*/*/*/{told['run_id']}")
    result = json.loads((archived / "result.json").read_text())
    assert (result["parameters"]["samples"], result["parameters"]["window_minutes"]) == (1, 7)
    assert result["asked_by"].startswith("person:")
    report = (archived / "report.html").read_text()
    assert told["error"] == ""
    assert f"<title>{told['said']} ·" in report
    assert f"started by hand ({result['asked_by'].removeprefix('person:')})" in report
    assert "Run again with these values" not in report

    copy = data / "work" / told["notebook"]
    assert run_of(copy) == told["run_id"]
    assert any("window_minutes = 7" in cell.source for cell in nbformat.read(copy, as_version=4).cells)
    (row,) = indexed(database, told["run_id"])
    assert row.parameters["window_minutes"] == 7


@pytest.mark.parametrize(
    ("runbook", "parameters", "reason"),
    [("nothing_of_ours", {}, "unknown runbook"), (NAME, {"samples": 99}, "samples: expected int in 1..20"),
     (NAME, {"samples": "1"}, "samples: expected"), (NAME, {"strange": 1}, "no parameter"), ("../x", {}, "unknown")],
)  # fmt: skip
def test_what_does_not_fit_is_not_run(
    client: BrokerClient, data: Path, runbook: str, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BrokerRefused, match=reason):
        client.again(runbook, parameters)
    assert not list((data / "archive").glob("*/*/*/*"))


def test_without_a_store_it_runs_all_the_same_and_is_found_once_there_is_one(
    serving: Serving, data: Path, database: str, tmp_path: Path
) -> None:
    with serving(store={"url": "postgresql://nobody@127.0.0.1:1/none"}, root=tmp_path / "elsewhere") as broker:
        told = BrokerClient(str(broker.path), broker.token).again(NAME, QUICK)
    assert told["notebook"] == ""
    found = search(settings_module.from_plain({"store": {"url": database}}), told["run_id"])
    assert [one["run_id"] for one in found] == [told["run_id"]]
