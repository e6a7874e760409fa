"""Causes in where and since when: one route, tenant or instance, a release, and what only looks like latency.

Source of every rule: reference fault model, runbook R4.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.responses.facts import LATENCY, MIN_GROUP, SPLITS, Facts, Group, number
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, WEAK, Evidence

PLACES = ("instance", "client", "user", "route")


def one_place(facts: Facts, *, others: bool | None) -> Cause:
    """L13: one route, instance or tenant is slow and the others are not.

    Gate: one of several has four fifths of the slow requests and is slow three times as often as the others; of a route
    it is unknown while another cause could not be checked, since a route is where and not why. Clauses:
    it has less than half of all requests; nothing else is found that explains it (``others``), which is neutral
    otherwise: a vendor or a statement is slow in one route by nature.
    """
    bench = Bench("L13", facts.readings)
    tops = [(g, by) for by in PLACES if (g := facts.apart(by)) is not None]
    group, by = tops[0] if tops else (None, "place")
    known = any(facts.split(b) is not None for b in PLACES)
    # A route that is slow is where, not why, as long as something else may be why.
    open_ = by == "route" and others is None
    return Cause(
        id="L13",
        name=f"one {by}: {group.value}" if group is not None else "one route, tenant or instance",
        applicable=any(facts.carries(b) for b in PLACES),
        gate=facts.gate(bench, "share", f"of the slow requests, those of {by} {group.value}" if group is not None
                        else "of the slow requests, those of one route, instance or tenant",
                        None if open_ or not known else group.share if group is not None else 0.0, share=True,
                        at_least=facts.limits.place_share, rests_on=(SPLITS,),
                        reason="why that route is slow may be what could not be checked" if open_ else ""),
        clauses=(
            bench.weigh("few", "of all requests, those of it", group.share_of_requests if group is not None else None,
                        share=True, below=0.5, rests_on=(SPLITS,)),
            bench.fact("alone", "nothing else is found that explains it", None if others is None else not others,
                       rests_on=(SPLITS,), reason="not every other cause could be checked"),
        ),
        share=group.share if group is not None else 0.0,
        details={by: group.value, "p95_ms": group.p95_ms, "others_p95_ms": number(group.row, "others_p95_ms"),
                 "slow_percent": group.percent} if group is not None else {},
    )  # fmt: skip


def release(facts: Facts, *, others: bool | None) -> Cause:
    """L15: a new release is slower.

    Beside the old one: the gate, decisive by itself, is that one release is slow three times as often as the others in
    the same minutes; clause: it is not one of its instances alone (refutes otherwise). In its place: the gate is that a
    release serves that did not serve before, while the time before was well, weak by itself; clauses: a deployment of
    it is recorded, and nothing else is found (``others``): there nearly always is a deployment nearby.
    """
    at_once = [g for g in facts.split("release_overlap") or [] if g.requests >= MIN_GROUP]
    return _beside(facts, at_once) if len(at_once) >= 2 else _replaced(facts, others=others)


def _beside(facts: Facts, at_once: list[Group]) -> Cause:
    bench = Bench("L15", facts.readings)
    worst = max(at_once, key=lambda g: (g.ratio or 0.0, g.value))
    instance = facts.apart("instance")
    whole = next((g for g in facts.split("release") or [] if g.value == worst.value), worst)
    one = instance is not None and instance.requests < 0.9 * whole.requests
    return Cause(
        id="L15",
        name="slower release",
        gate=facts.gate(bench, "ratio", f"{worst.value} is slow so many times as often as the others beside it",
                        worst.ratio if worst.slow >= MIN_GROUP else 0.0, unit="times", weight=DECISIVE,
                        at_least=facts.limits.release_ratio, rests_on=(SPLITS,)),
        clauses=(
            bench.fact("release", "it is the release that is slow, not one of its instances", not one,
                       value=f"{instance.value} alone" if one and instance is not None else None, otherwise="refutes",
                       rests_on=(SPLITS,)),
        ),
        share=whole.share,
        details={"release": worst.value, "p95_ms": worst.p95_ms, "slow_percent": worst.percent,
                 "others": sorted(g.value for g in at_once if g is not worst)}
        if (worst.ratio or 0) >= facts.limits.release_ratio else {},
    )  # fmt: skip


def _replaced(facts: Facts, *, others: bool | None) -> Cause:
    """One release at a time: who came new may be what changed, or may be chance."""
    bench = Bench("L15", facts.readings)
    groups = facts.split("release")
    top = facts.top("release")
    fresh = top is not None and top.share >= facts.limits.place_share and not number(top.row, "before_requests") \
        and facts.before is not None  # fmt: skip
    deployed = _deployed(bench, facts, top)
    return Cause(
        id="L15",
        name="slower release",
        applicable=facts.carries("release"),
        gate=facts.fact_gate(bench, "new", "the slow release did not serve before",
                             fresh if groups is not None else None,
                             value=top.value if fresh and top is not None else None, rests_on=(SPLITS,), weight=WEAK),
        clauses=(
            deployed,
            bench.fact("alone", "nothing else is found that explains it", None if others is None else not others,
                       rests_on=(SPLITS,), otherwise="refutes", reason="not every other cause could be checked"),
        ),
        share=top.share if top is not None and fresh and others is False else 0.0,
        details={"release": top.value, "p95_ms": top.p95_ms} if fresh and top is not None else {},
    )  # fmt: skip


def _deployed(bench: Bench, facts: Facts, top: Group | None) -> Evidence:
    rows = facts.readings.rows("deployments")
    name = top.value.rpartition("@")[2] if top is not None else ""
    near = [r for r in rows or [] if name and name in str(r.get("ref") or r.get("description") or "")]
    return bench.fact("deployed", "a deployment of it is recorded", None if rows is None else bool(near),
                      rests_on=("deployments",))  # fmt: skip


def artefact(facts: Facts) -> Cause:
    """L18: what was counted is no slowness of what was there before.

    Requests that are long by their nature: the gate is that our p95, without uploads, event streams and long polls, is
    below the threshold, and above it with them; clause: they are enough to move a percentile. A new long endpoint: the
    gate is that a route that nobody asked before has four fifths of the slow requests; clause: without it none of the
    other routes is slow.
    """
    return _new_endpoint(facts) if facts.breached else _long_by_nature(facts)


def _long_by_nature(facts: Facts) -> Cause:
    bench = Bench("L18", facts.readings)
    row = facts.now
    with_them, excluded = number(row, "p95_with_excluded_ms"), number(row, "excluded")
    known = facts.breached is not None and with_them is not None
    counted = known and with_them is not None and with_them > facts.limits.threshold_ms
    every = (excluded or 0.0) + facts.total
    share = excluded / every if excluded is not None and every else None
    gate = bench.fact("excluded", "p95 is above the threshold only with requests that are long by their nature",
                      counted if known else None, value=f"{with_them:g} ms with them, {facts.p95_ms or 0:g} ms without"
                      if with_them is not None else None, otherwise="refutes", rests_on=(LATENCY,),
                      reason=facts.why_not)  # fmt: skip
    details: dict[str, Any] = {"excluded": int(excluded or 0), "p95_with_excluded_ms": with_them}
    return Cause(
        id="L18",
        name="artefact: long requests counted",
        gate=gate,
        clauses=(bench.weigh("many", "of all requests, those that are long by their nature", share, share=True,
                             at_least=0.05, rests_on=(LATENCY,)),),
        share=1.0 if counted else 0.0,
        details=details if counted else {},
    )  # fmt: skip


def _new_endpoint(facts: Facts) -> Cause:
    bench = Bench("L18", facts.readings)
    group = facts.apart("route")
    known = facts.split("route") is not None and facts.before is not None
    fresh = group is not None and number(group.row, "before_requests") == 0 and facts.before is not None
    others = number(group.row, "others_p95_ms") if group is not None else None
    return Cause(
        id="L18",
        name=f"new long endpoint: {group.value}" if fresh and group is not None else "artefact",
        applicable=facts.carries("route"),
        gate=facts.fact_gate(bench, "new", "nearly all slow requests are of a route that nobody asked before",
                             fresh if known else None, value=group.value if fresh and group is not None else None,
                             rests_on=(SPLITS, "latency_baseline"), reason="no time before that was well is known"),
        clauses=(bench.weigh("others", "p95 of the other routes", others, unit="ms",
                             below=facts.limits.threshold_ms, rests_on=(SPLITS,)),),
        share=group.share if fresh and group is not None else 0.0,
        details={"route": group.value, "p95_ms": group.p95_ms} if fresh and group is not None else {},
    )  # fmt: skip
