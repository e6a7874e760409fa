"""Causes outside: a vendor that takes its time, and the way to it.

Source of every rule: reference fault model, runbook R4.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.responses.facts import (
    LATENCY,
    PROBES,
    SPLITS,
    Facts,
    Group,
    answers_slowly,
    is_vendor,
    known_share,
    number,
    span_share,
)  # fmt: skip
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

PAGES = "vendor_status"


def vendor(facts: Facts) -> Cause:
    """L08: a vendor that requests wait for is slow; which one, and which routes.

    Where the log tells how long the host itself took, gate: that is half of the time of the requests that touch it;
    clause: it is a fifth of the slow requests' time (refutes otherwise). Else, gate: half of the slow requests touched
    it; clauses: no statement of ours explains them (refutes otherwise), and our own probe of the host is slow, unknown
    otherwise, since a route that calls a vendor may be slow by itself. Clause of both: requests that touch it are slow
    far more often than the others (refutes otherwise). Hint: its status page, which lags.
    """
    bench = Bench("L08", facts.readings)
    group = _leading(facts)
    host = group.value if group is not None else ""
    spans = span_share(facts, group) if group is not None else None
    own = _of_its_requests(group) if group is not None and spans is not None else None
    if own is not None:
        gate = facts.gate(bench, "share", f"of the time of requests that touch {host}, its own", own, share=True,
                          at_least=facts.limits.concentration_share, rests_on=(SPLITS,))  # fmt: skip
    else:
        gate = _touched(bench, facts, group)
    return Cause(
        id="L08",
        name=f"vendor slow: {host}" if host else "vendor slow",
        applicable=facts.carries("upstream"),
        gate=gate,
        clauses=(
            _apart(bench, facts, group),
            *(() if own is not None else _not_sql(bench, facts)),
            _itself(bench, facts, group, spans),
        ),
        hints=tuple(_page(bench, facts, group)),
        share=_share(facts, group, spans),
        details=_details(facts, group, spans) if group is not None and gate.reading == "supports" else {},
    )


def _of_its_requests(group: Group) -> float | None:
    """A host's own time as part of the time of the requests that touch it."""
    spent, whole = number(group.row, "span_ms"), number(group.row, "total_ms")
    return round(min(1.0, spent / whole), 3) if spent is not None and whole else None


def _touched(bench: Bench, facts: Facts, group: Group | None) -> Evidence:
    """The slow requests that touch it, where the log does not tell its own time; open while the database is unknown."""
    unsure = group is not None and facts.leading_part is None
    value = group.share if group is not None else 0.0 if facts.vendors is not None else None
    label = f"of the slow requests, those that touched {group.value if group is not None else 'a vendor'}"
    return facts.gate(bench, "share", label, None if unsure else value, share=True,
                      at_least=facts.limits.concentration_share,
                      rests_on=(*facts.database.rests_on, SPLITS) if unsure else (SPLITS,))  # fmt: skip


def _leading(facts: Facts) -> Group | None:
    """The vendor with most of the slow requests' time as far as it is told, else with most of the slow requests."""
    return max(facts.vendors or [], key=lambda g: (known_share(facts, g) or 0.0, g.slow, g.value), default=None)


def _share(facts: Facts, group: Group | None, spans: float | None) -> float:
    if group is None:
        return 0.0
    if spans is not None:
        return spans
    return max(0.0, min(group.share, 1.0 if answers_slowly(facts, group) else 1.0 - (facts.leading_part or 0.0)))


def _apart(bench: Bench, facts: Facts, group: Group | None) -> Evidence:
    label = "requests that touch it are slow so many times as often as the others"
    alone = group is not None and group.ratio is None
    return bench.weigh("apart", label, None if group is None else group.ratio, unit="times",
                       at_least=facts.limits.release_ratio, otherwise="refutes", rests_on=(SPLITS,),
                       reason="every request touches it" if alone else "")  # fmt: skip


def _not_sql(bench: Bench, facts: Facts) -> tuple[Evidence, ...]:
    """A statement that is most of the slow requests' time leaves nothing for a vendor."""
    label = "of the slow requests' time, that of one statement of ours"
    database = facts.database
    if not database.configured:
        return ()
    return (
        bench.weigh("not_sql", label, facts.leading_part, share=True, below=facts.limits.statement_share,
                    otherwise="refutes", rests_on=(*database.rests_on, LATENCY)),
    )  # fmt: skip


