"""A patient whose sessions are acted on, and a store of each test's own for the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.sandbox import Sandbox
from runbook.sandbox.sandbox import DATABASE
from tests.integration.store.servers import data, database, postgres

__all__ = ["data", "database", "patient", "postgres"]


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("patient") / "s", systems=DATABASE, owned=True) as sandbox:
        yield sandbox
