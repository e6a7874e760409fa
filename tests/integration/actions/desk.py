"""A desk to act from: settings, the log in a store of its own, and a symptom that the test counts itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runbook import settings as settings_module
from runbook.actions.acting import Acting
from runbook.actions.plan import Effect, Measure, Order
from runbook.store import open_store
from runbook.store.action_log import ActionLog, Entry

ME = "person:ada"


def order(kind: str, targets: Sequence[dict[str, Any]], **facts: Any) -> Order:
    """What a run proposed."""
    given: dict[str, Any] = {
        "id": "20261129T120000000-k3f9qa7m:P01.act", "run_id": "20261129T120000000-k3f9qa7m",
        "runbook": "db_connection_exhaustion", "parameters": {}, "cause": "P01", "tier": "confirmed", "kind": kind,
        "title": "do it", "targets": targets, "by_hand": "", "undo": "irreversible", "needs": None,
        "symptom": {"label": "slots", "value": 20.0, "breached": True},
    }  # fmt: skip
    return Order(**given | facts)


@dataclass
class Desk:
    """Where one test acts from."""

    plain: dict[str, Any]
    #: The symptom as it is measured again.
    symptom: Callable[[], float] = lambda: 0.0
    measured: int = 0
    threshold: float = 1.0
    label: str = "slots"
    acting: Acting = field(init=False)
    log: ActionLog = field(init=False)

    def do(self, steps: Callable[[Desk], Awaitable[Any]]) -> Any:
        """Take these steps with the store open."""
        settings = settings_module.from_plain(self.plain)

        async def opened() -> Any:
            async with open_store(settings) as store:
                self.log = ActionLog(store, settings)
                self.acting = Acting(settings, self.log, self._again)
                return await steps(self)

        return asyncio.run(opened())

    async def _again(self, asked: Order) -> Measure:
        self.measured += 1
        value = self.symptom()
        there = value >= self.threshold
        return Measure(run_id="20261129T120100000-k3f9qa7m", label=self.label, value=value, unit="", breached=there,
                       tiers={asked.cause: "confirmed"} if there else {})  # fmt: skip

    async def approved(self, asked: Order) -> None:
        """Plan it and approve the plan."""
        plan = await self.acting.plan(asked, ME)
        await self.acting.approve(asked.id, plan.digest, ME)

    async def applied(self, asked: Order) -> list[Effect]:
        """Plan, approve, apply."""
        await self.approved(asked)
        return await self.acting.apply(asked, ME)

    async def there_and_back(self, asked: Order) -> tuple[list[Effect], dict[str, Any], list[Effect]]:
        """Plan, approve, apply, verify, undo."""
        effects = await self.applied(asked)
        return effects, await self.acting.verify(asked, ME), await self.acting.undo(asked, ME)

    async def overtaken(self, asked: Order, change: Callable[[], Any]) -> Effect:
        """The one effect where ``change`` happens between approval and apply."""
        await self.approved(asked)
        await asyncio.to_thread(change)
        (effect,) = await self.acting.apply(asked, ME)
        return effect

    async def events(self, asked: Order) -> list[str]:
        """What the log says was done, in order."""
        entries: list[Entry] = await self.log.of(asked.id)
        return [entry.event for entry in entries]
