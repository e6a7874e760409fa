"""Causes behind the door, mostly felt by writes: rights, memory, snapshots, replicas, eviction.

Source of every rule: reference fault model, runbook R8.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.redis.facts import Facts, number
from runbook.diagnosis.redis.signs import Signs
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, STRONG, Evidence

ADMINISTRATIVE = frozenset({
    "config", "slowlog", "latency", "acl", "client", "info", "memory", "debug", "monitor", "cluster", "command",
    "module", "role", "dbsize", "lastsave", "keys", "scan", "object"
})  # fmt: skip
"""What exporters and people ask; that they may not is no fault of the application's."""
CONFIG = "redis_config"


def rights(facts: Facts) -> Cause:
    """K04: the access control list forbids what the application does (NOPERM).

    Gate: the application's log says so, or PING itself is forbidden to us, or the server's ACL LOG has a recent refusal
    of a command or key that an application uses (exporters without rights are refused CONFIG for years). Clauses: both
    say so. What our own look is refused is our own affair.
    """
    bench = Bench("K04", facts.readings)
    refusal = _acl_refusal(facts)
    listed = None if facts.readings.rows("redis_refusals") is None else refusal is not None
    logged = facts.logged("noperm")
    refused = facts.refused("NOPERM")
    told = [refused, *([None if logged is None else logged > 0] if facts.asked("app_errors") else [])]
    holds = True if any([*told, listed]) else None if None in told else False
    counted = facts.counted("NOPERM")
    clauses = [] if refused else [
        bench.weigh("counted", "commands that the server refused (NOPERM) between two looks", counted, at_least=1,
                    rests_on=("redis_info",)),
    ]  # fmt: skip
    if not refused and facts.asked("app_errors"):
        clauses.append(bench.weigh("logged", "recent lines of the application's log that say so", logged, at_least=1,
                                   rests_on=("app_errors",)))  # fmt: skip
    details: dict[str, Any] = {}
    if holds:
        known = {"user": (refusal or {}).get("user"), "object": (refusal or {}).get("object"),
                 "reason": (refusal or {}).get("reason"), "lines": logged}  # fmt: skip
        details = {key: value for key, value in known.items() if value}
    value = f"{details.get('user')} may not {details.get('object')}" if details.get("object") else None
    if holds and value is None:
        value = f"{logged} lines of the log" if logged else "PING is forbidden to us"
    everything = facts.log_lines or 0
    share = facts.ours if refused else logged / everything if logged and everything else 1.0
    return Cause(
        id="K04", name="access control list forbids it (NOPERM)", applicable=facts.configured,
        gate=bench.fact("signs", "a command or key is forbidden to the application", holds, otherwise="refutes",
                        value=value,
                        weight=6 if refused else 3, rests_on=(*facts.way, "redis_refusals", "app_errors")),
        clauses=tuple(clauses),
        share=share if holds else 0.0,
        details=details,
    )  # fmt: skip


def _acl_refusal(facts: Facts) -> dict[str, Any] | None:
    """The most frequent recent refusal of something that an application does."""
    recent = [
        row for row in facts.readings.rows("redis_refusals") or []
        if row.get("reason") in ("command", "key", "channel")
        and (number(row.get("age_seconds")) or 0.0) <= facts.limits.recent_seconds
        and str(row.get("object")).lower().partition("|")[0] not in ADMINISTRATIVE
    ]  # fmt: skip
    return max(recent, key=lambda r: (number(r.get("count")) or 0, str(r.get("object"))), default=None)


def out_of_memory(facts: Facts) -> Cause:
    """K07: memory is used up and nothing may be evicted: writes are refused (OOM), reads and PING work.

    Gate: used_memory has reached maxmemory under noeviction (decisive: from there on every write that adds is refused);
    or the server counts OOM errors, or the application's log has them. Clauses, without the figures: both.
    """
    bench = Bench("K07", facts.readings)
    signs = Signs(facts=facts, bench=bench, label="writes are refused for memory", refused=facts.refused("OOM"),
                  figures=facts.full_of_memory, codes=("OOM",), kinds=("oom",))  # fmt: skip
    used, most = facts.figure("used_memory"), facts.figure("maxmemory")
    percent = round(100 * used / most, 1) if used is not None and most else None
    policy = (facts.info or {}).get("maxmemory_policy")
    return Cause(
        id="K07", name=f"memory used up ({policy})" if policy else "memory used up", applicable=facts.configured,
        gate=signs.gate(f"{percent:g} % of maxmemory used, {policy}" if signs.own and percent is not None else None),
        clauses=signs.clauses(), share=signs.share,
        details={"error": "OOM", "used_memory": used, "maxmemory": most, "used_percent": percent, "policy": policy,
                 "counted": signs.counted, "lines": signs.logged} if signs.holds else {},
    )  # fmt: skip


