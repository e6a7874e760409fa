"""Causes at the hosts that the application calls: outage, refused credential, throttling, names and certificates.

A vendor is judged by our own calls to it; its status page is a weak hint either way, since pages lag. What a vendor
explains are the failing requests of ours whose call to it failed, each counted once. Source: reference fault model, R1.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.errors.facts import REQUESTS, Facts, Row, count
from runbook.diagnosis.errors.systems import LOG, Log, is_configured
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

UPSTREAMS = "upstreams"
REACH = "dependency_hosts"
PAGES = "vendor_status"
TOGETHER = {"upstream_errors": "failing_with_error", "auth": "failing_with_auth", "throttled": "failing_with_throttled"}
"""Kind of failed calls → the count of our own failing requests among them."""
VERIFY_CODES = {
    10: "certificate expired", 18: "self-signed certificate", 19: "self-signed certificate in the chain",
    20: "unknown issuer", 21: "certificate cannot be verified", 62: "certificate is for another host",
}  # fmt: skip
_INSIDE = re.compile(r"(?i)(?:\.(?:local|internal|lan|svc|cluster|home|localdomain)|localhost)$")
_DISCORD = re.compile(r"(?i)(?:^|\.)discord(?:app)?\.com$")
_SECOND_LEVEL = frozenset({"co", "com", "net", "org", "ac", "gov"})


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """One host outside, as our calls to it went."""

    host: str
    row: Row
    #: What kind of failing was asked for: ``upstream_errors``, ``auth``, ``throttled``.
    failures: int
    calls: int
    #: Of the failing requests, those whose call to it failed so, 0–1.
    explained: float

    @property
    def share_of_calls(self) -> float:
        return self.failures / self.calls if self.calls else 0.0


def host_of(name: Any) -> str:
    """The host of ``host``, ``host:port`` or a URL, in lower case."""
    text = re.sub(r"^[a-z][a-z0-9+.-]*://", "", str(name or "").strip().lower()).split("/", 1)[0]
    return re.sub(r":\d+$", "", text) if text.count(":") <= 1 else text


def is_outside(row: Row, instances: Sequence[str]) -> bool:
    """Whether an upstream is somebody else's: named in the settings, or a public name that is none of our instances."""
    if row.get("known_host"):
        return True
    host = host_of(row.get("host"))
    if host in {host_of(i) for i in instances} or "." not in host or _INSIDE.search(host):
        return False
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return True
    return False


def outside(facts: Facts) -> list[Row] | None:
    """Rows of the hosts outside, Discord apart; ``None`` when unknown or the log does not carry upstreams."""
    rows = facts.readings.rows(UPSTREAMS)
    if rows is None or not facts.carries("upstream"):
        return None
    instances = [g.value for g in facts.split("instance") or []]
    return [r for r in rows if is_outside(r, instances) and not _DISCORD.search(host_of(r.get("host")))]


def inside(facts: Facts) -> list[Row] | None:
    """Rows of our own backends, as a proxy's log names them."""
    rows = facts.readings.rows(UPSTREAMS)
    if rows is None or not facts.carries("upstream"):
        return None
    instances = [g.value for g in facts.split("instance") or []]
    return [r for r in rows if not is_outside(r, instances)]


def failing(facts: Facts, key: str) -> list[Vendor] | None:
    """Hosts outside by how many of the failing requests their failures of that kind explain, the most first."""
    rows = outside(facts)
    if rows is None or (rows and all(r.get(key) is None for r in rows)):
        return None
    found = [
        Vendor(
            host=host_of(r.get("host")),
            row=r,
            failures=count(r, key),
            calls=count(r, "requests"),
            explained=min(1.0, _touched_and_failed(r, key) / facts.errors) if facts.errors else 0.0,
        )
        for r in rows
        if count(r, "requests") >= facts.limits.min_calls
    ]
    return sorted(found, key=lambda v: (-v.explained, -v.share_of_calls, v.host))


def _touched_and_failed(row: Row, key: str) -> int:
    """Failing requests of ours whose call failed so; no more than either, where they are counted apart."""
    together = row.get(TOGETHER[key])
    return count(row, TOGETHER[key]) if together is not None else min(count(row, "failing"), count(row, key))


def explained_by_vendors(facts: Facts) -> float:
    """Share of the failing requests that the worst host outside explains, by whatever it answered."""
    kinds = ("upstream_errors", "auth", "throttled")
    return max((v.explained for kind in kinds for v in failing(facts, kind) or []), default=0.0)


