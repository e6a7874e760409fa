"""Causes at the application's own processes: down, hung, elsewhere, starting, queue full. Judged where it was asked.

Each names the instances that it was found at. Source: reference fault model, R7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.health.facts import LOG, WALK, Facts
from runbook.diagnosis.health.machine import ANY_ADDRESS, LOCAL, PROCESSES, SOCKETS, is_loopback, split
from runbook.diagnosis.health.places import Place, number
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, STRONG, Evidence

ELSEWHERE = "walk_elsewhere"
STARTING = re.compile(
    r"(?i)\b(?:starting(?: up)?|start(?:ed)? up|initiali[sz]ing|booting|warming(?: up)?|migrating|migrations?|"
    r"bootstrapping|not yet ready|loading)\b"
)
"""Words with which an application says that it is not there yet."""
STARTING_UP = "57P03"
FILES_LOGGED = "EMFILE"


def instances(places: Sequence[Place]) -> list[str]:
    return [p.instance for p in places]


def each(facts: Facts, holds: Sequence[Place]) -> bool | None:
    """Whether there is one; ``None`` when where the application was asked is not known at all."""
    if holds:
        return True
    return None if facts.unseen else False


def down(facts: Facts) -> Cause:
    """H01: nobody listens: the process is gone, or comes and goes.

    Gate: the connection is refused. Clauses: by the host's own word nobody listens at the port; of the application's
    processes none is left there, or another one is met at each look. Without a way to know its processes (a pattern)
    it stays probable: it could listen elsewhere. Source: R7, H01.
    """
    bench, machine = Bench("H01", facts.readings), facts.machine
    looping = [p for p in facts.affected if restarts_at(facts, p)]
    refused = [p for p in facts.affected if p.refused or p in looping]
    nobody = [machine.listened(p) for p in refused]
    left = [machine.left(p) for p in refused]
    gone: bool | None = None
    if looping:
        gone = True
    elif left and None not in left:
        gone = not any(left)
    # A process of it that listens elsewhere, or is about to listen, is not down.
    strayed = any(strays(facts, p) for p in refused)
    about = any(_young_processes(facts, p) for p in refused) and not looping
    gone = False if strayed or about else gone
    restarts = sum(restarts_at(facts, p) for p in looping)
    details: dict[str, Any] = {}
    if refused:
        details = {"instances": instances(refused), "code": "ECONNREFUSED", "restarts": restarts or None,
                   "processes_left": None if not left or None in left else sum(x or 0 for x in left),
                   "pids": sorted({pid for p in looping for pid in machine.pids(p)}) or None}  # fmt: skip
    value = f"{restarts} restarts seen" if restarts else None if gone is None else "none" if gone else "some"
    return Cause(
        id="H01",
        name="down: it restarts again and again" if looping else "down: nobody listens",
        gate=bench.fact("refused", "connection refused, or another process at each look", each(facts, refused),
                        value=", ".join(instances(refused)) or None, rests_on=(WALK,), otherwise="refutes",
                        reason=facts.why_not()),
        clauses=(
            bench.fact("nobody", "by its own host nobody listens at the port",
                       None if not nobody or None in nobody else not any(nobody) or bool(looping),
                       rests_on=(SOCKETS,), reason=_no_host(facts)),
            bench.fact("process", "no process of the application is left there", gone, value=value,
                       otherwise="refutes" if strayed else "neutral", rests_on=(PROCESSES, SOCKETS),
                       reason=_no_pattern(facts)),
        ),
        share=facts.share(refused),
        details=_known(details),
    )  # fmt: skip


def restarts_at(facts: Facts, place: Place) -> int:
    """How often a process of the place was seen to be replaced: by who listens, else by which processes there are."""
    listening = facts.machine.restarts(place)
    return listening or (facts.machine.comes_and_goes(place) if place.refused else 0)


def hung(facts: Facts) -> Cause:
    """H02: it takes connections and does not answer: stopped, stuck in the kernel, or in a loop.

    Gate: connected, and not a byte in any look; where its queue is full, its process must be seen to hang. Clauses: its
    other endpoints are as silent; its process is stopped, stuck, or always busy. An answer of the liveness endpoint
    excludes it: then something behind the one endpoint hangs. Source: R7, H02.
    """
    bench, machine = Bench("H02", facts.readings), facts.machine
    silent = [p for p in facts.affected if p.mute and _hangs(facts, p)]
    silent = [p for p in silent if not any(o.answers for o in facts.beside(p))]
    beside = [o for p in silent for o in facts.beside(p)]
    states = [_state(facts, p) for p in silent]
    ill: bool | None = None if not states or None in states else all(state[0] for state in states if state)
    stopped = bool(silent) and all(machine.stopped(p) for p in silent)
    clauses: list[Evidence] = []
    if beside:
        clauses.append(bench.fact("all_routes", "its other endpoints are silent as well",
                                  all(o.silent or o.unconnected for o in beside), rests_on=(WALK,)))  # fmt: skip
    clauses.append(
        bench.fact("process", "its process is stopped, stuck in the kernel, or busy all the time", ill,
                   value="; ".join(s[1] for s in states if s) or None, rests_on=(SOCKETS,), reason=_no_host(facts),
                   weight=DECISIVE if stopped else STRONG)
    )  # fmt: skip
    holders = [row for p in silent if (row := machine.holder(p)) is not None]
    return Cause(
        id="H02",
        name="hung: " + (states[0][1] if states and states[0] and ill else "connects and does not answer"),
        gate=bench.fact("silent", "takes connections, and not a byte comes", each(facts, silent),
                        value=", ".join(instances(silent)) or None, rests_on=(WALK,), otherwise="refutes",
                        reason=facts.why_not()),
        clauses=tuple(clauses),
        share=facts.share(silent),
        details=_known({"instances": instances(silent), "pids": [r.get("pid") for r in holders if r.get("pid")],
                        "states": [r.get("state") for r in holders if r.get("state")],
                        "commands": [r.get("command") for r in holders if r.get("command")]}) if silent else {},
    )  # fmt: skip


def _hangs(facts: Facts, place: Place) -> bool:
    """Whether silence is the process's: with a full queue it may be that nobody accepts, unless it is seen to hang."""
    if facts.machine.full(place) is None:
        return place.silent
    state = _state(facts, place)
    return place.silent if state is None else state[0]