def snapshot_failed(facts: Facts) -> Cause:
    """K08: a snapshot or the append-only file could not be written, so that writes are refused (MISCONF).

    Gate: MISCONF at our PING (decisive; older servers refuse that too), or by its figures: the last snapshot failed
    while snapshots are configured and it is told to stop then, or the last write of the append-only file failed
    (decisive); or counted, or logged. Details: where it writes, what its log says of it, how full that disk is.
    """
    bench = Bench("K08", facts.readings)
    signs = Signs(facts=facts, bench=bench, label="writes are refused since the last save failed (MISCONF)",
                  refused=facts.refused("MISCONF"), figures=_save_failed(facts), codes=("MISCONF",), kinds=("misconf",),
                  rests_on=("redis_info", CONFIG))  # fmt: skip
    info = facts.info or {}
    details: dict[str, Any] = {}
    if signs.holds:
        said = facts.server_log("save_failed") or {}
        known = {"rdb_last_bgsave_status": info.get("rdb_last_bgsave_status"),
                 "aof_last_write_status": info.get("aof_last_write_status"), "dir": facts.setting("dir"),
                 "said": str(said.get("sample") or "")[:200], **_disk(facts)}  # fmt: skip
        details = {key: value for key, value in known.items() if value not in (None, "")}
    shown = f"last snapshot: {info.get('rdb_last_bgsave_status')}, dir {facts.setting('dir')}"
    return Cause(
        id="K08", name="snapshot failed, writes refused (MISCONF)", applicable=facts.configured,
        gate=signs.gate(shown if signs.figures and not signs.refused else None), clauses=signs.clauses(),
        share=signs.share, details=details,
    )  # fmt: skip


def _save_failed(facts: Facts) -> bool | None:
    info = facts.info
    if info is None:
        return None
    snapshot, file = info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")
    if info.get("role") == "slave":
        return False
    if number(info.get("aof_enabled")) and file == "err":
        return True
    if snapshot != "err":
        return None if snapshot is None else False
    save, stops = facts.setting("save"), facts.setting("stop-writes-on-bgsave-error")
    if save == "" or stops == "no":
        return False
    return True if save and stops == "yes" else None


def _disk(facts: Facts) -> dict[str, Any]:
    """The filesystem of its directory, as far as we have a shell there."""
    reading = facts.readings.last("redis_disk")
    if reading is None:
        return {}
    if reading.code == "44":
        return {"disk": "its directory does not exist"}
    row = facts.readings.row("redis_disk") or {}
    return {"mount": row.get("mount"), "disk_used_percent": number(row.get("used_percent")),
            "inodes_percent": number(row.get("inodes_percent"))} if row else {}  # fmt: skip


def replica(facts: Facts) -> Cause:
    """K09: the application writes to a replica (READONLY), or reads from one that lost its master (MASTERDOWN).

    Gate: its role is replica, or MASTERDOWN at our PING (decisive), or READONLY is counted or logged. Clauses, without
    an own refusal: counted and logged. A replica that lost its master serves what is old (decisive); where a queue is
    said to be in it, it is written to. Of one that nobody was seen to write to it is unknown whether somebody does.
    """
    bench = Bench("K09", facts.readings)
    info = facts.info
    slave = None if info is None else info.get("role") == "slave"
    signs = Signs(facts=facts, bench=bench, label="writes meet a replica",
                  refused=facts.refused("MASTERDOWN", "READONLY"),
                  codes=("READONLY", "MASTERDOWN"), kinds=("readonly",))  # fmt: skip
    holds = True if signs.holds or slave else None if signs.holds is None else False
    gate = signs.gate() if signs.holds or not slave else bench.fact(
        "signs", "writes meet a replica", True, value="its role is replica", rests_on=("redis_info",)
    )  # fmt: skip
    known = {"role": (info or {}).get("role"), "master_host": (info or {}).get("master_host"),
             "master_link_status": (info or {}).get("master_link_status"), "counted": signs.counted,
             "lines": signs.logged}  # fmt: skip
    clauses = signs.clauses()
    if not signs.own:
        clauses = (bench.fact("role", "the server is a replica now", slave, value=(info or {}).get("role"),
                              rests_on=("redis_info",)), *clauses)  # fmt: skip
    share = signs.share
    if slave and not signs.holds:
        written = _written_to(facts, bench, lost=(info or {}).get("master_link_status") == "down")
        clauses, share = (written,), float(written.reading == "supports")
    return Cause(
        id="K09", name="read-only replica", applicable=facts.configured, gate=gate, clauses=clauses,
        share=share if holds else 0.0,
        details={key: value for key, value in known.items() if value not in (None, "")} if holds else {},
    )  # fmt: skip


