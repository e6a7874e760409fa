"""The symptom of the memory runbook, re-measured: it has several faces, any of which is enough.

Source: reference fault model, runbook R6.
"""

from __future__ import annotations

from collections.abc import Callable

from runbook.diagnosis.face import Face
from runbook.diagnosis.face import is_breached as is_breached
from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.memory.places import RESERVED_COMMIT
from runbook.diagnosis.memory.processes import number
from runbook.result import Symptom


def faces(facts: Facts) -> list[Face]:
    """Every face, the most telling first."""
    return [face(facts) for face in FACES]


def shown(all_faces: list[Face]) -> Symptom:
    """The symptom as the report shows it: the first face that is breached, else memory in use."""
    breached = [face for face in all_faces if face.breached]
    return (breached or all_faces)[0].symptom(is_breached(all_faces))


def peaked(facts: Facts) -> bool:
    """Whether it was there within the window, or at a time that nobody tells."""
    return _memory(facts).peaked or facts.kills.undated or bool(facts.kills.gone)


def _memory(facts: Facts) -> Face:
    """The fullest place; of one cgroup that was asked about, that one, as long as no other is short."""
    places = facts.scopes
    short = [scope for scope in places if scope.breached]
    scope = next(iter(short or places), None)
    history = [n for row in facts.readings.rows("memory_peak") or [] if (n := number(row, "value")) is not None]
    lost = bool(facts.lost("memory") or facts.lost("cgroup")) or (
        bool(facts.limits.cgroup) and not any(facts.asked(s) for s in places)
    )
    breached = None if scope is None else scope.breached
    if not breached and lost:
        breached = None
    seen = [] if scope is None else scope.percents
    return Face(
        label=f"memory of {scope.label} in use" if scope is not None else "memory in use",
        unit="%",
        value=None if scope is None or scope.percent is None else round(scope.percent, 1),
        threshold=facts.limits.threshold_percent,
        breached=breached,
        peak=max((*seen, *history), default=None),
    )


def _kills(facts: Facts) -> Face:
    count = facts.kills.number
    most = max(count or 0, facts.exits or 0)
    return Face(label="processes killed for want of memory within the window", unit="",
                value=float(most) if most else None if count is None else 0.0, threshold=1.0,
                breached=True if most else None if count is None else False)  # fmt: skip


def _stalled(facts: Facts) -> Face:
    percent, threshold = facts.stalled_percent, facts.limits.stalled_percent
    return Face(label="time in which all work waited for memory", unit="%", value=percent, threshold=threshold,
                breached=percent >= threshold if percent is not None else None if facts.lost("pressure") else
                False)  # fmt: skip


def _soon(facts: Facts) -> Face:
    percent, minutes = facts.projected_percent, facts.limits.full_minutes
    return Face(label=f"memory in use in {minutes:g} minutes, at the pace of processes that only grow", unit="%",
                value=percent, threshold=100.0, breached=percent is not None and percent >= 100)  # fmt: skip


def _redis(facts: Facts) -> Face:
    percent, threshold = facts.redis_percent, facts.limits.threshold_percent
    reading = facts.readings.last("redis_memory")
    lost = reading is not None and not reading.known and reading.state != "not_configured"
    return Face(label="memory of Redis, of its own limit", unit="%", value=percent, threshold=threshold,
                breached=percent >= threshold if percent is not None else None if lost else False)  # fmt: skip


def _heap(facts: Facts) -> Face:
    percent, threshold = facts.heap_percent, facts.limits.threshold_percent
    full = percent is not None and percent >= threshold
    return Face(label="Node heap, of --max-old-space-size", unit="%", value=percent, threshold=threshold,
                breached=full or bool(facts.heap_errors))  # fmt: skip


def _promised(facts: Facts) -> Face:
    percent = facts.overcommitted_percent
    return Face(label="memory promised, of what may be promised", unit="%", value=percent, threshold=RESERVED_COMMIT,
                breached=percent is not None and percent >= RESERVED_COMMIT)  # fmt: skip


FACES: tuple[Callable[[Facts], Face], ...] = (_memory, _kills, _stalled, _soon, _redis, _heap, _promised)