def _state(facts: Facts, place: Place) -> tuple[bool, str] | None:
    """Whether the process there is ill, and in words; ``None`` when it cannot be seen."""
    machine = facts.machine
    stopped, busy, row = machine.stopped(place), machine.busy(place), machine.holder(place)
    if row is None or stopped is None:
        return None
    who = f"process {int(number(row, 'pid') or 0)}"
    if stopped:
        return True, f"{who} is {'stuck in the kernel' if row.get('state') == 'D' else 'stopped'} ({row.get('state')})"
    if machine.always_running(place) or (busy is not None and busy >= facts.limits.busy_share):
        return True, f"{who} is busy at each look" + (f", with {busy:g} processors" if busy is not None else "")
    return False, f"{who} is in state {row.get('state')}" + (f", uses {busy:g} processors" if busy is not None else "")


def elsewhere(facts: Facts) -> Cause:
    """H03: the application runs, and listens at another address or port than the checker asks.

    Gate: refused where it is asked, and a process of the application listens elsewhere on that host. Clauses: it
    answers there; it is known as the application's (by the pattern, or by what listens where another instance is well).
    Where nobody said what it looks like, a young process on an application's runtime that answers the same question
    well is probable. Source: R7, H03.
    """
    bench = Bench("H03", facts.readings)
    refused = [p for p in facts.affected if p.refused]
    found = {p.instance: strays(facts, p) for p in refused}
    known = {instance: rows for instance, rows in found.items() if rows}
    gate = True if known else False if (not refused and not facts.unseen) else None
    if gate is None and refused and all(rows is not None for rows in found.values()):
        gate = False
    rows = [row for rows in known.values() for row in rows]
    there = facts.readings.rows(ELSEWHERE)
    answered = None if there is None else any(r.get("http_status") for r in there)
    guessed = not rows and bool(refused)
    if guessed and (rows := _answering(facts, refused)):
        known, gate, answered = {p.instance: rows for p in refused}, True, True
    moved = [p for p in refused if known.get(p.instance)]
    listens = list(dict.fromkeys(str(r.get("local")) for r in rows))
    return Cause(
        id="H03",
        name="listens elsewhere" + (f": {listens[0]}" if listens else ""),
        gate=bench.fact("elsewhere", "the application listens, though not where it is asked", gate,
                        value=", ".join(listens) or None, rests_on=(WALK, SOCKETS), otherwise="refutes",
                        reason=facts.why_not() or _no_host(facts) or _no_pattern(facts)),
        clauses=(
            bench.fact("answers", "it answers there", answered, rests_on=(ELSEWHERE,)),
            bench.fact("known", "known as a process of this application", None if guessed or not rows else True,
                       rests_on=(SOCKETS,), reason=_no_pattern(facts)),
        ),
        share=facts.share(moved),
        details=_known({"instances": instances(moved), "listens": listens, "pids": [r.get("pid") for r in rows],
                        "expected": [p.port for p in moved]}) if moved else {},
    )  # fmt: skip


