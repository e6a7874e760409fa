"""Causes that are felt: work that waits for memory, and processes that were killed for it (M10, M11)."""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.memory.kills import victim
from runbook.diagnosis.memory.processes import megabytes, number
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Evidence

BUSY_PAGES = 50
"""Pages a sample that come back from disk, from which on it is no chance."""


def thrash(facts: Facts) -> Cause:
    """M10: memory is so short that pages go and come back: everything waits.

    Gate: all work waited for memory in ``stalled_percent`` of the last ten seconds. Clause: pages came back while we
    looked: refaults, major faults, or pages from swap. Not applicable where the kernel keeps no such account.
    Source: R6, M10.
    """
    bench, percent = Bench("M10", facts.readings), facts.stalled_percent
    pages = _came_back(facts)
    reading = facts.readings.last("pressure")
    swap = _swap_used(facts)
    return Cause(
        id="M10",
        name="thrashing",
        applicable=percent is not None or (reading is not None and reading.state != "not_configured"),
        gate=bench.gate("stalled", "time in which all work waited for memory", percent, unit="%",
                        at_least=facts.limits.stalled_percent, rests_on=("pressure", "cgroup")),
        clauses=(
            bench.weigh("came_back", "pages that came back from disk while we looked", pages, at_least=BUSY_PAGES,
                        rests_on=("memory", "cgroup"), reason="it takes two samples" if pages is None else ""),
        ),
        share=1.0 if percent is not None and percent >= facts.limits.stalled_percent else 0.0,
        details={"full_avg10_percent": percent, "pages": pages, "swap_used_mb": megabytes(swap)}
        if percent is not None and percent >= facts.limits.stalled_percent else {},
    )  # fmt: skip


def _came_back(facts: Facts) -> float | None:
    counted = [d for scope in (*facts.hosts, *facts.cgroups) for column in ("refaults", "major_faults", "swapped_in")
               if (d := scope.delta(column)) is not None]  # fmt: skip
    return max(counted, default=None)


def _swap_used(facts: Facts) -> float | None:
    used = [whole - left for host in facts.hosts if (whole := number(host.row, "swap_total_bytes")) is not None
            and (left := number(host.row, "swap_free_bytes")) is not None]  # fmt: skip
    return max(used, default=None)


def killed(facts: Facts) -> Cause:
    """M11: something was killed for want of memory already; memory may look fine since.

    Gate: a kill within the window: dated by the kernel's log, by a counter that rises while we look, or by exit status
    137 in the application's log. A counter that stands still tells no time and is no gate. Clause: a counter of the
    kernel agrees. Source: R6, M11.
    """
    bench, kills = Bench("M11", facts.readings), facts.kills
    count = kills.number or facts.exits or kills.number
    dated = kills.dated or []
    agrees = None if kills.counted is None else kills.counted > 0
    fine = not facts.breached
    details: dict[str, Any] = {}
    if count:
        latest = min(dated, key=lambda row: number(row, "age_seconds") or 0.0, default=None)
        details = {"kills": count, "victims": [victim(row) for row in dated[:5]], "memory_fine_now": fine}
        if latest is not None:
            details |= {"pid": latest.get("pid"), "command": latest.get("command"), "host": latest.get("host"),
                        "cgroup": latest.get("cgroup") or None}  # fmt: skip
    return Cause(
        id="M11",
        name="killed for want of memory (OOM)",
        gate=bench.gate("killed", "kills within the window", count, at_least=1,
                        rests_on=("oom_kills", "memory", "cgroup", "app_errors")),
        clauses=(
            bench.fact("counter", "the kernel's counter agrees", agrees, value=kills.counted,
                       rests_on=("memory", "cgroup")),
        ),
        hints=(*_told(bench, facts), *_undated(bench, facts)),
        share=1.0 if count else 0.0,
        details=details,
    )  # fmt: skip


def _told(bench: Bench, facts: Facts) -> tuple[Evidence, ...]:
    if not facts.exits:
        return ()
    return (bench.fact("exit", "exit status 137 in the application's log", True, value=facts.exits, weight=WEAK,
                       rests_on=("app_errors",)),)  # fmt: skip


def _undated(bench: Bench, facts: Facts) -> tuple[Evidence, ...]:
    """What fits and says nothing of this window."""
    found = []
    if facts.kills.undated:
        found.append(bench.weigh("undated", "kills that the kernel counted at a time that nobody tells",
                                 facts.kills.counted, weight=WEAK, rests_on=("memory", "cgroup")))  # fmt: skip
    if facts.kills.gone:
        found.append(bench.weigh("gone", "kills within the window in cgroups that are gone", len(facts.kills.gone),
                                 weight=WEAK, rests_on=("oom_kills",)))  # fmt: skip
    return tuple(found)
