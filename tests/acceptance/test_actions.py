"""Each kind of action on a real fault: proposed by a run, planned, approved, applied, verified by a fresh run, undone.

And what a policy does by itself, and what a process leaves behind that is killed in the middle.
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
from runbook.sandbox import Sandbox, as_toml
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
    #: What the acting role is granted for it beyond what it has.
    granted: str = ""

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
    Case("postgres.raise_database_limit", CONNECTIONS, "P07", "fixed", granted="app_owner"),
    # Some clients less wait; what the others wait for takes an hour.
    Case("pgbouncer.pool_size", CONNECTIONS, "P10", "unchanged"),
)

ON_THE_APPLICATION = (
    # The cause is gone, and what has piled up is worked off by and by.
    Case("queue.resume", "queue_processing_delays", "Q02", "unchanged"),
    # One client of fifty: it comes back, or it does not.
    Case("redis.kill_client", "redis_connection_failure", "K06", "unchanged"),
    Case("redis.script_kill", "redis_connection_failure", "K11", "fixed"),
    # Ten rows at once, the oldest first.
    Case("content.resync", "video_upload_failures", "V10", "unchanged"),
)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("patient") / "sandbox", systems=DATABASE, owned=True) as up:
        yield up


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("application") / "sandbox", owned=True) as up:
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
def incident(
    case: Case, sandbox: Sandbox, pool: KernelPool, database: str, **sections: dict[str, Any]
) -> Iterator[Incident]:
    """Inject the fault and run its runbook."""
    runbook = catalog.load(case.runbook)
    one = plan(case.fault, causes=runbook.causes, **case.sizes or {})
    thresholds = {name: parameter.default for name, parameter in runbook.parameters.items()} | dict(one.scaled)
    with inject(one, sandbox, thresholds=thresholds) as injected:
        settings = sandbox.settings()
        for section, values in injected.settings.items():
            settings[section] = settings.get(section, {}) | dict(values)
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


@pytest.mark.parametrize("case", ON_THE_DATABASE, ids=lambda case: case.id)
def test_an_action_of_each_kind_is_applied_verified_and_undone(
    case: Case, sandbox: Sandbox, pool: KernelPool, database: str
) -> None:
    _whole_way(case, sandbox, pool, database)


@pytest.mark.parametrize("case", ON_THE_APPLICATION, ids=lambda case: case.id)
def test_an_action_on_what_the_application_uses_as_well(
    case: Case, application: Sandbox, pool: KernelPool, database: str
) -> None:
    _whole_way(case, application, pool, database)


def _whole_way(case: Case, sandbox: Sandbox, pool: KernelPool, database: str) -> None:
    with _more(case.granted, sandbox), incident(case, sandbox, pool, database) as now:

        async def steps(desk: Desk) -> None:
            order = now.order(await desk.orders_of(now.result["run_id"]), case.kind)
            made = await desk.acting.plan(order, ME)
            await desk.acting.approve(order.id, made.digest, ME)
            effects = await desk.acting.apply(order, ME)
            assert all(effect.done for effect in effects), effects
            for _ in range(5):
                verified = await desk.acting.verify(order, ME)
                if verified["verdict"] == case.verdict:
                    break
                await asyncio.sleep(5)  # what looks back over the last seconds needs them
            assert (verified["verdict"], verified["holds"]) == (case.verdict, True), verified
            if made.reversible:
                undone = await desk.acting.undo(order, ME)
                assert all(effect.done for effect in undone), undone
            count, problems = await desk.log.check()
            assert (count >= 5, problems) == (True, [])

        at_desk(now.settings, pool, steps)


@contextmanager
def _more(role: str, sandbox: Sandbox) -> Iterator[None]:
    """The acting role is a member of this one as well: who owns a database may raise its limit."""
    if not role:
        yield
        return
    with sandbox.superuser() as connection:
        connection.execute(f"GRANT {role} TO oncall".encode())
    yield
    with sandbox.superuser() as connection:
        connection.execute(f"REVOKE {role} FROM oncall".encode())


LEAK = Case("postgres.terminate_session", CONNECTIONS, "P01", "fixed", {"sessions": 9})
PERMIT = {"kind": LEAK.kind, "runbook": CONNECTIONS, "cause": "P01", "max_targets": 10}


@pytest.mark.parametrize("policy", [[], [PERMIT]], ids=["none", "permitted"])
def test_a_run_applies_by_itself_what_a_policy_names(
    policy: list[dict[str, Any]], sandbox: Sandbox, pool: KernelPool, database: str
) -> None:
    with incident(LEAK, sandbox, pool, database, actions={"policy": policy}) as now:

        async def steps(desk: Desk) -> list[tuple[str, str]]:
            async with open_store(from_plain(now.settings)) as store:
                await act_by_policy(now.result, from_plain(now.settings), store, worker="w1", pool=pool)
            order = now.order(await desk.orders_of(now.result["run_id"]), LEAK.kind)
            return [(entry.event, entry.actor) for entry in await desk.log.of(order.id)]

        taken = at_desk(now.settings, pool, steps)
    acted = [("planned", "headless:w1"), ("approved", "policy:1"), ("applying", "headless:w1"),
             ("applied", "headless:w1"), ("verified", "headless:w1")]  # fmt: skip
    assert taken == (acted if policy else [])


def test_who_is_killed_before_he_has_seen_what_became_of_it_is_followed_by_who_verifies_and_does_not_act_again(
    sandbox: Sandbox, pool: KernelPool, database: str, tmp_path: Path
) -> None:
    with incident(LEAK, sandbox, pool, database) as now:
        config = tmp_path / "runbook.toml"
        config.write_text(as_toml(now.settings), encoding="utf-8")

        async def approved(desk: Desk) -> Order:
            order = now.order(await desk.orders_of(now.result["run_id"]), LEAK.kind)
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
