"""Causes in the machine: processors, a cgroup's quota, memory, the disk. They slow everything, or they are not it.

Other work on the host may use it up without making anybody here wait, hence each has to be felt in every route.
Source of every rule: reference fault model, runbook R4.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis import memory as memory_room
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.responses.facts import Facts, number
from runbook.diagnosis.responses.statements import ACTIVITY, value
from runbook.diagnosis.responses.systems import CGROUP, LOAD, MEMORY, METRICS, PRESSURE
from runbook.diagnosis.responses.waiting import everywhere
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

BACKGROUND, CHECKPOINTER = "background", "checkpointer"
RUN_QUEUE = 2.0
"""Runnable threads a core, from which on work queues for processors."""
IDLE, SOME_IDLE = 0.25, 0.1
"""Idle for that share of the time processors are not what is short; idle for some of it they have room."""
GC_SHARE = 0.2
"""Of a process' time, that of its garbage collection."""
CHECKPOINT_RATIO = 3.0


def processors(facts: Facts) -> Cause:
    """L04: there is more work than processors.

    Gate: twice as many threads are runnable as there are cores, or work waits for a processor for a fifth of the time
    (PSI), and the processors are not idle for a quarter of it. Clauses: every route is slow (refutes otherwise); where
    there is pressure information, it says so too. Where a cgroup has used its quota up, those who wait for it are
    counted as pressure: then only the queue tells.
    """
    bench, systems = Bench("L04", facts.readings), facts.systems
    queue, pressure = systems.run_queue, None if _waits_for_quota(facts) else systems.pressure("cpu")
    a_core = round(queue[0] / queue[1], 2) if queue is not None else None
    idle = systems.idle_share
    saturated = (idle is None or idle < IDLE) and (
        (a_core is not None and a_core >= RUN_QUEUE)
        or (pressure is not None and pressure >= facts.limits.cpu_pressure_percent)
    )
    shown = [f"{queue[0]:g} runnable on {queue[1]:g} cores" if queue is not None else "",
             f"pressure {pressure:g} %" if pressure is not None else "",
             f"idle {100 * idle:.0f} % of the time" if idle is not None else ""]  # fmt: skip
    return Cause(
        id="L04",
        name="processors used up",
        applicable=systems.configured(LOAD, PRESSURE),
        gate=facts.fact_gate(bench, "saturated", "more work than processors",
                             facts.unless_lost(saturated, LOAD, PRESSURE)
                             if queue is not None or pressure is not None else None,
                             value=", ".join(s for s in shown if s) or None, rests_on=(LOAD, PRESSURE)),
        clauses=(
            everywhere(bench, facts),
            bench.weigh("pressure", "time in which work waited for a processor", pressure, unit="%",
                        at_least=facts.limits.cpu_pressure_percent, rests_on=(PRESSURE,)),
        ),
        share=1.0 if facts.everywhere else 0.0,
        details={"runnable": queue[0] if queue else None, "cores": queue[1] if queue else None,
                 "pressure_percent": pressure} if saturated else {},
    )  # fmt: skip


def _waits_for_quota(facts: Facts) -> bool:
    throttled = facts.systems.throttled
    return throttled is not None and throttled[0] >= facts.limits.throttled_share


def quota(facts: Facts) -> Cause:
    """L16: a cgroup's quota of processor time is used up, while the host has room.

    Gate: in a twentieth of its periods, between two looks, the quota was used up. Clauses: every route is slow (refutes
    otherwise); no other cgroup of that host has a quota (unknown otherwise: it may be a neighbour's that is used up);
    the host itself has processors left, by their idle time, else by the queue for them (neutral otherwise).
    """
    bench, systems = Bench("L16", facts.readings), facts.systems
    found, others = systems.throttled, systems.other_quotas
    share, row = found if found is not None else (0.0 if systems.quotas_known else None, {})
    return Cause(
        id="L16",
        name="processor quota of a cgroup used up",
        applicable=systems.configured(CGROUP),
        gate=facts.gate(bench, "throttled", "periods in which a cgroup's quota was used up", share, share=True,
                        at_least=facts.limits.throttled_share, rests_on=(CGROUP,)),
        clauses=(
            everywhere(bench, facts),
            bench.fact("own", "no other cgroup of the host has a quota", None if others or found is None else True,
                       rests_on=(CGROUP,),
                       reason=f"{len(others)} more have one, and whose the application is, is not known" if others
                       else ""),
            bench.fact("room", "the host itself has processors left", _room(facts), rests_on=(LOAD,), weight=WEAK,
                       value=None if systems.idle_share is None else f"idle {100 * systems.idle_share:.0f} %"),
        ),
        share=1.0 if facts.everywhere else 0.0,
        details={"cgroup": row.get("path"), "quota_cores": row.get("cpu_quota_cores"), "throttled_share": share}
        if found is not None and (share or 0.0) >= facts.limits.throttled_share else {},
    )  # fmt: skip


def _room(facts: Facts) -> bool | None:
    """Who waits for a quota stands in the queue as well: idle time tells better, where it is known."""
    idle, queue = facts.systems.idle_share, facts.systems.run_queue
    if idle is not None:
        return idle >= SOME_IDLE
    return None if queue is None else queue[0] < RUN_QUEUE * queue[1]


