"""Finds reports from the command line: those of the service, and those of runs started by hand.

A run started by hand needs no store, and neither does publishing; what the store has not heard of is taken up here,
from the archive, when somebody looks.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from runbook.dispatch.announce import report_url
from runbook.reporting.archive import RESULT, open_archive
from runbook.store import open_store

if TYPE_CHECKING:
    from runbook.settings import Settings
    from runbook.store.store import Store

MOST = 50
MOST_TAKEN_UP = 500
"""So many of the newest archived runs are held against the store each time."""


def search(settings: Settings, query: str) -> list[dict[str, Any]]:
    """Reports that match ``query``, the newest first, :data:`MOST` at most."""
    return asyncio.run(_search(settings, query))


async def _search(settings: Settings, query: str) -> list[dict[str, Any]]:
    async with open_store(settings) as store:
        await take_up(settings, store)
        return [
            {
                "run_id": row.id,
                "runbook": row.runbook,
                "state": row.state,
                "outcome": row.outcome,
                "causes": row.summary.get("causes", []),
                "started_at": row.started_at.isoformat() if row.started_at else None,
                "report": row.report,
                "url": report_url({"run_id": row.id, "report": {"html": row.report}}, settings),
            }
            for row in await store.runs.search(query, limit=MOST)
        ]


async def take_up(settings: Settings, store: Store) -> None:
    """Record archived runs that the store does not know, and revisions of their reports."""
    directory = open_archive(settings).directory
    newest = sorted(directory.glob(f"[0-9]*/*/*/[!.]*/{RESULT}"), reverse=True)[:MOST_TAKEN_UP]
    for path in newest:
        revised = path.with_name(f"{path.stem}.1{path.suffix}").exists()
        if revised or await store.runs.get(path.parent.name) is None:
            await store.runs.record(json.loads(path.read_text(encoding="utf-8")))
