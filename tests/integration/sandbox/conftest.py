"""Two sandboxes for all tests of this room; each test leaves them clean, which the faults check themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.sandbox import Sandbox
from runbook.sandbox.sandbox import DATABASE


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A patient and the vendors."""
    with Sandbox(tmp_path_factory.mktemp("sandbox") / "s", systems=DATABASE, owned=True) as instance:
        yield instance


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The same with the application and all that it uses."""
    with Sandbox(tmp_path_factory.mktemp("application") / "s", owned=True) as instance:
        yield instance
