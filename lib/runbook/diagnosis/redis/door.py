"""Causes on the way in: down, unreachable, login, silent, paused, TLS, protected mode.

Source of every rule: reference fault model, runbook R8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.redis.facts import HEALTH, LOG, PING, Facts, number
from runbook.diagnosis.redis.signs import Signs, in_words
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, STRONG, WEAK, Evidence

REFUSED = ("ECONNREFUSED", "ENOENT")
NO_WAY = ("DNS", "EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN")
LOGIN = ("NOAUTH", "WRONGPASS", "NOPASSWORD")


def _hints(bench: Bench, facts: Facts) -> tuple[Evidence, ...]:
    """That the application meets it too."""
    if facts.suffers is None and not facts.asked(HEALTH) and not facts.asked(LOG):
        return ()
    value = facts.check["status"] if facts.check is not None else None
    return (
        bench.fact("application", "the application fails at Redis as well", facts.suffers, value=value,
                   rests_on=(HEALTH, LOG), weight=WEAK),
    )  # fmt: skip


def _details(facts: Facts) -> dict[str, Any]:
    refusal = facts.refusal or facts.walked
    if refusal is None:
        return {}
    reading = facts.readings.last(refusal.reading)
    application = (
        {True: "fails as well", False: "is well so far"}.get(bool(facts.suffers)) if facts.suffers is not None else None
    )
    found = {"code": refusal.code, "said": refusal.detail, "target": reading.target if reading is not None else None,
             "application": application}  # fmt: skip
    return {key: value for key, value in found.items() if value}


def _of_the_door(
    facts: Facts, cause: str, name: str, label: str, holds: bool | None, *, reason: str = "", **details: Any
) -> Cause:
    """A cause whose gate is how we are refused; decisive, since the URL is the application's own."""
    bench = Bench(cause, facts.readings)
    refusal = facts.refusal or facts.walked
    value = in_words(refusal) if holds and refusal is not None else None
    known = {key: found for key, found in details.items() if found not in (None, "")}
    return Cause(
        id=cause,
        name=name,
        applicable=facts.configured,
        gate=bench.fact("refused", label, holds, value=value, otherwise="refutes", weight=DECISIVE, rests_on=facts.way,
                        reason=reason),
        hints=_hints(bench, facts),
        share=facts.ours if holds else 0.0,
        details=_details(facts) | known if holds else {},
    )  # fmt: skip


def down(facts: Facts) -> Cause:
    """K01: nothing listens where the URL points.

    Gate (decisive): the connection is refused (errno 111; a Unix socket that is not there) at most attempts. Never
    confirmed while the application's own check of Redis passes: our URL may be another than the application's.
    """
    process = facts.process
    return _of_the_door(
        facts, "K01", "down: nothing listens", "the connection is refused", facts.refused(*REFUSED),
        process=None if process is None else f"pid {process.get('pid')} runs, state {process.get('state')}",
        listening=facts.listening,
    )  # fmt: skip


def unreachable(facts: Facts) -> Cause:
    """K02: the name does not resolve, or no connection comes about.

    Gate (decisive): a resolver's error, no route, or a connect that is not answered. A time-out is told from a hanging
    server, and from TLS spoken to one without, by the walk alone; without it it stays unknown.
    """
    refused = facts.refused(*NO_WAY)
    timed_out = facts.refused("ETIMEDOUT")
    if timed_out and not _by_walk(facts, "tcp"):
        timed_out = None if facts.walked is None else False
    holds = True if refused or timed_out else None if refused is None or timed_out is None else False
    code = facts.refusal.code if facts.refusal is not None else ""
    return _of_the_door(
        facts, "K02", "unreachable" if code != "DNS" else "unreachable: its name does not resolve",
        "no name, no route or no answer to a connect", holds,
        kind={"DNS": "dns", "ETIMEDOUT": "timeout"}.get(code, "route"),
        reason="a time-out may be a server that hangs: only the walk tells" if holds is None and facts.attempts else "",
    )  # fmt: skip


def _by_walk(facts: Facts, step: str) -> bool:
    row = (facts.walk or {}).get(step) or {}
    return row.get("answer") == "no"


