"""The symptom of the connection runbook, re-measured: it has several faces, any of which is enough.

Source: reference fault model, runbook R2 (Symptom).
"""

from __future__ import annotations

from collections.abc import Callable

from runbook.diagnosis.connections.facts import Facts, seconds
from runbook.diagnosis.face import Face
from runbook.result import Symptom


def faces(facts: Facts) -> list[Face]:
    """Every face, the most telling first."""
    return [face(facts) for face in FACES]


def shown(all_faces: list[Face]) -> Symptom:
    """The symptom as the report shows it: the first face that is breached, else the slots; breached if any face is.

    Unknown when none is breached and the slots are unknown.
    """
    breached = [face for face in all_faces if face.breached]
    face = (breached or all_faces)[0]
    return face.symptom(face.breached)


def is_breached(all_faces: list[Face]) -> bool | None:
    """Whether any face is breached; ``None`` when none is and one that always applies is unknown."""
    if any(face.breached for face in all_faces):
        return True
    return None if all_faces[0].breached is None else False


def _slots(facts: Facts) -> Face:
    levels = facts.used_percent
    least = facts.limits.threshold_percent
    if levels:
        return Face(
            label="usable connection slots in use",
            unit="%",
            value=levels[-1],
            threshold=least,
            breached=3 * sum(p >= least for p in levels) >= 2 * len(levels),
            peak=max(levels),
        )
    # A role that sees only itself still sees how many backends each database has.
    samples = facts.readings.samples("headroom")
    value = round(100.0 * int(samples[-1]["backends"]) / facts.usable, 1) if samples and facts.usable else None
    return Face(
        label="backends connected, of usable slots (sessions themselves are hidden from this role)"
        if samples
        else "usable connection slots in use",
        unit="%",
        value=value,
        threshold=least,
        breached=True if value is not None and value >= least else None,
        peak=value,
    )


def _refused(facts: Facts) -> Face:
    refused = facts.refused_for_slots
    return Face(
        label="connects refused for want of a slot",
        unit="",
        value=None if refused is None else float(refused),
        threshold=1.0,
        breached=refused,
    )


def _waiters(facts: Facts) -> Face:
    least = facts.limits.blocked_sessions
    counts = [float(s["lock_waiting"]) for s in facts.samples]
    return Face(
        label="sessions waiting for locks",
        unit="sessions",
        value=counts[-1] if counts else None,
        threshold=float(least),
        breached=facts.mostly(lambda s: int(s["lock_waiting"]) >= least),
        peak=max(counts, default=None),
    )


def _limits(facts: Facts) -> Face:
    rows = facts.readings.rows("limits") if facts.sees_all else None
    ratios = [int(r["used"]) / int(r["connection_limit"]) for r in rows or [] if int(r["connection_limit"]) > 0]
    top = max(ratios, default=0.0)
    return Face(
        label="most used role or database connection limit",
        unit="%",
        value=None if rows is None else round(100 * top, 1),
        threshold=100.0,
        breached=None if rows is None else top >= 1,
    )


def _idle_in_transaction(facts: Facts) -> Face:
    leaking = facts.leaking
    old = [s for s in leaking or [] if seconds(s, "state_seconds") >= facts.limits.idle_after_seconds]
    share = facts.of_usable(len(old)) if leaking is not None else None
    return Face(
        label=f"usable slots idle in a transaction for {facts.limits.idle_after_seconds:g} s and more",
        unit="%",
        value=None if share is None else round(100 * share, 1),
        threshold=100 * facts.limits.leak_share,
        breached=None if share is None else share >= facts.limits.leak_share,
    )


def _pooler(facts: Facts) -> Face:
    rows = facts.readings.rows("pools")
    count = float(sum(int(r["cl_waiting"]) for r in rows)) if rows is not None else None
    return Face(
        label="clients waiting at PgBouncer",
        unit="clients",
        value=count,
        threshold=1.0,
        breached=None if count is None else count >= 1,
    )


def _replication(facts: Facts) -> Face:
    row = facts.readings.row("replication_startup")
    refused = bool(row["refused"]) and row["code"] == "53300" if row else None
    return Face(
        label="replication connects refused for want of a walsender",
        unit="",
        value=None if refused is None else float(refused),
        threshold=1.0,
        breached=refused,
    )


FACES: tuple[Callable[[Facts], Face], ...] = (
    _slots, _refused, _waiters, _limits, _idle_in_transaction, _pooler, _replication,
)  # fmt: skip
