"""The way to the endpoint as a ladder of layers, from outside and at the instances: what a picture is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis.health.facts import Facts
from runbook.diagnosis.health.limits import Limits
from runbook.diagnosis.health.places import Place, number
from runbook.diagnosis.health.service import Ready
from runbook.diagnosis.ladder import Ladder, Rung, RungState
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import found
from runbook.result import Findings, Reading

LAYERS = ("name", "connection", "TLS", "HTTP", "body", "dependencies")
_OF: Mapping[str, str] = {"dns": "name", "tcp": "connection", "tls": "TLS", "http": "HTTP", "late": "HTTP",
                          "body": "body"}  # fmt: skip


def ladders(readings: Sequence[Reading], parameters: Mapping[str, Any], findings: Findings | None) -> list[Ladder]:
    """Outside first, then the instance that fails (or the first), then one that is well beside it."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    ready = Ready(facts)
    causes = tuple(v.cause for v in findings.verdict if found(v.tier) and v.cause != "H00") if findings else ()
    made: list[Ladder] = []
    outside = facts.first_bad or facts.checked
    if outside is not None:
        made.append(_ladder("outside", outside, facts, ready, causes))
    inside = [*facts.affected, *facts.well] if facts.instances else []
    shown = [p for p in [next(iter(facts.affected), None), next(iter(facts.well), None)] if p in inside and p]
    for place in shown:
        count = len(facts.affected if place.bad else facts.well)
        more = f" and {count - 1} more" if count > 1 else ""
        made.append(_ladder("inside", place, facts, ready, causes, more))
    return made


def _ladder(vantage: str, place: Place, facts: Facts, ready: Ready, causes: tuple[str, ...], more: str = "") -> Ladder:
    failing = _OF.get(place.layer, "")
    row = place.typical
    rungs: list[Rung] = []
    broken = place.bad is None
    for layer in LAYERS[:-1]:
        if broken:
            rungs.append(Rung(layer=layer, state="unknown", note="not come to"))
        elif layer == failing:
            broken = True
            rungs.append(Rung(layer=layer, state="fails", note=place.reason))
        elif layer == "TLS" and place.url.startswith("http:"):
            rungs.append(Rung(layer=layer, state="none", note="plain HTTP"))
        else:
            rungs.append(Rung(layer=layer, state="passes", note=_note(layer, row)))
    rungs.append(_dependencies(place, ready))
    return Ladder(vantage=vantage, target=place.instance + more, rungs=tuple(rungs),
                  causes=causes if place.bad else ())  # fmt: skip


def _note(layer: str, row: Mapping[str, Any]) -> str:
    key = {"name": "dns_ms", "connection": "tcp_ms", "TLS": "tls_ms", "HTTP": "first_byte_ms"}.get(layer)
    taken = number(row, key) if key else None
    what = {"name": row.get("address"), "HTTP": row.get("http_status"), "body": row.get("word") or row.get("status")}
    parts = [str(what[layer])] if what.get(layer) else []
    return " · ".join([*parts, *([f"{taken:g} ms"] if taken is not None else [])])


def _dependencies(place: Place, ready: Ready) -> Rung:
    failing = [d for d in ready.backing.failing if d.fails or d.said]
    if failing and place.bad and (ready.places or place.layer == "body"):
        told = "; ".join(f"{d.name}: {d.why if d.fails else d.output or 'down by its word'}" for d in failing[:2])
        return Rung(layer="dependencies", state="fails", note=told)
    known = [d.name for d in ready.backing.all if d.fails is False]
    state: RungState = "passes" if known and not ready.backing.unknown else "unknown"
    return Rung(layer="dependencies", state=state, note=f"{', '.join(known)} answer" if known else "not asked")
