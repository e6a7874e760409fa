"""Where the time of the slow requests goes, layer by layer, for the chart. What is not known is drawn as unknown.

Percentiles do not add up, so the parts are those of the time that slow requests took together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses.facts import Facts, span_share
from runbook.diagnosis.responses.limits import Limits
from runbook.result import Reading


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One part of the slow requests' time."""

    name: str
    #: Share of the slow requests' time, 0–1; ``None`` = unknown.
    share: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """All layers; together they are the whole, less what is unknown."""

    layers: tuple[Layer, ...]
    p95_ms: float | None
    threshold_ms: float
    slow: int | None
    requests: int


def decomposition(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Decomposition:
    """The layers in the order in which a request meets them."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    known = bool(facts.slow) and facts.slow_ms_per_second is not None
    found = _parts(facts) if known else [Layer(name=name, share=None) for name in NAMES[:-1]]
    told = sum(layer.share or 0.0 for layer in found)
    if told > 1:  # an estimate by samples may be more than there is
        found = [Layer(name=x.name, share=x.share / told if x.share is not None else None, note=x.note) for x in found]
        told = 1.0
    open_ones = [layer.name for layer in found if layer.share is None]
    left = round(1 - told, 3)
    note = f"with {', '.join(open_ones)} in it" if open_ones else "what no layer is known to have"
    rest = Layer(name=NAMES[-1], share=None if open_ones or not known else left, note=note)  # fmt: skip
    return Decomposition(layers=(*found, rest), p95_ms=facts.p95_ms, threshold_ms=facts.limits.threshold_ms,
                         slow=facts.slow, requests=facts.total)  # fmt: skip


NAMES = ("queueing", "pool wait", "SQL", "Redis", "vendor", "application")


def _parts(facts: Facts) -> list[Layer]:
    systems, database = facts.systems, facts.database
    lag, pool = systems.loop_lag_ms, systems.pool
    waiting = pool.waiting if pool is not None else 0.0 if systems.pool_known else None
    sql = facts.part(database.milliseconds_per_second)
    locks = facts.part(1000 * database.lock_waiting) if database.lock_waiting is not None else None
    if sql is not None and locks is not None and not database.added:
        sql = min(1.0, sql + locks)  # statistics of statements count the wait as well; samples of running ones do not
    spans = [span_share(facts, g) for g in facts.vendors or []]
    vendor = None if facts.vendors is None or any(s is None for s in spans) else min(1.0, sum(s or 0.0 for s in spans))
    redis = facts.part(1000 * systems.redis_busy) if systems.redis_busy is not None else None
    queueing = None
    if lag is not None:
        queueing = round(min(1.0, lag / facts.limits.threshold_ms), 3) if facts.everywhere else 0.0
    return [
        Layer(name="queueing", share=queueing, note=f"event loop lag {lag:.0f} ms" if lag is not None else ""),
        Layer(name="pool wait", share=facts.part(1000 * waiting) if waiting is not None else None,
              note=f"{waiting:.1f} wait at a time" if waiting else ""),
        Layer(name="SQL", share=sql, note="by statistics of statements" if database.added else
              "by sessions seen running" if sql is not None else ""),
        Layer(name="Redis", share=redis, note="time in which it worked, at most"),
        Layer(name="vendor", share=vendor, note=", ".join(g.value for g in facts.vendors or [])[:60]),
    ]  # fmt: skip