def _answering(facts: Facts, refused: Sequence[Place]) -> list[Mapping[str, Any]]:
    """Suspects that answer the same question well."""
    well = {split(str(r.get("instance")))[1] for r in facts.readings.rows(ELSEWHERE) or [] if r.get("layer") == ""
            and r.get("http_status")}  # fmt: skip
    return [row for p in refused for row in _suspects(facts, p) if split(str(row.get("local")))[1] in well]


def _suspects(facts: Facts, place: Place) -> list[Mapping[str, Any]]:
    return list(facts.machine.suspects(place, _serving(facts)))


def _serving(facts: Facts) -> frozenset[tuple[Any, Any]]:
    """Host and process of what listens where somebody asks."""
    asked = [*facts.instances, *facts.outside, *facts.others]
    held = [row for p in asked if (row := facts.machine.holder(p)) is not None]
    return frozenset((r["host"], r.get("pid")) for r in held)


def strays(facts: Facts, place: Place) -> list[Mapping[str, Any]] | None:
    """Listening processes of the application at no place where one is expected."""
    machine = facts.machine
    siblings = [row for p in facts.well if p in facts.instances and (row := machine.holder(p)) is not None]
    found = machine.strays(place, _serving(facts), siblings)
    return None if found is None else list(found)


def urls_elsewhere(facts: Facts) -> list[str]:
    """Where to ask the same question, as the application was found to listen there."""
    urls = []
    for place in facts.affected:
        for row in (strays(facts, place) or _suspects(facts, place)) if place.refused else []:
            address, port = split(str(row.get("local")))
            own = str((place.last or {}).get("address"))
            host = own if address in ANY_ADDRESS else address
            if is_loopback(host) and row.get("host") != LOCAL:
                continue  # that host's own loopback cannot be asked from here
            scheme, _, rest = place.url.partition("://")
            urls.append(f"{scheme}://{host}:{port}/{rest.partition('/')[2]}")
    return list(dict.fromkeys(urls))


def starting(facts: Facts) -> Cause:
    """H10: it is starting, or migrating, and not yet over its time.

    Gate: it says so itself, the database it waits for does (57P03), or a young process of it does not listen yet.
    Clause: it is younger than ``startup_seconds``; one that is older hangs in its start. Source: R7, H10.
    """
    bench = Bench("H10", facts.readings)
    says = [p for p in facts.affected if _says_starting(p)]
    silent = [p for p in facts.affected if p.refused and _young_processes(facts, p) and not restarts_at(facts, p)]
    connection = facts.readings.last("connection")
    database = connection is not None and connection.code == STARTING_UP
    places = list(dict.fromkeys([*says, *silent])) or (facts.affected if database else [])
    ages = [age for p in places if (age := _age(facts, p)) is not None]
    young = None if not ages else max(ages) < facts.limits.startup_seconds
    unclear = facts.unseen or (bool(facts.affected) and not places and facts.machine.rows is None
                               and all(p.refused for p in facts.affected))  # fmt: skip
    return Cause(
        id="H10",
        name="starting or migrating",
        gate=bench.fact("says", "says that it is starting, or does not listen yet",
                        True if places else None if unclear else False,
                        value=_words(says) or ("the database starts up (57P03)" if database else None),
                        rests_on=(WALK, SOCKETS, "connection"), otherwise="refutes", reason=facts.why_not()),
        clauses=(
            bench.weigh("age", "age of the process", max(ages) if ages else None, unit="s",
                        below=facts.limits.startup_seconds, rests_on=(WALK, SOCKETS), reason=_no_host(facts)),
        ),
        share=facts.share(places),
        details=_known({"instances": instances(places), "says": _words(says), "young": young,
                        "age_seconds": max(ages) if ages else None}) if places else {},
    )  # fmt: skip