def _written_to(facts: Facts, bench: Bench, *, lost: bool) -> Evidence:
    """Whether it matters that the server is a replica, where no refused write was seen."""
    queue = bool((facts.readings.row("queue_state") or {}).get("exists"))
    matters = "it lost its master, and serves what is old" if lost else "the queue of the application is in it"
    return bench.fact(
        "written", matters if lost or queue else "the application writes to it", True if lost or queue else None,
        rests_on=("redis_info", "queue_state"), weight=DECISIVE if lost or queue else STRONG,
        reason="no write was seen, and whether the application only reads from it is not known",
    )  # fmt: skip


def eviction(facts: Facts) -> Cause:
    """K16: keys are evicted from a Redis that holds a queue: jobs lose their data.

    Gate: evicted_keys grew between two looks under a policy that evicts. Clause: the application's queue is in this
    Redis. A cache that evicts does what it is for. Hint: active jobs without their data.
    """
    bench = Bench("K16", facts.readings)
    evicted, policy = facts.grown("evicted_keys"), (facts.info or {}).get("maxmemory_policy")
    holds = None if evicted is None or policy is None else evicted > 0 and policy != "noeviction"
    if policy == "noeviction":
        holds = False
    state = facts.readings.row("queue_state")
    jobs = facts.readings.rows("queue_active")
    bare = None if jobs is None else sum(1 for job in jobs if not job.get("job") and not job.get("processed_at"))
    return Cause(
        id="K16", name=f"keys of the queue are evicted ({policy})" if holds else "keys are evicted",
        applicable=facts.configured,
        gate=bench.fact("evicted", "keys evicted between two looks", holds, value=evicted if holds else None,
                        otherwise="refutes", rests_on=("redis_info",),
                        reason="one look cannot tell what is evicted now" if facts.info is not None else ""),
        clauses=(bench.fact("queue", "the application's queue is in this Redis",
                            None if state is None else bool(state.get("exists")), value=(state or {}).get("queue"),
                            rests_on=("queue_state",)),),
        hints=(bench.weigh("bare", "active jobs without their data", bare, at_least=1, rests_on=("queue_active",),
                           weight=1),) if facts.asked("queue_active") else (),
        share=1.0 if holds else 0.0,
        details={"policy": policy, "evicted": evicted, "queue": (state or {}).get("queue")} if holds else {},
    )  # fmt: skip


def too_few_replicas(facts: Facts) -> Cause:
    """K17: writes are refused since too few replicas follow (NOREPLICAS).

    Gate: fewer good replicas than min-replicas-to-write (decisive), or counted, or logged.
    """
    bench = Bench("K17", facts.readings)
    wanted, good = number(facts.setting("min-replicas-to-write")), facts.figure("min_slaves_good_slaves")
    few: bool | None = None
    if wanted is not None:
        few = False if not wanted else None if good is None else good < wanted
    elif facts.info is not None and good is None:
        few = False  # told only where replicas are asked for
    signs = Signs(facts=facts, bench=bench, label="too few replicas for a write (NOREPLICAS)",
                  refused=facts.refused("NOREPLICAS"), figures=few, codes=("NOREPLICAS",), kinds=("noreplicas",),
                  rests_on=("redis_info", CONFIG))  # fmt: skip
    value = f"{good:g} of {wanted:g}" if few and good is not None and wanted is not None else None
    return Cause(
        id="K17", name="too few replicas (min-replicas-to-write)", applicable=facts.configured, gate=signs.gate(value),
        clauses=signs.clauses(), share=signs.share,
        details={"wanted": wanted, "good": good, "connected": facts.figure("connected_slaves")} if signs.holds else {},
    )  # fmt: skip
