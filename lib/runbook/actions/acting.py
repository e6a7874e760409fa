"""The one way to act: plan, approve, apply, verify, undo, each step an entry of the log before and after it is taken.

What an action may do next follows from its newest entry, and an entry is only appended to the one that was seen: of two
who apply the same action one does. *applying* is written before anything is changed, so that a process which dies
leaves behind that it began; whoever finds that (:meth:`Acting.resume`) verifies, and never applies again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from runbook.actions.kinds import NEVER_AUTOMATIC, Kind, kind_named
from runbook.actions.orders import Orders
from runbook.actions.plan import (
    MAX_TARGETS,
    Effect,
    Measure,
    Order,
    Plan,
    Refused,
    compared,
    plan_of,
    sealed,
)
from runbook.errors import RunbookError
from runbook.result import TIERS

if TYPE_CHECKING:
    from runbook.settings import Settings
    from runbook.store.action_log import ActionLog, Entry, Event

log = structlog.get_logger(__name__)

HEADLESS, POLICY = "headless:", "policy:"
"""How actors begin that are no person."""
Remeasure = Callable[[Order], Awaitable[Measure | None]]
"""Runs the runbook of an order again, with the same parameters; ``None`` when that could not be done."""

STATES: Mapping[Event, str] = {
    "ordered": "proposed", "planned": "proposed", "approved": "approved", "applying": "applied", "applied": "applied",
    "verified": "verified", "undoing": "applied", "undone": "undone", "refused": "refused", "failed": "failed",
}  # fmt: skip
"""State in the result document, by the newest entry. What died while it was undone counts as applied: nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far an action has come."""

    state: str
    plan: Plan | None
    entries: tuple[Entry, ...]

    @property
    def newest(self) -> Entry | None:
        return self.entries[-1] if self.entries else None

    def last(self, event: Event) -> Entry | None:
        """The newest entry of that kind."""
        return next((entry for entry in reversed(self.entries) if entry.event == event), None)


class Acting:
    """Acts on the systems of these settings, and keeps the log.

    Parameters
    ----------
    settings
        All of them, those of services and the credentials that act among them.
    remeasure
        How the symptom is measured again.
    """

    def __init__(self, settings: Settings, action_log: ActionLog, remeasure: Remeasure) -> None:
        self._settings = settings
        self._log = action_log
        self._remeasure = remeasure
        self.orders = Orders(settings, action_log)

    async def standing(self, action: str) -> Standing:
        """How far an action has come, by its entries."""
        entries = tuple(await self._log.of(action))
        planned = next((entry for entry in reversed(entries) if entry.event == "planned"), None)
        plan = plan_of(planned.detail["plan"]) if planned is not None else None
        state = STATES[entries[-1].event] if entries else "proposed"
        now = datetime.now(UTC)
        if plan is not None and state in ("proposed", "approved") and now > plan.expires_at:
            state = "expired"
        return Standing(state=state, plan=plan, entries=entries)

    # -- the steps ----------------------------------------------------------------------------------------------------

    async def plan(self, order: Order, actor: str) -> Plan:
        """Look at the targets as they are now, and say exactly what would be done.

        Raises
        ------
        Refused
            It may not be done, or there is nothing left to do.
        """
        standing = await self.standing(order.id)
        if standing.state in ("applied", "verified", "undone"):
            raise Refused(f"this action was {standing.state} already", remedy="Run the runbook again for a new one")
        kind = self._kind(order)
        draft = await asyncio.to_thread(kind.draft, order)
        if len(draft.targets) > MAX_TARGETS:
            raise Refused(f"{len(draft.targets)} targets are too many, {MAX_TARGETS} at most", remedy="Choose some")
        now = datetime.now(UTC)
        plan = sealed(
            Plan(
                action=order.id, kind=order.kind, title=order.title, runbook=order.runbook, cause=order.cause,
                tier=order.tier, draft=draft, planner=actor, planned_at=now,
                expires_at=now + timedelta(minutes=self._settings.actions.approval_minutes),
            )
        )  # fmt: skip
        await self._append(standing, order.id, "planned", actor, {"plan": plan.as_dict()})
        return plan

    async def approve(self, action: str, digest: str, actor: str) -> None:
        """Approve the plan with this digest, and no other one.

        Raises
        ------
        Refused
            The plan is another one, has expired, or was made by a run without a person, whose maker asks to approve it.
        """
        standing = await self.standing(action)
        plan = standing.plan
        if plan is None or standing.state not in ("proposed", "approved", "expired"):
            raise Refused(f"there is no plan to approve: the action is {standing.state}", remedy="Plan it first")
        if plan.digest != digest:
            raise Refused("the approval is for another plan than the newest one", remedy="Look at the newest plan")
        if standing.state == "expired":
            raise Refused(f"the plan expired at {_clock(plan.expires_at)}", remedy="Plan it again")
        if actor.startswith(HEADLESS):
            raise Refused("whoever proposes without a person does not approve", remedy="A person does, or a policy")
        await self._append(standing, action, "approved", actor, {"digest": digest})

    async def apply(self, order: Order, actor: str) -> list[Effect]:
        """Do what was approved, once.

        Raises
        ------
        Refused
            It was not approved, or too long ago; something else was done to a target just now; nothing may be done.
        """
        async with self._log.held(order.id):
            return await self._apply(order, actor)

    async def _apply(self, order: Order, actor: str) -> list[Effect]:
        standing = await self.standing(order.id)
        plan, approved = standing.plan, standing.last("approved")
        if plan is None or standing.state != "approved" or approved is None:
            raise Refused(f"it is not approved: the action is {standing.state}", remedy="Approve its plan first")
        if approved.detail.get("digest") != plan.digest:
            raise Refused("another plan was approved than the newest one", remedy="Approve the newest plan")
        if sealed(replace(plan, digest="")).digest != plan.digest:
            raise Refused("the plan was changed after it was made", remedy="Verify the log: runbook actions audit")
        kind = self._kind(order)
        await self._cooled_down(plan)
        names = [target.name for target in plan.draft.targets]
        began = await self._append(standing, order.id, "applying", actor, {"kind": plan.kind, "targets": names})
        standing = replace(standing, entries=(*standing.entries, began))
        try:
            effects = await asyncio.to_thread(kind.apply, plan)
        except RunbookError as error:
            await self._append(standing, order.id, "failed", actor, {"reason": str(error)})
            raise
        event: Event = "applied" if any(effect.done for effect in effects) else "refused"
        await self._append(standing, order.id, event, actor, {"effects": [asdict(effect) for effect in effects]})
        return effects

    async def verify(self, order: Order, actor: str) -> dict[str, Any]:
        """Whether what was changed is so, and what became of the symptom; ``{verdict, said, holds, effect, run_id}``.

        Raises
        ------
        Refused
            Nothing was applied.
        """
        async with self._log.held(order.id):
            return await self._verify(order, actor)

    async def _verify(self, order: Order, actor: str) -> dict[str, Any]:
        standing = await self.standing(order.id)
        plan = standing.plan
        if plan is None or standing.state not in ("applied", "verified"):
            raise Refused(f"there is nothing to verify: the action is {standing.state}")
        kind = self._kind(order, acting=False)
        applied = standing.last("applied")
        effects = [Effect(**one) for one in applied.detail["effects"]] if applied else [
            # It died between the two entries: each target may have been changed.
            Effect(target=target.name, done=True, said="unknown") for target in plan.draft.targets
        ]  # fmt: skip
        try:
            holds, effect = await asyncio.to_thread(kind.holds, plan, effects)
        except Refused as error:
            holds, effect = None, str(error)
        measure = await self._remeasure(order)
        verdict, said = compared(order, measure) if measure else ("unknown", "the symptom could not be measured again")
        told = {"verdict": verdict, "said": said, "holds": holds, "effect": effect,
                "run_id": measure.run_id if measure else None}  # fmt: skip
        await self._append(standing, order.id, "verified", actor, told)
        return told

    async def undo(self, order: Order, actor: str) -> list[Effect]:
        """Put back what was changed, where it is still as we left it.

        Raises
        ------
        Refused
            Nothing was applied, or it cannot be undone.
        """
        async with self._log.held(order.id):
            return await self._undo(order, actor)

    async def _undo(self, order: Order, actor: str) -> list[Effect]:
        standing = await self.standing(order.id)
        plan = standing.plan
        if plan is None or standing.state not in ("applied", "verified"):
            raise Refused(f"there is nothing to undo: the action is {standing.state}")
        if not plan.reversible:
            raise Refused("this cannot be undone", remedy=plan.draft.undo)
        kind = self._kind(order)
        applied = standing.last("applied")
        effects = [Effect(**one) for one in applied.detail["effects"]] if applied else []
        began = await self._append(standing, order.id, "undoing", actor, {})
        standing = replace(standing, entries=(*standing.entries, began))
        try:
            undone = await asyncio.to_thread(kind.undo, plan, effects)
        except RunbookError as error:
            await self._append(standing, order.id, "failed", actor, {"reason": str(error)})
            raise
        told = [asdict(one) for one in undone]
        if any(one.done for one in undone):
            await self._append(standing, order.id, "undone", actor, {"effects": told})
        else:  # nothing was put back: what was applied is still so, and may be undone later
            applied_still = {"effects": [asdict(one) for one in effects], "undo": told}
            await self._append(standing, order.id, "applied", actor, applied_still)
        return undone

    async def by_policy(self, order: Order, worker: str) -> dict[str, Any] | None:
        """Plan, approve, apply and verify what a policy of the settings permits; ``None`` = it permits nothing.

        Raises
        ------
        Refused
            It was permitted, and could not be done.
        """
        number = self._permitting(order)
        if number is None:
            return None
        permit = self._settings.actions.policy[number]
        plan = await self.plan(order, f"{HEADLESS}{worker}")
        if len(plan.draft.targets) > permit.max_targets:
            raise Refused(f"the policy permits {permit.max_targets} targets, and there are {len(plan.draft.targets)}",
                          remedy="A person decides")  # fmt: skip
        await self.approve(order.id, plan.digest, f"{POLICY}{number + 1}")
        await self.apply(order, f"{HEADLESS}{worker}")
        return await self.verify(order, f"{HEADLESS}{worker}")

    async def unfinished(self) -> list[str]:
        """Actions that were begun and never verified: whoever did that died in between."""
        newest = await self._log.latest(limit=1000)
        return [entry.action for entry in newest if entry.event in ("applying", "applied", "undoing")]

    async def resume(self, order_of: Callable[[str], Awaitable[Order]], actor: str) -> list[str]:
        """Verify what was begun by somebody who died before he had seen what became of it; never do it again.

        Which actions those were; one that cannot be verified is logged.
        """
        verified = []
        for action in await self.unfinished():
            try:
                await self.verify(await order_of(action), actor)
            except RunbookError as error:  # somebody is at it, or nothing is left of its run
                log.warning("an action stays unverified", action=action, reason=str(error))
            else:
                verified.append(action)
        return verified

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _kind(self, order: Order, *, acting: bool = True) -> Kind:
        if acting and not self._settings.actions.enabled:
            raise Refused("actions are switched off", remedy="Set actions.enabled")
        found = kind_named(order.kind)
        if found is None:
            raise Refused(f"{order.kind} is for a person's own hands", remedy="See what to copy")
        return found(self._settings.for_service(order.service))

    def _permitting(self, order: Order) -> int | None:
        """Which policy permits this order, by its place; ``None`` = none does."""
        found = kind_named(order.kind)
        if order.ordered_by or found is None or not found.may_be_automatic or order.kind in NEVER_AUTOMATIC:
            return None
        for number, permit in enumerate(self._settings.actions.policy):
            sure = order.tier in TIERS and TIERS.index(order.tier) <= TIERS.index(permit.minimum_tier)
            named = (permit.kind, permit.runbook, permit.cause) == (order.kind, order.runbook, order.cause)
            if named and sure:
                return number
        return None

    async def _cooled_down(self, plan: Plan) -> None:
        since = timedelta(minutes=self._settings.actions.cooldown_minutes)
        names = {target.name for target in plan.draft.targets}
        for entry in await self._log.applied_since(since):
            again = names & set(entry.detail.get("targets") or [])
            if again and entry.detail.get("kind") == plan.kind:
                raise Refused(
                    f"{', '.join(sorted(again))} was acted on at {_clock(entry.at)}",
                    remedy=f"Not again within {since.total_seconds() / 60:g} minutes: see what that one did",
                )

    async def _append(
        self, standing: Standing, action: str, event: Event, actor: str, detail: Mapping[str, Any]
    ) -> Entry:
        entry = await self._log.append(action, event, actor, detail, after=standing.newest)
        log.info("action", action=action, actor=actor, step=event)
        return entry


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"