def memory(facts: Facts) -> Cause:
    """L06: memory is short, or its collection takes the time. Refers to the runbook of memory (R6).

    Gate: everything waits for memory for a twentieth of the time (PSI full), or the garbage collection takes a fifth of
    a process' time. Clause: every route is slow (refutes otherwise). Hint: memory is nearly used up.
    """
    bench, systems = Bench("L06", facts.readings), facts.systems
    pressure, collecting = systems.pressure("memory", "full"), systems.rate("gc_seconds_total")
    short = pressure is not None and pressure >= facts.limits.memory_pressure_percent
    known = pressure is not None or collecting is not None
    holds = short or (collecting is not None and collecting >= GC_SHARE)
    used = max((number(r, "used_percent") or 0.0 for r in facts.readings.rows(MEMORY) or []), default=None)
    shown = [f"pressure {pressure:g} %" if pressure is not None else "",
             f"collection {100 * collecting:.0f} % of the time" if collecting is not None else ""]  # fmt: skip
    return Cause(
        id="L06",
        name="memory short" if short or not holds else "garbage collection",
        applicable=systems.configured(PRESSURE, METRICS),
        gate=facts.fact_gate(bench, "stalls", "work waits for memory",
                             facts.unless_lost(holds, PRESSURE, METRICS) if known else None,
                             value=", ".join(s for s in shown if s) or None, rests_on=(PRESSURE, METRICS)),
        clauses=(everywhere(bench, facts),),
        hints=(
            bench.weigh("used", "memory in use", used, unit="%", at_least=90.0, rests_on=(MEMORY,), weight=WEAK),
        ),
        share=1.0 if facts.everywhere else 0.0,
        details=_memory_details(facts, short=short) if holds else {},
    )  # fmt: skip


def _memory_details(facts: Facts, *, short: bool) -> dict[str, Any]:
    """What the runbook of memory finds in the same readings; where that is nothing, thrashing, or just memory."""
    found = memory_room.finding(facts.readings)
    systems = facts.systems
    told = {"refers_to": found.cause if found is not None else "M10" if short else "M",
            "pressure_percent": systems.pressure("memory", "full"),
            "collecting": systems.rate("gc_seconds_total")}  # fmt: skip
    return {key: item for key, item in told.items() if item is not None}


def disk_io(facts: Facts) -> Cause:
    """L07: statements wait for the disk, be it for reads or for checkpoints that come too often.

    Gate: of the sessions seen running half wait for input or output, and the host's pressure says so too (PSI): a
    server that reads much waits for every read a little, on the best of disks. Clause: those waits are a fifth of the
    slow requests' time (refutes otherwise). Hint: requested checkpoints outnumber timed ones.
    """
    bench, database = Bench("L07", facts.readings), facts.database
    waits, pressure = database.waiting_for("IO", "WALWrite", "WALSync"), facts.systems.pressure("io")
    waits = 0.0 if waits is None and len(database.looks) > 1 else waits
    many = None if waits is None else waits >= 0.5
    stalled = None if pressure is None else pressure >= facts.limits.io_pressure_percent
    spent = None if waits is None or database.running is None else 1000 * waits * database.running
    part = facts.part_of_sql(spent, waits or 0.0)
    checkpoints = _checkpoints(facts)
    shown = [f"{round(100 * waits)} % of the sessions" if waits is not None else "",
             f"pressure {pressure:g} %" if pressure is not None else ""]  # fmt: skip
    return Cause(
        id="L07",
        name="disk",
        applicable=database.configured,
        gate=facts.fact_gate(bench, "waits", "running sessions wait for the disk, and the host says so",
                             False if many is False or stalled is False else many and stalled,
                             value=", ".join(s for s in shown if s) or None, rests_on=(ACTIVITY, PRESSURE)),
        clauses=(
            bench.weigh("part", "of the slow requests' time, waits for the disk", part, share=True,
                        at_least=facts.limits.material_share, otherwise="refutes", rests_on=(ACTIVITY,)),
        ),
        hints=(
            bench.fact("checkpoints", "requested checkpoints outnumber timed ones",
                       None if checkpoints is None else checkpoints[1] > CHECKPOINT_RATIO * max(1, checkpoints[0]),
                       value=None if checkpoints is None else f"{checkpoints[1]:g} requested, {checkpoints[0]:g} timed",
                       rests_on=(CHECKPOINTER, BACKGROUND), weight=WEAK),
        ),
        share=part or 0.0,
        details={"waiting_share": waits, "pressure_percent": pressure} if many and stalled else {},
    )  # fmt: skip


def _checkpoints(facts: Facts) -> tuple[float, float] | None:
    """Timed and requested checkpoints since the statistics were reset."""
    for name in (CHECKPOINTER, BACKGROUND):  # since version 17, and before
        row: Any = facts.readings.row(name)
        timed, requested = value(row, "timed"), value(row, "requested")
        if timed is not None and requested is not None:
            return timed, requested
    return None
