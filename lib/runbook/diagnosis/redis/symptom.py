"""The symptom of the Redis runbook, re-measured; it has several faces, any of which is enough. Source: R8."""

from __future__ import annotations

from collections.abc import Callable

from runbook.diagnosis.face import Face
from runbook.diagnosis.face import is_breached as is_breached
from runbook.diagnosis.redis.facts import HEALTH, LOG, TROUBLE, Facts
from runbook.result import Symptom


def faces(facts: Facts) -> list[Face]:
    """Every face, the most telling first; those that there is nothing to ask for are left out, the first one never."""
    return [face for make in FACES if (face := make(facts)) is not None]


def shown(all_faces: list[Face]) -> Symptom:
    """The symptom as the report shows it: the first face that is breached, else our own attempts."""
    breached = [face for face in all_faces if face.breached]
    return (breached or all_faces)[0].symptom(is_breached(all_faces))


def peaked(facts: Facts) -> bool:
    """Whether it was there within this run or, by the application's log, a moment before."""
    return bool(facts.failing) or bool(facts.log_lines)


def _attempts(facts: Facts) -> Face:
    failing = facts.failing
    return Face(
        label="our own attempts that Redis did not serve", unit="%", threshold=50.0,
        value=None if failing is None else round(100 * failing, 1),
        breached=None if failing is None else failing >= 0.5,
    )  # fmt: skip


def _errors(facts: Facts) -> Face:
    counted, rejected = facts.counted(*TROUBLE), facts.grown("rejected_connections")
    known = [c for c in (counted, rejected) if c is not None]
    value = float(sum(known)) if known else None
    breached = True if value else None if counted is None or rejected is None else False
    # Where one look tells nothing of now, or the version counts nothing, what can be asked is what counts.
    if breached is None and facts.readings.known("redis_info"):
        breached = False
    return Face(label="errors and refusals that the server counted meanwhile", unit="", value=value, threshold=1.0,
                breached=breached)  # fmt: skip


def _clients(facts: Facts) -> Face:
    used = facts.used_percent
    return Face(
        label="client slots in use", unit="%", value=used, threshold=facts.limits.clients_percent,
        breached=None if used is None else used >= facts.limits.clients_percent,
    )  # fmt: skip


def _slow(facts: Facts) -> Face:
    """One slow answer may be our own machine's doing."""
    slowest, slow = facts.slowest_ms, facts.slow_answers
    return Face(
        label="the longest that an answer took", unit="ms", value=slowest, threshold=facts.limits.slow_ms,
        breached=None if slow is None else slow >= 2,
    )  # fmt: skip


def _memory(facts: Facts) -> Face:
    full = facts.full_of_memory
    return Face(label="memory used up, nothing may be evicted", unit="", value=None if full is None else float(full),
                threshold=1.0, breached=full)  # fmt: skip


def _held(facts: Facts) -> Face:
    held = facts.held_back
    return Face(label="clients that the server holds back", unit="", value=held, threshold=1.0,
                breached=None if held is None else held >= 1)  # fmt: skip


def _log(facts: Facts) -> Face | None:
    if not facts.asked(LOG):
        return None
    lines = facts.log_lines
    return Face(
        label="recent lines about Redis in the application's log", unit="", value=lines,
        threshold=float(facts.limits.min_lines), breached=None if lines is None else lines >= facts.limits.min_lines,
    )  # fmt: skip


def _health(facts: Facts) -> Face | None:
    if not facts.asked(HEALTH) or (facts.readings.known(HEALTH) and facts.check is None):
        return None
    status = None if facts.check is None else facts.check["status"]
    return Face(label="the application's own check of Redis fails", unit="",
                value=None if status is None else float(status == "fail"), threshold=1.0,
                breached=None if status in (None, "unknown") else status == "fail")  # fmt: skip


FACES: tuple[Callable[[Facts], Face | None], ...] = (
    _attempts, _errors, _health, _log, _clients, _memory, _held, _slow,
)  # fmt: skip