def vendor_name(facts: Facts, host: str) -> str:
    """Whose host it is: the status page whose name stands in it, else the registered part of the host."""
    labels = host.split(".")
    for row in facts.readings.rows(PAGES) or []:
        name = str(row.get("vendor") or "")
        if name and (name.lower() in re.split(r"[.-]", host) or (name == "aws" and host.endswith(".amazonaws.com"))):
            return name
    core = labels[:-2] if len(labels) > 2 and labels[-2] in _SECOND_LEVEL else labels[:-1]
    return core[-1] if core else host


def _page(facts: Facts, vendor: str) -> Row | None:
    rows = facts.readings.rows(PAGES) or []
    return next((r for r in rows if str(r.get("vendor")).lower() == vendor.lower()), None)


def probe_of(facts: Facts, host: str) -> Row | None:
    """Our own unauthenticated look at a host."""
    rows = facts.readings.rows(REACH) or []
    return next((r for r in rows if host_of(r.get("host")) == host), None)


def _others_fine(bench: Bench, facts: Facts, ranked: Sequence[Vendor], worst: Vendor | None) -> tuple[Evidence, ...]:
    """The clause that other hosts are fine; none where the application calls one host only."""
    limit = facts.limits.vendor_error_percent / 100
    others = [v for v in ranked if worst is not None and v.host != worst.host]
    if not others:
        return ()
    bad = sorted(v.host for v in others if v.share_of_calls >= limit)
    return (
        bench.fact("others", "calls to other hosts are fine", not bad, rests_on=(UPSTREAMS,),
                   value=f"{', '.join(bad)} fail too" if bad else f"{len(others)} other hosts answer"),
    )  # fmt: skip


def _vendor_details(facts: Facts, worst: Vendor | None) -> dict[str, Any]:
    if worst is None:
        return {}
    return {
        "vendor": vendor_name(facts, worst.host),
        "host": worst.host,
        "calls": worst.calls,
        "failed_calls": worst.failures,
        "failed_percent": round(100 * worst.share_of_calls, 1),
    }


def _gate(bench: Bench, facts: Facts, ranked: Sequence[Vendor] | None, what: str) -> Evidence:
    worst = ranked[0] if ranked else None
    label = f"calls to {worst.host} {what}" if worst is not None else f"calls to the worst vendor {what}"
    value = None if ranked is None else worst.share_of_calls if worst is not None else 0.0
    return facts.gate(bench, "failing", label, value, at_least=facts.limits.vendor_error_percent / 100, share=True,
                      rests_on=(UPSTREAMS,), reason=_no_field(facts))  # fmt: skip


def _no_field(facts: Facts) -> str:
    if not facts.carries("upstream"):
        return "the access log names no upstream"
    silent = any(r.get("upstream_errors") is None for r in outside(facts) or [])
    return "the access log names no status of upstreams" if silent else ""


def _touched(bench: Bench, facts: Facts, worst: Vendor | None, ranked: Any) -> Evidence:
    return bench.weigh("touched", "failing requests of ours whose call to it failed so",
                       None if ranked is None else worst.explained if worst is not None else 0.0,
                       at_least=facts.limits.concentration_share, share=True, rests_on=(UPSTREAMS, REQUESTS),
                       reason=_no_field(facts))  # fmt: skip


def outage(facts: Facts) -> Cause:
    """E06: a vendor is down or does not answer in time.

    Gate: a fifth of our calls to one host fail (5xx, time-out, no answer). Clauses: they explain half of the failing
    requests; the host itself answered with errors or let us wait; other hosts are fine. Calls that had no connection
    may never have left us: they explain nothing unless our own probe fails too or the status page admits to it. Hint:
    that page.
    """
    bench = Bench("E06", facts.readings)
    ranked = failing(facts, "upstream_errors")
    worst = ranked[0] if ranked else None
    vendor = vendor_name(facts, worst.host) if worst is not None else ""
    page = _page(facts, vendor)
    indicator = str(page.get("indicator")) if page is not None else None
    answered = None if indicator in (None, "unknown") else indicator not in ("none", "maintenance")
    theirs = _it_is_them(bench, facts, worst, ranked, admitted=answered is True)
    return Cause(
        id="E06",
        name="vendor outage",
        applicable=facts.carries("upstream") and is_configured(facts, UPSTREAMS),
        gate=_gate(bench, facts, ranked, "that fail"),
        clauses=(
            _touched(bench, facts, worst, ranked),
            theirs,
            *_others_fine(bench, facts, ranked or [], worst),
        ),
        hints=(
            bench.fact("page", f"status page of {vendor or 'the vendor'}", answered, value=indicator, rests_on=(PAGES,),
                       weight=WEAK, reason="no answer of a status page of that vendor"),
        ) if is_configured(facts, PAGES) else (),
        share=worst.explained if worst is not None and facts.splittable and theirs.reading == "supports" else 0.0,
        details=_vendor_details(facts, worst) | ({"how": _how(worst.row), "status_page": indicator} if worst else {})
        if worst is not None and worst.failures else {},
    )  # fmt: skip


