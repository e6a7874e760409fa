"""Causes in who asks and how much: a surge of many, one client or tenant, and what only looks like errors.

Source of every rule: reference fault model, runbook R1.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.errors.changes import Changes
from runbook.diagnosis.errors.facts import REQUESTS, SPLITS, Facts, Group, count
from runbook.diagnosis.errors.vendors import explained_by_vendors
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

BASELINE = "traffic_baseline"
MIN_CLIENTS = 3
"""With fewer addresses than these the log sees proxies, not clients."""


def traffic_surge(facts: Facts, changes: Changes) -> Cause:
    """E09: more is asked than the system can answer, by many.

    Gate: requests a second reach twice those of the same hour last week (or of the time before). Clauses: many clients,
    none of them half of it (refutes otherwise: that is one client, E10); latency has risen with it, and not after the
    errors; no release, instance or vendor concentrates the errors (refutes otherwise).
    """
    bench = Bench("E09", facts.readings)
    clients = facts.split("client")
    largest = max((g.share_of_requests for g in clients or []), default=None)
    reason = "" if facts.carries("client") else "the access log names no client"
    elsewhere = concentrated(facts, changes)
    even = None if not facts.readings.known(SPLITS) else elsewhere is None
    baseline = facts.readings.last(BASELINE)
    return Cause(
        id="E09",
        name="traffic surge",
        applicable=baseline is None or not baseline.known or facts.before is not None,
        gate=facts.gate(bench, "surge", "requests a second, against the same time before", facts.surge,
                        at_least=facts.limits.surge_ratio, unit="times", rests_on=(BASELINE,),
                        reason="" if baseline is None or not baseline.known else "nothing is known of the time before"),
        clauses=(
            bench.weigh("many", "of all requests, those of the client that sends most", largest,
                        below=facts.limits.client_share, share=True, rests_on=(SPLITS,), otherwise="refutes",
                        reason=reason),
            bench.weigh("latency", "p95 against the time before", facts.slower, at_least=facts.limits.latency_ratio,
                        unit="times", rests_on=(BASELINE, REQUESTS)),
            bench.fact("even", "no release, instance or vendor concentrates the errors", even, value=elsewhere,
                       rests_on=(SPLITS, "upstreams"), otherwise="refutes"),
        ),
        share=1.0 if even and facts.splittable else 0.0,
        details={"times": facts.surge, "requests_per_second": (facts.now or {}).get("requests_per_second"),
                 "before": (facts.before or {}).get("requests_per_second"),
                 "compared_with": (facts.before or {}).get("window"), "clients": len(clients or []) or None}
        if facts.surge is not None and facts.surge >= facts.limits.surge_ratio else {},
    )  # fmt: skip


def concentrated(facts: Facts, changes: Changes) -> str | None:
    """The release, instance or vendor that concentrates the errors, in words; ``None`` when there is none known."""
    if explained_by_vendors(facts) >= facts.limits.concentration_share:
        return "a vendor"
    for by, least in (("instance", facts.limits.instance_share), ("release", facts.limits.concentration_share)):
        top = facts.top(by)
        if top is not None and top.values > 1 and top.share >= least and (top.ratio or 0) >= facts.limits.release_ratio:
            return f"{by} {top.value}"
    return None


def one_client(facts: Facts) -> Cause:
    """E10: abuse, or one tenant.

    Gate: one client address or one user has half of the failing requests; with fewer than three addresses the log sees
    proxies and not clients. Clause: it is apart from the others: it fails three times as often as they do, or it sends
    half of all requests while there are twice as many as before (refutes otherwise: then it is merely the largest).
    """
    bench = Bench("E10", facts.readings)
    group, by = _leading(facts)
    known = [b for b in ("client", "user") if facts.split(b) is not None]
    carried = any(facts.carries(b) for b in ("client", "user"))
    apart = _apart(facts, group)
    return Cause(
        id="E10",
        name="abuse or one tenant",
        applicable=carried,
        gate=facts.gate(bench, "share", f"failing requests of {by} {group.value if group else ''}".strip(),
                        (group.share if group is not None else 0.0) if known else None, share=True,
                        at_least=facts.limits.client_share, rests_on=(SPLITS,),
                        reason="" if carried else "the access log names neither client nor user"),
        clauses=(
            bench.fact("apart", "it fails far more often than the others, or sends far more than before",
                       (apart if group is not None else False) if known else None, rests_on=(SPLITS, BASELINE),
                       value=_how_apart(facts, group), otherwise="refutes",
                       reason="it sends much of the traffic, and nothing is known of the time before"),
        ),
        share=group.share if group is not None and facts.splittable else 0.0,
        details={by: group.value, "requests": group.requests, "failed": group.errors,
                 "share_of_requests": round(group.share_of_requests, 2), "failed_percent": group.percent}
        if group is not None and group.share >= facts.limits.client_share else {},
    )  # fmt: skip


def _leading(facts: Facts) -> tuple[Group | None, str]:
    """The client or user with most failing requests, of a split that has enough of them."""
    tops = [(top, by) for by in ("client", "user") if (top := facts.top(by)) is not None and top.values >= MIN_CLIENTS]
    return max(tops, key=lambda t: (t[0].share, t[1]), default=(None, "client"))


def _apart(facts: Facts, group: Group | None) -> bool | None:
    if group is None:
        return None
    if (group.ratio or 0.0) >= facts.limits.release_ratio:
        return True
    if group.share_of_requests < facts.limits.client_share:
        return False
    return None if facts.surge is None else facts.surge >= facts.limits.surge_ratio


def _how_apart(facts: Facts, group: Group | None) -> str | None:
    if group is None:
        return None
    sends = f"{round(100 * group.share_of_requests)} % of all requests"
    times = f"fails {group.ratio:g} times as often" if group.ratio is not None else ""
    surge = f"traffic {facts.surge:g} times as before" if facts.surge is not None else ""
    return ", ".join(words for words in (sends, times, surge) if words)


def artefact(facts: Facts) -> Cause:
    """E16: the alert counted what is no failure of ours.

    Gate: 5xx are below the threshold while clients that hung up (499) and 4xx (bots) together are a fifth of all
    requests. Clause: one of the two alone is. Hint: requests that were tried again and counted twice.
    """
    bench = Bench("E16", facts.readings)
    hung_up, refused = count(facts.now, "closed_by_client"), count(facts.now, "client_errors")
    kinds = {"clients that hung up (499)": hung_up, "requests refused as faulty (4xx)": refused}
    leading = max(sorted(kinds), key=lambda k: kinds[k])
    share = min(1.0, (hung_up + refused) / facts.total) if facts.total else None
    least = facts.limits.artefact_percent / 100
    below: Any = None if facts.breached is None else share if facts.breached is False else 0.0
    label = "requests that are no 5xx and may be counted as errors" + (", while 5xx are many" if facts.breached else "")
    return Cause(
        id="E16",
        name="artefact",
        gate=bench.gate("share", label, below, at_least=least, share=True, rests_on=(REQUESTS,), reason=facts.why_not),
        clauses=(
            bench.weigh("kind", leading, kinds[leading] / facts.total if facts.total else None, at_least=least,
                        share=True, rests_on=(REQUESTS,)),
        ),
        hints=(
            bench.weigh("retried", "requests that were tried again", count(facts.now, "retried") if facts.now else None,
                        at_least=max(1, facts.errors), rests_on=(REQUESTS,), weight=WEAK),
        ),
        share=1.0 if facts.breached is False and share is not None and share >= least else 0.0,
        details={"kind": leading, "requests": kinds[leading]} if share is not None and share >= least else {},
    )  # fmt: skip
