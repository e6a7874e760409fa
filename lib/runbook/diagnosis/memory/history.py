"""What the metrics server remembers of memory: a leak of hours does not show within seconds.

A heap rises and falls between two garbage collections; what leaks is its minimum. The window is cut into parts, and the
minimum of each must be above that of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from runbook.diagnosis.memory.processes import number
from runbook.diagnosis.readings import Readings

if TYPE_CHECKING:
    from runbook.diagnosis.memory.facts import Facts

PARTS = 4
ROSE = 1.2
"""The last minimum against the first."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series whose minimum rises; bytes."""

    labels: Mapping[str, Any]
    first: float
    last: float


def risen(readings: Readings) -> list[Series]:
    """Series of the window that rise, the steepest first; empty when none does or nothing is known."""
    points: dict[tuple[tuple[str, str], ...], list[tuple[str, float]]] = {}
    for row in readings.rows("memory_history") or []:
        value = number(row, "value")
        if value is not None:
            labels = tuple(sorted((k, str(v)) for k, v in row.items() if k not in ("at", "value")))
            points.setdefault(labels, []).append((str(row.get("at")), value))
    found = []
    for labels, series in points.items():
        minima = _minima([value for _, value in sorted(series)])
        if minima and all(b > a for a, b in pairwise(minima)) and minima[-1] >= ROSE * minima[0]:
            found.append(Series(labels=dict(labels), first=minima[0], last=minima[-1]))
    return sorted(found, key=lambda s: (s.first / s.last, str(s.labels)))


def _minima(values: list[float]) -> list[float]:
    size = len(values) // PARTS
    return [min(values[part * size : (part + 1) * size]) for part in range(PARTS)] if size >= 2 else []


def within(facts: Facts, row: Mapping[str, Any]) -> bool | None:
    """Whether a deployment finished within the window; ``None`` when its time is not told."""
    text, now = str(row.get("finished_at") or row.get("created_at") or ""), facts.readings.measured_at(("deployments",))
    try:
        age = _utc(now) - _utc(text)
    except ValueError:
        return None
    return timedelta(0) <= age <= timedelta(minutes=facts.limits.window_minutes)


def _utc(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
