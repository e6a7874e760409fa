"""What could be done, proposed: exact targets, what must hold, what to copy, how to undo it.

Nothing here acts. Caches are never dropped, a PostgreSQL or Redis process is never killed, and what is restarted is
restarted one at a time, gracefully, while others serve. Source: reference fault model, sections 2 and R6.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runbook.diagnosis.memory.facts import Facts
from runbook.diagnosis.queues import remedies
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

ROOM = 1.25
"""What a limit is raised by, when it is."""


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    return [
        action
        for verdict in verdicts
        if found(verdict.tier) and verdict.role != "consequence"
        for proposer in PROPOSERS.get(verdict.cause, ())
        for action in proposer(verdict, facts)
    ]


def _action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
            targets: Sequence[Mapping[str, Any]] = (),
            preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def _restart(verdict: Verdict, facts: Facts) -> list[Action]:
    """A graceful restart of the process that leaks; a snapshot of its heap first, or the evidence is gone."""
    grown = verdict.details.get("processes") or []
    if not grown:
        return []
    first = grown[0]
    pid, command = first["pid"], str(first["command"])
    healthy = _healthy_instances(facts)
    return [
        _action(
            "M01", "process.restart", f"Restart process {pid} gracefully, one replica at a time",
            f"# on {verdict.details.get('host')}; the process must still be the one that was seen\n"
            f"tr '\\0' ' ' < /proc/{pid}/cmdline | grep -qF -- {shlex.quote(command[:80])} || exit 1\n"
            "# first, where the runtime can: a snapshot of its heap (node --heapsnapshot-signal, jcmd, py-spy dump)\n"
            f"kill -TERM {pid}   # its supervisor starts it anew; never -9",
            undo="irreversible: what it held in memory is gone; requests are drained first",
            needs="shell on the host", targets=grown,
            preconditions=(
                Precondition(label="it is the same process still (command line re-checked)", holds=None),
                Precondition(label="two or more other instances are healthy",
                             holds=None if healthy is None else healthy >= 2, value=healthy),
                Precondition(label="it is drained: out of the balancer, no job under way", holds=None),
                Precondition(label="a supervisor starts it again", holds=None),
            ),
        ),
        *_rollback(facts),
    ]  # fmt: skip


def _healthy_instances(facts: Facts) -> int | None:
    rows = facts.readings.rows("health")
    if rows is None:
        return None
    instances = {row.get("instance") for row in rows}
    return len(instances - {row.get("instance") for row in rows if row.get("status") != "pass"})


def _rollback(facts: Facts) -> list[Action]:
    rows = facts.readings.rows("deployments") or []
    if not rows or not rows[0].get("sha"):
        return []
    return [
        _action("M01", "app.check_release",
                "If it began with the newest deployment: the runbook for error rates rolls back",
                "# compare when memory began to rise with when this was deployed; never across a migration",
                undo="nothing is changed", targets=[{"sha": rows[0].get("sha"), "ref": rows[0].get("ref")}])
    ]  # fmt: skip


def _fewer(verdict: Verdict, facts: Facts) -> list[Action]:
    program = verdict.details.get("program") or "the transcoders"
    return [
        _action(verdict.cause, "worker.lower_concurrency", f"Run fewer of {program} at once",
                "# lower the number of workers, or the concurrency, in the application's configuration, and reload;\n"
                "# number × memory of one must fit below the limit with a fifth to spare",
                undo="put the previous number back", targets=_targets(verdict),
                preconditions=(Precondition(label="jobs under way are let finish (SIGTERM, drain)", holds=None),))
    ]  # fmt: skip


def _pause(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        remedies.pause(verdict.cause, "Take no new jobs until those under way have ended", {}),
        *_fewer(verdict, facts),
    ]  # fmt: skip


def _alert(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("M03", "alert.working_set", "Let the alert look at the working set, not at usage with page cache",
                "# container_memory_working_set_bytes / container_spec_memory_limit_bytes,\n"
                "# not container_memory_usage_bytes\n"
                "# page cache goes by itself when memory is needed: nothing is dropped by hand",
                undo="put the previous expression back", targets=[dict(verdict.details)])
    ]  # fmt: skip


def _raise_limit(verdict: Verdict, facts: Facts) -> list[Action]:
    path, limit = verdict.details.get("cgroup"), verdict.details.get("limit_mb")
    if not path or not limit:
        return []
    scope = next((s for s in facts.cgroups if s.path == path and s.host == verdict.details.get("host")), None)
    host = facts.host_of(scope) if scope is not None else None
    free = None if host is None or host.total is None or host.used is None else (host.total - host.used) / 2**20
    wanted = round(limit * ROOM)
    unit = str(path).rpartition("/")[2]
    by_hand = f"# on {verdict.details.get('host')}, by what made the cgroup:\n"
    if unit.endswith((".service", ".scope", ".slice")):
        by_hand += f"systemctl set-property --runtime {shlex.quote(unit)} MemoryMax={wanted}M"
    else:
        by_hand += (
            f"# a container: docker update --memory {wanted}m --memory-swap {wanted}m NAME; Kubernetes: limits.memory\n"
            f"# cgroup v2: echo {wanted}M > {shlex.quote(f'/sys/fs/cgroup{path}/memory.max')}\n"
            f"# cgroup v1: echo {wanted}M > {shlex.quote(f'/sys/fs/cgroup/memory{path}/memory.limit_in_bytes')}"
        )
    return [
        _action("M04", "cgroup.raise_limit", f"Raise the limit of {path} from {limit:g} to {wanted} MB, for now",
                by_hand,
                undo=f"the same with {limit:g}M", needs="root on the host",
                targets=[{"host": verdict.details.get("host"), "cgroup": path, "limit_mb": limit}],
                preconditions=(
                    Precondition(label="the host has that much free",
                                 holds=None if free is None else free >= 2 * (wanted - limit),
                                 value=None if free is None else f"{free:.0f} MB"),
                    Precondition(label="what runs there does not leak (M01): a leak fills any limit", holds=None),
                ))
    ]  # fmt: skip


def _files(verdict: Verdict, facts: Facts) -> list[Action]:
    mount = str(verdict.details.get("mount") or "")
    if not mount:
        return []
    quoted = shlex.quote(mount)
    return [
        _action("M05", "tmpfs.make_room", f"Find what lies on {mount}, and remove what nobody has open",
                f"# on {verdict.details.get('host')}\n"
                f"find {quoted} -xdev -type f -printf '%s %T+ %p\\n' | sort -rn | head -n 20\n"
                f"fuser -vm {quoted}   # an open file keeps its memory after rm; PostgreSQL's segments are not yours",
                undo="irreversible: list what is removed", needs="shell on the host",
                targets=[{"host": verdict.details.get("host"), "mount": mount, "mb": verdict.details.get("mb")}],
                preconditions=(Precondition(label="no process has the file open", holds=None),
                               Precondition(label="it is older than a day, or its owner agrees", holds=None)))
    ]  # fmt: skip


def _kernel(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("M06", "kernel.find_slab", "Find which slab it is: a driver, or a table of the network that grows",
                "slabtop -o -s c | head -n 15\nss -s; sysctl net.netfilter.nf_conntrack_count fs.file-nr",
                undo="nothing is changed", needs="root on the host", targets=[dict(verdict.details)])
    ]  # fmt: skip


def _postgres(verdict: Verdict, facts: Facts) -> list[Action]:
    largest = verdict.details.get("largest") or []
    sessions = {row.get("pid"): row for row in facts.readings.rows("sessions") or []}
    target = next((sessions[p["pid"]] for p in largest if p["pid"] in sessions), None)
    actions = []
    if target is not None and target.get("backend_start") and target.get("state") == "active":
        actions.append(
            _action("M07", "postgres.cancel", f"Cancel the statement of session {target['pid']}, which holds the most",
                    f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = {int(target['pid'])}\n"
                    f"  AND backend_start = '{target['backend_start']}' AND state = 'active';",
                    undo="irreversible: the statement is rolled back and has to be run again",
                    needs="pg_signal_backend and pg_read_all_stats",
                    targets=[{k: target.get(k) for k in ("pid", "application_name", "role", "backend_start")}],
                    preconditions=(Precondition(label="still the same session, checked in the statement", holds=None),))
        )  # fmt: skip
    role = target.get("role") if target is not None else None
    if role:
        quoted = '"' + str(role).replace('"', '""') + '"'
        current = verdict.details.get("work_mem")
        actions.append(
            _action("M07", "postgres.lower_work_mem", f"Lower work_mem for role {role}, in new sessions",
                    f"ALTER ROLE {quoted} SET work_mem = '4MB';   -- now {current}; sessions keep theirs",
                    undo=f"ALTER ROLE {quoted} RESET work_mem;", needs="owner of the database",
                    targets=[{"role": role, "work_mem": current}])
        )  # fmt: skip
    return actions


def _redis(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    kinds, limit = details.get("kind") or [], details.get("maxmemory_mb")
    actions = []
    if "fragmentation" in kinds:
        actions.append(_action("M08", "redis.purge", "Give back what is fragmented", "redis-cli MEMORY PURGE",
                               undo="nothing to undo"))  # fmt: skip
    if "buffers" in kinds:
        actions.append(
            _action("M08", "redis.find_client", "Find the client whose buffer grows: it reads too slowly",
                    "redis-cli CLIENT LIST | tr ' ' '\\n' | grep -E '^(id|name|omem|tot-mem)=' | paste - - - -",
                    undo="nothing is changed")
        )  # fmt: skip
    if limit:
        wanted = int(limit * ROOM)
        actions.append(
            _action("M08", "redis.raise_maxmemory", f"Raise maxmemory from {limit:g} to {wanted} MB, for now",
                    f"redis-cli CONFIG SET maxmemory {wanted}mb", undo=f"redis-cli CONFIG SET maxmemory {limit:g}mb",
                    needs="administrator of Redis",
                    targets=[{"maxmemory_mb": limit, "used_mb": details.get("used_mb")}],
                    preconditions=(Precondition(label="its host has that much free, and as much again while it saves",
                                                holds=None),
                                   Precondition(label="nothing is flushed: jobs live here", holds=True)))
        )  # fmt: skip
    return actions


def _relieve(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("M10", "host.relieve", "Take work off the host: it gets nothing done while it thrashes",
                "# take it out of the balancer, pause its queue; then restart what holds the most, one at a time\n"
                "# neither swapoff nor drop_caches: both make it worse",
                undo="put it back")
    ]  # fmt: skip


def _came_back(verdict: Verdict, facts: Facts) -> list[Action]:
    victims = verdict.details.get("victims") or []
    return [
        _action("M11", "process.check_restarted", "See that what was killed is back, and what it left half done",
                "# jobs that it held stall and are given back; the runbook for queues shows them\n"
                "dmesg -T | grep -i -A1 'killed process'",
                undo="nothing is changed", targets=victims)
    ]  # fmt: skip


def _promises(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("M12", "kernel.huge_pages", "Give back huge pages that nobody uses, after asking whose they were",
                "grep -i huge /proc/meminfo; sysctl vm.nr_hugepages vm.overcommit_memory vm.overcommit_ratio\n"
                "# fewer: sysctl -w vm.nr_hugepages=NUMBER (what is in use stays)",
                undo="sysctl -w vm.nr_hugepages=THE PREVIOUS NUMBER", needs="root on the host",
                targets=[dict(verdict.details)])
    ]  # fmt: skip


def _targets(verdict: Verdict) -> list[Mapping[str, Any]]:
    listed = verdict.details.get("processes")
    if isinstance(listed, list):
        return listed
    return [{"pid": pid} for pid in verdict.details.get("pids") or []]


PROPOSERS: dict[str, tuple[Callable[[Verdict, Facts], list[Action]], ...]] = {
    "M01": (_restart,), "M02": (_fewer,), "M03": (_alert,), "M04": (_raise_limit,), "M05": (_files,),
    "M06": (_kernel,), "M07": (_postgres,), "M08": (_redis,), "M09": (_pause,), "M10": (_relieve,),
    "M11": (_came_back,), "M12": (_promises,),
}  # fmt: skip