def login(facts: Facts) -> Cause:
    """K03: the login is refused: none, a wrong one, or one for a server that has no password.

    Gate (decisive): NOAUTH, WRONGPASS at our own attempt with the URL of the application; or its log says so. Errors
    that the server counts are no gate: probes without a password are counted the same way. Clause, without an own
    refusal: the server counts WRONGPASS or NOAUTH.
    """
    bench = Bench("K03", facts.readings)
    signs = Signs(facts=facts, bench=bench, label="the login is refused: to us, or in the application's log",
                  refused=facts.refused(*LOGIN), kinds=("auth",), personal=True)  # fmt: skip
    counted = facts.counted("WRONGPASS", "NOAUTH")
    clauses = () if signs.own else (
        *signs.clauses(),
        bench.weigh("counted", "logins that the server refused between two looks", counted, at_least=1,
                    rests_on=("redis_info",)),
    )  # fmt: skip
    return Cause(
        id="K03", name="login refused", applicable=facts.configured, gate=signs.gate(), clauses=clauses,
        hints=_hints(bench, facts), share=signs.share,
        details=_details(facts) | {"lines": signs.logged or 0} if signs.holds else {},
    )  # fmt: skip


def hangs(facts: Facts) -> Cause:
    """K12: the server accepts connections and says nothing, not even an error: one command, or the machine, holds it.

    Gate: the walk's PING stays without an answer, and a command that cannot be right is not refused either, which sets
    it apart from a pause (decisive); or it was answered late, or a slow command of the last moments kept it. Clause of
    the latter two: others waited as well; one late answer alone may be our own machine's doing. Details: its process is
    stopped (state T), the command. Silence that only a PING of the client library met is unknown: it may be a pause.
    """
    bench, limits = Bench("K12", facts.readings), facts.limits
    silent, late, slow = _is_silent(facts), facts.walked is not None and facts.walked.code == "LATE", _slowest(facts)
    blocked = None if slow is None else (number(slow.get("seconds")) or 0.0) >= limits.block_seconds
    lost = facts.asked("redis_slowlog") and blocked is None and not facts.failing
    holds = True if silent or late or blocked else None if silent is None or lost else False
    value = facts.walked.detail if (silent or late) and facts.walked is not None else None
    if blocked and slow and value is None:
        value = f"{slow.get('command')} took {slow.get('seconds')} s, {slow.get('ago_seconds')} s ago"
    details = _hanging(facts, slow if blocked else None, silent=bool(silent)) if holds else {}
    return Cause(
        id="K12", name=f"hangs: {details['kind']}" if details else "blocked or hung", applicable=facts.configured,
        gate=bench.fact("silent", "no answer at all, or a command that kept it", holds, value=value,
                        otherwise="refutes", weight=DECISIVE if silent else STRONG,
                        rests_on=(*facts.way, "redis_slowlog"), reason=_silence(facts, holds)),
        clauses=() if silent else (_waited(bench, facts),), hints=_hints(bench, facts),
        share=(facts.ours if silent else 1.0) if holds else 0.0, details=details,
    )  # fmt: skip


def _is_silent(facts: Facts) -> bool | None:
    if facts.walked is not None:
        return facts.walked.code == "SILENT"
    return None if not facts.attempts or facts.refused("SILENT") else False


def _waited(bench: Bench, facts: Facts) -> Evidence:
    """Whether others waited as well: time-outs in the log, or more than one slow answer to us."""
    timeouts, slow = facts.logged("timeout"), facts.slow_answers
    return bench.fact(
        "felt", "others waited: time-outs in the log, or slow answers again and again",
        True if (timeouts or 0) >= 1 or (slow or 0) >= 2 else None if slow is None else False,
        value=f"{timeouts or 0} lines, {slow or 0} slow answers", rests_on=(PING, LOG),
    )  # fmt: skip


def _hanging(facts: Facts, slow: Mapping[str, Any] | None, *, silent: bool) -> dict[str, Any]:
    """What is known of what holds it."""
    process = facts.process if silent else None
    state = str(process.get("state"))[:1] if process is not None else ""
    found = _details(facts) if silent else {}
    found["kind"] = "stopped" if state == "T" else "blocked" if slow else "silent"
    if process is not None:
        found |= {"pid": process.get("pid"), "state": state}
    if slow:
        found |= {"command": slow.get("command"), "seconds": slow.get("seconds"), "at": slow.get("at"),
                  "client": slow.get("name") or slow.get("client")}  # fmt: skip
    return found


