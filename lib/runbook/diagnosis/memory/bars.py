"""Who holds the memory, for the chart: programs by what they hold, against the limit of where they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis import verdict
from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.memory.limits import Limits
from runbook.diagnosis.memory.processes import Process, total
from runbook.diagnosis.memory.scopes import Scope
from runbook.diagnosis.readings import Readings
from runbook.result import Findings, Reading

MOST = 9


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One program; bytes."""

    name: str
    size: float
    #: What of it was not there in the first sample.
    grew: float
    #: Causes found that name it.
    causes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """The programs of one place, the largest first, and what is not any program's."""

    place: str
    limit: float
    used: float
    threshold_share: float
    bars: tuple[Bar, ...]
    #: In use, and not held by a process that we saw: page cache that is busy, the kernel, files in memory.
    rest: float
    #: Places that were looked at besides.
    others: int


def bars(readings: Sequence[Reading], parameters: Mapping[str, Any], findings: Findings | None = None) -> Bars | None:
    """The chart's figures of the place that matters most; ``None`` when there is nothing to draw."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    scope = _place(facts, findings)
    found = None if scope is None else facts.inside(scope)
    if scope is None or not found or not scope.total or scope.used is None:
        return None
    groups: dict[str, list[Process]] = {}
    for process in found:
        name = "PostgreSQL" if facts.owner(process) == "postgres" else process.program or process.command[:20]
        groups.setdefault(name, []).append(process)
    ranked = sorted(groups.items(), key=lambda item: (-total(item[1]), item[0]))
    named = _named(findings)
    drawn = tuple(
        Bar(
            name=_title(name, processes),
            size=total(processes),
            grew=sum(max(0.0, p.growth) for p in processes),
            causes=tuple(sorted({c for p in processes for c in named.get(p.pid, ())})),
        )
        for name, processes in ranked[:MOST]
        if total(processes) > 0
    )
    held = sum(total(processes) for processes in groups.values())
    return Bars(place=scope.label, limit=scope.total, used=scope.used,
                threshold_share=facts.limits.threshold_percent / 100, bars=drawn, rest=max(0.0, scope.used - held),
                others=len(facts.scopes) - 1)  # fmt: skip


def _place(facts: Facts, findings: Findings | None) -> Scope | None:
    """Where the first finding is, else the fullest."""
    for entry in findings.verdict if findings is not None else ():
        if verdict.found(entry.tier) and "host" in entry.details:
            wanted = (entry.details["host"], entry.details.get("cgroup") or "")
            chosen = next((s for s in facts.judged if (s.host, s.path) == wanted and s.percents), None)
            if chosen is not None:
                return chosen
    return next((s for s in facts.judged if s.percents), None)


def _named(findings: Findings | None) -> dict[int, list[str]]:
    """Causes found by the pid that their details name."""
    found: dict[int, list[str]] = {}
    for entry in findings.verdict if findings is not None else ():
        if not verdict.found(entry.tier):
            continue
        details = entry.details
        listed = [*(details.get("processes") or []), *(details.get("largest") or [])] \
            if not isinstance(details.get("processes"), int) else list(details.get("largest") or [])  # fmt: skip
        pids = [p.get("pid") for p in listed if isinstance(p, Mapping)]
        for pid in [*pids, *(details.get("pids") or [])]:
            if isinstance(pid, int):
                found.setdefault(pid, []).append(entry.cause)
    return found


def _title(name: str, processes: Sequence[Process]) -> str:
    if len(processes) == 1:
        return f"{name} (pid {processes[0].pid})"
    return f"{len(processes)} × {name}"
