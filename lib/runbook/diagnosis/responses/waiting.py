"""Causes in which requests wait inside or around the application: a pool, the event loop, a surge, Redis.

Source of every rule: reference fault model, runbook R4.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis import redis as redis_room
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.responses.facts import BASELINE, PROBES, SPLITS, Facts, number
from runbook.diagnosis.responses.statements import ACTIVITY, HEADROOM
from runbook.diagnosis.responses.systems import APP_WAITS, CGROUP, HEALTH, METRICS, PING, POOLS, REDIS_LOAD, SLOWLOG
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

CLIENT_SHARE = 0.5
LATENCY_RATIO = 1.5
HIT_RATIO_FELL = 0.3
FULL_CORE = 0.9


def pool_wait(facts: Facts) -> Cause:
    """L03: requests wait for a connection of a pool. Refers to the runbook of connections (R2).

    Gate: somebody waits for a pool: by PgBouncer, by the application's metrics (its waits reach 100 ms, or are counted
    as waiting), by its health endpoint, or by time-outs in its log. Clauses: the database has room, fewer statements
    run than half of the pool (else the pool is full of slow or waiting statements, and follows from them); the waiting
    is a fifth of the slow requests' time; the application does not stand still by itself (unknown otherwise: who stands
    still keeps its connections, and others wait for them).
    """
    bench, systems, database = Bench("L03", facts.readings), facts.systems, facts.database
    pool, timeouts = systems.pool, systems.pool_timeouts
    known = systems.pool_known or timeouts is not None
    seen = pool is not None or bool(timeouts)
    at_work = None if database.running is None else database.running + (database.lock_waiting or 0.0)
    room = None if at_work is None else at_work < 0.5 * (pool.size if pool is not None and pool.size else 2.0)
    waiting = pool.waiting if pool is not None else None
    part = facts.part(1000 * waiting) if waiting is not None else facts.remaining if seen else None
    on = (pool.reading,) if pool is not None else (METRICS, HEALTH, POOLS, APP_WAITS)
    return Cause(
        id="L03",
        name=f"waits for a connection of {pool.where}'s pool" if pool is not None else "waits for a pool",
        applicable=systems.configured(METRICS, HEALTH, POOLS, APP_WAITS),
        gate=facts.fact_gate(bench, "waiting", "requests wait for a connection of a pool",
                             facts.unless_lost(seen, METRICS, HEALTH, POOLS, APP_WAITS) if known else None,
                             value=_pool(facts) if seen else None, rests_on=on),
        clauses=(
            bench.fact("room", "the database has room: few of the pool's connections are at work", room,
                       value=None if at_work is None else f"{at_work:.1f} at work", rests_on=(HEADROOM, ACTIVITY)),
            bench.weigh("part", "of the slow requests' time, the wait for the pool", part, share=True,
                        at_least=facts.limits.material_share, rests_on=on),
            *_runs(bench, facts),
        ),
        # What those wait for whose turn comes after a statement is that statement's.
        share=round((facts.not_vendors(part) or 0.0) * (1.0 - facts.pool_busy), 3),
        details={"refers_to": pool.refers_to if pool is not None else "P11",
                 "where": pool.where if pool is not None else "the application",
                 **({"waiting": round(pool.waiting, 1)} if pool is not None and pool.waiting else {}),
                 **({"pool_size": pool.size} if pool is not None and pool.size else {}),
                 **({"wait_ms": round(pool.milliseconds, 1)} if pool is not None and pool.milliseconds else {})}
        if seen else {},
    )  # fmt: skip


def _runs(bench: Bench, facts: Facts) -> list[Evidence]:
    """Whether the application runs whenever it could; nothing where nobody can tell."""
    systems, limits = facts.systems, facts.limits
    lag, throttled = systems.loop_lag_ms, systems.throttled
    stands = []
    if lag is not None and lag >= limits.loop_lag_ms:
        stands.append(f"its loop lags {lag:.0f} ms")
    if throttled is not None and throttled[0] >= limits.throttled_share and not systems.other_quotas:
        stands.append("its cgroup's quota is used up")
    if lag is None and throttled is None:
        return []
    return [bench.fact("runs", "the application does not stand still by itself", None if stands else True,
                       rests_on=(METRICS, CGROUP), reason=" and ".join(stands))]  # fmt: skip


def _pool(facts: Facts) -> str:
    pool, timeouts = facts.systems.pool, facts.systems.pool_timeouts
    parts = []
    if pool is not None and pool.waiting:
        parts.append(f"{pool.waiting:.1f} waiting at {pool.where}")
    if pool is not None and pool.milliseconds is not None:
        parts.append(f"{pool.milliseconds:.0f} ms each")
    if timeouts:
        parts.append(f"{timeouts} time-outs in the log")
    return ", ".join(parts)


def blocked_loop(facts: Facts) -> Cause:
    """L05: the application's event loop is blocked, so that everything waits, whatever it does.

    Gate: the event loop's lag reaches 100 ms (99th percentile, the application's own metric); where it exports none,
    the endpoint that depends on nothing takes so long. Clauses: every route is slow (refutes otherwise); the endpoint
    that depends on nothing is slow as well, or the process uses a whole core.
    """
    bench, systems = Bench("L05", facts.readings), facts.systems
    lag, live, cores = systems.loop_lag_ms, systems.live_ms, systems.cores_used
    measured = lag if lag is not None else live
    if measured is not None and measured < facts.limits.loop_lag_ms and facts.lost(METRICS, HEALTH):
        measured = None
    on, label = ((METRICS,), "event loop lag, 99th percentile") if lag is not None else (
        (HEALTH, METRICS), "answer of the endpoint that depends on nothing"
    )  # fmt: skip
    busy = (
        None if live is None and cores is None else (live or 0) >= facts.limits.loop_lag_ms or (cores or 0) >= FULL_CORE
    )
    return Cause(
        id="L05",
        name="event loop blocked",
        applicable=systems.configured(METRICS, HEALTH),
        gate=facts.gate(bench, "lag", label, measured, unit="ms", at_least=facts.limits.loop_lag_ms, rests_on=on),
        clauses=(
            everywhere(bench, facts),
            bench.fact("busy", "an endpoint that depends on nothing is slow too, or one core is used up",
                       True if busy else None if live is None or cores is None else False,
                       value=_busy(live, cores), rests_on=(HEALTH, METRICS)),
        ),
        share=1.0 if facts.everywhere else 0.0,
        details={"lag_ms": round(measured, 1), "cores_used": cores} if measured is not None
        and measured >= facts.limits.loop_lag_ms else {},
    )  # fmt: skip


def _busy(live: float | None, cores: float | None) -> str | None:
    parts = [f"{live:.0f} ms" if live is not None else "", f"{cores:g} cores" if cores is not None else ""]
    return ", ".join(p for p in parts if p) or None


def everywhere(bench: Bench, facts: Facts) -> Evidence:
    """Every route, instance and release is slow: who is well speaks against what would slow everybody."""
    return bench.fact("everywhere", "every route, instance and release is slow", facts.everywhere,
                      value=facts.well_places if facts.everywhere is False else None, otherwise="refutes",
                      rests_on=(SPLITS,), reason="fewer than two routes are known")  # fmt: skip


def surge(facts: Facts) -> Cause:
    """L09: more is asked than the system can answer, by many.

    Gate: requests a second reach twice those of the same hour last week (or of the time before). Clauses: every route
    is slow (refutes otherwise); no client sends half of it (refutes otherwise: that is one client); p95 has risen with
    it.
    """
    bench = Bench("L09", facts.readings)
    largest = max((g.share_of_requests for g in facts.split("client") or []), default=None)
    before, now = number(facts.before, "p95_ms"), facts.p95_ms
    slower = round(now / before, 2) if now is not None and before else None
    baseline = facts.readings.last(BASELINE)
    nothing = baseline is not None and baseline.known and facts.before is None
    return Cause(
        id="L09",
        name="traffic surge",
        applicable=not nothing,
        gate=facts.gate(bench, "surge", "requests a second, against the same time before", facts.surge, unit="times",
                        at_least=facts.limits.surge_ratio, rests_on=(BASELINE,),
                        reason="nothing is known of a time before that was well" if nothing else ""),
        clauses=(
            everywhere(bench, facts),
            bench.weigh("many", "of all requests, those of the client that sends most", largest, share=True,
                        below=CLIENT_SHARE, otherwise="refutes", rests_on=(SPLITS,),
                        reason="" if facts.carries("client") else "the access log names no client"),
            bench.weigh("slower", "p95 against the time before", slower, at_least=LATENCY_RATIO, unit="times",
                        rests_on=(BASELINE,)),
        ),
        share=1.0 if facts.everywhere and (largest or 0.0) < CLIENT_SHARE else 0.0,
        details={"times": facts.surge, "requests_per_second": facts.requests_per_second,
                 "compared_with": (facts.before or {}).get("window")}
        if facts.surge is not None and facts.surge >= facts.limits.surge_ratio else {},
    )  # fmt: skip


def redis_slow(facts: Facts) -> Cause:
    """L11: Redis is slow, or its cache is cold.

    Gate: PING takes 20 ms and more, and a tenth of what a request may take; or Redis logged commands that took half of
    what a request may take; or of all lookups a third less are hits than since it started. Clauses: it worked, by its
    own count, for a fifth of the time, or PING takes half of a request's time (for a cold cache: the ratio itself);
    neither a vendor, nor one statement, nor a lock explains the slow requests (refutes otherwise).
    """
    bench, systems = Bench("L11", facts.readings), facts.systems
    long = [r for r in systems.slow_commands or []
            if 1000 * (number(r, "seconds") or 0) >= facts.limits.threshold_ms / 2]  # fmt: skip
    ping, busy, hits = systems.redis_ms, systems.redis_busy, systems.hit_ratio
    cold = hits is not None and hits[1] - hits[0] >= HIT_RATIO_FELL
    # Who asks from afar waits for the way: what counts must be felt in a request.
    slow = ping is not None and ping >= max(facts.limits.redis_ms, 0.1 * facts.limits.threshold_ms)
    known = ping is not None or systems.slow_commands is not None
    seen = bool(slow or long or cold)
    names = sorted({str(r.get("command")) for r in long or (systems.slow_commands or [])[:5]})
    # A slow answer to us alone may be our own slowness: it counts by itself when a request would be slow by it.
    felt = ping is not None and ping >= facts.limits.threshold_ms / 2
    waits = max(busy or 0.0, min(1.0, (ping or 0.0) / facts.limits.threshold_ms)) if felt else busy
    if (waits or 0.0) < facts.limits.material_share and facts.lost(SLOWLOG, REDIS_LOAD):
        waits = None  # what would tell could not be read
    return Cause(
        id="L11",
        name="cold cache" if cold and not (slow or long) else "Redis slow",
        applicable=systems.configured(PING, SLOWLOG),
        gate=facts.fact_gate(bench, "slow", "Redis answers slowly, or misses what it used to have",
                             facts.unless_lost(seen, PING, SLOWLOG, REDIS_LOAD) if known else None,
                             value=_redis(facts, long, cold=cold),
                             rests_on=(PING, SLOWLOG, REDIS_LOAD)),
        clauses=(
            bench.weigh("busy", "time in which Redis was at work, or made wait",
                        hits[1] - hits[0] if cold and hits is not None and not (slow or long) else waits, share=True,
                        at_least=facts.limits.material_share, rests_on=(REDIS_LOAD, SLOWLOG, PING)),
            bench.weigh("left", "of the slow requests' time, what no vendor, statement or lock had",
                        facts.remaining, share=True, at_least=facts.limits.material_share, otherwise="refutes",
                        rests_on=(SPLITS, PROBES, *facts.database.rests_on)),
        ),
        hints=(
            bench.fact("commands", "commands in Redis' slow log", bool(names) if systems.slow_commands is not None
                       else None, value=", ".join(names) or None, rests_on=(SLOWLOG,), weight=WEAK),
        ),
        share=(facts.remaining or 0.0) if seen and (cold or (waits or 0.0) >= facts.limits.material_share) else 0.0,
        details=_redis_details(facts, names) if seen else {},
    )  # fmt: skip


def _redis(facts: Facts, long: list[dict[str, Any]], *, cold: bool) -> str | None:
    systems = facts.systems
    parts = []
    if systems.redis_ms is not None:
        parts.append(f"PING {systems.redis_ms:g} ms")
    if long:
        parts.append(f"{len(long)} commands of up to {1000 * (number(long[0], 'seconds') or 0):g} ms")
    if cold and systems.hit_ratio is not None:
        parts.append(f"hits {round(100 * systems.hit_ratio[0])} % (before: {round(100 * systems.hit_ratio[1])} %)")
    return ", ".join(parts) or None


def _redis_details(facts: Facts, commands: list[str]) -> dict[str, Any]:
    systems = facts.systems
    clients = sorted({str(r.get("name") or r.get("client")) for r in systems.slow_commands or []} - {"", "None"})
    said = redis_room.finding(facts.readings)
    found: dict[str, Any] = {"refers_to": said.cause if said is not None else None, "ping_ms": systems.redis_ms}
    found |= {"commands": commands, "clients": clients, "busy_share": systems.redis_busy}
    return {key: item for key, item in found.items() if item not in (None, [])}