def _itself(bench: Bench, facts: Facts, group: Group | None, spans: float | None) -> Evidence:
    label = "it is the host that takes the time"
    if group is None:
        return bench.fact("itself", label, None, rests_on=(SPLITS, PROBES))
    if spans is not None:
        return bench.weigh("itself", "of the slow requests' time, the host's own", spans, share=True,
                           at_least=facts.limits.material_share, otherwise="refutes", rests_on=(SPLITS,))  # fmt: skip
    slow = answers_slowly(facts, group)
    return bench.fact("itself", label, slow, value="our own probe of it is slow" if slow else None,
                      rests_on=(PROBES, SPLITS),
                      reason="the log has no time of the host's own (upstream_response_time)")  # fmt: skip


def _page(bench: Bench, facts: Facts, group: Group | None) -> list[Evidence]:
    rows = facts.readings.rows(PAGES)
    if group is None or not rows:
        return []
    words = set(group.value.lower().replace(":", ".").split("."))
    page = next((r for r in rows if str(r.get("vendor")).lower() in words and r.get("answered")), None)
    if page is None:
        return []
    bad = str(page.get("indicator") or "none").lower() not in ("none", "operational")
    return [bench.fact("page", "its status page says so too", bad, value=page.get("indicator"), rests_on=(PAGES,),
                       weight=WEAK)]  # fmt: skip


def _details(facts: Facts, group: Group, spans: float | None) -> dict[str, Any]:
    rows = facts.readings.rows(SPLITS) or []
    routes = next(
        (r.get("routes") for r in rows if r.get("by") == "upstream_routes" and r.get("value") == group.value), None
    )
    found = {"host": group.value, "routes": routes, "requests": group.requests, "slow": group.slow,
             "p95_ms_of_its_requests": group.p95_ms, "time_share": spans,
             "span_p95_ms": number(group.row, "span_p95_ms")}  # fmt: skip
    return {key: item for key, item in found.items() if item is not None}


def network(facts: Facts) -> Cause:
    """L12: the way to a host takes the time: its name, the connection, the handshake.

    Gate: connecting to a host takes 200 ms and more, by the log (95th percentile) or by our own probe of it. Clauses:
    half of the slow requests touch that host; connecting is a fifth of the slow requests' time.
    """
    bench = Bench("L12", facts.readings)
    worst, value, split = _slowest_way(facts)
    group = next(
        (g for g in facts.split("upstream") or [] if g.value.partition(":")[0] == worst.partition(":")[0]), None
    )
    known = facts.readings.known(PROBES) or facts.vendors is not None
    if value < facts.limits.connect_ms and facts.lost(PROBES, SPLITS):
        known = False
    slow_total, connects = number(facts.now, "slow_total_ms"), number(group.row if group else None, "connect_ms")
    part = round(min(1.0, connects / slow_total), 3) if connects is not None and slow_total else None
    return Cause(
        id="L12",
        name=f"name, connection or handshake slow: {worst}" if worst else "name, connection or handshake slow",
        applicable=facts.systems.configured(PROBES) or (facts.vendors is not None),
        gate=facts.gate(bench, "connect", f"connecting to {worst or 'a host'}", value if known else None, unit="ms",
                        at_least=facts.limits.connect_ms, rests_on=(PROBES, SPLITS)),
        clauses=(
            bench.weigh("touch", "of the slow requests, those that touched it",
                        group.share if group is not None else None, share=True, otherwise="refutes",
                        at_least=facts.limits.concentration_share, rests_on=(SPLITS,),
                        reason="no request of the window is known to have touched it"),
            bench.weigh("part", "of the slow requests' time, connecting to it", part, share=True,
                        at_least=facts.limits.material_share, otherwise="refutes", rests_on=(SPLITS,),
                        reason="the log has no connect time of it"),
        ),
        share=part or 0.0,
        details={"host": worst, "connect_ms": value, **split} if value >= facts.limits.connect_ms else {},
    )  # fmt: skip


def _slowest_way(facts: Facts) -> tuple[str, float, dict[str, Any]]:
    """The host that it takes longest to connect to, in milliseconds, and how that splits up where we tried it."""
    ways: list[tuple[float, str, dict[str, Any]]] = []
    for row in facts.readings.rows(PROBES) or []:
        parts = {key: ms for key in ("dns_ms", "tcp_ms", "tls_ms") if (ms := number(row, key)) is not None}
        ways.append((round(sum(parts.values()), 1), str(row.get("host")), parts))
    ways += [
        (p95, group.value, {"connect_p95_ms": p95})
        for group in facts.split("upstream") or []
        if is_vendor(group) and (p95 := number(group.row, "connect_p95_ms")) is not None
    ]
    value, host, split = max(ways, key=lambda w: (w[0], w[1]), default=(0.0, "", {}))
    return (host if value else "", value, split)
