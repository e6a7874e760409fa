"""The symptom of an action, measured again: the same runbook with the same parameters, headless, archived as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from runbook.actions.plan import Measure, Order
from runbook.errors import RunbookError
from runbook.execution.execute import RunRequest, execute
from runbook.store.ids import new_run_id

if TYPE_CHECKING:
    from runbook.actions.acting import Remeasure
    from runbook.execution.kernels import KernelPool
    from runbook.reporting.archive import Archive
    from runbook.settings import Settings

ANCHOR = "alert_at"
log = structlog.get_logger(__name__)


def by_running(
    settings: Settings,
    archive: Archive,
    pool: KernelPool | None = None,
    record: Callable[[Mapping[str, Any]], Awaitable[object]] | None = None,
) -> Remeasure:
    """What :class:`runbook.actions.acting.Acting` measures with.

    Parameters
    ----------
    pool
        Where the run takes its kernel from; without one it starts its own.
    record
        Is told the result, for a store that keeps runs.
    """

    async def remeasure(order: Order) -> Measure | None:
        # At now: what pins a run to the moment of its alert is left out.
        parameters = {name: value for name, value in order.parameters.items() if name != ANCHOR}
        request = RunRequest(run_id=new_run_id(), runbook=order.runbook, parameters=parameters)
        try:
            result = await asyncio.to_thread(execute, request, settings, archive=archive, pool=pool)
        except RunbookError as error:
            log.error("not_measured_again", action=order.id, reason=str(error))
            return None
        if record is not None:
            await record(result)
        return measured(result)

    return remeasure


def measured(result: Mapping[str, Any]) -> Measure:
    """The symptom of a result document, and the tiers of its causes."""
    symptom = result.get("symptom") or {}
    return Measure(
        run_id=result["run_id"],
        label=str(symptom.get("label", "")),
        value=symptom.get("value"),
        unit=str(symptom.get("unit") or ""),
        breached=symptom.get("breached"),
        tiers={entry["cause"]: entry["tier"] for entry in result.get("verdict") or []},
    )
