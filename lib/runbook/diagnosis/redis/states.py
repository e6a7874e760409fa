"""Causes by the server's state, and by the application's: loading, a script, a cluster, forks, a client that is lost.

Source of every rule: reference fault model, runbook R8.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.redis.facts import HEALTH, LOG, Facts, number
from runbook.diagnosis.redis.signs import Signs
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK


def loading(facts: Facts) -> Cause:
    """K10: the server is starting and reads its data; it answers LOADING until it has.

    Gate: LOADING at our attempts, or loading:1 (decisive); or the log says so.
    """
    bench = Bench("K10", facts.readings)
    flag = None if facts.info is None else facts.info.get("loading")
    signs = Signs(facts=facts, bench=bench, label="the server is loading its data", refused=facts.refused("LOADING"),
                  figures=None if flag is None else bool(flag), codes=("LOADING",), kinds=("loading",))  # fmt: skip
    known = {"eta_seconds": facts.figure("loading_eta_seconds"), "loaded_percent": facts.figure("loading_loaded_perc"),
             "uptime_seconds": facts.figure("uptime_seconds")}  # fmt: skip
    return Cause(
        id="K10", name="loading its data", applicable=facts.configured, gate=signs.gate(), clauses=signs.clauses(),
        share=signs.share, details={k: v for k, v in known.items() if v is not None} if signs.holds else {},
    )  # fmt: skip


def script(facts: Facts) -> Cause:
    """K11: a script or function runs and does not end; everybody else is answered BUSY.

    Gate: BUSY at our attempts (decisive); or counted, or logged.
    """
    bench = Bench("K11", facts.readings)
    signs = Signs(facts=facts, bench=bench, label="a script keeps the server busy", refused=facts.refused("BUSY"),
                  codes=("BUSY",), kinds=("busy",))  # fmt: skip
    said = facts.refusal.detail if facts.refusal is not None else ""
    return Cause(
        id="K11", name="script does not end (BUSY)", applicable=facts.configured, gate=signs.gate(),
        clauses=signs.clauses(), share=signs.share,
        details={"said": said, "function": "FUNCTION KILL" in said} if signs.holds else {},
    )  # fmt: skip


def cluster(facts: Facts) -> Cause:
    """K18: the cluster is down, or the application's client knows nothing of clusters.

    Gate: cluster_state:fail (decisive), CLUSTERDOWN counted, or MOVED or CLUSTERDOWN in the application's log. MOVED
    that is only counted is what a client of a cluster meets when slots move.
    """
    bench = Bench("K18", facts.readings)
    row = facts.readings.row("redis_cluster")
    state = None if row is None else row.get("state") == "fail" if row.get("enabled") else False
    signs = Signs(facts=facts, bench=bench, label="the cluster is down, or the client is none of a cluster",
                  refused=facts.refused("CLUSTERDOWN", "MOVED"), figures=state, codes=("CLUSTERDOWN",),
                  kinds=("clusterdown", "moved"), rests_on=("redis_cluster",))  # fmt: skip
    moved = facts.logged("moved")
    clauses = signs.clauses()
    if not signs.own and moved and not facts.logged("clusterdown"):
        clauses = (bench.fact("enabled", "the server is part of a cluster",
                              None if row is None else bool(row.get("enabled")), rests_on=("redis_cluster",)),
                   bench.weigh("logged", "recent lines with MOVED", moved, at_least=1, rests_on=(LOG,)))  # fmt: skip
    kind = "down" if state or facts.logged("clusterdown") or facts.counted("CLUSTERDOWN") else "client"
    return Cause(
        id="K18", name="cluster is down" if kind == "down" else "client knows no cluster (MOVED)",
        applicable=facts.configured, gate=signs.gate("cluster_state:fail" if state else None), clauses=clauses,
        share=signs.share,
        details={"kind": kind, "slots_ok": (row or {}).get("slots_ok"), "nodes": (row or {}).get("nodes"),
                 "lines": signs.logged} if signs.holds else {},
    )  # fmt: skip


def forks(facts: Facts) -> Cause:
    """K19: the server stands still for a fork, or for a disk that does not take its append-only file.

    Gate: the append-only file was delayed between two looks, or the last fork took ``fork_ms`` while a snapshot or
    rewrite is under way or was, moments ago. Clause: answers are slow, or time out in the log.
    """
    bench, limits = Bench("K19", facts.readings), facts.limits
    delayed, fork = facts.grown("aof_delayed_fsync"), facts.figure("latest_fork_usec")
    busy = bool(facts.figure("rdb_bgsave_in_progress") or facts.figure("aof_rewrite_in_progress"))
    ago = _since_fork(facts)
    lately = busy or (ago is not None and ago <= limits.recent_seconds)
    long = None if fork is None else fork / 1000 >= limits.fork_ms and lately
    holds = True if delayed or long else None if long is None else False
    slow, timeouts = facts.slowest_ms, facts.logged("timeout")
    felt = (slow or 0.0) >= limits.slow_ms or bool(timeouts)
    return Cause(
        id="K19", name="stands still for a fork or for its append-only file", applicable=facts.configured,
        gate=bench.fact("stall", f"a fork of {limits.fork_ms:g} ms lately, or a delayed fsync", holds,
                        value=f"fork {(fork or 0) / 1000:g} ms, {delayed or 0} delayed" if holds else None,
                        otherwise="refutes", rests_on=("redis_info",)),
        clauses=(bench.fact("felt", "answers are slow, or time out in the log",
                            felt or (None if slow is None else False), rests_on=(*facts.way, LOG)),),
        share=1.0 if holds else 0.0,
        details={"fork_ms": round((fork or 0) / 1000, 1), "delayed_fsync": delayed} if holds else {},
    )  # fmt: skip


def _since_fork(facts: Facts) -> float | None:
    """Seconds since the last fork that was slow enough to be recorded as a latency event."""
    events = facts.readings.rows("redis_latency") or []
    ago = [number(row.get("ago_seconds")) for row in events if str(row.get("event")) == "fork"]
    return min((a for a in ago if a is not None), default=None)


def zombie(facts: Facts) -> Cause:
    """K20: the server is fine and the application does not reach it: its client gave up, or is pointed elsewhere.

    Gate: we are served every time, the server turns nobody away, holds nobody back and counts no trouble, while the
    application's health check of Redis fails or its log fails at connecting. Clause: no client but ourselves and the
    workers of a queue is connected. Hint: the log gave up (max retries, connection is closed).
    """
    bench, limits = Bench("K20", facts.readings), facts.limits
    broken = facts.logged("refused", "closed", "timeout", "dns", "tls")
    cut_off, asked = _cut_off(facts, broken)
    holds = None if None in (facts.serves, cut_off) else facts.serves and cut_off
    if facts.serves is False or cut_off is False:
        holds = False
    blind = facts.serves is None and bool(facts.attempts)
    others = None if facts.clients is None else [r for r in facts.clients if not str(r.get("name")).startswith("bull:")]
    connected = sum(int(number(r.get("connections")) or 0) for r in others or [])
    known: dict[str, Any] = {"lines": broken, "check": (facts.check or {}).get("output"),
                             "instance": (facts.check or {}).get("instance")}  # fmt: skip
    return Cause(
        id="K20", name="the application's client is lost, the server is fine",
        applicable=facts.configured and asked,
        gate=bench.fact("cut_off", "the server serves us and the application does not reach it", holds,
                        value=f"{broken} recent lines, check {(facts.check or {}).get('status')}" if holds else None,
                        otherwise="refutes", rests_on=(*facts.way, "redis_info", "redis_clients", HEALTH, LOG),
                        reason="whether the server is fine cannot be told" if blind else ""),
        clauses=(bench.fact("nobody", "no client of an application is connected",
                            None if others is None else not others,
                            value=None if others is None else f"{connected} others", rests_on=("redis_clients",)),),
        hints=(bench.weigh("gave_up", "recent lines: gave up, closed, refused", broken, at_least=limits.min_lines,
                           rests_on=(LOG,), weight=WEAK),) if facts.asked(LOG) else (),
        share=1.0 if holds else 0.0,
        details={key: value for key, value in known.items() if value} if holds else {},
    )  # fmt: skip


def _cut_off(facts: Facts, broken: int | None) -> tuple[bool | None, bool]:
    """Whether the application does not reach it, by its health check and its log; and whether there is one to ask.

    A check that passes has the last word over lines of a moment ago, so that one that could not be read leaves it open.
    """
    failing = None if facts.check is None else facts.check["status"] == "fail"
    lost = facts.asked(HEALTH) and not facts.readings.known(HEALTH)
    fresh = None if broken is None or lost else broken >= facts.limits.min_lines and failing is not False
    witnesses = [w for w, there in ((failing, facts.check is not None or lost), (fresh, facts.asked(LOG))) if there]
    if any(witnesses):
        return True, True
    return (None if not witnesses or None in witnesses else False), bool(witnesses)
