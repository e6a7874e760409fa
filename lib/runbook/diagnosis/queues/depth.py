"""Queue age and depth by time, told back from the jobs that the queue still knows: what a picture is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from runbook.diagnosis.queues.facts import Facts
from runbook.diagnosis.queues.limits import Limits
from runbook.diagnosis.readings import Readings, number
from runbook.result import Reading

STEPS = 60


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the window; ``None`` is unknown."""

    at: datetime
    #: Jobs that arrived, and that ended, in it.
    arrived: int | None
    ended: int | None
    #: At its end: how long the oldest waiter had waited, and how many waited.
    oldest_seconds: float | None
    waiting: int | None


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A queue over the window, and by state now."""

    steps: Sequence[Step]
    step_seconds: float
    threshold_seconds: float
    #: Jobs by state now, in the order in which a job goes; those there are none of left out.
    states: Mapping[str, int]
    queue: str


def depth(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Depth | None:
    """The queue by time; ``None`` when it could not be read."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    state, now = facts.jobs.state, facts.flow.now
    if state is None or now is None or facts.jobs.waiting is None:
        return None
    seconds = max(60.0, 60.0 * facts.limits.window_minutes / STEPS)
    count = max(1, round(60.0 * facts.limits.window_minutes / seconds))
    edges = [now - timedelta(seconds=seconds * n) for n in range(count, -1, -1)]
    steps = [_step(facts, low, high) for low, high in pairwise(edges)]
    return Depth(steps=steps, step_seconds=seconds, threshold_seconds=facts.limits.threshold_seconds,
                 states=_states(state, facts), queue=str(state.get("queue")))  # fmt: skip


def _states(state: Mapping[str, Any], facts: Facts) -> dict[str, int]:
    between = sum(1 for row in facts.retrying or [] if "due_at" in row)
    counts = {
        "paused" if state.get("paused") else "waiting": int(number(state, "waiting")),
        "prioritized": int(number(state, "prioritized")),
        "in work": int(number(state, "active")),
        "between tries": between,
        "scheduled": max(0, int(number(state, "delayed")) - between),
        "wait for children": int(number(state, "waiting_children")),
    }
    return {name: count for name, count in counts.items() if count}


def _step(facts: Facts, low: datetime, high: datetime) -> Step:
    flow = facts.flow
    known = flow.known and (flow.known_since is None or flow.known_since <= low)
    ended = [row for row in facts.readings.rows("queue_flow") or [] if _within(row.get("at"), low, high)]
    there = [p for p in flow.passages if p.arrived <= high and (p.begun is None or p.begun > high)]
    oldest = max(((high - p.arrived).total_seconds() for p in there), default=0.0)
    return Step(
        at=high,
        arrived=sum(1 for p in flow.passages if low < p.arrived <= high) if known else None,
        ended=int(sum(number(row, "completed") + number(row, "failed") for row in ended)) if ended else None,
        oldest_seconds=oldest if known or there else None,
        waiting=len(there) if known else None,
    )


def _within(at: Any, low: datetime, high: datetime) -> bool:
    try:
        begin = datetime.fromisoformat(str(at))
    except ValueError:
        return False
    return low <= begin + timedelta(seconds=30) < high