def _silence(facts: Facts, holds: bool | None) -> str:
    return "silence may be a pause: only the walk tells" if holds is None and facts.attempts else ""


def _slowest(facts: Facts) -> dict[str, Any] | None:
    """The slowest command of the last moments; empty = none, ``None`` = unknown."""
    rows = facts.readings.rows("redis_slowlog")
    if rows is None:
        return None
    recent = [r for r in rows if (number(r.get("ago_seconds")) or 0.0) <= facts.limits.recent_seconds]
    return max(recent, key=lambda r: (number(r.get("seconds")) or 0.0, str(r.get("at"))), default={})


def paused(facts: Facts) -> Cause:
    """K13: somebody paused the clients (``CLIENT PAUSE``): commands wait, while errors are answered at once.

    Gate (decisive): so at the walk. Else, of a pause of writes alone: clients are held back with commands that do not
    wait by nature; clause: for at least a second, or the server names a reason. A pause ends by itself.
    """
    bench = Bench("K13", facts.readings)
    walked = facts.walked
    all_ = None if walked is None and (not facts.attempts or facts.refused("SILENT")) else (
        walked is not None and walked.code == "PAUSED"
    )  # fmt: skip
    held = facts.held_back
    named = str((facts.info or {}).get("paused_reason") or "none") not in ("none", "")
    seconds = max((number(r.get("held_back_seconds")) or 0.0 for r in facts.clients or []), default=0.0)
    asks = facts.asked("redis_clients")
    holds = True if all_ or held else None if all_ is None or (asks and held is None and not facts.failing) else False
    value = walked.detail if all_ and walked is not None else f"{held} clients held back" if held else None
    clauses = () if all_ else (
        bench.fact("held", "held back for a second and more, or the server says that it pauses",
                   (seconds >= 1 or named) if held is not None else None, value=f"{seconds:g} s" if held else None,
                   rests_on=("redis_clients", "redis_info")),
    )  # fmt: skip
    return Cause(
        id="K13", name="clients are paused" if not held else "writes are paused", applicable=facts.configured,
        gate=bench.fact("waits", "commands wait, although errors are answered at once", holds, value=value,
                        otherwise="refutes", weight=DECISIVE if all_ else STRONG,
                        rests_on=(*facts.way, "redis_clients"), reason=_silence(facts, holds)),
        clauses=clauses, hints=_hints(bench, facts), share=1.0 if holds else 0.0,
        details=({"code": "PAUSED", "said": value} | ({"held_back": held} if held else {})) if holds else {},
    )  # fmt: skip


def tls(facts: Facts) -> Cause:
    """K14: one side speaks TLS and the other does not, or the certificate is not accepted.

    Gate (decisive): the walk tells which side, by the first bytes of an answer; or a verify error of the handshake.
    A reset or a closed connection alone is neither.
    """
    refusal = facts.refusal
    code = refusal.code if refusal is not None else ""
    mismatch = code in ("TLS", "PLAIN") or (code.startswith("TLS") and code[3:].isdigit())
    kinds = {"TLS": "the server speaks TLS, the URL does not", "PLAIN": "the URL wants TLS, the server speaks plain"}
    if code == "TLS" and _by_walk(facts, "tls"):
        kinds["TLS"] = "the handshake fails"
    return _of_the_door(
        facts, "K14", "TLS mismatch" if not code[3:].isdigit() else "TLS: certificate not accepted",
        "TLS on one side only, or a certificate that is not accepted", mismatch if facts.attempts else None,
        kind=kinds.get(code, "certificate") if mismatch else None,
    )  # fmt: skip


def protected(facts: Facts) -> Cause:
    """K15: protected mode: no password is set, so that only this very host is let in.

    Gate (decisive): DENIED at our own attempt, or the application's log says so.
    """
    bench = Bench("K15", facts.readings)
    signs = Signs(facts=facts, bench=bench, label="turned away by protected mode", refused=facts.refused("DENIED"),
                  kinds=("protected",), personal=True)  # fmt: skip
    return Cause(
        id="K15", name="protected mode", applicable=facts.configured, gate=signs.gate(), clauses=signs.clauses(),
        hints=_hints(bench, facts), share=signs.share, details=_details(facts) if signs.holds else {},
    )  # fmt: skip
