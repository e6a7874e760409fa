"""What could be done, proposed: exact targets, what must hold, what to copy, how to undo it.

Nothing here acts. Never proposed: FLUSHALL, a failover, a restart as the first resort, KEYS or MONITOR to look. One
client at a time is closed, by its id, after id, address and idle time were looked at again. Source: reference fault
model, sections 2 and R8.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from runbook.diagnosis.redis.facts import Facts, number
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

CLI = 'redis-cli -u "$REDIS_URL"'
"""The URL comes from the environment: its password has no place in a report, nor among a host's processes."""
ADMINISTRATOR = "an administrator's access to this Redis"
FILES_RESERVED = 32


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    return [
        action
        for verdict in verdicts
        if found(verdict.tier) and verdict.role != "consequence" and verdict.cause in PROPOSERS
        for action in PROPOSERS[verdict.cause](verdict, facts)
    ]


def _action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
            targets: Sequence[dict[str, Any]] = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def _start(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "K01", "redis.find_out_why", "Find out why it is down before it is started again",
            "systemctl status redis-server; journalctl -u redis-server -n 50   # exit code, signal, last words\n"
            "df -h; free -m   # a full disk or the kernel's OOM killer takes it down again\n"
            "systemctl start redis-server   # its owner's decision: what was not saved is gone already",
            undo="nothing is changed by looking", needs="shell on the Redis host",
            targets=[{"target": verdict.details.get("target")}],
            preconditions=(
                Precondition(label="the URL is the one that the application uses", holds=None),
                Precondition(label="no failover is under way", holds=None),
            ),
        )
    ]  # fmt: skip


def _way(verdict: Verdict, facts: Facts) -> list[Action]:
    host = str(_target(facts) or "HOST:6379").partition("/")[0]
    name, _, port = host.rpartition(":")
    where = shlex.quote(name.strip("[]") or host)
    return [
        _action(
            "K02", "network.find_the_end", f"Find where the way to {name or host} ends, from the application's host",
            f"getent hosts {where}\nnc -vz -w 3 {where} {shlex.quote(port)}   # here and on the application's host\n"
            "# security groups and firewalls of both sides; was the endpoint renamed by a failover?",
            undo="nothing is changed", targets=[{"host": host, "kind": verdict.details.get("kind")}],
        )
    ]  # fmt: skip


def _login(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "K03", "app.correct_login", "Bring the application's login and the server's together again",
            f"{CLI} PING   # with the URL of the application, on its host\n"
            "# rotated lately? put the new password into the secret store, then a rolling restart;\n"
            "# a user may have two passwords while that goes on: ACL SETUSER name >new, later <old",
            undo="put the previous secret back", needs="owner of the credentials",
            targets=[{"code": verdict.details.get("code")}],
        )
    ]  # fmt: skip


