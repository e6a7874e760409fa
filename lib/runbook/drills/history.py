"""Remembers how the last drill of each runbook ended, for ``runbook list`` and ``runbook show``."""

from __future__ import annotations

import contextlib
import fcntl
import json
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
    outcome = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": report["passed"],
        "failed": report["failed"],
        "skipped": len(report["skipped"]),
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Drills of two runbooks may end at the same moment.
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _replace(path, runbook, outcome)


def _replace(path: Path, runbook: str, outcome: Mapping[str, Any]) -> None:
    try:
        remembered = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**remembered, runbook: outcome}), encoding="utf-8")
    fresh.replace(path)
