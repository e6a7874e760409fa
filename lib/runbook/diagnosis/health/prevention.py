"""Prevention, checked: what would have told earlier, or kept it small. Source: reference fault model, R7 (Prevent)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.health.facts import Facts
from runbook.diagnosis.health.limits import Limits
from runbook.diagnosis.health.places import number
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

OUTSIDE = re.compile(r"(?i)redis|postgres|database|\bdb\b|s3|bucket|stripe|mux|queue|prisma")
RULES = "health_rules"


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    facts = Facts(Readings(readings), Limits())
    return [
        _liveness(facts),
        _expiry(facts),
        _alert(facts),
        _several(facts),
        _each(facts),
        _quick(facts),
        _release(facts),
    ]


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": value, "why": why}


def _liveness(facts: Facts) -> dict[str, Any]:
    """A liveness endpoint without dependencies: as far as its body tells what it looks at."""
    live = [p for p in facts.others if p.endpoint == "live"]
    live += [o for p in facts.instances if (o := facts.live(p)) is not None]
    told = [str(c.get("name")) for p in live for c in p.checks("pass", "warn", "fail")]
    outside = sorted({n for n in told if OUTSIDE.search(n)})
    answered = any(p.answers for p in live)
    return _row("a liveness endpoint that depends on nothing else", not outside if answered else None,
                f"looks at {', '.join(outside)}" if outside else "app.live_url is not set" if not live
                else "no check of anything else in it" if answered else "it did not answer",
                "one that asks Redis has every instance restarted when Redis is down")  # fmt: skip


def _expiry(facts: Facts) -> dict[str, Any]:
    places = [p for p in [*facts.outside, *facts.others, *facts.instances] if p.certificate is not None]
    days = {p.instance: left for p in places if (left := number(p.certificate, "days_left")) is not None}
    first = min(days, key=lambda host: days[host], default=None)
    left = days[first] if first is not None else None
    limit = facts.limits.expiry_days
    return _row(f"certificates are valid for {limit:g} days and more", None if left is None else left >= limit,
                "no TLS endpoint was seen" if left is None else f"{first}: {left:g} days left",
                "an alert three weeks before leaves time for a renewal that failed")  # fmt: skip


def _alert(facts: Facts) -> dict[str, Any]:
    rows = facts.readings.rows(RULES)
    names = sorted({str(r.get("alertname")) for r in rows or [] if r.get("alertname")})
    return _row("an alert on health checks is known to the metrics server", None if rows is None else bool(names),
                ", ".join(names) or facts.readings.why_unknown((RULES,)) if rows is None or names else "none in a week",
                "and one on the certificate's last day")  # fmt: skip


def _several(facts: Facts) -> dict[str, Any]:
    count = len(facts.instances) + len(facts.cut_off)
    return _row("several instances, known to the runbook", count > 1 if count else None,
                f"{count} instances" if count else "app.instances is not set",
                "what fails at one alone is found only by asking each")  # fmt: skip


def _each(facts: Facts) -> dict[str, Any]:
    """The edge takes out what fails: with a bad instance, the endpoint outside stays well."""
    bad, well, checked = facts.affected, facts.well, facts.checked
    holds = checked.passes if checked is not None and bad and well and checked.bad is not None else None
    return _row("the balancer takes an instance out that fails", holds,
                "no instance fails alone now" if holds is None else
                "outside it stays well" if holds else "it is felt outside",
                "its health check must be the readiness endpoint")  # fmt: skip


def _quick(facts: Facts) -> dict[str, Any]:
    seen = [x for p in [*facts.outside, *facts.instances] for r in p.looks
            if r.get("http_status") and (x := number(r, "total_ms")) is not None]  # fmt: skip
    longest = max(seen, default=None)
    limit = 500 * facts.limits.checker_timeout
    return _row("the check answers in half of the checker's time", None if longest is None else longest <= limit,
                "no answer was seen" if longest is None else f"longest {longest:.0f} ms",
                "a check that does heavy work fails first when load rises")  # fmt: skip


def _release(facts: Facts) -> dict[str, Any]:
    told = [p.release for p in [*facts.instances, *facts.outside] if p.answers]
    return _row("the endpoint tells its release", all(told) if told else None,
                ", ".join(sorted({str(r) for r in told if r})) or "not told",
                "which release fails is the shortest way to a rollback")  # fmt: skip
