"""What a policy does by itself, and what a process leaves behind that is killed in the middle.

Each kind of action on a real fault, from its plan to its undoing, is a drill: ``runbook drill --actions``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog
from runbook.actions.plan import Order, Refused
from runbook.dispatch.desk import Desk
from runbook.dispatch.policy import act_by_policy
from runbook.execution.execute import RunRequest, execute
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import open_archive
from runbook.sandbox import Sandbox, as_toml, laid_over
from runbook.sandbox.faults import inject, plan
from runbook.sandbox.sandbox import DATABASE
from runbook.settings import from_plain
from runbook.store import open_store
from runbook.store.ids import new_run_id
from tests.integration.store.servers import database, postgres
from tests.support import wait_until

__all__ = ["database", "postgres"]

pytestmark = pytest.mark.timeout(300)
ME = "person:ada"
RUNBOOK, KIND = "db_connection_exhaustion", "postgres.terminate_session"


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


@dataclass
class Incident:
    """A fault that is there, the settings that see it, and what a run of its runbook found."""

    settings: dict[str, Any]
    result: dict[str, Any]

    def order(self, orders: list[Order], kind: str) -> Order:
        """The first proposal of that kind."""
        found = [order for order in orders if order.kind == kind]
        assert found, f"{kind} is not among {[order.kind for order in orders]}"
        return found[0]


@contextmanager
def incident(sandbox: Sandbox, pool: KernelPool, database: str, **sections: dict[str, Any]) -> Iterator[Incident]:
    """Inject the leak and run its runbook."""
    runbook = catalog.load(RUNBOOK)
    one = plan("P01", causes=runbook.causes, sessions=9)
    thresholds = {name: parameter.default for name, parameter in runbook.parameters.items()} | dict(one.scaled)
    with inject(one, sandbox, thresholds=thresholds) as injected:
        settings = laid_over(sandbox.settings(), injected.settings)
        settings |= {"store": {"url": database}, "thresholds": {runbook.name: thresholds}} | sections
        configured = from_plain(settings)
        request = RunRequest(run_id=new_run_id(), runbook=runbook.name, parameters=thresholds)
        result = execute(request, configured, archive=open_archive(configured), pool=pool)
        assert result["outcome"] == "diagnosed"
        yield Incident(settings, result)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


PERMIT = {"kind": KIND, "runbook": RUNBOOK, "cause": "P01", "max_targets": 10}


@pytest.mark.parametrize("policy", [[], [PERMIT]], ids=["none", "permitted"])
def test_a_run_applies_by_itself_what_a_policy_names(
    policy: list[dict[str, Any]], sandbox: Sandbox, pool: KernelPool, database: str
) -> None:
    with incident(sandbox, pool, database, actions={"policy": policy}) as now:

        async def steps(desk: Desk) -> list[tuple[str, str]]:
            async with open_store(from_plain(now.settings)) as store:
                await act_by_policy(now.result, from_plain(now.settings), store, worker="w1", pool=pool)
            order = now.order(await desk.orders_of(now.result["run_id"]), KIND)
            return [(entry.event, entry.actor) for entry in await desk.log.of(order.id)]

        taken = at_desk(now.settings, pool, steps)
    acted = [("planned", "headless:w1"), ("approved", "policy:1"), ("applying", "headless:w1"),
             ("applied", "headless:w1"), ("verified", "headless:w1")]  # fmt: skip
    assert taken == (acted if policy else [])


def test_who_is_killed_before_he_has_seen_what_became_of_it_is_followed_by_who_verifies_and_does_not_act_again(
    sandbox: Sandbox, pool: KernelPool, database: str, tmp_path: Path
) -> None:
    with incident(sandbox, pool, database) as now:
        config = tmp_path / "runbook.toml"
        config.write_text(as_toml(now.settings), encoding="utf-8")

        async def approved(desk: Desk) -> Order:
            order = now.order(await desk.orders_of(now.result["run_id"]), KIND)
            made = await desk.acting.plan(order, ME)
            await desk.acting.approve(order.id, made.digest, ME)
            return order

        order: Order = at_desk(now.settings, pool, approved)

        def events() -> list[str]:
            found = at_desk(now.settings, pool, lambda desk: desk.log.of(order.id))
            return [entry.event for entry in found]

        applying = subprocess.Popen(
            [sys.executable, "-m", "runbook.cli", "actions", "apply", order.id],
            env=os.environ | {"RUNBOOK_CONFIG": str(config)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wait_until(lambda: events()[-1] == "applied", seconds=60)
        os.killpg(applying.pid, signal.SIGKILL)  # it runs the notebook now, to see what became of it
        applying.wait()
        assert events() == ["planned", "approved", "applying", "applied"]

        verified = at_desk(now.settings, pool, lambda desk: desk.resume("resume"))
        assert (verified, events()) == ([order.id], ["planned", "approved", "applying", "applied", "verified"])
        with pytest.raises(Refused, match="not approved"):
            at_desk(now.settings, pool, lambda desk: desk.acting.apply(order, ME))
