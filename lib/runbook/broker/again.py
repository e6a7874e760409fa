"""A notebook's runbook once more with other values: a headless run of its own, archived as ever, asked for by a person.

The notebook that asked stays as it is. Of the new run a working copy is made, so that it opens like any other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from runbook.broker.working_copy import seen_from, working_copy
from runbook.execution.execute import RunRequest, execute
from runbook.reporting.page import page
from runbook.store.ids import new_run_id

if TYPE_CHECKING:
    from runbook.execution.kernels import KernelPool
    from runbook.reporting.archive import Archive
    from runbook.settings import Settings


class Wanted(BaseModel):
    """What is to be run: a runbook, and values for its parameters."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    runbook: str = Field(max_length=100)
    parameters: dict[str, Any] = {}


async def run_again(
    wanted: Wanted, settings: Settings, archive: Archive, *, actor: str, pool: KernelPool | None = None
) -> dict[str, Any]:
    """Run it; the result document.

    Raises
    ------
    RunbookError
        There is no such runbook, it has no such parameters, or the archive cannot be written.
    """
    request = RunRequest(run_id=new_run_id(), runbook=wanted.runbook, parameters=wanted.parameters, asked_by=actor)
    return await asyncio.to_thread(execute, request, settings, archive=archive, pool=pool)


def told(result: Mapping[str, Any], archive: Archive, root: Path) -> dict[str, str]:
    """What a form says of the run: ``{run_id, said, lead, error, notebook}``.

    Parameters
    ----------
    root
        The directory that JupyterLab shows; ``notebook`` is relative to it, and empty where that cannot reach it.
    """
    findings, error = page(result), result.get("error") or {}
    copy = working_copy(str(result["run_id"]), archive)
    return {
        "run_id": str(result["run_id"]),
        "said": findings.headline,
        "lead": findings.lead,
        "error": f"the run {result['state']}: {error.get('message', '')}" if result["state"] != "succeeded" else "",
        "notebook": seen_from(root, copy),
    }
