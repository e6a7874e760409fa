"""Causes behind the endpoint: a dependency, too slow, degraded, a full disk, a release.

Source: reference fault model, R7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from runbook.diagnosis import disks
from runbook.diagnosis import memory as memory_room
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.health.backing import Backing, Dependency
from runbook.diagnosis.health.facts import LOG, WALK, Facts
from runbook.diagnosis.health.machine import SOCKETS
from runbook.diagnosis.health.places import Place, number
from runbook.diagnosis.health.processes import each, instances
from runbook.diagnosis.verdict import Cause
from runbook.result import STRONG, WEAK, Evidence

UNCLEAR = "whether the application answers so, or what stands before it (app.live_url, app.instances)"
NO_ROOM, NO_MEMORY = "ENOSPC", "out of memory"
ROOM = re.compile(r"(?i)disk|space|memory|heap")


@dataclass(frozen=True)
class Ready:
    """Endpoints that say *not ready*, and what they say of what they depend on."""

    facts: Facts

    @cached_property
    def places(self) -> list[Place]:
        """Where the application was asked and it lives, and does not call itself ready.

        It answers 5xx itself; or it leaves the question unanswered, or answers too late, while its liveness endpoint
        answers well.
        """
        return [p for p in [*self.facts.affected, *self._outside] if self._not_ready(p)]

    @property
    def _outside(self) -> list[Place]:
        return [] if self.facts.instances else [p for p in self.facts.outside if p.bad and p not in self.facts.affected]

    def _not_ready(self, place: Place) -> bool:
        live = self.facts.live(place)
        if live is not None and live.passes and (place.silent or place.layer in ("http", "late")):
            return place.status is None or place.status >= 500 or place.layer == "late"
        if place.layer != "http" or place.status is None or place.status < 500:
            return False
        lives = place in self.facts.instances or bool(place.checks("fail", "warn", "pass"))
        return lives and not (live is not None and live.bad and not live.answers)

    @cached_property
    def unclear(self) -> bool:
        """Whether something answers 5xx of which nobody can tell if it is the application or what stands before it."""
        return any(
            p.layer == "http" and (p.status or 0) >= 500 and p not in self.places and self.facts.live(p) is None
            for p in [*self.facts.affected, *self._outside]
        )

    @cached_property
    def backing(self) -> Backing:
        """The systems behind, with what these endpoints say of them; of degraded ones where none fails."""
        told = self.places or [*self.facts.asked, *self.facts.outside]
        waits = any(p.mute or p.layer == "late" for p in self.places)
        checks = [c for p in told for c in p.checks("fail", "warn", "pass")]
        return Backing(self.facts.readings, checks, waits=waits)


def dependency(facts: Facts, ready: Ready) -> Cause:
    """H07: the application lives and is not ready, since something that it needs is down; names which.

    Gate: the readiness check fails while the application lives. Clauses: that system's own probe fails; the application
    names it. Named by the application alone it stays probable, and a system that the application calls well is never
    named. Never a reason to restart: all instances would come back to the same. Source: R7, H07.
    """
    bench, places = Bench("H07", facts.readings), ready.places
    failing = ready.backing.failing if places else []
    first = failing[0] if failing else None
    together = [d for d in failing if first is not None and d.rank == first.rank]
    rests_on = (*(first.rests_on if first else ()), WALK) if first else ("redis_ping", "connection", WALK)
    gate: bool | None = None if facts.blind else bool(places and first)
    if (places and first is None and ready.backing.unknown) or ready.unclear:
        gate = None
    clauses: list[Evidence] = []
    if first is not None:
        clauses.append(bench.fact("probe", f"{first.name}: its own probe fails", first.fails, value=first.why,
                                  rests_on=rests_on))  # fmt: skip
        if first.said is not None:
            clauses.append(bench.fact("named", "the application names it", first.said, otherwise="refutes",
                                      value=first.output or first.name, rests_on=(WALK,)))  # fmt: skip
    else:
        clauses.append(bench.fact("probe", "the own probe of something that it needs fails",
                                  None if ready.backing.unknown else False, rests_on=rests_on))  # fmt: skip
    names = ", ".join(d.name for d in together)
    return Cause(
        id="H07",
        name=f"dependency: {names}" if names else "dependency",
        gate=bench.fact("not_ready", "it lives, and is not ready for something that it needs", gate,
                        value="; ".join(dict.fromkeys(p.reason for p in places))[:200] or None,
                        rests_on=(WALK, *ready.backing.unknown), otherwise="refutes",
                        reason=facts.why_not() or (UNCLEAR if ready.unclear else "")),
        clauses=tuple(clauses),
        share=_share(facts, places) if first else 0.0,
        details=_dependency_details(places, first, together),
    )  # fmt: skip


def _dependency_details(
    places: Sequence[Place], first: Dependency | None, together: Sequence[Dependency]
) -> dict[str, Any]:
    if first is None:
        return {}
    several = [d.name for d in together] if len(together) > 1 else None
    details = {"dependency": first.name, "dependencies": several, "probe": first.why,
               "application_says": first.output or None, "refers_to": first.refers_to,
               "instances": instances(places), "http_status": places[0].status}  # fmt: skip
    return {k: v for k, v in details.items() if v is not None}


def _share(facts: Facts, places: Sequence[Place]) -> float:
    inside = [p for p in places if p in facts.asked]
    return facts.share(inside) if inside else 1.0 if places else 0.0


def slow(facts: Facts) -> Cause:
    """H08: it answers, and later than the checker waits.

    Gate: no answer within ``checker_timeout`` in most looks. Clause: the look that waited longer got a good answer
    after that time. Source: R7, H08.
    """
    bench, limit = Bench("H08", facts.readings), facts.limits.checker_timeout
    places = [p for p in [*facts.asked, *facts.outside] if p.bad and _late_looks(p)]
    places = list(dict.fromkeys(places))
    seconds = max((x for p in places for x in _late_looks(p)), default=None)
    asked = [p for p in [*facts.asked, *facts.outside] if p.bad is not None]
    quickest = max((x for p in asked for r in p.looks if (x := number(r, "total_ms")) is not None), default=None)
    inside = [p for p in places if p in facts.asked]
    return Cause(
        id="H08",
        name=f"slower than the checker waits ({limit:g} s)",
        gate=bench.gate("late", "longest answer" if places else "longest look",
                        None if not asked else seconds if seconds is not None else
                        min(round((quickest or 0.0) / 1000, 2), limit - 0.01),
                        at_least=limit, unit="s", rests_on=(WALK,), reason=facts.why_not()),
        clauses=(
            bench.fact("well", "a good answer in the end", True if places else None, rests_on=(WALK,),
                       value=", ".join(sorted({str((p.last or {}).get("http_status")) for p in places})) or None),
        ),
        share=facts.share(inside) if inside else 1.0 if places else 0.0,
        details={"instances": instances(inside) or instances(places), "seconds": seconds, "checker_timeout": limit,
                 "slowest_step": _slowest(places[0])} if places else {},
    )  # fmt: skip


def _late_looks(place: Place) -> list[float]:
    """Seconds of good answers that came too late."""
    return [round((number(r, "total_ms") or 0.0) / 1000, 2) for r in place.looks
            if place.is_late(r) and not r["layer"]]  # fmt: skip


def _slowest(place: Place) -> str | None:
    row = max(place.looks, key=lambda r: number(r, "total_ms") or 0.0)
    steps = {"name": "dns_ms", "connection": "tcp_ms", "TLS": "tls_ms", "first byte": "first_byte_ms"}
    timed = {step: value for step, key in steps.items() if (value := number(row, key)) is not None}
    return max(timed, key=lambda step: timed[step], default=None)


def degraded(facts: Facts, ready: Ready) -> Cause:
    """H16: it answers 200, and its body says that something is not as it should be.

    Gate: a 2xx whose body says degraded, down or the like. Clause: the body names what. Where the own probe of that
    system fails, it refers to that finding. Source: R7, H16.
    """
    bench = Bench("H16", facts.readings)
    asked = list(dict.fromkeys([*facts.outside, *facts.asked]))
    known = [p for p in asked if p.bad is not None]
    places = [p for p in known if p.layer == "body"]
    checks = [c for p in places for c in p.checks("fail", "warn")]
    named = list(dict.fromkeys(str(c.get("name")) for c in checks))
    failing = [d for d in ready.backing.failing if d.fails and d.said] if places and not ready.places else []
    said = list(dict.fromkeys(str((p.last or {}).get("word") or (p.last or {}).get("status")) for p in places))
    details: dict[str, Any] = {}
    if places:
        details = {"says": said, "checks": named, "outputs": [str(c["output"]) for c in checks if c.get("output")][:5],
                   "instances": instances([p for p in places if p in facts.asked]), "url": places[0].url,
                   "refers_to": next((d.refers_to for d in failing if d.refers_to), None),
                   "probe": failing[0].why if failing else None}  # fmt: skip
    return Cause(
        id="H16",
        name="answers 200 and calls itself degraded" + (f": {', '.join(named)}" if named else ""),
        gate=bench.fact("body", "200, and the body says otherwise", True if places else False if known else None,
                        value=", ".join(said) or None, rests_on=(WALK,), otherwise="refutes", reason=facts.why_not()),
        clauses=(bench.fact("named", "the body names what", bool(named) if places else None,
                            value=", ".join(named) or None, rests_on=(WALK,)),),
        share=(_share(facts, [p for p in places if p in facts.asked]) or 1.0) if places else 0.0,
        details={k: v for k, v in details.items() if v not in (None, [])},
    )  # fmt: skip


def disk_or_memory(facts: Facts) -> Cause:
    """H14: the host is out of disk or memory; stands for a finding of those runbooks.

    Gate: a file system is full, or the log or the endpoint itself speaks of no space or no memory. Clause: the
    application says so, in its log or its health check. A full disk that nobody complains of is only possible.
    Source: R7, H14.
    """
    bench = Bench("H14", facts.readings)
    full = _full_disks(facts)
    logged = {kind: facts.logged(kind) for kind in (NO_ROOM, NO_MEMORY)}
    own = [c for p in [*facts.asked, *facts.outside] if p.bad for c in p.checks("fail") if ROOM.search(str(c["name"]))]
    says: bool | None = bool(own) or bool(any(logged.values()) and facts.affected)
    if not says and None in logged.values():
        says = None
    gate = True if full or says else False if full is not None else None
    if gate is None and says is False:
        gate = False
    first = full[0] if full else {}
    memory = bool(logged[NO_MEMORY]) or any("mem" in str(c["name"]).lower() for c in own)
    short = (memory_room if memory and not full else disks).finding(facts.readings) if gate else None
    others = [r.get("mount") for r in (full or [])[1:5]]
    details = {"host": first.get("host"), "mount": first.get("mount"), "used_percent": first.get("used_percent"),
               "inodes_percent": first.get("inodes_percent"), "also_full": others or None,
               "application_says": list(dict.fromkeys(f"{c['name']}: {c.get('output')}" for c in own))[:3] or None,
               "refers_to": short.cause if short is not None else None,
               "kind": "memory" if memory and not full else "disk"}  # fmt: skip
    return Cause(
        id="H14",
        name="out of memory" if memory and not full else "out of disk",
        gate=bench.fact("room", f"a file system at {facts.limits.disk_percent:g} %, or no space or memory by its word",
                        gate, value=_room(first) or (details["application_says"] or [None])[0],
                        rests_on=("disk", LOG, WALK), otherwise="refutes"),
        clauses=(bench.fact("says", "the application says so", says if gate else None, rests_on=(LOG, WALK)),),
        share=_share(facts, facts.affected) if gate else 0.0,
        details={k: v for k, v in details.items() if v is not None} if gate else {},
    )  # fmt: skip


def _full_disks(facts: Facts) -> list[Mapping[str, Any]] | None:
    rows = facts.readings.rows("disk")
    if rows is None:
        return None
    most = facts.limits.disk_percent
    return [r for r in rows if not r.get("pseudo") and not r.get("read_only")
            and max(number(r, "used_percent") or 0.0, number(r, "inodes_percent") or 0.0) >= most]  # fmt: skip


def _room(row: Mapping[str, Any]) -> str | None:
    return f"{row.get('mount')}: {row.get('used_percent')} % full" if row else None


def release(facts: Facts, *, others: bool | None) -> Cause:
    """H15: what was released does not get healthy.

    Gate: the instances that fail run another release than those that are well; or, where all fail, a deployment ended
    within ``deploy_minutes`` before. Clauses: what runs began with that deployment; nothing else explains it. A
    deployment nearby is weak by itself, since there nearly always is one. Source: R7, H15; E01.
    """
    bench = Bench("H15", facts.readings)
    split, deployed = _by_release(facts), _deployed(facts)
    gate: bool | None
    if split is not None:
        gate, weight = True, STRONG
    else:
        gate, weight = (None if facts.blind else bool(deployed and (facts.affected or facts.first_bad))), WEAK
        if gate is False and facts.affected and facts.readings.rows("deployments") is None and _asked(facts):
            gate = None
    began = _began_with(facts, deployed)
    clauses: list[Evidence] = []
    if split is not None:
        clauses.append(bench.fact("old_is_well", "the release that was there before is well", True, value=split[1],
                                  rests_on=(WALK,)))  # fmt: skip
        clauses.append(bench.fact("alone", "nothing else explains it", None if others is None else not others,
                                  rests_on=(WALK,)))  # fmt: skip
    else:
        clauses.append(bench.fact("began", "its processes began with it", began, rests_on=(SOCKETS, WALK), weight=WEAK))
        clauses.append(bench.fact("alone", "nothing else explains it", None if others is None else not others,
                                  rests_on=(WALK,)))  # fmt: skip
        clauses.append(bench.fact("old_is_well", "an instance of the release before is well", False, rests_on=(WALK,)))
    places = facts.affected
    details: dict[str, Any] = {}
    if gate:
        details = {"release": split[0] if split else None, "release_before": split[1] if split else None,
                   "instances": instances(places), "refers_to": "E01" if split else None,
                   **{k: (deployed or {}).get(k) for k in ("sha", "ref", "finished_at")}}  # fmt: skip
    return Cause(
        id="H15",
        name="release" + (f" {split[0]}" if split else ""),
        gate=bench.fact("release", "what fails is a new release", gate, weight=weight, otherwise="refutes",
                        value=f"{split[0]} fails, {split[1]} is well" if split
                        else (deployed or {}).get("finished_at"), rests_on=(WALK, "deployments"),
                        reason=facts.why_not()),
        clauses=tuple(clauses),
        share=1.0 if gate else 0.0,
        details={k: v for k, v in details.items() if v is not None},
    )  # fmt: skip


def _asked(facts: Facts) -> bool:
    reading = facts.readings.last("deployments")
    return reading is not None and reading.state != "not_configured"


def _by_release(facts: Facts) -> tuple[str, str] | None:
    """The release of every instance that fails and that of those that are well, where they differ."""
    bad, well = ({p.release for p in places} for places in (facts.affected, facts.well))
    if len(bad) != 1 or len(well) != 1 or None in bad | well or bad == well:
        return None
    return str(next(iter(bad))), str(next(iter(well)))


def _deployed(facts: Facts) -> Mapping[str, Any] | None:
    """The last deployment that reached production within so many minutes before the alert."""
    began = _moment(facts.limits.alert_at) or _moment(facts.readings.measured_at((WALK,)))
    if began is None:
        return None
    earliest = began - timedelta(minutes=facts.limits.deploy_minutes)
    found = [(at, r) for r in facts.readings.rows("deployments") or []
             if str(r.get("state") or "").lower() in ("", "success", "active", "inactive")
             and (at := _moment(str(r.get("finished_at") or r.get("created_at") or ""))) is not None
             and earliest <= at <= began + timedelta(minutes=2)]  # fmt: skip
    return max(found, key=lambda item: item[0])[1] if found else None


def _began_with(facts: Facts, deployed: Mapping[str, Any] | None) -> bool | None:
    """Whether the processes that fail began no earlier than the deployment; ``None`` when their age is unknown."""
    seen, at = _moment(facts.readings.measured_at((WALK,))), _moment(str((deployed or {}).get("created_at") or ""))
    ages = [number(facts.machine.holder(p), "age_seconds") or number(p.last, "uptime_seconds") for p in facts.affected]
    if at is None or seen is None or not ages or None in ages:
        return None
    return all(seen - timedelta(seconds=age or 0.0) >= at for age in ages)


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


__all__ = ["Ready", "degraded", "dependency", "disk_or_memory", "each", "release", "slow"]
