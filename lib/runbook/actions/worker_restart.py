"""Restarting one worker on one host by ``workers.restart``, once its jobs have had time to end.

The process is the same when its number, its start and the boot are, looked at by the command that restarts it.
``{pid}`` and ``{host}`` in ``workers.restart`` are whole words of the command, which no shell reads; and no worker is
ever killed. Source: reference fault model, R9 (Actions).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from runbook.actions.host_acting import first_line, known_host, on_host, rows_of
from runbook.actions.kinds import Kind
from runbook.actions.looking import context, redactor
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.bullmq import BullQueue
from runbook.connectors.host import Host
from runbook.result import Precondition
from runbook.settings import Workers

if TYPE_CHECKING:
    from runbook.settings import Settings

PROC = "/proc"
STARTED, RESTART = 'host_worker_started "$@"', 'host_worker_restart "$@"'
DRAIN_SECONDS = 20.0
"""So long its jobs are waited for."""
RESTART_SECONDS = 60.0
NEW_SECONDS = 20.0
"""So long the new process is waited for."""
SAME_SECONDS = 5.0
"""A run tells the age of a process in whole seconds."""
MOVED = 75
MOVED_SAID = "it is another process by now, and was left alone"
_KILLERS = frozenset({"kill", "pkill", "killall", "signal"})
_KILLS = frozenset({"-9", "9", "-n9", "-s9", "-kill", "kill", "-skill", "-sigkill", "sigkill", "--signal=9",
                    "--signal=kill", "--signal=sigkill"})  # fmt: skip

Process = Mapping[str, Any]


class Restart(Kind):
    """``worker.restart``: run what restarts a worker, and see that a new one comes."""

    may_be_automatic = False

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        if not self.settings.workers.process_pattern:
            raise Refused("workers.process_pattern is not set: nobody could tell that a new worker is there")
        wanted = [target for target in order.targets if target.get("host")]
        if not wanted:
            raise Refused("the run did not see the worker's process", remedy="Run the runbook again, or do it by hand")
        left: list[str] = []
        for number, target in enumerate(wanted):
            host = known_host(self.settings, target["host"])
            there = _workers(self.settings, host)
            if why := _why_not(there, target):
                left.append(f"{_named(target)}: {why}")
                continue
            left += [f"{_named(other)}: one worker at a time" for other in wanted[number + 1 :]]
            return self._drafted(host, there, target, left)
        raise Refused("nothing is left to do: " + "; ".join(left))

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        identity = target.identity
        host = known_host(self.settings, identity["host"])
        if why := _another(_workers(self.settings, host), identity):  # for which no job has to be waited for
            return [Effect(target=target.name, done=False, said=why)]
        drained = _drained(self.settings, identity["stuck_jobs"])
        same = [PROC, str(identity["pid"] or 0), str(identity["started"] or 0), str(identity["boot"] or "")]
        if identity["pid"] is None and (why := _another(_workers(self.settings, host), identity)):
            return [Effect(target=target.name, done=False, said=why)]
        try:
            output = on_host(host, RESTART, [*same, *identity["argv"]], limit_seconds=RESTART_SECONDS)
        except Refused as error:  # it may have been sent, and go on
            said = f"not known to be done: {self._told(str(error))}; {drained}"
            return [Effect(target=target.name, done=True, said=said)]
        if output.status == MOVED and output.out.startswith(b"another process"):
            return [Effect(target=target.name, done=False, said=MOVED_SAID)]
        if output.status != 0:
            return [self._failed(target, f"exit status {output.status}: {first_line(output.err)}", drained)]
        return [Effect(target=target.name, done=True, said=f"the command was run; {drained}")]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`. A new process needs a moment to be there."""
        (target,) = plan.draft.targets
        known = {tuple(one) for one in target.identity["known"]}
        deadline = time.monotonic() + NEW_SECONDS
        while True:
            there = {(p["pid"], p["started"]) for p in _workers(self.settings, str(target.identity["host"])).values()}
            old = (target.identity["pid"], target.identity["started"]) in there
            new = sorted(str(pid) for pid, _ in there - known)
            if new and not old:
                return True, f"the old one is gone, and pid {', '.join(new)} is there"
            if time.monotonic() > deadline:
                return False, "the old one is still there" if old else "no new worker has come"
            time.sleep(0.25)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _drafted(self, host: str, there: Mapping[int, Process], target: Mapping[str, Any], left: list[str]) -> Draft:
        pid = int(target["pid"]) if target.get("pid") else None
        process = there[pid] if pid is not None else {}
        argv = _argv(self.settings.workers.restart, host, pid)
        stuck = [str(job) for job in target.get("job_ids") or []]
        shown = f"pid {pid} on {host}, for {process['age_seconds']:g} s: {process['command']}" if pid else ""
        return Draft(
            targets=[
                Target(
                    name=f"worker on {host}",
                    identity={"host": host, "pid": pid, "started": process.get("started"), "boot": process.get("boot"),
                              "argv": argv, "stuck_jobs": stuck,
                              "known": sorted([p["pid"], p["started"]] for p in there.values())},
                    shown=shown or f"no worker runs on {host}", change=f"{shlex.join(argv)} is run there",
                )
            ],
            left_alone=left,
            risks=(_under_way(self.settings, stuck), "the worker is away until its new process has started"),
            preconditions=(Precondition(label="the same process still, by its start", holds=True),),
            undo="irreversible: a job that was running begins again",
        )  # fmt: skip

    def _failed(self, target: Target, why: str, drained: str) -> Effect:
        """What a command that failed has done, as far as its host tells."""
        identity = target.identity
        try:
            there = _workers(self.settings, str(identity["host"]))
        except Refused as error:
            return Effect(target=target.name, done=True, said=f"{self._told(why)}; what it did is not known: {error}")
        same = identity["pid"] is not None and (there.get(identity["pid"]) or {}).get("started") == identity["started"]
        nothing = same or (identity["pid"] is None and not there)
        became = "nothing has changed" if nothing else f"the old process is gone; {drained}"
        return Effect(target=target.name, done=not nothing, said=f"{self._told(why)}; {became}")

    def _told(self, text: str) -> str:
        return redactor(self.settings).text(text)


