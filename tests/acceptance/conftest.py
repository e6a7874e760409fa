"""A sandbox with a leak in it, shared by the tests that go the whole way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runbook.sandbox import Sandbox
from runbook.sandbox.faults import inject
from runbook.sandbox.sandbox import DATABASE, as_environment

BIN = Path(sys.executable).parent
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RUNBOOK = "db_connection_exhaustion"
QUICK = {"samples": 1, "idle_after_seconds": 0.2}


@dataclass(frozen=True)
class Leaky:
    """The sandbox while P01 is injected."""

    sandbox: Sandbox
    settings: Mapping[str, Any]

    def environment(self, **more: str) -> dict[str, str]:
        """Our environment without any settings of ours, and the sandbox's instead."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RUNBOOK_")}
        return kept | as_environment({"postgres": {"dsn": self.settings["postgres"]["dsn"]}}) | more


@pytest.fixture(scope="session")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaky]:
    with (
        Sandbox(tmp_path_factory.mktemp("leaky") / "sandbox", systems=DATABASE, owned=True) as sandbox,
        inject("P01", sandbox),
    ):
        yield Leaky(sandbox, sandbox.settings())
