"""The executor that the worker uses in earnest: a claimed run through papermill into the archive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runbook.dispatch.in_force import InForce
from runbook.store.rows import Claim

if TYPE_CHECKING:
    from runbook.execution.kernels import KernelPool
    from runbook.reporting.archive import Archive


class NotebookExecutor:
    """Executes a run's notebook, on a warm kernel of ``pool`` where there is one."""

    def __init__(self, in_force: InForce, archive: Archive, pool: KernelPool | None = None) -> None:
        self._in_force = in_force
        self._archive = archive
        self._pool = pool

    def __call__(
        self, claim: Claim, *, progress: Callable[[Mapping[str, Any]], None], cancel: threading.Event
    ) -> dict[str, Any]:
        """See :class:`runbook.dispatch.worker.Executor`."""
        from runbook.execution.execute import NotArchived, RunRequest, execute

        request = RunRequest(
            run_id=claim.run_id,
            runbook=claim.runbook,
            parameters=claim.parameters,
            alert=claim.alert,
            incident_id=claim.incident_id,
            queued_at=claim.queued_at,
        )
        try:
            return execute(
                request,
                self._in_force.settings,
                archive=self._archive,
                pool=self._pool,
                progress=lambda step: progress(asdict(step)),
                cancel=cancel,
            )
        except NotArchived as error:
            # What was found is worth telling all the same.
            told = {"cell": None, "name": "NotArchived", "message": str(error)}
            return error.result | {"state": "failed", "error": error.result.get("error") or told, "report": None}
