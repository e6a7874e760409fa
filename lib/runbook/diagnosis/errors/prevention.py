"""Prevention, checked: what would have told earlier, or kept it small. Source: reference fault model, R1 (Prevent)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.errors.changes import Changes
from runbook.diagnosis.errors.facts import Facts
from runbook.diagnosis.errors.limits import Limits
from runbook.diagnosis.errors.vendors import PAGES, UPSTREAMS, host_of, outside, vendor_name
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

FIELDS = ("release", "instance", "route", "upstream", "client")


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    facts = Facts(Readings(readings), Limits())
    return [_alerts(facts), *_log_fields(facts), _canary(facts), _recorded(facts), _sentry(facts), _pages(facts),
            _complete(facts)]  # fmt: skip


def _check(check: str, holds: bool | None, value: str, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": value, "why": why}


def _alerts(facts: Facts) -> dict[str, Any]:
    rows = facts.readings.rows("alert_rules")
    levels = sorted({str(r.get("alertname")) for r in rows or [] if r.get("alertname")})
    return _check("alerts on the error rate at 2 % and 5 %", None if rows is None else bool(levels),
                  ", ".join(levels) or facts.readings.why_unknown(("alert_rules",)),
                  "the first gives time, the second wakes somebody")  # fmt: skip


def _log_fields(facts: Facts) -> list[dict[str, Any]]:
    known = facts.readings.known("splits")
    missing = [by for by in FIELDS if known and not facts.carries(by)]
    return [
        _check("the access log names release, instance, route, upstream and client", not missing if known else None,
               f"missing: {', '.join(missing)}" if missing else "all there" if known else "not read",
               "the split that concentrates the errors is the diagnosis"),
    ]  # fmt: skip


def _canary(facts: Facts) -> dict[str, Any]:
    together = len(Changes(facts).beside) >= 2
    return _check("new releases serve beside the old one first", True if together else None,
                  "two releases serve in the same minutes" if together else "no overlap in this window",
                  "the comparison at the same time is the one that convicts or clears a release")  # fmt: skip


def _recorded(facts: Facts) -> dict[str, Any]:
    rows = facts.readings.rows("deployments")
    return _check("deployments are recorded where a runbook can read them", None if rows is None else bool(rows),
                  f"{len(rows)} read" if rows is not None else facts.readings.why_unknown(("deployments",)),
                  "a rollback needs the commit that stood before")  # fmt: skip


def _sentry(facts: Facts) -> dict[str, Any]:
    rows = facts.readings.rows("sentry_outcomes")
    dropped = sum(int(r.get("quantity") or 0) for r in rows or [] if r.get("outcome") in ("rate_limited", "filtered"))
    return _check("Sentry keeps every error of the window", None if rows is None else dropped == 0,
                  f"{dropped} dropped" if rows is not None else facts.readings.why_unknown(("sentry_outcomes",)),
                  "what is dropped over quota is missing from the ranking")  # fmt: skip


def _pages(facts: Facts) -> dict[str, Any]:
    hosts, pages = outside(facts), facts.readings.rows(PAGES)
    names = {str(r.get("vendor")).lower() for r in pages or []}
    without = sorted(h for r in hosts or [] if vendor_name(facts, h := host_of(r.get("host"))).lower() not in names)
    known = hosts is not None and pages is not None
    return _check("every vendor that is called has its status page in the settings", not without if known else None,
                  f"missing: {', '.join(without)}" if without and known else "all there" if known
                  else facts.readings.why_unknown((UPSTREAMS, PAGES)),
                  "a page that says so saves the first ten minutes")  # fmt: skip


def _complete(facts: Facts) -> dict[str, Any]:
    complete = (facts.now or {}).get("complete")
    return _check("the access log reaches back over the whole window", complete if isinstance(complete, bool) else None,
                  str((facts.now or {}).get("first_at") or "not read"), "rotation cuts the evidence away")  # fmt: skip
