"""Causes that are no process: page cache, a cgroup's limit, files in memory, the kernel (M03–M06, M12)."""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.memory.growth import explains, short
from runbook.diagnosis.memory.kills import victim
from runbook.diagnosis.memory.processes import megabytes, number
from runbook.diagnosis.memory.scopes import Scope
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

CACHE_SHARE = 0.5
CALM_PERCENT = 1.0
RESERVED_COMMIT = 95.0


def page_cache(facts: Facts, scope: Scope | None) -> Cause:
    """M03: a false alarm: what fills the cgroup is page cache, which goes when it is needed.

    Gate: usage reaches the threshold and the working set (without page cache that can go) does not. Clauses: half of
    it or more is inactive page cache; nothing was killed there within the window; it is the cgroup that was asked about
    (that some cgroup on the host is full of page cache is the rule and explains nothing). Source: R6, M03.
    """
    bench, row = Bench("M03", facts.readings), scope.row if scope is not None and scope.path else None
    usage, limit = number(row, "usage_bytes"), number(row, "limit_bytes")
    cache, percent = number(row, "inactive_file_bytes"), None
    if usage is not None and limit:
        percent = round(100 * usage / limit, 1)
    full = None
    if scope is not None and percent is not None and scope.breached is not None:
        full = percent >= facts.limits.threshold_percent and not scope.breached
    killed = None if scope is None or not scope.path else facts.kills.in_cgroup(scope)
    asked = scope is not None and facts.asked(scope)
    stalled = facts.stalled_percent
    return Cause(
        id="M03",
        name="page cache (false alarm)",
        applicable=bool(facts.limited) or bool(facts.limits.cgroup),
        gate=bench.fact("cache", "usage of the limit, while the working set is below the threshold",
                        full if row is not None else False if facts.readings.known("cgroup") else None,
                        value=percent, unit="%" if percent is not None else "", rests_on=("cgroup",),
                        otherwise="refutes"),
        clauses=(
            bench.weigh("inactive", "inactive page cache, of what is used", None if cache is None or not usage else
                        cache / usage, at_least=CACHE_SHARE, share=True, rests_on=("cgroup",), otherwise="refutes"),
            bench.fact("unharmed", "nothing was killed there within the window",
                       None if killed is None else not killed, rests_on=("cgroup", "oom_kills"), otherwise="refutes"),
            bench.fact("asked", "it is the cgroup that was asked about", asked, rests_on=("cgroup",)),
        ),
        hints=() if stalled is None else (
            bench.weigh("calm", "time in which all work waited for memory", stalled, below=CALM_PERCENT, unit="%",
                        weight=WEAK, rests_on=("pressure",)),),
        share=1.0 if full and asked and not killed else 0.0,
        details={**scope.facts(), "usage_percent": percent, "working_set_percent": scope.percent,
                 "page_cache_mb": megabytes(cache)} if full and scope is not None else {},
    )  # fmt: skip


def limit_reached(facts: Facts, scope: Scope | None) -> Cause:
    """M04: a cgroup is at its own limit, whatever the host has left.

    Gate: its working set reaches the threshold of its limit, or a process was killed at that limit within the window.
    The counter of hits alone (failcnt, ``max``) is no sign: page cache that fills a cgroup hits the limit all day.
    Clauses: the host is not short itself; something was killed there, or the limit is hit while we look.
    Source: R6, M04.
    """
    bench, group = Bench("M04", facts.readings), scope if scope is not None and scope.path else None
    killed = facts.kills.of(group.path) if group is not None else []
    risen = (group.delta("oom_kills") or 0) if group is not None else 0
    hits = (group.delta("max_events") or 0) if group is not None else 0
    reached = None if group is None else bool(group.breached or killed or risen)
    host = None if group is None else facts.host_of(group)
    known = facts.readings.known("cgroup")
    value = group.percent if group is not None else None
    details: dict[str, Any] = {}
    if reached and group is not None:
        limit = number(group.row, "limit_bytes")
        details = {**group.facts(), "limit_mb": megabytes(limit), "working_set_percent": value,
                   "host_percent": host.percent if host is not None else None,
                   "killed": [victim(row) for row in killed[:5]], "kills": max(len(killed), int(risen)),
                   "limit_hits_while_looking": int(hits)}  # fmt: skip
    return Cause(
        id="M04",
        name="limit of a cgroup",
        applicable=bool(facts.cgroups) or bool(facts.limits.cgroup),
        gate=bench.fact("at_limit", f"working set of {group.label}, of its limit, or a kill at it" if group is not None
                        else "a cgroup at its limit", reached if group is not None else False if known else None,
                        value=value, unit="%" if value is not None else "", rests_on=("cgroup", "oom_kills"),
                        otherwise="refutes"),
        clauses=(
            bench.weigh("host_free", "memory of the host in use", None if host is None else host.percent,
                        below=facts.limits.threshold_percent, unit="%", rests_on=("memory",)),
            bench.fact("stopped", "killed at the limit within the window, or hits of it while we looked",
                       bool(killed or risen or (hits and group is not None and group.breached)),
                       value=len(killed) or int(risen or hits) or None, rests_on=("cgroup", "oom_kills")),
        ),
        share=1.0 if reached else 0.0,
        details=details,
    )  # fmt: skip


