"""What the broker does for a notebook: take in what a run proposes, and take one step of an action at a time.

A kernel says what it found and which step it wants; who acts is decided here (the person who started the broker), and
whether it may be done by :class:`runbook.actions.acting.Acting`. To apply, the person types the name of the target.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import BaseModel, ConfigDict, Field

from runbook import catalog
from runbook.actions.kinds import kind_named
from runbook.actions.plan import Order, Refused, orders
from runbook.broker.again import Wanted, run_again
from runbook.broker.again import told as told_of_run
from runbook.broker.orders import Wish, as_proposed
from runbook.broker.publish import RunId, Worked, first_of, publish
from runbook.broker.working_copy import seen_from, working_copy
from runbook.errors import NotFound, StoreError
from runbook.store.ids import RUN_ID

if TYPE_CHECKING:
    from runbook.actions.acting import Acting, Standing
    from runbook.execution.kernels import KernelPool
    from runbook.reporting.archive import Archive
    from runbook.settings import Settings

log = structlog.get_logger(__name__)

Record = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes a result document into the store, so that its report is found by a search."""


class Concluded(BaseModel):
    """What a kernel hands in: which run it is, and what it found."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run_id: RunId
    runbook: str = Field(max_length=100)
    parameters: dict[str, Any] = {}
    findings: dict[str, Any]


class Desk:
    """The actions of one broker.

    Parameters
    ----------
    acting
        ``None`` where there is no store to keep the log in; then nothing is done, for the reason ``trouble``.
    actor
        Who plans, approves and applies: ``person:ada``.
    directory
        Where what was handed in is kept, so that an action that was cut short can be verified by the next broker.
    root
        The directory whose notebooks are open.
    record
        Is told of every run and revision that comes about here; ``None`` without a store.
    """

    def __init__(
        self,
        settings: Settings,
        acting: Acting | None,
        archive: Archive,
        *,
        actor: str,
        directory: Path,
        root: Path,
        trouble: str = "",
        record: Record | None = None,
        pool: KernelPool | None = None,
    ) -> None:
        self.settings = settings
        self._archive, self._root = archive, root
        self.actor = actor
        self._acting = acting
        self._trouble = trouble
        self._record, self._pool = record, pool
        self._directory = directory
        self._orders: dict[str, Order] = {}

    def diagnosing(self, service: str) -> dict[str, Any]:
        """The settings that a kernel may hold."""
        return self.settings.for_service(service).diagnosing()

    async def offer(self, concluded: Concluded) -> list[dict[str, Any]]:
        """Take in what a run proposes; how far each of its actions has come.

        Raises
        ------
        RunbookError
            There is no such runbook, or it has no such parameters.
        Refused
            An action is for a cause that the runbook does not look for.
        """
        runbook = catalog.load(concluded.runbook)
        parameters = catalog.check_parameters(runbook, concluded.parameters, self.settings)
        findings = concluded.findings
        document = {"run_id": concluded.run_id, "runbook": runbook.name, "parameters": parameters,
                    **{key: findings.get(key) for key in ("symptom", "verdict", "actions")}}  # fmt: skip
        proposed = _orders(document)
        # A message to the incident channel is proposed for no cause, where none was found.
        if strangers := sorted({order.cause for order in proposed} - {"", *runbook.causes}):
            raise Refused(f"{runbook.name} does not look for {', '.join(strangers)}")
        self._keep(concluded.run_id, document)
        self._orders |= {order.id: order for order in proposed}
        return [await self.told(order.id) for order in proposed]

    async def order(self, wish: Wish) -> dict[str, Any]:
        """Take an order of the person; how far it has come, and the ``action`` itself as a proposal tells it.

        Raises
        ------
        Refused
            That is not ordered by anybody, or there is no log to keep it in.
        InvalidParameter
            The target does not fit.
        """
        hands, handed_in = self._hands(), self._handed_in(wish.run_id)
        if handed_in is None:
            raise NotFound("that run was not handed in", remedy="Run the cell with run = start(…) again")
        first = await asyncio.to_thread(first_of, wish.notebook, self._archive) if wish.notebook else {}
        result = {**handed_in, "alert": first.get("alert")}
        made = await hands.orders.make(wish.kind, wish.targets, result=result, actor=self.actor, title=wish.title)
        self._orders[made.id] = made
        return {**await self.told(made.id), "action": as_proposed(made)}

    async def told(self, action: str) -> dict[str, Any]:
        """How far an action has come, as a card shows it."""
        order = await self._order(action)
        why_not = self._why_not(order)
        told: dict[str, Any] = {"id": action, "applicable": not why_not, "why_not": why_not, "state": "proposed",
                                "ordered_by": order.ordered_by}  # fmt: skip
        if self._acting is None:
            return told
        standing = await self._acting.standing(action)
        return told | _progress(standing)

    async def plan(self, action: str) -> dict[str, Any]:
        """Plan it anew."""
        await self._hands().plan(await self._order(action), self.actor)
        return await self.told(action)

    async def apply(self, action: str, *, digest: str, typed: str) -> dict[str, Any]:
        """Approve the plan with this digest, and apply it.

        Raises
        ------
        Refused
            Something else was typed than what confirms this plan, or it may not be done.
        """
        acting, order = self._hands(), await self._order(action)
        plan = (await acting.standing(action)).plan
        if plan is None:
            raise Refused("there is no plan yet", remedy="Plan it first")
        if " ".join(typed.split()) != plan.confirmation:
            raise Refused("that is not the name of the target", remedy=f"Type {plan.confirmation}")
        await acting.approve(action, digest, self.actor)
        await acting.apply(order, self.actor)
        return await self.told(action)

    async def verify(self, action: str) -> dict[str, Any]:
        """Measure the symptom again."""
        await self._hands().verify(await self._order(action), self.actor)
        return await self.told(action)

    async def undo(self, action: str) -> dict[str, Any]:
        """Put back what was changed."""
        await self._hands().undo(await self._order(action), self.actor)
        return await self.told(action)

    async def publish(self, worked: Worked) -> dict[str, Any]:
        """Archive and announce a notebook that this JupyterLab shows.

        Raises
        ------
        Refused
            It is another file.
        """
        if not worked.notebook.resolve().is_relative_to(self._root.resolve()):
            raise Refused(f"{worked.notebook.name} is not one of the notebooks that are open here")
        became = {}
        for action in [one for one in self._orders if one.startswith(f"{worked.run_id}:")]:
            became[action.partition(":")[2]] = _became(await self.told(action))
        return await publish(
            worked, self.settings, self._archive, actor=self.actor, became=became, record=self._recorded
        )

    async def open(self, run_id: str) -> dict[str, Any]:
        """The working copy of an archived run, made when there is none yet; where JupyterLab finds it.

        Raises
        ------
        NotFound
            The archive has no such run, or JupyterLab shows another directory.
        """
        copy = await asyncio.to_thread(working_copy, run_id, self._archive)
        seen = seen_from(self._root, copy)
        if not seen:
            raise NotFound(f"JupyterLab shows {self._root}, and the copy lies elsewhere", remedy=f"Open {copy}")
        return {"notebook": seen}

    async def again(self, wanted: Wanted) -> dict[str, Any]:
        """Run a runbook with these values, headless; what came of it, and where its notebook is."""
        result = await run_again(wanted, self.settings, self._archive, actor=self.actor, pool=self._pool)
        await self._recorded(result)
        return dict(await asyncio.to_thread(told_of_run, result, self._archive, self._root))

    async def finish(self) -> list[str]:
        """Verify what an earlier broker began and never verified, where it is known here; never applies anything."""
        if self._acting is None:
            return []
        return await self._acting.resume(self._order, f"resume:{self.actor}")

    # -- helpers ------------------------------------------------------------------------------------------------------

    async def _recorded(self, result: Mapping[str, Any]) -> None:
        """Where the store fails, whoever looks for reports next takes it up from the archive."""
        if self._record is None:
            return
        try:
            await self._record(result)
        except StoreError as error:
            log.warning("not_recorded", run_id=result["run_id"], reason=str(error))

    def _hands(self) -> Acting:
        if self._acting is None:
            raise Refused(f"nothing is done without a log of it: {self._trouble}", remedy="See runbook doctor")
        return self._acting

    def _why_not(self, order: Order) -> str:
        if self._acting is None:
            return f"there is no store for the log of it: {self._trouble}"
        if not self.settings.actions.enabled:
            return "actions are switched off (actions.enabled)"
        return "" if kind_named(order.kind) is not None else "it is for a person's own hands"

    async def _order(self, action: str) -> Order:
        if action not in self._orders:
            run_id = action.partition(":")[0]
            ordered = [] if self._acting is None else await self._acting.orders.of(run_id)
            self._orders |= {order.id: order for order in [*_orders(self._handed_in(run_id) or {}), *ordered]}
        if action not in self._orders:
            raise NotFound(f"no action {action[:80]!r} was handed in", remedy="Run the notebook to its verdict")
        return self._orders[action]

    def _handed_in(self, run_id: str) -> dict[str, Any] | None:
        path = self._directory / f"{run_id}.json"
        if not RUN_ID.fullmatch(run_id) or not path.is_file():
            return None
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    def _keep(self, run_id: str, document: Mapping[str, Any]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._directory / f"{run_id}.partial"
        fresh.write_text(json.dumps(document, ensure_ascii=False, default=str), encoding="utf-8")
        fresh.replace(self._directory / f"{run_id}.json")


def _became(told: Mapping[str, Any]) -> dict[str, str]:
    """What became of an action, as a report says it."""
    verified = told.get("verified")
    return {"state": told["state"]} | ({"became": f"{verified['verdict']}: {verified['said']}"} if verified else {})


def _orders(document: Mapping[str, Any]) -> list[Order]:
    try:
        return orders(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"what was handed in are no findings ({type(error).__name__})") from None


def _progress(standing: Standing) -> dict[str, Any]:
    """The newest of each step, in plain values."""
    plan = standing.plan
    told: dict[str, Any] = {
        "state": standing.state,
        "plan": plan.as_dict() if plan is not None else None,
        "confirm": plan.confirmation if plan is not None else "",
        "reversible": plan is not None and plan.reversible,
        "log": [{"at": entry.at.isoformat(), "event": entry.event, "actor": entry.actor} for entry in standing.entries],
    }
    for event in ("applied", "refused", "verified", "undone", "failed"):
        entry = standing.last(event)
        told[event] = dict(entry.detail) if entry is not None else None
    return told