def _how(row: Row) -> str:
    """How calls to a host fail, mostly."""
    refused, timeouts = count(row, "refused"), count(row, "timeouts")
    kinds = {"answers 5xx": max(0, count(row, "upstream_errors") - refused - timeouts), "does not answer in time":
             timeouts, "cannot be connected to": refused}  # fmt: skip
    return max(sorted(kinds), key=lambda k: kinds[k])


def never_left(row: Row) -> bool:
    """Whether most failed calls to a host had no connection at all: it was not reached, or never called."""
    return count(row, "refused") >= 0.8 * max(1, count(row, "upstream_errors"))


def _it_is_them(bench: Bench, facts: Facts, worst: Vendor | None, ranked: Any, *, admitted: bool) -> Evidence:
    label = "the host itself fails: it answered with errors, let us wait, or does not answer our probe either"
    rests_on = (UPSTREAMS, REACH)
    if ranked is None or worst is None:
        return bench.fact("theirs", label, None if ranked is None else False, rests_on=rests_on)
    if worst.failures and not never_left(worst.row):
        return bench.fact("theirs", label, True, value=_how(worst.row), rests_on=rests_on, otherwise="refutes")
    probe = probe_of(facts, worst.host)
    answered = False if admitted else probe.get("answered") if probe is not None else None
    seen = f"probe: {probe.get('code') or probe.get('http_status')}" if probe is not None else None
    holds, unsure = None if answered is None else not answered, "calls had no connection, and the host was not probed"
    return bench.fact("theirs", label, holds, value=seen, rests_on=rests_on, otherwise="refutes", reason=unsure)


def credential(facts: Facts) -> Cause:
    """E07: a vendor refuses our credential.

    Gate: a fifth of our calls to one host are answered 401 or 403. Clauses: they explain half of the failing requests;
    what fails there is that and nothing else; the host answers an unauthenticated probe.
    """
    bench = Bench("E07", facts.readings)
    ranked = failing(facts, "auth")
    worst = ranked[0] if ranked else None
    probe = probe_of(facts, worst.host) if worst is not None else None
    answered = probe.get("answered") if probe is not None else None
    return Cause(
        id="E07",
        name="our credential refused by a vendor",
        applicable=facts.carries("upstream") and is_configured(facts, UPSTREAMS),
        gate=_gate(bench, facts, ranked, "answered 401 or 403"),
        clauses=(
            _touched(bench, facts, worst, ranked),
            _only(bench, worst, ranked, "401 and 403"),
            *((bench.fact("probe", "the host answers without a credential", answered, rests_on=(REACH,),
                          value=probe.get("http_status") if probe is not None else None, otherwise="refutes"),)
              if is_configured(facts, REACH) else ()),
        ),
        share=worst.explained if worst is not None and facts.splittable else 0.0,
        details=_vendor_details(facts, worst) if worst is not None and worst.failures else {},
    )  # fmt: skip


def _only(bench: Bench, worst: Vendor | None, ranked: Any, what: str) -> Evidence:
    share = None
    if ranked is not None:
        row: Mapping[str, Any] = worst.row if worst is not None else {}
        every = sum(count(row, key) for key in ("upstream_errors", "auth", "throttled"))
        share = worst.failures / every if worst is not None and every else 0.0
    return bench.weigh("only", f"of its failed calls, those that are {what}", share, at_least=0.8, share=True,
                       rests_on=(UPSTREAMS,))  # fmt: skip


def throttling(facts: Facts) -> Cause:
    """E08: a vendor throttles us.

    Gate: a fifth of our calls to one host are answered 429. Clauses: they explain half of the failing requests; what
    fails there is that and nothing else. Hint: we send more than before.
    """
    bench = Bench("E08", facts.readings)
    ranked = failing(facts, "throttled")
    worst = ranked[0] if ranked else None
    return Cause(
        id="E08",
        name="vendor throttles us",
        applicable=facts.carries("upstream") and is_configured(facts, UPSTREAMS),
        gate=_gate(bench, facts, ranked, "answered 429"),
        clauses=(_touched(bench, facts, worst, ranked), _only(bench, worst, ranked, "429")),
        hints=(
            bench.weigh("rate", "requests a second, against before", facts.surge, at_least=facts.limits.latency_ratio,
                        rests_on=("traffic_baseline", REQUESTS), weight=WEAK),
        ) if facts.before is not None else (),
        share=worst.explained if worst is not None and facts.splittable else 0.0,
        details=_vendor_details(facts, worst) if worst is not None and worst.failures else {},
    )  # fmt: skip


