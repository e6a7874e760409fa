"""The symptom of the error-rate runbook, re-measured, and who feels it.

Source: reference fault model, section 1 and R1.
"""

from __future__ import annotations

from runbook.diagnosis.errors.facts import Facts, count
from runbook.result import Symptom


def symptom(facts: Facts) -> Symptom:
    """Percent of the requests answered 5xx; unknown without requests."""
    return Symptom(
        label="requests answered 5xx",
        value=facts.percent,
        unit="%",
        threshold=facts.limits.threshold_percent,
        breached=facts.breached,
        peak=facts.peak_percent,
    )


def impact(facts: Facts) -> str:
    """Who feels it, as far as the access log tells."""
    if facts.now is None:
        reading = facts.readings.last("requests")
        if reading is not None and reading.known:
            return "Unknown: no request was seen in the window."
        return "Unknown: requests could not be counted."
    seen = f"{facts.errors} of {facts.total} requests failed in {_span(count(facts.now, 'window_seconds'))}"
    if facts.sufficient is False:
        return f"{seen}: too few to tell a rate from chance."
    parts = [f"{seen} ({facts.percent_of(facts.now):g} %, at least {facts.low_percent(facts.now):g} %)"]
    route = facts.top("route")
    if route is not None and route.errors:
        parts.append(f"most of them on {route.value} ({route.errors})")
    users = [g for g in facts.split("user") or [] if g.errors]
    if users:
        parts.append(f"{len(users)} users seen failing" if len(users) < 20 else "20 users and more seen failing")
    return "; ".join(parts) + "."


def _span(seconds: int) -> str:
    if not seconds:
        return "the window"
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds} s"
