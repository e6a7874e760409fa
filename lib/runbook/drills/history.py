"""Remembers how the last drill of each runbook ended, for ``runbook list`` and ``runbook show``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbook.settings import data_dir


def _path() -> Path:
    return data_dir() / "drills.json"


def last_drill(runbook: str) -> dict[str, Any] | None:
    """``{at, passed, failed, skipped}`` of the last drill; ``None`` when there was none."""
    try:
        remembered = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = remembered.get(runbook) if isinstance(remembered, dict) else None
    return found if isinstance(found, dict) else None


def in_words(drill: Mapping[str, Any] | None) -> str:
    """``2026-11-27 21:04 UTC: 19 of 19 passed``, or that there was none."""
    if drill is None:
        return "never drilled"
    skipped = f", {drill['skipped']} skipped" if drill.get("skipped") else ""
    at = str(drill["at"])[:16].replace("T", " ")
    return f"{at} UTC: {drill['passed']} of {drill['passed'] + drill['failed']} passed{skipped}"


def remember(runbook: str, report: Mapping[str, Any]) -> None:
    """Keep the outcome; a data directory that cannot be written is no reason to fail a drill."""
    path = _path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            remembered = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            remembered = {}
        remembered[runbook] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "passed": report["passed"],
            "failed": report["failed"],
            "skipped": len(report["skipped"]),
        }
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps(remembered), encoding="utf-8")
        fresh.replace(path)
    except OSError:
        return