def names_or_certificates(facts: Facts) -> Cause:
    """E13: the name or the certificate of a host that we call is at fault.

    Gate: our own probe of a host fails in DNS, or in verifying its certificate (10 expired, 62 other host, 20 unknown
    issuer). Clause: half of the failing requests are calls to it that failed, or certificate errors in the log.
    """
    bench = Bench("E13", facts.readings)
    rows = facts.readings.rows(REACH)
    ranked = failing(facts, "upstream_errors")
    explained = {v.host: v.explained for v in ranked or []}
    bad = [r for r in rows or [] if r.get("dns") == "failed" or r.get("tls") == "failed"]
    worst = max(bad, key=lambda r: (explained.get(host_of(r.get("host")), 0.0), str(r.get("host"))), default=None)
    logged = Log(facts).share("tls") if is_configured(facts, LOG) else 0.0
    shares = [explained.get(host_of(worst.get("host")), 0.0) if worst is not None else 0.0, logged]
    share = None if ranked is None and not logged else max(s or 0.0 for s in shares)
    return Cause(
        id="E13",
        name="DNS or TLS of a dependency",
        applicable=is_configured(facts, REACH),
        gate=facts.fact_gate(bench, "probe", "a host that we call fails our own look, in its name or certificate",
                             None if rows is None else bool(bad), rests_on=(REACH,),
                             value=", ".join(sorted(host_of(r.get("host")) for r in bad)) or None),
        clauses=(
            bench.weigh("touched", "failing requests of ours whose call to it failed", share if worst else None,
                        at_least=facts.limits.concentration_share, share=True, rests_on=(UPSTREAMS, LOG)),
        ),
        share=(share or 0.0) if worst is not None and facts.splittable else 0.0,
        details=_tls_details(facts, worst) if worst is not None else {},
    )  # fmt: skip


def _tls_details(facts: Facts, row: Row) -> dict[str, Any]:
    code = row.get("verify_code")
    host = host_of(row.get("host"))
    layer = "DNS" if row.get("dns") == "failed" else "TLS"
    words = VERIFY_CODES.get(code, "") if isinstance(code, int) else ""
    return {
        "host": host, "vendor": vendor_name(facts, host), "layer": layer, "verify_code": code,
        "meaning": words or row.get("reason"), "days_left": row.get("days_left"),
    }  # fmt: skip


def discord_only(facts: Facts) -> Cause:
    """E17: only our messages to Discord fail, which no user feels.

    Gate: a fifth of our calls to Discord fail or are refused (429 with retry_after; 401, 404: the webhook is gone).
    Clause: what fails and does not touch Discord is below the threshold (refutes otherwise).
    """
    bench = Bench("E17", facts.readings)
    rows = facts.readings.rows(UPSTREAMS) if facts.carries("upstream") else None
    mine = [r for r in rows or [] if _DISCORD.search(host_of(r.get("host")))]
    calls = sum(count(r, "requests") for r in mine)
    failed = sum(max(count(r, "failing"), sum(count(r, k) for k in ("upstream_errors", "auth", "throttled")))
                 for r in mine)  # fmt: skip
    touched = min(facts.errors, sum(count(r, "failing") for r in mine))
    rest = 100.0 * (facts.errors - touched) / facts.total if facts.total else None
    enough = calls >= facts.limits.min_calls
    return Cause(
        id="E17",
        name="Discord only",
        applicable=facts.carries("upstream") and is_configured(facts, UPSTREAMS),
        gate=bench.gate("failing", "calls to Discord that fail",
                        None if rows is None else min(1.0, failed / calls) if enough else 0.0,
                        at_least=facts.limits.vendor_error_percent / 100, share=True, rests_on=(UPSTREAMS,),
                        reason=_no_field(facts)),
        clauses=(
            bench.weigh("rest", "requests that fail without touching Discord", rest,
                        below=facts.limits.threshold_percent, unit="%", rests_on=(REQUESTS,), otherwise="refutes"),
        ),
        share=(touched / facts.errors if facts.errors and facts.breached else 1.0) if failed and enough else 0.0,
        details={"calls": calls, "failed_calls": min(calls, failed),
                 "answers": {k: sum(count(r, k) for r in mine) for k in ("throttled", "auth", "upstream_errors")}}
        if failed else {},
    )  # fmt: skip
