"""Each kind of action on a real fault: proposed by a run, planned, approved, applied, verified by a fresh run, undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog
from runbook.actions.plan import Order
from runbook.dispatch.desk import Desk
from runbook.execution.execute import RunRequest, execute
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import open_archive
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import inject, plan
from runbook.sandbox.sandbox import DATABASE
from runbook.settings import from_plain
from runbook.store import open_store
from runbook.store.ids import new_run_id
from tests.integration.store.servers import database, postgres

__all__ = ["database", "postgres"]

pytestmark = pytest.mark.timeout(300)
ME = "person:ada"
CONNECTIONS = "db_connection_exhaustion"


@dataclass(frozen=True)
class Case:
    """One action on one fault."""

    kind: str
    runbook: str
    fault: str
    #: What becomes of the symptom.
    verdict: str
    sizes: dict[str, int] | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.fault}"


ON_THE_DATABASE = (
    Case("postgres.terminate_session", CONNECTIONS, "P01", "fixed", {"sessions": 9}),
    # Who waited goes on, and holds what it waited for: three are a pile-up, two are none.
    Case("postgres.terminate_session", CONNECTIONS, "P02", "fixed", {"waiters": 3}),
    Case("postgres.cancel_statement", CONNECTIONS, "P02a", "fixed"),
    Case("postgres.cancel_statement", CONNECTIONS, "P03", "fixed"),
    # It holds for sessions that begin afterwards: those that are there stay.
    Case("postgres.set_role_timeout", CONNECTIONS, "P01", "unchanged", {"sessions": 9}),
    Case("postgres.raise_role_limit", CONNECTIONS, "P06", "fixed"),
    Case("postgres.raise_database_limit", CONNECTIONS, "P07", "fixed"),
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("patient") / "sandbox", systems=DATABASE, owned=True) as up:
        yield up


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(2) as warm:
        yield warm


def at_desk(settings: dict[str, Any], pool: KernelPool, steps: Callable[[Desk], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        configured = from_plain(settings)
        async with open_store(configured) as store:
            return await steps(Desk(configured, store, pool))

    return asyncio.run(opened())


@pytest.mark.parametrize("case", ON_THE_DATABASE, ids=lambda case: case.id)
def test_an_action_of_each_kind_is_applied_verified_and_undone(
    case: Case, sandbox: Sandbox, pool: KernelPool, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(tmp_path / "data"))
    runbook = catalog.load(case.runbook)
    one = plan(case.fault, causes=runbook.causes, **case.sizes or {})
    thresholds = {name: parameter.default for name, parameter in runbook.parameters.items()} | dict(one.scaled)
    with inject(one, sandbox, thresholds=thresholds) as injected:
        settings = sandbox.settings()
        for section, values in injected.settings.items():
            settings[section] = settings.get(section, {}) | dict(values)
        settings |= {"store": {"url": database}, "thresholds": {runbook.name: thresholds}}
        configured = from_plain(settings)
        request = RunRequest(run_id=new_run_id(), runbook=runbook.name, parameters=thresholds)
        result = execute(request, configured, archive=open_archive(configured), pool=pool)
        assert result["outcome"] == "diagnosed"

        async def steps(desk: Desk) -> None:
            order = _chosen(await desk.orders_of(result["run_id"]), case.kind)
            made = await desk.acting.plan(order, ME)
            await desk.acting.approve(order.id, made.digest, ME)
            effects = await desk.acting.apply(order, ME)
            assert all(effect.done for effect in effects), effects
            verified = await desk.acting.verify(order, ME)
            assert (verified["verdict"], verified["holds"]) == (case.verdict, True), verified
            if made.reversible:
                undone = await desk.acting.undo(order, ME)
                assert all(effect.done for effect in undone), undone
            count, problems = await desk.log.check()
            assert (count >= 5, problems) == (True, [])

        at_desk(settings, pool, steps)


def _chosen(orders: list[Order], kind: str) -> Order:
    found = [order for order in orders if order.kind == kind]
    assert found, f"{kind} is not among {[order.kind for order in orders]}"
    return found[0]
