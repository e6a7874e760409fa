"""What a run may do by itself, where a policy of the settings names it; people are told of all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from runbook.actions.plan import Refused, orders
from runbook.dispatch.announce import say
from runbook.dispatch.desk import Desk
from runbook.errors import RunbookError

if TYPE_CHECKING:
    from runbook.execution.kernels import KernelPool
    from runbook.settings import Settings
    from runbook.store.store import Store

log = structlog.get_logger(__name__)


async def act_by_policy(
    result: Mapping[str, Any], settings: Settings, store: Store, *, worker: str, pool: KernelPool | None = None
) -> None:
    """Apply and verify those of a run's proposals that a policy permits, one after the other.

    What is refused, or fails, is left to a person, who is told; the next one is not tried then.
    """
    if result.get("state") != "succeeded" or not settings.actions.policy:
        return
    desk = Desk(settings, store, pool)
    for order in orders(result):
        try:
            told = await desk.acting.by_policy(order, worker)
        except RunbookError as error:
            permitted = "refused" if isinstance(error, Refused) else "failed"
            log.warning("action by policy", action=order.id, state=permitted, reason=str(error))
            await say(f"{order.title}: permitted by a policy, and {permitted}: {error}", settings, order.service)
            return
        if told is not None:
            await say(f"{order.title}: done by a policy. {told['verdict']}: {told['said']}", settings, order.service)


async def verify_unfinished(settings: Settings, store: Store, pool: KernelPool | None = None) -> None:
    """At the start: verify what somebody began, who died before he had seen what became of it."""
    try:
        found = await Desk(settings, store, pool).resume("resume")
    except RunbookError as error:
        log.error("unfinished actions could not be looked for", reason=str(error))
    else:
        if found:
            log.info("unfinished actions verified", actions=found)
