"""The symptom of the response-time runbook, re-measured, and who feels it. Source: reference fault model, R4."""

from __future__ import annotations

from runbook.diagnosis.responses.facts import Facts, count
from runbook.result import Symptom


def symptom(facts: Facts) -> Symptom:
    """The 95th percentile of the response times, without requests that are long by their nature."""
    return Symptom(
        label="95th percentile of the response times",
        value=facts.p95_ms,
        unit="ms",
        threshold=facts.limits.threshold_ms,
        breached=facts.breached,
        peak=facts.peak_ms,
    )


def impact(facts: Facts) -> str:
    """Who feels it, as far as the access log tells."""
    if facts.now is None:
        return f"Unknown: {facts.why_not or 'durations could not be read'}."
    if not facts.sufficient:
        return f"Unknown: {facts.why_not}."
    if facts.slow is None:
        return f"Unknown: metrics tell a p95 of {facts.p95_ms:g} ms and not whose requests are slow." \
            if facts.p95_ms is not None else "Unknown: no p95 is known."  # fmt: skip
    limit = facts.limits.threshold_ms
    seen = f"{facts.slow} of {facts.total} requests took {limit:g} ms and more"
    if not facts.slow:
        return f"None seen: {seen}."
    parts = [seen]
    route = facts.top("route")
    if route is not None and route.slow:
        parts.append(f"most of them {route.value} ({route.slow})")
    users = [g for g in facts.split("user") or [] if g.slow]
    if users:
        parts.append(f"{len(users)} users seen waiting" if len(users) < 20 else "20 users and more seen waiting")
    errors = count(facts.now, "errors")
    if errors:
        parts.append(f"{errors} were answered 5xx")
    return "; ".join(parts) + "."