def _workers(settings: Settings, host: str) -> dict[int, dict[str, Any]]:
    """The workers' processes on a host, by number, with their exact start."""
    section = Workers(hosts=[host], process_pattern=settings.workers.process_pattern)
    reading = Host(context(settings), section, proc=PROC).worker_processes()
    if not reading.known:
        raise Refused(f"{host}: {reading.reason}", remedy="See runbook doctor")
    rows = {int(row["pid"]): row for row in reading.rows if row.get("pid") and not str(row["state"]).startswith("Z")}
    output = on_host(host, STARTED, [PROC, *map(str, rows)])
    starts = {int(row["pid"]): row for row in rows_of(host, output)}
    return {pid: rows[pid] | {"pid": pid} | dict(starts[pid]) for pid in rows if pid in starts}


def _another(there: Mapping[int, Process], identity: Mapping[str, Any]) -> str:
    """Why what was planned is not so any more; empty when it is."""
    if identity["pid"] is None:
        return "a worker is there by now, and nothing was started" if there else ""
    return "" if (there.get(identity["pid"]) or {}).get("started") == identity["started"] else MOVED_SAID


def _why_not(there: Mapping[int, Process], target: Mapping[str, Any]) -> str:
    """Why a worker must not be restarted; empty when it may."""
    if not target.get("pid"):
        return "a worker runs there by now" if there else ""
    process = there.get(int(target["pid"]))
    if process is None:
        return "it is gone"
    try:
        then = datetime.fromisoformat(str(target.get("started_at"))).timestamp()
    except ValueError:
        return "the run did not tell when it began"
    began = datetime.now(UTC).timestamp() - float(process["age_seconds"])
    return "" if abs(began - then) <= SAME_SECONDS else "it is another process by now"


def _named(target: Mapping[str, Any]) -> str:
    return f"pid {target['pid']} on {target['host']}" if target.get("pid") else f"no process on {target['host']}"


def _argv(configured: Sequence[str], host: str, pid: int | None) -> list[str]:
    """The command, word by word.

    Raises
    ------
    Refused
        There is none, it names a process where there is none, or it would kill one.
    """
    if not configured:
        raise Refused("workers.restart is not set", remedy="Set it, e.g. to systemctl restart and the worker's unit")
    if "{pid}" in configured and pid is None:
        raise Refused("workers.restart names {pid}, and no worker runs", remedy="Start it by hand")
    argv = [{"{pid}": str(pid), "{host}": host}.get(word, word) for word in configured]
    words = [part for word in argv for part in word.split()]
    for place, word in enumerate(words):
        if PurePosixPath(word).name in _KILLERS and any(later.lower() in _KILLS for later in words[place + 1 :]):
            raise Refused("workers.restart kills (SIGKILL), and no worker is ever killed", remedy="Let it send SIGTERM")
    return argv


def _active(settings: Settings, stuck: Sequence[str]) -> list[str] | None:
    """Jobs under way in good hands, whoever holds them; ``None`` when nobody can tell."""
    url = settings.redis.url.get_secret_value() if settings.redis.url else None
    reading = BullQueue(context(settings), url, settings.queue).active()
    if not reading.known:
        return None
    return [str(row["id"]) for row in reading.rows if row.get("has_lock") and str(row["id"]) not in stuck]


def _under_way(settings: Settings, stuck: Sequence[str]) -> str:
    jobs = _active(settings, stuck)
    held = f"; jobs that hang begin again: {', '.join(stuck)}" if stuck else ""
    if jobs is None:
        return f"which jobs are under way cannot be told: what it holds begins again{held}"
    if not jobs:
        return f"no job is under way in good hands{held}"
    shown = ", ".join(jobs[:10])
    return f"jobs under way ({shown}) are waited for, {DRAIN_SECONDS:g} s; what it holds then begins again{held}"


def _drained(settings: Settings, stuck: Sequence[str]) -> str:
    """Wait until no job is under way, for a while; how that went, in words."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        jobs = _active(settings, stuck)
        if not jobs:
            return "no job was under way" if jobs == [] else "which jobs were under way could not be told"
        if time.monotonic() > deadline:
            return f"after {DRAIN_SECONDS:g} s jobs were still under way: {', '.join(jobs[:10])}"
        time.sleep(0.5)
