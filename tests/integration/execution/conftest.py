"""Fixtures: a bench to run toy notebooks on, and one pool of warm kernels for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.execution.kernels import KernelPool
from tests.integration.execution.toys import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(2) as kernels:
        assert kernels.wait_ready(60), kernels.trouble
        yield kernels
