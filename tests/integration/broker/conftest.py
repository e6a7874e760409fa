"""A broker that serves on a thread of its own, a lamp for it to switch, and a store of each test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runbook import settings as settings_module
from runbook.actions import acting as acting_module
from runbook.broker import desk as desk_module
from runbook.broker import server as server_module
from runbook.broker.server import Listening, listening
from runbook.broker_client import BrokerClient
from runbook.store import open_store
from runbook.store.rows import RunRow
from tests.integration.actions.desk import Desk
from tests.integration.actions.test_steps import Lamp
from tests.integration.store.servers import data, database, postgres

__all__ = ["data", "database", "postgres"]

RUN = "20261129T120000000-k3f9qa7m"


def findings(*lamps: str, **facts: Any) -> dict[str, Any]:
    """What a run concluded that proposes to switch these lamps on."""
    action = {
        "id": "P01.lamp", "kind": "lamp.on", "title": "switch the lamps on", "cause": "P01",
        "targets": [{"lamp": lamp} for lamp in lamps or ("hall",)], "preconditions": [], "by_hand": "switch",
        "undo": "switch them off", "needs": None, "state": "proposed",
    }  # fmt: skip
    return {
        "symptom": {"label": "dark rooms", "value": 1.0, "unit": "", "threshold": 1.0, "breached": True},
        "impact": "", "outcome": "diagnosed", "evidence": [], "not_checked": [], "unexplained": 0.0,
        "verdict": [{"cause": "P01", "name": "dark", "tier": "confirmed", "share": 1.0, "score": 6, "coverage": 1.0}],
        "actions": [action | facts],
    }  # fmt: skip


def run(*lamps: str, **facts: Any) -> dict[str, Any]:
    """The same, as a kernel hands it in."""
    return {
        "run_id": RUN,
        "runbook": "db_connection_exhaustion",
        "parameters": {},
        "findings": findings(*lamps, **facts),
    }


@pytest.fixture
def lamps(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """The lamps, all off; the symptom is how many of them are."""
    Lamp.lamps, Lamp.applied, Lamp.breaks = {}, 0, False
    kinds: dict[str, Any] = {"lamp.on": Lamp}
    monkeypatch.setattr(acting_module, "kind_named", kinds.get)
    monkeypatch.setattr(desk_module, "kind_named", kinds.get)
    measuring = Desk({}, symptom=lambda: 0.0 if any(Lamp.lamps.values()) else 1.0, label="dark rooms")
    monkeypatch.setattr(server_module, "by_running", lambda *_: measuring._again)
    return Lamp.lamps


@pytest.fixture(autouse=True)
def signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks are signed with a key of this test's own."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))


Serving = Callable[[], Any]


def indexed(database: str, query: str, *known: dict[str, Any]) -> list[RunRow]:
    """What the store finds once it knows these results too; nothing is taken up from the archive."""

    async def use() -> list[RunRow]:
        async with open_store(settings_module.from_plain({"store": {"url": database}})) as store:
            for result in known:
                await store.runs.record(result)
            return await store.runs.search(query)

    return asyncio.run(use())


@pytest.fixture
def serving(database: str, data: Path, tmp_path: Path, lamps: dict[str, bool]) -> Serving:
    """Starts a broker with these settings: ``with serving(…) as broker``."""

    @contextmanager
    def serve(*, root: Path = tmp_path, **sections: Any) -> Iterator[Listening]:
        plain = {"store": {"url": database}, "actions": {"cooldown_minutes": 15}} | sections
        settings = settings_module.from_plain(plain)
        ready: threading.Event = threading.Event()
        served: list[Listening] = []
        loop = asyncio.new_event_loop()
        over = asyncio.Event()

        async def work() -> None:
            async with listening(settings, root=root) as broker:
                served.append(broker)
                ready.set()
                await over.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
        thread.start()
        assert ready.wait(30)
        try:
            yield served[0]
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()

    return serve


@pytest.fixture
def broker(serving: Serving) -> Iterator[Listening]:
    with serving() as served:
        yield served


@pytest.fixture
def client(broker: Listening) -> BrokerClient:
    found = BrokerClient.from_environment(broker.environment)
    assert found is not None
    return found
