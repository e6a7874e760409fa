"""Causes on the way to the application: name, certificate, edge, a wrong question, the checker itself, some instances.

Source: reference fault model, R7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.health.facts import WALK, Facts
from runbook.diagnosis.health.places import LATE, WRONG_QUESTION, Place
from runbook.diagnosis.health.processes import instances
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, STRONG, WEAK, Evidence

CHECKER = "checker"
_TRANSIENT = re.compile(r"(?i)temporary|try again|within")
"""What a resolver says that has no answer, which is not the same as no such name."""
DAY = 86_400.0


def name_does_not_resolve(facts: Facts) -> Cause:
    """H04: the name has no address here, or an address that takes no connections any more.

    Gate: no address, in most looks, by the word of a resolver that works (decisive); or an address before the one that
    works refuses or is silent (a stale record).
    A resolver that has no answer, for other names neither, is ours: then nothing is said. Clause: an instance answers
    at its own address. Source: R7, H04.
    """
    bench = Bench("H04", facts.readings)
    known = [p for p in facts.outside if p.looks]
    gone = [p for p in known if p.most([r["layer"] == "dns" for r in p.looks])]
    stale = [p for p in known if p not in gone and p.most([bool(_stale(r)) for r in p.looks])]
    addresses = list(dict.fromkeys(a for p in stale for r in p.looks for a in _stale(r)))
    found = gone or stale
    works = any(p.answers for p in facts.instances) if facts.instances else None
    # "No such name" is the answer of a resolver that works; "try again" may be that of one that answers nobody.
    transient = any(_TRANSIENT.search(str(r.get("reason"))) for p in gone for r in p.looks)
    ours = transient and not _other_names(facts, found)
    place = found[0] if found else None
    return Cause(
        id="H04",
        name="name does not resolve" if gone or not stale else "name points at an address that is gone",
        gate=bench.fact("resolves", "its name has no address, or one that takes no connections",
                        None if ours else True if found else False if known else None, otherwise="refutes",
                        weight=DECISIVE if gone and not transient else STRONG,
                        rests_on=(WALK, *(("dependency_hosts",) if ours else ())),
                        value=(f"{place.url}: {place.reason}" if gone and place else ", ".join(addresses)) or None,
                        reason="the resolver of this host answers nobody, as far as is known" if ours
                        else facts.why_not()),
        clauses=(
            bench.fact("by_address", "the application answers at its own address", works, rests_on=(WALK,),
                       reason="no instance is configured (app.instances)"),
        ),
        share=1.0 if found and not ours else 0.0,
        details={"host": place.instance, "url": place.url, "stale_addresses": addresses or None,
                 "reason": place.reason or None} if place else {},
    )  # fmt: skip


def _stale(row: Mapping[str, Any]) -> list[str]:
    """Addresses that were tried before the one that worked and do not work; loopback and the other family aside."""
    good = str(row.get("address") or "")
    if row.get("tcp") != "ok":
        return []
    dead = [str(s.get("address")) for s in row.get("stale") or [] if s.get("code") in ("ECONNREFUSED", "TIMEOUT")]
    return [address for address in dead if (":" in address) == (":" in good)]


def _other_names(facts: Facts, found: Sequence[Place]) -> bool | None:
    """Whether names of other hosts resolve here; ``None`` when no other was asked for."""
    mine = {p.instance for p in found}
    told = [
        any(r.get("dns") == "ok" for r in place.looks)
        for place in [*facts.outside, *facts.others]
        if place.instance not in mine and place.looks and not _is_address(place.instance)
    ]
    told += [
        row["dns"] == "ok"
        for row in facts.readings.rows("dependency_hosts") or []
        if row.get("dns") in ("ok", "failed") and not _is_address(str(row.get("url")).partition("://")[2])
    ]
    return any(told) if told else None


def _is_address(text: str) -> bool:
    host = text.partition("/")[0].rpartition(":")[0] or text.partition("/")[0]
    return host.startswith("[") or host.replace(".", "").isdigit() or host == "localhost"


def certificate(facts: Facts) -> Cause:
    """H05: the connection is there, and TLS fails: the certificate is out of date, for another name, or not trusted.

    Gate: the handshake does not come about, or the certificate is not accepted. Clauses: what is wrong with it is
    named; it is wrong for everybody (dates, name), and not only for what this host trusts; our clock agrees with the
    server's. Source: R7, H05.
    """
    bench = Bench("H05", facts.readings)
    known = [p for p in [*facts.outside, *facts.others] if p.looks]
    found = [p for p in known if p.most([r["layer"] == "tls" and r.get("code") not in LATE for r in p.looks])]
    place = next((p for p in found if p in facts.outside), found[0] if found else None)
    row, own = (place.last or {}) if place else {}, (place.certificate or {}) if place else {}
    kind = _wrong(row, own)
    skew = row.get("skew_seconds")
    clauses: list[Evidence] = [
        bench.fact("kind", "what is wrong with it", bool(kind) if place else None, value=_told(kind, own),
                   rests_on=(WALK,)),
        bench.fact("everybody", "wrong for everybody, not only for what this host trusts",
                   None if not place or not kind or kind == "issuer" else True, rests_on=(WALK,),
                   reason="the checker may trust an issuer that this host does not know" if kind == "issuer" else ""),
    ]  # fmt: skip
    if kind in ("expired", "not yet valid") and isinstance(skew, int | float):
        clauses.append(bench.fact("clock", "our clock agrees with the server's", abs(skew) < DAY, value=skew, unit="s",
                                  rests_on=(WALK,), otherwise="refutes"))  # fmt: skip
    return Cause(
        id="H05",
        name=_name(kind, own),
        gate=bench.fact("accepted", "no TLS connection comes about, or the certificate is not accepted",
                        True if place else False if known else None, rests_on=(WALK,), otherwise="refutes",
                        value=row.get("reason") or None, reason=facts.why_not()),
        clauses=tuple(clauses),
        share=1.0 if place else 0.0,
        details={"host": place.instance, "url": place.url, "problem": kind or "handshake",
                 "verify_code": row.get("verify_code"), "reason": row.get("reason"),
                 **{k: own.get(k) for k in ("not_after", "not_before", "days_left", "names", "issuer", "self_signed")
                    if own.get(k) is not None}} if place else {},
    )  # fmt: skip


_NAMES = {"expired": "certificate expired", "not yet valid": "certificate not yet valid",
          "name": "certificate for another name", "issuer": "issuer not known here",
          "handshake": "handshake fails"}  # fmt: skip


def _name(kind: str, own: Mapping[str, Any]) -> str:
    """What the cause is called: with the day where a certificate is over."""
    day = f" ({str(own['not_after'])[:10]})" if kind == "expired" and own.get("not_after") else ""
    return f"TLS: {_NAMES.get(kind, 'handshake or certificate')}{day}"


def _wrong(row: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    if own.get("expired") or row.get("verify_code") == 10:
        return "expired"
    if own.get("not_yet_valid") or row.get("verify_code") == 9:
        return "not yet valid"
    if row.get("verify_code") in (62, 64) or (own and own.get("names_host") is False):
        return "name"
    if row.get("verify_code"):
        return "issuer"
    return "handshake" if row else ""


def _told(kind: str, own: Mapping[str, Any]) -> str | None:
    if kind == "expired":
        return f"expired at {own.get('not_after') or 'an unknown time'}"
    if kind == "not yet valid":
        return f"valid from {own.get('not_before') or 'an unknown time'} on"
    if kind == "name":
        return f"for {', '.join(own.get('names') or []) or 'no name at all'}"
    if kind == "issuer":
        return "self-signed" if own.get("self_signed") else f"signed by {own.get('issuer') or 'an unknown issuer'}"
    return kind or None


def edge(facts: Facts) -> Cause:
    """H06: balancer, proxy or CDN fails by itself: the instances answer well at their own addresses.

    Gate: outside it is refused, silent, or answered 5xx. Clause: every instance answers the same question well, or the
    endpoint that is asked directly does; without either it stays open. Source: R7, H06.
    """
    bench = Bench("H06", facts.readings)
    known = [p for p in facts.outside if p.looks]
    addresses = {p.instance for p in facts.instances}
    found = [p for p in known if p.bad and _at_edge(p) and p.instance not in addresses]
    origin = facts.checked
    direct = bool(found) and origin is not None and origin.passes and origin.expected and origin not in found
    well = (True if direct else None) if not facts.instances else len(facts.well) == len(facts.instances)
    if not facts.affected and (facts.cut_off or any(p.bad is None for p in facts.instances)):
        well = None  # those that cannot be seen may be what fails
    # What an instance fails at as well is not the edge's.
    gate = False if known and (not found or well is False) else True if found else None
    place = found[0] if found else None
    return Cause(
        id="H06",
        name="edge: balancer, proxy or CDN",
        gate=bench.fact("outside", "fails outside in a way that no instance does", gate, rests_on=(WALK,),
                        value=f"{place.url}: {place.reason}" if place else None, otherwise="refutes",
                        reason=facts.why_not()),
        clauses=(
            bench.fact("origin", "every instance answers the same question well", well, otherwise="refutes",
                       value=f"{len(facts.well)} of {len(facts.instances)}" if facts.instances
                       else origin.url if direct and origin else None,
                       rests_on=(WALK,), reason=facts.why_not() or "no instance is configured (app.instances)"),
        ),
        share=1.0 if found and gate else 0.0,
        details={"url": place.url, "host": place.instance, "http_status": place.status, "reason": place.reason,
                 "instances_well": instances(facts.well)} if place and gate else {},
    )  # fmt: skip


def _at_edge(place: Place) -> bool:
    if place.layer == "http":
        return place.status is None or place.status >= 500 or place.status == 429
    return place.layer in ("tcp", "late") or place.silent


def wrong_question(facts: Facts) -> Cause:
    """H09: the checker asks for something that is not there: moved, renamed, behind a login, for another host.

    Gate: 3xx, 401, 403, 404 or the like where a health endpoint was promised. Clause: the same answer in every look,
    so that it is no chance. The hint: another endpoint, or an instance at its own address, answers well.
    Source: R7, H09.
    """
    bench = Bench("H09", facts.readings)
    places = [p for p in [*facts.outside, *facts.instances] if p.expected]
    known = [p for p in places if p.looks]
    found = [p for p in known if p.status in WRONG_QUESTION and p.layer == "http"]
    place = found[0] if found else None
    alive = [p for p in [*facts.others, *facts.instances, *(facts.beside(place) if place else [])]
             if p.passes and p is not place]  # fmt: skip
    details: dict[str, Any] = {}
    if place is not None:
        row = place.last or {}
        details = {"url": place.url, "http_status": place.status, "location": row.get("location"),
                   "answers_well": [p.url for p in alive][:5] or None}  # fmt: skip
    hint = bench.fact("alive", "something else of it answers well", True, value=alive[0].url if alive else None,
                      rests_on=(WALK,), weight=WEAK)  # fmt: skip
    return Cause(
        id="H09",
        name="wrong expectation" + (f": {place.status}" if place else ""),
        gate=bench.fact("status", "answers with a redirect, a login or not found", True if place else
                        (False if known else None), value=place.status if place else None, rests_on=(WALK,),
                        otherwise="refutes",
                        reason=facts.why_not() or "nobody said which address is the health endpoint"),
        clauses=(
            bench.fact("always", "the same answer in every look",
                       len({r.get("http_status") for r in place.looks}) == 1 if place else None, rests_on=(WALK,)),
        ),
        hints=(hint,) if alive and place else (),
        share=1.0 if place else 0.0,
        details={k: v for k, v in details.items() if v is not None},
    )  # fmt: skip


def checker_side(facts: Facts) -> Cause:
    """H11: the checker says down and is wrong: from here everything answers well.

    Gate: the metrics server's own probe of this endpoint fails now. Clause: every look from here, at the endpoint and
    at every instance, is well. Without a metrics server nobody says what the checker sees. Source: R7, H11.
    """
    bench, reading = Bench("H11", facts.readings), facts.readings.last(CHECKER)
    rows = facts.readings.rows(CHECKER)
    names = {n for p in [*facts.outside, *facts.others, *facts.instances] for n in (p.url, p.instance)}
    mine = [r for r in rows or [] if str(r.get("instance")) in names or str(r.get("target")) in names]
    fails = [r for r in mine if r.get("value") == 0]
    every = [*facts.outside, *facts.instances]
    well = None if not every or any(p.failing is None for p in every) else all(not p.failing for p in every)
    return Cause(
        id="H11",
        name="the checker's side",
        applicable=reading is not None and reading.state != "not_configured",
        gate=bench.fact("fails_there", "the checker's own probe fails now", None if rows is None else bool(fails),
                        value=", ".join(sorted({str(r.get("job") or r.get("instance")) for r in fails})) or None,
                        rests_on=(CHECKER,), otherwise="refutes"),
        clauses=(
            bench.fact("well_here", "every look from here is well", well, rests_on=(WALK,), otherwise="refutes",
                       reason=facts.why_not()),
        ),
        share=1.0 if fails and well else 0.0,
        details={"probes": [{k: r.get(k) for k in ("job", "instance") if r.get(k)} for r in fails[:5]]}
        if fails and well else {},
    )  # fmt: skip


def some_instances(facts: Facts, causes: Sequence[Cause]) -> Cause:
    """H12: some of the instances fail, the others are well.

    Gate: at least one fails and at least one is well. Clause: the same ones fail in every look. Why each of them fails
    is told by the other causes. Source: R7, H12.
    """
    bench = Bench("H12", facts.readings)
    bad, well = facts.affected, facts.well
    several = len(facts.instances) > 1
    open_ = several and not (bad and well) and any(p.bad is None for p in facts.instances)
    gate = bool(bad and well) if facts.instances and not open_ else None
    why = {instance: cause.id for cause in reversed(causes) if cause.gate.reading == "supports"
           for instance in cause.details.get("instances") or []}  # fmt: skip
    reasons = {p.instance: why.get(p.instance) or p.reason for p in bad} if gate else {}
    return Cause(
        id="H12",
        name=f"{len(bad)} of {len(facts.known)} instances fail" if gate else "some instances fail",
        applicable=several,
        gate=bench.fact("some", "some instances fail while others are well", gate,
                        value=f"{len(bad)} of {len(facts.known)}" if facts.instances else None, rests_on=(WALK,),
                        otherwise="refutes", reason=facts.why_not() or "no instance is configured (app.instances)"),
        clauses=(
            bench.fact("same", "the same ones in every look",
                       all((p.failing or 0.0) >= 1.0 for p in bad) if gate else None, rests_on=(WALK,)),
        ),
        share=1.0 if gate else 0.0,
        details={"instances": instances(bad), "why": reasons, "well": instances(well)} if gate else {},
    )  # fmt: skip