def _rights(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    user, item = str(details.get("user") or "USER"), str(details.get("object") or "COMMAND")
    rule = f"+{item}" if details.get("reason") != "key" else f"~{item}"
    return [
        _action(
            "K04", "redis.grant", f"Its owner decides: allow {user} what the application needs",
            f"{CLI} ACL GETUSER {shlex.quote(user)}   # keep what it prints\n"
            f"{CLI} ACL DRYRUN {shlex.quote(user)} SET some-key 1   # 7.0 and later: asks, runs nothing\n"
            f"{CLI} ACL SETUSER {shlex.quote(user)} {shlex.quote(rule)}; {CLI} ACL SAVE",
            undo=f"ACL SETUSER {user} with the rules kept", needs=ADMINISTRATOR,
            targets=[{"user": user, "object": item}],
            preconditions=(Precondition(label="the right was not taken away on purpose", holds=None),),
        )
    ]  # fmt: skip


def _room_for_clients(verdict: Verdict, facts: Facts) -> list[Action]:
    slots = int(facts.slots or number(verdict.details.get("maxclients")) or 0)
    files = number((facts.process or {}).get("open_files_limit"))
    most = int(files) - FILES_RESERVED if files else None
    wanted = min(2 * slots, most) if slots and most else 2 * slots if slots else 0
    known = slots > 0
    allowed = None if most is None or not known else wanted > slots
    return [
        _action(
            "K05", "redis.raise_maxclients", "Take more clients for a while; whose they are is still owed",
            f"{CLI} CONFIG GET maxclients   # keep it{f': {slots}' if known else ''}\n"
            f"{CLI} CONFIG SET maxclients {wanted if allowed or (known and most is None) else 'N'}"
            f"   # at most its open files, less {FILES_RESERVED}\n"
            "# no slot for this command either? repeat it: it is let in as soon as one client leaves;\n"
            "# or stop one instance of the application, whose pool then gives its slots back",
            undo=f"CONFIG SET maxclients {slots if known else '(the value kept)'}; clients that are connected stay",
            needs=ADMINISTRATOR,
            targets=[{"maxclients": slots, "to": wanted} if known else {"target": _target(facts)}],
            preconditions=(
                Precondition(label="its limit of open files allows it", holds=allowed, value=files),
                Precondition(label="there is memory for them", holds=None),
            ),
        )
    ]  # fmt: skip


def _target(facts: Facts) -> str | None:
    reading = facts.readings.last("redis_walk") or facts.readings.last("redis_ping")
    return reading.target if reading is not None else None


def _one_client(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    idlest = next((c for c in details.get("longest_idle") or [] if c.get("id") is not None), None)
    if idlest is None:
        return []
    identity, address, idle = int(idlest["id"]), str(idlest.get("addr")), int(idlest.get("idle_seconds") or 0)
    return [
        _action(
            "K06", "redis.kill_client", f"Close one idle client of {details.get('name')} (id {identity}), look again",
            f"{CLI} CLIENT LIST ID {identity}   # still addr={address} and idle>={idle}? only then:\n"
            f"{CLI} CLIENT KILL ID {identity} ADDR {shlex.quote(address)}   # nothing but this very client\n"
            "# the leak is in the application: clients made and not closed, one for each request or job",
            undo="irreversible, and harmless: a client that lives connects again", needs=ADMINISTRATOR,
            targets=[{"id": identity, "addr": address, "idle_seconds": idle, "name": details.get("name"),
                      "host": details.get("host")}],
            preconditions=(
                Precondition(label=f"still the same client: id {identity} at {address}", holds=None),
                Precondition(label=f"still idle, for {idle} s and more", holds=None, value=idle),
                Precondition(label="one client a run", holds=True, value=f"1 of {details.get('connections')}"),
            ),
        )
    ]  # fmt: skip


def _memory(verdict: Verdict, facts: Facts) -> list[Action]:
    most = int(number(verdict.details.get("maxmemory")) or 0)
    return [
        _action(
            "K07", "redis.raise_maxmemory", "Give it more memory where the host has it; what fills it is still owed",
            f"{CLI} INFO memory; {CLI} --bigkeys -i 0.01   # samples with SCAN; never KEYS\n"
            f"{CLI} CONFIG SET maxmemory {most + most // 4 if most else 'BYTES'}\n"
            "# never FLUSHALL; completed and failed jobs that nobody reads: removeOnComplete in the application",
            undo=f"CONFIG SET maxmemory {most or '(the value kept)'}", needs=ADMINISTRATOR,
            targets=[{"maxmemory": most or None, "used_memory": verdict.details.get("used_memory")}],
            preconditions=(
                Precondition(label="the host has that much memory to spare, and as much again for a fork", holds=None),
                Precondition(label="no eviction policy is set on a Redis that holds a queue", holds=True),
            ),
        )
    ]  # fmt: skip


def _save(verdict: Verdict, facts: Facts) -> list[Action]:
    place = str(verdict.details.get("dir") or "DIR")
    full = number(verdict.details.get("disk_used_percent"))
    return [
        _action(
            "K08", "redis.save_again", "Make room where it saves, then let it save again",
            f"df -h {shlex.quote(place)}; df -i {shlex.quote(place)}; ls -ld {shlex.quote(place)}\n"
            f"{CLI} BGSAVE   # once there is room: refusals end with the first that succeeds\n"
            f"{CLI} INFO persistence | grep rdb_last_bgsave_status",
            undo="nothing to undo: a snapshot is written", needs=f"{ADMINISTRATOR}, and a shell on its host",
            targets=[{"dir": place, "mount": verdict.details.get("mount")}],
            preconditions=(
                Precondition(label="there is room on that disk", value=full,
                             holds=None if full is None else full < 95.0),
                Precondition(label="the directory is there and Redis may write to it", holds=None),
                Precondition(label="stop-writes-on-bgsave-error stays: it protects what is not saved", holds=True),
            ),
        )
    ]  # fmt: skip


def _replica(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "K09", "app.point_to_master", "Point the application to the master that is now",
            f"{CLI} INFO replication   # master_host: {verdict.details.get('master_host') or 'unknown'}\n"
            "# after a failover: the endpoint or the Sentinel name, not the address of a node\n"
            "# no FAILOVER and no REPLICAOF NO ONE from here: two masters lose writes",
            undo="put the previous address back", needs="owner of the application's configuration",
            targets=[{"role": verdict.details.get("role"), "master_host": verdict.details.get("master_host")}],
        )
    ]  # fmt: skip


def _wait(verdict: Verdict, facts: Facts) -> list[Action]:
    eta = verdict.details.get("eta_seconds")
    return [
        _action("K10", "redis.wait", f"Wait: it serves when its data is read{f', about {eta:g} s' if eta else ''}",
                f"{CLI} INFO persistence | grep loading   # a restart begins from the start",
                undo="nothing is changed")
    ]  # fmt: skip


def _script(verdict: Verdict, facts: Facts) -> list[Action]:
    command = "FUNCTION KILL" if verdict.details.get("function") else "SCRIPT KILL"
    return [
        _action(
            "K11", "redis.script_kill", "End the script that keeps everybody waiting",
            f"{CLI} {command}   # refused (UNKILLABLE) once the script has written: then only its end helps;\n"
            "# SHUTDOWN NOSAVE would lose what is not saved, and is its owner's decision",
            undo="irreversible: the script ends with an error, having written nothing", needs=ADMINISTRATOR,
            targets=[{"said": verdict.details.get("said")}],
            preconditions=(
                Precondition(label="it still answers BUSY", holds=None),
                Precondition(label="the script has written nothing (checked by the command itself)", holds=None),
            ),
        )
    ]  # fmt: skip


def _hangs(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    pid = details.get("pid")
    if details.get("kind") == "stopped" and pid is not None:
        return [
            _action(
                "K12", "redis.continue", f"Let the process go on that somebody stopped (pid {int(pid)})",
                f"ps -o pid,stat,lstart,args -p {int(pid)}   # still state T, still redis-server?\n"
                f"kill -CONT {int(pid)}",
                undo=f"kill -STOP {int(pid)}", needs="its user, or root, on the Redis host",
                targets=[{"pid": int(pid)}],
                preconditions=(Precondition(label="nobody is debugging or snapshotting it", holds=None),),
            )
        ]  # fmt: skip
    return [
        _action(
            "K12", "redis.find_command", "Find what keeps it, once it answers",
            f"{CLI} SLOWLOG GET 10; {CLI} LATENCY LATEST\n"
            "# on its host: top -H -p PID (busy = a command, waiting = disk or swap)",
            undo="nothing is changed", targets=[{"command": details.get("command"), "client": details.get("client")}],
        )
    ]  # fmt: skip


def _pause(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "K13", "redis.unpause", "Ask who paused the clients; a pause ends by itself",
            f"{CLI} CLIENT UNPAUSE   # 6.2 and later; a failover pauses clients for good reason",
            undo="CLIENT PAUSE again", needs=ADMINISTRATOR,
            preconditions=(Precondition(label="no failover, migration or upgrade is under way", holds=None),),
        )
    ]  # fmt: skip


def _tls(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "K14", "app.correct_scheme", "Bring the URL's scheme and the server's port together, or a new certificate",
            "# redis:// speaks plain, rediss:// speaks TLS; many servers have a port for each\n"
            "openssl s_client -connect HOST:PORT </dev/null | openssl x509 -noout -dates -subject",
            undo="put the previous URL back", targets=[{"code": verdict.details.get("code"),
                                                        "kind": verdict.details.get("kind")}],
        )
    ]  # fmt: skip


