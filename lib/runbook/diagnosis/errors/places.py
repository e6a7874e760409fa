"""Causes in where a request goes: the edge or proxy before the application, or one of its instances.

Source of every rule: reference fault model, runbook R1; nginx signatures as measured there.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.errors.facts import SPLITS, Facts, Group, Row, count
from runbook.diagnosis.errors.rates import times
from runbook.diagnosis.errors.systems import LOG, is_configured, lines
from runbook.diagnosis.errors.vendors import UPSTREAMS, explained_by_vendors, inside
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

GATEWAY = frozenset({"502", "504", "520", "521", "522", "523", "524", "525", "526", "527", "530"})
"""Statuses that a proxy or an edge gives when what is behind it does not answer."""


def edge_or_proxy(facts: Facts) -> Cause:
    """E11: the edge or the proxy fails requests that the application never answered.

    Gate: half of the failing requests have a gateway's status (502, 504, Cloudflare 52x). Clauses: they name no
    instance, or the connection to ours failed; no vendor explains them (refutes otherwise: then the application passed
    a vendor's failure on); the application's log is silent about them.
    """
    bench = Bench("E11", facts.readings)
    statuses = facts.split("status")
    gateway = [g for g in statuses or [] if g.value in GATEWAY]
    share = min(1.0, sum(g.share for g in gateway))
    vendors = explained_by_vendors(facts) if facts.readings.known(UPSTREAMS) else None
    half = facts.limits.concentration_share
    logged = facts.readings.rows(LOG)
    return Cause(
        id="E11",
        name="edge or proxy",
        gate=facts.gate(bench, "gateway", "failing requests with a gateway's status (502, 504, 52x)",
                        None if statuses is None else share, at_least=half, share=True, rests_on=(SPLITS,)),
        clauses=(
            bench.weigh("unanswered", "failing requests that no instance answered", unanswered(facts), at_least=half,
                        share=True, rests_on=(SPLITS, UPSTREAMS), otherwise="refutes",
                        reason="the access log names neither instance nor upstream"),
            bench.weigh("vendors", "failing requests that a vendor explains", vendors, below=half, share=True,
                        rests_on=(UPSTREAMS,), otherwise="refutes"),
            *((bench.weigh("silent", "error lines of the application's log, of the failing requests",
                           min(1.0, sum(lines(r) for r in logged) / facts.errors)
                           if logged is not None and facts.errors else None, below=facts.limits.log_share, share=True,
                           rests_on=(LOG,)),) if is_configured(facts, LOG) else ()),
        ),
        share=_edge_share(facts, share),
        details={"statuses": {g.value: g.errors for g in gateway}, "layer": _layer(facts)}
        if gateway and share >= half else {},
    )  # fmt: skip


def _edge_share(facts: Facts, gateway: float) -> float:
    """Of the failing requests, those that no instance answered; by status alone where the log names neither side."""
    nobody = unanswered(facts)
    if not facts.splittable:
        return 0.0
    if nobody is None:
        return gateway if not facts.carries("instance") and not facts.carries("upstream") else 0.0
    return min(gateway, nobody)


def unanswered(facts: Facts) -> float | None:
    """Share of the failing requests that no instance answered; ``None`` when the log does not tell."""
    known = []
    groups = facts.split("instance")
    if groups is not None and facts.errors:
        known.append(max(0.0, 1.0 - sum(g.errors for g in groups) / facts.errors))
    if (backends := inside(facts)) and facts.errors:
        known.append(min(1.0, sum(_unserved(r) for r in backends) / facts.errors))
    return max(known) if known else None


def _unserved(row: Row) -> int:
    """Failing requests of a backend that it did not answer: refused or timed out."""
    return min(count(row, "failing"), max(count(row, "refused") + count(row, "timeouts"), 0))


def _layer(facts: Facts) -> str:
    """What the proxy met, where its log tells. Source: nginx splits, reference fault model R1."""
    backends = inside(facts) or []
    refused, timeouts = (sum(count(r, key) for r in backends) for key in ("refused", "timeouts"))
    if refused or timeouts:
        return "connections to the application are refused" if refused >= timeouts else "the application hangs"
    cloudflare = any(g.value.startswith("52") and g.errors for g in facts.split("status") or [])
    return "Cloudflare cannot reach the origin" if cloudflare else "the proxy has no working upstream"


def instances(facts: Facts) -> list[Group] | None:
    """Failing requests by instance; where the log has no such field, by the backend that a proxy passed them to."""
    groups = facts.split("instance")
    if groups:
        return groups
    backends = inside(facts)
    if not backends:
        return groups
    total = {key: sum(count(r, key) for r in backends) for key in ("requests", "failing")}
    found = [
        Group(
            value=str(r.get("host")), row=r, requests=count(r, "requests"), errors=count(r, "failing"),
            share=min(1.0, count(r, "failing") / facts.errors) if facts.errors else 0.0,
            share_of_requests=min(1.0, count(r, "requests") / facts.total) if facts.total else 0.0,
            ratio=times(count(r, "failing"), count(r, "requests"), total["failing"] - count(r, "failing"),
                        total["requests"] - count(r, "requests")),
            values=len(backends),
        )
        for r in backends
    ]  # fmt: skip
    return sorted(found, key=lambda g: (-g.errors, -g.requests, g.value))


def bad_instance(facts: Facts) -> Cause:
    """E12: one of several instances fails.

    Gate: one instance has four fifths of the failing requests; refuted when there is only one. Clause: it fails three
    times as often as the others (refutes otherwise: it merely gets most of the traffic). Hint: its own health endpoint.
    """
    bench = Bench("E12", facts.readings)
    groups = instances(facts)
    top = groups[0] if groups else None
    several = top is not None and top.values > 1
    label = f"failing requests on instance {top.value}" if several and top else "failing requests on one of several"
    value = None if groups is None else top.share if several and top else 0.0
    missing = "" if facts.carries("instance") else "the access log names no instance"
    health = _health_of(facts, top)
    return Cause(
        id="E12",
        name="bad instance",
        applicable=groups is not None or facts.carries("instance"),
        gate=facts.gate(bench, "share", label, value, at_least=facts.limits.instance_share, share=True,
                        rests_on=(SPLITS,), reason=missing),
        clauses=(
            bench.weigh("apart", "times as often as the other instances", top.ratio if several and top else None,
                        at_least=facts.limits.release_ratio, unit="times", rests_on=(SPLITS,), otherwise="refutes",
                        reason=missing or "there are no other instances"),
        ),
        hints=(
            bench.fact("health", "its own health endpoint fails", health, rests_on=("health",), weight=WEAK),
        ) if health is not None else (),
        share=top.share if several and top and facts.splittable else 0.0,
        details={"instance": top.value, "requests": top.requests, "failed": top.errors, "failed_percent": top.percent,
                 "instances": top.values} if several and top and top.share >= facts.limits.instance_share else {},
    )  # fmt: skip


def _health_of(facts: Facts, group: Group | None) -> bool | None:
    rows: list[dict[str, Any]] = facts.readings.rows("health") or []
    mine = [r for r in rows if group is not None and group.value in (str(r.get("instance")), str(r.get("url")))]
    return any(r.get("status") == "fail" for r in mine) if mine else None
