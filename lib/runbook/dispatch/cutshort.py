"""Reports of runs that ended without leaving one: the notebook as it stands, and what is known about the end.

A run always leaves a report, the one whose worker was killed too.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog

from runbook import catalog
from runbook.dispatch.documents import cut_short
from runbook.dispatch.in_force import InForce
from runbook.dispatch.trouble import where
from runbook.errors import RunbookError
from runbook.reporting.archive import NOTEBOOK, REPORT, RESULT, open_archive
from runbook.store.rows import Claim

if TYPE_CHECKING:
    from nbformat import NotebookNode

log = structlog.get_logger(__name__)


class CutShort:
    """Ends runs in the archive of the settings."""

    def __init__(self, in_force: InForce) -> None:
        self._archive = open_archive(in_force.settings)
        self._in_force = in_force

    async def end(self, claim: Claim, state: str, *, name: str, message: str) -> dict[str, Any]:
        """The result document of a run that has none, archived with a report where that can be done."""
        result: dict[str, Any] = self._in_force.redactor.value(cut_short(claim, state, name=name, message=message))
        try:
            return await asyncio.to_thread(self._archived, claim, result)
        except Exception as error:  # noqa: BLE001 (the run has ended badly enough: it is told of without a report)
            log.error("no report of a run that was cut short", run_id=claim.run_id, trouble=where(error))
            return result

    async def left_behind(self, claim: Claim) -> dict[str, Any] | None:
        """The document that a worker archived before it was lost, if it came so far."""
        try:
            text = await asyncio.to_thread(self._archive.read, claim.run_id, claim.started_at, RESULT)
            found = json.loads(text)
        except (RunbookError, ValueError):
            return None
        began = datetime.fromisoformat(found["started_at"]) if found.get("started_at") else None
        # An earlier attempt may have left its own.
        return found if began is not None and began >= claim.started_at else None

    def _archived(self, claim: Claim, result: dict[str, Any]) -> dict[str, Any]:
        from runbook.execution import files

        names = {"html": REPORT, "notebook": NOTEBOOK, "result": RESULT}
        paths = {key: str(self._archive.path(claim.run_id, claim.started_at, name)) for key, name in names.items()}
        result = {**result, "report": paths}
        notebook = files.redacted_notebook(_notebook(claim.runbook), self._in_force.redactor)
        report = files.rendered(notebook, result, self._in_force.redactor)
        self._archive.write(claim.run_id, claim.started_at, files.packed(report, notebook, result, []))
        return result


def _notebook(name: str) -> NotebookNode:
    import nbformat

    try:
        return catalog.load(name).notebook()
    except RunbookError:
        return nbformat.v4.new_notebook()