def _protected(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("K15", "redis.set_password", "Give the server a password and an address to listen on",
                "# requirepass or users with passwords, bind to the private address;\n"
                "# do not switch protected mode off instead: an open Redis is found within minutes",
                undo="put the previous configuration back", needs=ADMINISTRATOR)
    ]  # fmt: skip


def _eviction(verdict: Verdict, facts: Facts) -> list[Action]:
    policy = str(verdict.details.get("policy") or "the policy kept")
    return [
        _action("K16", "redis.never_evict", "Stop the eviction of jobs: noeviction, and room for what comes",
                f"{CLI} CONFIG SET maxmemory-policy noeviction   # full, it then refuses writes: make room",
                undo=f"CONFIG SET maxmemory-policy {policy}", needs=ADMINISTRATOR, targets=[{"policy": policy}],
                preconditions=(Precondition(label="there is memory below maxmemory", holds=None),))
    ]  # fmt: skip


def _replicas(verdict: Verdict, facts: Facts) -> list[Action]:
    wanted = verdict.details.get("wanted")
    return [
        _action("K17", "redis.bring_back_replicas", "Bring the replicas back; the rule keeps writes from being lost",
                f"{CLI} INFO replication   # which replica is missing, or lags\n"
                f"{CLI} CONFIG SET min-replicas-to-write 0   # its owner decides: writes then live on one node",
                undo=f"CONFIG SET min-replicas-to-write {int(number(wanted) or 0)}", needs=ADMINISTRATOR,
                targets=[{"wanted": wanted, "good": verdict.details.get("good")}])
    ]  # fmt: skip


