"""One simulator for all contract tests; each test finds a good day."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.sandbox import processes
from tests.contract.simulator import Simulator


@pytest.fixture(scope="session")
def running_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    log = tmp_path_factory.mktemp("simulator") / "vendors.log"
    child = processes.spawn("runbook.sandbox.vendors", {"token": "contract"}, log=log)
    yield Simulator(f"http://127.0.0.1:{child.greeting['port']}", "contract")
    child.end()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def simulator(running_simulator: Simulator) -> Iterator[Simulator]:
    yield running_simulator
    running_simulator.vendors.reset()
