"""An executor that takes no kernel: it tells of three cells, takes as long as asked, and leaves a small report."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from runbook.reporting.archive import open_archive
from runbook.settings import Settings
from runbook.store.rows import Claim

CELLS = 3


class TinyExecutor:
    def __init__(self, settings: Settings) -> None:
        self.archive = open_archive(settings)
        self.executed: list[str] = []

    def __call__(
        self, claim: Claim, *, progress: Callable[[Mapping[str, Any]], None], cancel: threading.Event
    ) -> dict[str, Any]:
        self.executed.append(claim.run_id)
        started = datetime.now(UTC)
        ending = claim.parameters.get("ending", "succeeded")
        hold = float(claim.parameters.get("hold_seconds", 0))
        for cell in range(1, CELLS + 1):
            progress({"cell": cell, "cells": CELLS, "title": f"Step {cell}", "state": "running"})
            cancel.wait(hold / CELLS)
            progress({"cell": cell, "cells": CELLS, "title": f"Step {cell}", "state": "ok"})
        if ending == "raise":
            raise RuntimeError("the kernel's password is hunter2hunter2")
        result = document(claim.run_id, claim.runbook, "cancelled" if cancel.is_set() else ending)
        result |= {
            "parameters": claim.parameters,
            "alert": claim.alert,
            "incident_id": claim.incident_id,
            "started_at": started.isoformat(),
        }
        if ending == "failed":
            result["error"] = {"cell": 2, "name": "KernelDied", "message": "the kernel died"}
        files = {
            "report.html": b"<!doctype html><title>report</title><p>P01 api-leaky",
            "notebook.ipynb": b"{}",
            "result.json": json.dumps(result).encode(),
            "readings.jsonl.gz": b"",
        }
        self.archive.write(claim.run_id, started, files)
        return result


def document(run_id: str, runbook: str = "connections", state: str = "succeeded") -> dict[str, Any]:
    """A result document with one cause found."""
    return {
        "schema": 1,
        "run_id": run_id,
        "runbook": runbook,
        "title": "Connections exhausted",
        "severity": "critical",
        "parameters": {},
        "alert": None,
        "incident_id": None,
        "state": state,
        "error": None,
        "started_at": "2026-11-23T07:00:00+00:00",
        "finished_at": "2026-11-23T07:00:01+00:00",
        "timings": {},
        "versions": {},
        "symptom": {
            "label": "slots used", "value": 0.97, "unit": "share", "threshold": 0.8, "breached": True, "peak": 0.97,
        },
        "impact": "new sessions are refused",
        "outcome": "diagnosed",
        "verdict": [
            {
                "cause": "P01", "name": "idle in transaction leak", "tier": "confirmed", "share": 0.8, "score": 10,
                "coverage": 1.0, "role": "main", "consequence_of": None,
                "details": {"application_name": "api-leaky", "sessions": 24}, "because": ["P01.age"], "against": [],
            }
        ],
        "evidence": [],
        "not_checked": [{"source": "github", "state": "not_configured", "reason": "no token", "blocks": []}],
        "unexplained": 0.2,
        "actions": [
            {
                "id": "a1", "kind": "terminate", "title": "Terminate 24 leaked sessions", "cause": "P01",
                "state": "proposed", "targets": [], "preconditions": [], "by_hand": "SELECT 1", "undo": "irreversible",
                "needs": None,
            }
        ],
        "report": {"html": "report.html", "notebook": "notebook.ipynb", "result": "result.json"},
    }  # fmt: skip