def _says_starting(place: Place) -> bool:
    row = place.last or {}
    parts = [str(row.get("word") or "")]
    parts += [f"{c.get('name')} {c.get('output')}" for c in place.checks("fail", "warn", "unknown")]
    return any(STARTING.search(part) for part in parts)


def _words(places: Sequence[Place]) -> str:
    said = [str((p.last or {}).get("word") or (p.last or {}).get("reason") or "") for p in places]
    return "; ".join(dict.fromkeys(said))[:200]


def _young_processes(facts: Facts, place: Place) -> list[Mapping[str, Any]]:
    """The application's processes on that host that are young and listen nowhere."""
    machine, host = facts.machine, facts.machine.host_of(place)
    listening = {number(r, "pid") for r in machine.rows or []}
    return [r for r in machine.processes or [] if r["host"] == host and number(r, "pid") not in listening
            and (number(r, "age_seconds") or facts.limits.startup_seconds) < facts.limits.startup_seconds]  # fmt: skip


def _age(facts: Facts, place: Place) -> float | None:
    told = number(place.last, "uptime_seconds")
    if told is not None:
        return told
    row = facts.machine.holder(place) or next(iter(_young_processes(facts, place)), None)
    return number(row, "age_seconds")


def queue_full(facts: Facts) -> Cause:
    """H13: connections are not accepted: the queue of the listening socket is full, or it has no file left to open.

    Gate: more connections wait than the socket's queue holds, or the process is at its limit of open files, or says so.
    Clause: our own connection does not come about, or gets no answer. Source: R7, H13.
    """
    bench, machine = Bench("H13", facts.readings), facts.machine
    stuck = [p for p in facts.affected if p.unconnected or p.silent or p.layer == "http"]
    full = [p for p in stuck if machine.full(p) is not None]
    files = [p for p in stuck if machine.out_of_files(p) is not None]
    logged = facts.logged(FILES_LOGGED) or 0
    # Without a file left nothing is accepted, and the queue fills as well.
    places = files or full or (stuck if logged else [])
    unclear = facts.unseen or (any(p.unconnected or p.silent for p in stuck)
                               and any(machine.host_of(p) is None for p in stuck))  # fmt: skip
    row: Mapping[str, Any] = next((r for p in files if (r := machine.out_of_files(p))), {})
    row = row or next((r for p in full if (r := machine.full(p))), {})
    waiting = f"{row.get('waiting'):g} wait, {row.get('backlog'):g} fit" if full and not files else None
    opened = f"{row.get('open_files'):g} of {row.get('open_files_limit'):g} files open" if files else None
    return Cause(
        id="H13",
        name="no open file left" if places and (files or not full) else "accept queue full",
        gate=bench.fact("full", "more connections wait than its queue holds, or no file is left to open",
                        True if places else None if unclear else False,
                        value=waiting or opened or (f"{logged} lines of EMFILE" if places else None),
                        rests_on=(SOCKETS, WALK, LOG), otherwise="refutes", reason=facts.why_not() or _no_host(facts)),
        clauses=(
            bench.fact("not_accepted", "our own connection does not come about, or gets no answer",
                       any(p.unconnected or p.silent for p in places) if places else None, rests_on=(WALK,)),
        ),
        share=facts.share(places),
        details=_known({"instances": instances(places), "kind": "queue" if full and not files else "files",
                        "local": row.get("local"), "waiting": row.get("waiting"),
                        "backlog": row.get("backlog"), "pid": row.get("pid"), "open_files": row.get("open_files"),
                        "open_files_limit": row.get("open_files_limit"),
                        "overflows": row.get("overflows")}) if places else {},
    )  # fmt: skip


def _known(details: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in details.items() if v not in (None, "", [])}


def _no_host(facts: Facts) -> str:
    """Why nothing is known of the hosts of what is ill, in words; empty when it is."""
    places = facts.affected or facts.asked
    if facts.machine.rows is None or not places or all(facts.machine.host_of(p) is not None for p in places):
        return ""
    place = next(p for p in places if facts.machine.host_of(p) is None)
    return f"the host of {place.instance} is none of workers.hosts"


def _no_pattern(facts: Facts) -> str:
    if facts.machine.pattern is None:
        return "nobody said what the application's processes look like (parameter process_pattern)"
    return ""