def _cluster(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("K18", "redis.cluster_state", "Look which slots have no node; use a client that knows clusters",
                f"{CLI} CLUSTER INFO; {CLI} CLUSTER NODES   # reads only; no CLUSTER RESET, no FAILOVER from here",
                undo="nothing is changed", targets=[{"kind": verdict.details.get("kind")}])
    ]  # fmt: skip


def _disk_pressure(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("K19", "redis.calm_the_disk", "Take other load off its disk and memory; snapshot at a quieter hour",
                f"{CLI} LATENCY LATEST; {CLI} INFO persistence\n"
                "# transparent huge pages make forks slow: cat /sys/kernel/mm/transparent_hugepage/enabled",
                undo="nothing is changed", needs="shell on the Redis host")
    ]  # fmt: skip


def _client(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "K20", "app.restart_one", "Compare the address that the application uses; then restart one instance of it",
            "# on its host: does its REDIS_URL resolve to this server? then one instance, and look at its log;\n"
            "# the server needs nothing: do not restart it",
            undo="irreversible: requests under way on that instance end",
            needs="whoever may restart the application", targets=[{"instance": verdict.details.get("instance")}],
            preconditions=(Precondition(label="the other instances can carry the traffic", holds=None),),
        )
    ]  # fmt: skip


def _buffers(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("K21", "app.read_faster", "Find who does not read its answers: a subscriber, or huge replies",
                f"{CLI} CLIENT LIST   # omem: whose grows?\n{CLI} CONFIG GET client-output-buffer-limit   # keep it",
                undo="nothing is changed", targets=[{"limit": verdict.details.get("limit")}])
    ]  # fmt: skip


PROPOSERS: dict[str, Callable[[Verdict, Facts], list[Action]]] = {
    "K01": _start, "K02": _way, "K03": _login, "K04": _rights, "K05": _room_for_clients, "K06": _one_client,
    "K07": _memory, "K08": _save, "K09": _replica, "K10": _wait, "K11": _script, "K12": _hangs, "K13": _pause,
    "K14": _tls, "K15": _protected, "K16": _eviction, "K17": _replicas, "K18": _cluster, "K19": _disk_pressure,
    "K20": _client, "K21": _buffers,
}  # fmt: skip
