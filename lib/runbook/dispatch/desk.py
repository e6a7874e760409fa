"""What it takes to act from one process: the store with the log, the proposals of archived runs, and a fresh look.

The symptom is measured again by a run of the same runbook with the same parameters, archived and recorded as any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from runbook.actions.acting import Acting, Standing
from runbook.actions.kinds import KINDS
from runbook.actions.plan import Order, orders
from runbook.dispatch.reports import take_up
from runbook.errors import NotFound
from runbook.execution.remeasure import by_running
from runbook.reporting.archive import RESULT, open_archive
from runbook.store import open_store
from runbook.store.action_log import ActionLog

if TYPE_CHECKING:
    from runbook.execution.kernels import KernelPool
    from runbook.settings import Settings
    from runbook.store.store import Store

log = structlog.get_logger(__name__)

MOST_RUNS = 50


class Desk:
    """Finds proposals and acts on them.

    Parameters
    ----------
    store
        Open; the log of actions is in it.
    pool
        Where a run that measures again takes its kernel from; without one it starts its own.
    """

    def __init__(self, settings: Settings, store: Store, pool: KernelPool | None = None) -> None:
        self._settings = settings
        self._store = store
        self._archive = open_archive(settings)
        self.log = ActionLog(store, settings)
        self.acting = Acting(settings, self.log, by_running(settings, self._archive, pool, store.runs.record))

    async def orders_of(self, run_id: str) -> list[Order]:
        """What a run proposed, in its order, and then what persons ordered about it.

        Raises
        ------
        NotFound
            There is no such run, or it has no result yet.
        """
        ordered = await self.acting.orders.of(run_id)
        try:
            return [*orders(await self.result(run_id)), *ordered]
        except NotFound:
            if not ordered:
                raise
            return ordered  # of a notebook in JupyterLab that was never published

    async def result(self, run_id: str) -> dict[str, Any]:
        """The result document of a run.

        Raises
        ------
        NotFound
            There is no such run, or it has no result yet.
        """
        row = await self._store.runs.get(run_id)
        if row is None:
            await take_up(self._settings, self._store)
            row = await self._store.runs.get(run_id)
        if row is None or row.started_at is None:
            raise NotFound(f"no run {run_id[:80]!r} with a result", remedy="See runbook reports")
        document: dict[str, Any] = json.loads(
            await asyncio.to_thread(self._archive.read, row.id, row.started_at, RESULT)
        )
        return document

    async def make(
        self, run_id: str, kind: str, targets: Sequence[Mapping[str, Any]], actor: str, *, title: str = ""
    ) -> Order:
        """Take an order of a person about a run; see :meth:`runbook.actions.orders.Orders.make`."""
        result = await self.result(run_id)
        return await self.acting.orders.make(kind, targets, result=result, actor=actor, title=title)

    async def order(self, action: str) -> Order:
        """The proposal, or the order of a person, by its id, ``<run id>:<action id>``.

        Raises
        ------
        NotFound
            The run did not propose that.
        """
        run_id, _, _ = action.partition(":")
        found = {order.id: order for order in await self.orders_of(run_id)}
        if action not in found:
            raise NotFound(f"run {run_id[:80]!r} proposed no {action.partition(':')[2][:80]!r}",
                           remedy=f"It proposed: {', '.join(found) or 'nothing'}")  # fmt: skip
        return found[action]

    async def lately(self) -> list[Order]:
        """What the newest runs proposed and persons ordered about them, the newest run first."""
        await take_up(self._settings, self._store)
        found: list[Order] = []
        for row in await self._store.runs.search("", limit=MOST_RUNS):
            if row.report and row.started_at is not None:
                with contextlib.suppress(NotFound):
                    found += await self.orders_of(row.id)
        return found

    async def resume(self, actor: str) -> list[str]:
        """See :meth:`Acting.resume`."""
        return await self.acting.resume(self.order, actor)


def told(order: Order, standing: Standing) -> dict[str, Any]:
    """An action as the command line and the API tell it."""
    return {
        "id": order.id, "kind": order.kind, "title": order.title, "cause": order.cause, "tier": order.tier,
        "ordered_by": order.ordered_by, "state": standing.state, "can_be_applied": order.kind in KINDS,
        "by_hand": order.by_hand, "undo": order.undo, "needs": order.needs, "targets": list(order.targets),
        "plan": standing.plan.as_dict() if standing.plan else None,
        "log": [{"at": e.at.isoformat(), "event": e.event, "actor": e.actor, "detail": e.detail}
                for e in standing.entries],
    }  # fmt: skip


@contextlib.asynccontextmanager
async def open_desk(settings: Settings, pool: KernelPool | None = None) -> AsyncGenerator[Desk]:
    """A desk with a store of its own connection."""
    async with open_store(settings) as store:
        yield Desk(settings, store, pool)
