"""Result documents for runs that have none of their own: queued, under way, or cut short before they had a report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from runbook.dispatch.alert import iso
from runbook.result import SCHEMA, empty_findings
from runbook.store.rows import Claim, RunRow


def cut_short(claim: Claim, state: str, *, name: str, message: str) -> dict[str, Any]:
    """The document of a run that ended without one: nothing was found out, and why."""
    return (
        _envelope(
            run_id=claim.run_id,
            runbook=claim.runbook,
            title=claim.title,
            severity=claim.severity,
            parameters=claim.parameters,
            alert=claim.alert,
            incident_id=claim.incident_id,
        )
        | {
            "state": state,
            "error": {"cell": None, "name": name, "message": message},
            "started_at": iso(claim.started_at),
            "finished_at": iso(datetime.now(UTC)),
        }
        | empty_findings(message)
        | {"report": None}
    )


def from_row(row: RunRow) -> dict[str, Any]:
    """The document of a run as far as the store knows it: the envelope, and the summary of what it found."""
    envelope = _envelope(
        run_id=row.id,
        runbook=row.runbook,
        title=row.title,
        severity=row.severity,
        parameters=row.parameters,
        alert=row.alert,
        incident_id=row.incident_id,
    ) | {
        "state": row.state,
        "error": row.error,
        "queued_at": iso(row.queued_at),
        "started_at": iso(row.started_at) if row.started_at else None,
        "finished_at": iso(row.finished_at) if row.finished_at else None,
    }
    if not row.finished:
        return envelope | {"progress": row.progress, "report": None}
    known = {
        "symptom": row.summary.get("symptom"),
        "impact": row.summary.get("impact"),
        "outcome": row.outcome,
        "verdict": row.summary.get("causes") or [],
    }
    return envelope | known | {"report": {"html": row.report} if row.report else None}


def _envelope(**facts: Any) -> dict[str, Any]:
    kept: Mapping[str, Any] = {"schema": SCHEMA} | facts
    return {**kept, "error": None, "started_at": None, "finished_at": None, "timings": {}, "versions": {}}
