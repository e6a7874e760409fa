"""One simulator for all contract tests; each test finds a good day."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.simulator import Simulator
from tests.contract.simulator import running as started


@pytest.fixture(scope="session")
def running_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with started(tmp_path_factory.mktemp("simulator"), "contract") as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator) -> Iterator[Simulator]:
    yield running_simulator
    running_simulator.vendors.reset()