def files_in_memory(facts: Facts, scope: Scope | None) -> Cause:
    """M05: files on a tmpfs, ``/dev/shm`` among them, are memory that no process seems to hold.

    Gate: they hold ``owner_share`` of the memory in use: used bytes of the tmpfs, at most what is shared memory at all
    (a PostgreSQL's buffers are shared memory as well and lie on none). Clauses: memory is short there; one filesystem
    has most of it. Source: R6, M05.
    """
    bench = Bench("M05", facts.readings)
    mounts = _tmpfs(facts, scope)
    shared = None if scope is None else number(scope.row, "shmem_bytes")
    used = None if mounts is None else sum(mounts.values())
    claim = None if used is None or shared is None else min(used, shared)
    part = None if claim is None or scope is None or not scope.used else round(scope.share(claim), 3)
    tight = short(bench, facts, scope)
    leading = max(mounts, key=lambda m: (mounts[m], m)) if mounts else ""
    concentrated = mounts[leading] / used if mounts and used else None
    return Cause(
        id="M05",
        name="files in memory (tmpfs, /dev/shm)",
        gate=bench.gate("hold", "files on a tmpfs, of the memory in use", part, at_least=facts.limits.owner_share,
                        share=True, rests_on=("disk", "memory")),
        clauses=(
            tight,
            bench.weigh("one", f"of that on {leading}" if leading else "of that on one filesystem", concentrated,
                        at_least=0.5, share=True, rests_on=("disk",), reason="there is none"),
        ),
        share=explains(part, tight),
        details={**scope.facts(), "mount": leading, "mb": megabytes(claim),
                 "mounts": {mount: megabytes(size) for mount, size in
                            sorted(mounts.items(), key=lambda item: -item[1])[:5]}}
        if mounts and scope is not None and part else {},
    )  # fmt: skip


def _tmpfs(facts: Facts, scope: Scope | None) -> dict[str, float] | None:
    """Used bytes of each tmpfs of that host; one that is mounted twice counts once."""
    rows = facts.readings.rows("disk")
    if rows is None or scope is None:
        return None
    rows = [row for row in rows if row.get("host") == scope.host and row.get("mount")]
    if not rows:
        return None
    found = {}
    for row in rows:
        if row.get("type") == "tmpfs" and (used := number(row, "used_bytes")):
            found[str(row["mount"])] = used
    return found


def slab(facts: Facts, scope: Scope | None) -> Cause:
    """M06: the kernel itself holds memory that it cannot give back.

    Gate: unreclaimable slab above ``kernel_percent`` of all memory. Clause: memory is short. Source: R6, M06.
    """
    bench = Bench("M06", facts.readings)
    host = scope if scope is not None and not scope.path else None
    size, whole = (None, None) if host is None else (number(host.row, "slab_unreclaimable_bytes"), host.total)
    percent, tight = round(100 * size / whole, 1) if size is not None and whole else None, short(bench, facts, scope)
    if percent is None and scope is not None and scope.path:
        percent = 0.0  # of a cgroup's own there is no such figure that matters; its host is looked at by itself
    return Cause(
        id="M06",
        name="kernel memory (slab)",
        gate=bench.gate("slab", "unreclaimable slab, of all memory", percent, at_least=facts.limits.kernel_percent,
                        unit="%", rests_on=("memory",)),
        clauses=(tight,),
        share=explains(host.share(size) if host is not None and size is not None else None, tight),
        details={**host.facts(), "slab_mb": megabytes(size)} if host is not None and size and percent else {},
    )  # fmt: skip


def promised(facts: Facts, scope: Scope | None) -> Cause:
    """M12: memory is there and may not be had: set aside for huge pages, or promised away.

    Gate: free huge pages above ``kernel_percent`` of all memory; or, where the kernel keeps to its limit (mode 2),
    95 % of it promised. Under the usual mode, more is promised than there is, and that is no fault. Clause: memory is
    short for it, or allocations are refused. Source: R6, M12.
    """
    bench = Bench("M12", facts.readings)
    host = scope if scope is not None and not scope.path else None
    pages = None if host is None else number(host.row, "hugepages_free")
    size = None if host is None else number(host.row, "hugepage_bytes")
    idle = pages * size if pages is not None and size is not None else None
    percent = round(100 * idle / host.total, 1) if host is not None and idle is not None and host.total else None
    promise = facts.overcommitted_percent
    set_aside = percent is not None and percent >= facts.limits.kernel_percent
    promised_away = promise is not None and promise >= RESERVED_COMMIT
    in_cgroup = scope is not None and bool(scope.path)
    holds = True if set_aside or promised_away else False if percent is not None or in_cgroup else None
    refused = facts.no_memory_errors or 0
    return Cause(
        id="M12",
        name="huge pages set aside" if set_aside else "memory promised away" if promised_away
        else "huge pages or overcommit",
        gate=bench.fact("set_aside", "free huge pages, of all memory" if not promised_away else
                        "promised, of what may be promised", holds, unit="%", rests_on=("memory",),
                        value=promise if promised_away else percent, otherwise="refutes"),
        clauses=(
            bench.fact("refused", "allocations are refused, or memory is short",
                       True if promised_away or refused else None if scope is None else facts.short(scope),
                       value=refused or None, otherwise="refutes", rests_on=("memory", "app_errors")),
        ),
        share=1.0 if promised_away else _of_huge_pages(facts, host, idle) if set_aside else 0.0,
        details={**host.facts(), "free_huge_pages_mb": megabytes(idle), "promised_percent": promise}
        if holds and host is not None else {},
    )  # fmt: skip


def _of_huge_pages(facts: Facts, host: Scope | None, idle: float | None) -> float:
    return host.share(idle) if host is not None and idle and facts.short(host) is not False else 0.0
