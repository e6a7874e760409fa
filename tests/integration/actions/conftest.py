"""A patient whose sessions are acted on, and a store of each test's own for the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.sandbox import Sandbox, processes
from runbook.sandbox.sandbox import DATABASE
from tests.contract.simulator import Simulator
from tests.integration.store.servers import data, database, postgres

__all__ = ["data", "database", "patient", "postgres"]


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("patient") / "s", systems=DATABASE, owned=True) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def running_vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    log = tmp_path_factory.mktemp("vendors") / "vendors.log"
    child = processes.spawn("runbook.sandbox.vendors", {"token": "actions"}, log=log)
    yield Simulator(f"http://127.0.0.1:{child.greeting['port']}", "actions")
    child.end()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def vendors(running_vendors: Simulator) -> Iterator[Simulator]:
    """The vendors on a good day."""
    yield running_vendors
    running_vendors.vendors.reset()
