"""A patient whose sessions are acted on, and a store of each test's own for the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.sandbox import Sandbox
from runbook.sandbox.sandbox import DATABASE
from tests.contract.simulator import Simulator
from tests.contract.simulator import running as started
from tests.integration.store.servers import data, database, postgres

__all__ = ["data", "database", "patient", "postgres"]


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("patient") / "s", systems=DATABASE, owned=True) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def running_vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with started(tmp_path_factory.mktemp("simulator"), "actions") as simulator:
        yield simulator


@pytest.fixture
def vendors(running_vendors: Simulator) -> Iterator[Simulator]:
    """The vendors on a good day."""
    yield running_vendors
    running_vendors.vendors.reset()
