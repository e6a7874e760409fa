"""One sandbox for all tests of this room; each test leaves it clean, which the faults check themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox") / "s", owned=True) as instance:
        yield instance
