"""Causes that hold slots: leak, slow queries, oversized pools, reconnect storm, orphans, superusers, half-open logins.

Source of every rule: reference fault model, runbook R2.
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from runbook.diagnosis.connections.facts import Facts, Row, application, leading, seconds
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause

SESSIONS = ("sessions", "connection")


def identities(rows: list[Row], limit: int = 10) -> list[dict[str, Any]]:
    """What an action needs to recognise sessions again, the oldest state first."""
    keys = ("pid", "backend_start", "state_change", "query_start", "application_name", "role", "database", "client")
    ordered = sorted(rows, key=lambda r: (-seconds(r, "state_seconds"), int(r["pid"])))
    return [{k: r.get(k) for k in keys} | {"state_seconds": seconds(r, "state_seconds")} for r in ordered[:limit]]


def idle_in_transaction_leak(facts: Facts) -> Cause:
    """P01: sessions of one application sit idle inside a transaction and keep their slots.

    Gate: their median age reaches ``idle_after_seconds``. Clauses: they hold a fifth of the usable slots, one
    application holds them, nobody waits for their locks (three and more waiters make them roots of P02 instead).
    """
    bench, limits, leak = Bench("P01", facts.readings), facts.limits, facts.leaking
    groups = [dict(r) | {"owner": " ".join(application(r)).strip()} for r in leak or []]
    (owner,), of_one = leading(groups, ["owner"])
    ages = [seconds(r, "state_seconds") for r in of_one]
    count = len(leak) if leak is not None else None
    waiting = facts.forest.waiting_on(int(r["pid"]) for r in groups) if facts.forest is not None else None
    gate = bench.gate(
        "age",
        "median age of sessions idle in a transaction" + (f", application {owner}" if of_one else ""),
        (median(ages) if ages else 0.0) if leak is not None else None,
        at_least=limits.idle_after_seconds,
        unit="s",
        rests_on=SESSIONS,
        reason=facts.blind,
    )
    held = of_one or [{}]
    # While slots are not short, the symptom is the slots that idle in transactions, and this is all of them.
    large = (facts.of_usable(count) or 0.0) >= limits.leak_share
    return Cause(
        id="P01",
        name="idle-in-transaction leak",
        gate=gate,
        clauses=(
            bench.weigh("slots", "share of usable slots idle in a transaction", facts.of_usable(count),
                        at_least=limits.leak_share, rests_on=(*SESSIONS, "headroom"), reason=facts.blind, share=True),
            bench.weigh("one_application", f"share of them held by {owner or 'one application'}",
                        (len(of_one) / count if count else 0.0) if count is not None else None,
                        at_least=0.5, rests_on=SESSIONS, reason=facts.blind, share=True),
            bench.weigh("waiters", "sessions waiting for their locks", waiting, below=1, rests_on=("blockers",),
                        reason=facts.blind),
        ),
        share=facts.of_used(len(groups)) if facts.short_of_slots or not large else 1.0,
        details={
            "application_name": str(held[0].get("application_name", "")),
            "role": str(held[0].get("role", "")),
            "database": str(held[0].get("database", "")),
            "client": str(held[0].get("client", "")),
            "sessions": len(of_one),
            "oldest_seconds": max(ages, default=0.0),
            "last_query": str(held[0].get("query", ""))[:200],
            "targets": identities(of_one),
        } if of_one else {},
    )  # fmt: skip


def slow_query_saturation(facts: Facts) -> Cause:
    """P03: running statements fill the slots.

    Gate: over the samples, sessions that run and wait for no lock hold 30 % of the usable slots. Clauses: more than two
    a core, and one statement makes up half of them.
    """
    bench, limits, running = Bench("P03", facts.readings), facts.limits, facts.running
    mean = facts.running_mean
    named = [dict(r) | {"statement": str(r.get("query_id") or r.get("query"))} for r in running or []]
    _, of_one = leading(named, ["statement"])
    per_core = mean / facts.cores if mean is not None and facts.cores else None
    (owner,), _ = leading([dict(r) | {"owner": application(r)[0]} for r in of_one], ["owner"])
    return Cause(
        id="P03",
        name="slow-query saturation",
        gate=bench.gate(
            "running", "share of usable slots running a statement, lock waits apart", facts.of_usable(mean),
            at_least=limits.running_share, rests_on=("activity", "sessions", "headroom"), reason=facts.blind,
         share=True),
        clauses=(
            bench.weigh("per_core", f"running statements a core ({facts.cores or '?'} cores)", per_core,
                        at_least=limits.running_per_core, rests_on=("activity", "cores"), reason=facts.blind),
            bench.weigh("one_statement", "share of the running sessions that run one statement",
                        (len(of_one) / len(named) if named else 0.0) if running is not None else None,
                        at_least=limits.one_statement_share, rests_on=SESSIONS, reason=facts.blind, share=True),
        ),
        hints=(
            bench.weigh("longest", "longest of them", max((seconds(r, "query_seconds") for r in of_one), default=0.0)
                        if running is not None else None, at_least=limits.long_query_seconds, unit="s", weight=1,
                        rests_on=SESSIONS, reason=facts.blind),
        ),
        share=facts.of_used(len(named)),
        details={
            "application_name": owner,
            "query_id": of_one[0].get("query_id"),
            "query": str(of_one[0].get("query", ""))[:200],
            "sessions": len(of_one),
            "longest_seconds": max(seconds(r, "query_seconds") for r in of_one),
            "targets": identities(sorted(of_one, key=lambda r: -seconds(r, "query_seconds"))),
        } if of_one else {},
    )  # fmt: skip


def oversized_pools(facts: Facts) -> Cause:
    """P04: pools keep more sessions open than the server has slots for.

    Gate: sessions idle outside a transaction hold half of the usable slots while slots are short (an idle pool with
    room beside it is as it should be). Clauses: several pools, and a plateau without churn.
    """
    bench, limits, idle = Bench("P04", facts.readings), facts.limits, facts.idle
    count = len(idle) if idle is not None else None
    idle_share = facts.of_usable(count)
    pools = Counter((*application(r), str(r["role"]), str(r["client"])) for r in idle or [])
    ranked = sorted(pools.items(), key=lambda pool: (-pool[1], pool[0]))
    several = sum(1 for n in pools.values() if n >= 2)
    levels = [facts.clients(s) for s in facts.samples]
    top = max(levels, default=0)
    swing = (top - min(levels)) / top if top else 0.0
    steady = None if facts.new_sessions_per_second is None else not facts.storming and swing <= 0.1
    return Cause(
        id="P04",
        name="pools oversized",
        gate=bench.fact("idle", "usable slots held by idle sessions, half and more while slots are short",
                        None if idle_share is None or facts.short_of_slots is None
                        else facts.short_of_slots and idle_share >= limits.idle_share,
                        value=None if idle_share is None else round(100 * idle_share, 1), unit="%",
                        rests_on=(*SESSIONS, "headroom"), otherwise="refutes", reason=facts.blind),
        clauses=(
            bench.weigh("pools", "pools that hold them (application, role, client)",
                        several if idle is not None else None, at_least=2, rests_on=SESSIONS, reason=facts.blind),
            bench.fact("plateau", "sessions steady over the samples, no churn", steady,
                       value=None if steady is None else f"{facts.new_sessions_per_second:g} new/s, swing {swing:.0%}",
                       rests_on=("churn", "headroom"), otherwise="refutes" if facts.storming else "neutral",
                       reason=facts.blind),
        ),
        share=facts.of_used(count or 0),
        details={
            "pools": [
                {"application_name": app, "role": role, "client": client, "idle": n}
                for (app, _, role, client), n in ranked[:10]
            ],
            "application_name": ", ".join(dict.fromkeys(app for (app, *_), _ in ranked[:5])),
        } if pools else {},
    )  # fmt: skip


def reconnect_storm(facts: Facts) -> Cause:
    """P05: clients connect and leave faster than slots can follow.

    Gate: new sessions a second, by the server's counters (14+) and by newcomers seen, reach a thirtieth of the usable
    slots. Clauses: half of the sessions were born in the last minute, and slots are short (refutes otherwise).
    """
    bench, limits, young = Bench("P05", facts.readings), facts.limits, facts.young
    rate = facts.new_sessions_per_second
    born = len(young) if young is not None else None
    share = (born / facts.used if facts.used else 0.0) if born is not None and facts.used is not None else None
    groups = [dict(r) | {"owner": " ".join(application(r)).strip()} for r in young or []]
    _, of_one = leading(groups, ["owner"])
    return Cause(
        id="P05",
        name="reconnect storm",
        gate=bench.gate("rate", "new sessions a second", rate, at_least=facts.storm_threshold or limits.storm_at_least,
                        unit="/s", rests_on=("churn", "sessions_after"), reason=facts.blind),
        clauses=(
            bench.weigh("young", f"share of sessions younger than {limits.young_seconds:g} s", share, at_least=0.5,
                        rests_on=(*SESSIONS, "headroom"), reason=facts.blind, share=True),
            bench.fact("short", "slots used to the threshold, or a connect refused", facts.short_of_slots,
                       value=facts.used_percent[-1] if facts.used_percent else None, unit="%",
                       rests_on=("headroom", "connection"), otherwise="refutes", reason=facts.blind),
        ),
        share=share or 0.0,
        details={"application_name": str(of_one[0]["application_name"]), "role": str(of_one[0]["role"]),
                 "client": str(of_one[0]["client"]), "new_sessions_per_second": rate, "sessions": len(of_one)}
        if of_one and facts.storming else {},
    )  # fmt: skip


def half_open_logins(facts: Facts) -> Cause:
    """P08: sessions that never finish authenticating hold the slots, for ``authentication_timeout`` each.

    Gate: the server refuses, or logins under way fill half of the slots. Clauses: few finished sessions are to be
    seen, and processes that are still authenticating (by their titles, or state *starting* from version 18 on) make
    up a fifth of the slots.
    """
    bench, limits, sample = Bench("P08", facts.readings), facts.limits, facts.headroom
    tells = facts.connection is not None and int(facts.connection.get("version_num") or 0) >= 180000
    starting = int(sample["starting"]) if sample and tells else None
    titles = len(facts.half_open) if facts.half_open is not None else None
    counts = [n for n in (starting, titles) if n is not None]
    under_way = max(counts) if counts else None
    total = int(sample["max_connections"]) if sample else max(facts.server_processes, under_way or 0)
    finished = facts.clients(sample) - int(sample["starting"]) if sample else None
    refused = facts.refused_for_slots
    filling = under_way is not None and total > 0 and under_way / total >= 0.5
    return Cause(
        id="P08",
        name="half-authenticated sessions",
        gate=bench.fact("refused", "connects refused, or logins under way fill half of the slots",
                        True if filling else refused, rests_on=("connection", "headroom", "processes"),
                        otherwise="refutes"),
        clauses=(
            bench.weigh("finished", "share of usable slots held by finished sessions", facts.of_usable(finished),
                        below=limits.threshold_percent / 100, rests_on=("headroom",), otherwise="refutes",
                        reason=facts.blind, share=True),
            bench.weigh("under_way", "share of slots held by logins under way",
                        under_way / total if under_way is not None and total else None,
                        at_least=limits.half_open_share, rests_on=("processes", "headroom"), otherwise="refutes",
                        reason=facts.blind, share=True),
        ),
        share=under_way / total if under_way and total else 0.0,
        details={"sessions": under_way, "peers": _peers(facts.half_open or [])} if under_way else {},
    )  # fmt: skip


def _peers(titles: list[str]) -> list[dict[str, Any]]:
    hosts = Counter(
        word.split("(")[0] for title in titles for word in title.split() if "(" in word and word.endswith(")")
    )
    return [{"client": host, "sessions": n} for host, n in hosts.most_common(5)]


def orphans(facts: Facts) -> Cause:
    """P09: clients are gone and their backends remain.

    Gate: three sessions whose peer has closed its end of the socket, or that have been stuck in writing to their
    client for ``orphan_after_seconds``. Clause: they hold a fifth of the usable slots.
    """
    bench, limits = Bench("P09", facts.readings), facts.limits
    rows = facts.orphans
    # A server whose sockets are not on this host is not asked for them: then only what it reports itself counts.
    known = facts.sessions is not None and (facts.sockets_settled or len(rows) >= limits.orphan_sessions)
    count = len(rows) if known else None
    (app,), _ = leading(rows, ["application_name"])
    return Cause(
        id="P09",
        name="orphaned backends",
        gate=bench.gate("gone", "sessions whose client is gone", count, at_least=limits.orphan_sessions,
                        rests_on=("sessions", "sockets"),
                        reason=facts.blind),
        clauses=(
            bench.weigh("slots", "share of usable slots that they hold", facts.of_usable(count),
                        at_least=limits.orphan_share, rests_on=("sessions", "headroom"), reason=facts.blind,
                        share=True),
        ),
        share=facts.of_used(len(rows)),
        details={"application_name": app, "sessions": len(rows), "targets": identities(rows)} if rows else {},
    )  # fmt: skip


def superusers_eat_reserve(facts: Facts) -> Cause:
    """P14: applications that log in as superusers take the reserve.

    Gate: as many sessions of superusers as are reserved for them. Clauses: sessions reach into the reserve (refutes
    otherwise), and superusers hold a fifth of the slots.
    """
    bench, rows, sample = Bench("P14", facts.readings), facts.superusers, facts.headroom
    count = len(rows) if rows is not None else None
    reserved = max(1, int(sample["superuser_reserved"])) if sample else 3
    (role, app), of_one = leading(rows or [], ["role", "application_name"])
    known = facts.sessions is not None
    return Cause(
        id="P14",
        name="superusers eat the reserve",
        gate=bench.gate("sessions", "client sessions of superusers", count, at_least=reserved,
                        rests_on=SESSIONS, reason=facts.blind),
        clauses=(
            bench.fact("reserve", "sessions reach into the reserved slots, or ordinary roles are refused",
                       facts.reserve_eaten if known else None, rests_on=("headroom", "connection"),
                       otherwise="refutes", reason=facts.blind),
            bench.weigh("slots", "share of usable slots that they hold", facts.of_usable(count), at_least=0.2,
                        rests_on=SESSIONS, reason=facts.blind, share=True),
        ),
        share=facts.of_used(count or 0),
        details={"role": role, "application_name": app, "sessions": count} if of_one else {},
    )  # fmt: skip
