"""What could be done, proposed: exact targets, what must hold, what to copy, how to undo it.

One instance is restarted or drained, and only where it is down or hung while others are well. Never for a dependency:
all instances would come back to the same, at the same time. A certificate, a name, an edge, a release are their
owners'. Source: reference fault model, sections 2 and R7.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from runbook.diagnosis.health.facts import Facts
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

RUNBOOK_OF = {"P": "db_connection_exhaustion", "K": "redis_connection_failure", "V": "video_upload_failures",
              "D": "high_disk_usage", "M": "high_memory_usage", "E": "high_error_rate"}  # fmt: skip
"""The runbook of a finding that a cause refers to, by its letter."""


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    return [action for v in verdicts if found(v.tier) and v.role != "consequence"
            for proposer in PROPOSERS.get(v.cause, ()) for action in proposer(v, facts)]  # fmt: skip


def _action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
            targets: Sequence[dict[str, Any]] = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def _instance(verdict: Verdict, facts: Facts) -> list[Action]:
    """Drain and restart the first of the instances that are down or hung, when others are well."""
    mine = verdict.details.get("instances") or []
    place = next((p for p in facts.affected if p.instance in mine and p in facts.instances), None)
    if place is None or not facts.well:
        return _whole(verdict, facts) if not facts.well else []
    row = facts.machine.holder(place) or {}
    target = {"instance": place.instance, **{k: row[k] for k in ("host", "pid", "command") if row.get(k)}}
    pid = row.get("pid")
    stopped = facts.machine.stopped(place)
    lines = [f"# take {place.instance} out of the balancer first, then, on its host:"]
    if isinstance(pid, int | float):
        lines += [f"ps -o pid,stat,lstart,args -p {int(pid)}   # still the same process?"]
        lines += [f"kill -CONT {int(pid)}   # it was stopped; who did that, and why?"] if stopped else []
    lines += ["# restart it by its supervisor, e.g. systemctl restart its unit; SIGTERM before SIGKILL"]
    return [
        _action(
            verdict.cause, "app.restart_instance", f"Drain and restart one instance: {place.instance}",
            "\n".join(lines), undo="put it back into the balancer; a restart itself cannot be undone",
            needs="shell on the instance's host, and the balancer", targets=[target],
            preconditions=(
                Precondition(label="other instances are well", holds=True,
                             value=f"{len(facts.well)} of {len(facts.known)}"),
                Precondition(label="one instance at a time", holds=True, value=place.instance),
                Precondition(label="no dependency is down: a restart would come back to the same", holds=None),
                Precondition(label="a stack or heap dump was taken while it hangs", holds=None),
            ),
        )
    ]  # fmt: skip


def _whole(verdict: Verdict, facts: Facts) -> list[Action]:
    """Every instance is down or hung: the owner starts it; nothing is restarted blindly."""
    details = verdict.details
    pids = [int(p) for p in details.get("pids") or [] if isinstance(p, int | float)]
    look = "\n".join(f"ps -o pid,stat,lstart,args -p {pid}; cat /proc/{pid}/wchan" for pid in pids[:5])
    title = "Find why it ended, and start it" if verdict.cause == "H01" else "See what it hangs in, then restart it"
    return [
        _action(
            verdict.cause, "app.start", title,
            f"{look}\n" * bool(look)
            + "journalctl -u UNIT -n 100 --no-pager   # last words, exit code; 137 = killed, often for memory\n"
            "# then start it by its supervisor, and run this runbook again",
            undo="stop it again", needs="shell on the application's host",
            targets=[{"instance": i} for i in details.get("instances") or []],
            preconditions=(
                Precondition(label="its last words are read and kept", holds=None),
                Precondition(label="what it depends on is up", holds=None),
            ),
        )
    ]  # fmt: skip


def _port(verdict: Verdict, facts: Facts) -> list[Action]:
    listens = verdict.details.get("listens") or []
    return [
        _action("H03", "app.correct_address", f"Let application and checker agree: it listens at {', '.join(listens)}",
                "# PORT, HOST or --bind of the application, or the target's port at the balancer: whichever changed\n"
                "ss -ltnp   # on the instance's host",
                undo="put the previous value back",
                targets=[{"listens": a, "expected_port": e} for a, e in
                         zip(listens, verdict.details.get("expected") or [None] * len(listens), strict=False)])
    ]  # fmt: skip


def _name(verdict: Verdict, facts: Facts) -> list[Action]:
    host = str(verdict.details.get("host") or "").rpartition(":")[0] or str(verdict.details.get("host") or "")
    stale = verdict.details.get("stale_addresses")
    return [
        _action("H04", "dns.correct_record", f"Its owner corrects the record of {host}",
                f"dig +short {shlex.quote(host)}; dig +trace {shlex.quote(host)}   # expired domain? changed zone?"
                + (f"\n# take out: {', '.join(stale)}" if stale else ""),
                undo="put the previous record back; caches keep either for its TTL", needs="owner of the zone",
                targets=[{"host": host}])
    ]  # fmt: skip


def _certificate(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    host, _, port = str(details.get("host")).partition(":")
    title = {"expired": f"Renew the certificate of {host} (expired {details.get('not_after')})",
             "name": f"Serve a certificate that names {host}",
             "issuer": f"Serve the whole chain for {host}, or trust its issuer"}  # fmt: skip
    return [
        _action(
            "H05", "tls.renew", title.get(str(details.get("problem")), f"Mend TLS at {host}"),
            f"openssl s_client -connect {shlex.quote(f'{host}:{port or 443}')} -servername {shlex.quote(host)} "
            "-showcerts </dev/null\n"
            "certbot renew --dry-run   # or whatever renews it; then reload what serves it: it may keep the old\n"
            "# never switch the checker's verification off: clients would still refuse",
            undo="put the previous certificate and key back", needs="owner of the certificate",
            targets=[{"host": details.get("host"), "not_after": details.get("not_after")}],
            preconditions=(Precondition(label="the names of the new one cover every host that is served", holds=None),),
        )
    ]  # fmt: skip


def _edge(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    return [
        _action("H06", "edge.mend", f"Mend the way from {details.get('host')} to the instances",
                "# at the balancer or proxy: targets and their ports, its own health check, its error log\n"
                f"curl -sv -o /dev/null {shlex.quote(str(details.get('url')))}",
                undo="put the previous configuration back", needs="owner of the edge",
                targets=[{"edge": details.get("host"), "well_behind_it": details.get("instances_well")}])
    ]  # fmt: skip


def _dependency(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    refers_to = str(details.get("refers_to") or "")
    runbook = RUNBOOK_OF.get(refers_to[:1], "")
    name = str(details.get("dependency"))
    by_hand = f"runbook run {runbook}" if runbook else f"# the owner or the status page of {name}"
    return [
        _action("H07", "dependency.treat",
                f"Treat {name}" + (f" ({refers_to})" if refers_to else "") + "; leave the application running",
                f"{by_hand}\n# do not restart the application: all its instances would come back to the same\n"
                "# if it can do without: let the readiness check report it as degraded instead of failing",
                undo="nothing is changed", targets=[{"dependency": d} for d in details.get("dependencies") or [name]])
    ]  # fmt: skip


def _slow(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    return [
        _action("H08", "check.cheapen", "Make the check cheap, or let the checker wait longer for a while",
                f"# it took {details.get('seconds')} s, the checker waits {details.get('checker_timeout')} s; slowest: "
                f"{details.get('slowest_step')}\n# runbook run high_response_time   # if users wait as well",
                undo="put the previous timeout back", targets=[{"instance": i} for i in details.get("instances") or []])
    ]  # fmt: skip


def _question(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    where = f" (it points at {details['location']})" if details.get("location") else ""
    return [
        _action("H09", "check.correct", f"Correct what the checker asks: {details.get('url')}{where}",
                f"# answers {details.get('http_status')}; answers well: "
                f"{', '.join(details.get('answers_well') or []) or 'nothing that was asked'}\n"
                "# path, Host header, scheme, login; or bring the endpoint back if a release took it away",
                undo="put the previous address back", needs="owner of the check", targets=[{"url": details.get("url")}])
    ]  # fmt: skip


def _wait(verdict: Verdict, facts: Facts) -> list[Action]:
    limit = facts.limits.startup_seconds
    return [
        _action("H10", "app.wait", f"Wait until it has started, {limit:g} s at most, then run this again",
                "# do not restart what starts: a migration that is cut off is worse than a slow one",
                undo="nothing is changed", targets=[{"instance": i} for i in verdict.details.get("instances") or []])
    ]  # fmt: skip


def _checker(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action("H11", "check.mend", "Mend the checker: its network, its name resolution, its target",
                "# from the checker's own host: curl -sv the same URL", undo="nothing is changed",
                needs="owner of the monitoring", targets=list(verdict.details.get("probes") or []))
    ]  # fmt: skip


def _some(verdict: Verdict, facts: Facts) -> list[Action]:
    """Take what fails out of the balancer, when that leaves enough; a restart only by its own cause."""
    bad = verdict.details.get("instances") or []
    why = verdict.details.get("why") or {}
    return [
        _action("H12", "edge.drain", f"Take {', '.join(bad)} out of the balancer until it is well",
                "# the balancer does that by itself where its health check is the same; see why it did not",
                undo="put it back into the balancer", needs="the balancer",
                targets=[{"instance": i, "why": why.get(i)} for i in bad],
                preconditions=(
                    Precondition(label="most instances are well", holds=len(facts.well) > len(bad),
                                 value=f"{len(facts.well)} of {len(facts.known)}"),
                    Precondition(label="those that are left carry the load", holds=None),))
    ]  # fmt: skip


def _queue(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    return [
        _action("H13", "app.more_room", "See what keeps it from accepting, then give queue or files more room",
                "ss -ltn; cat /proc/sys/net/core/somaxconn   # the queue is the smaller of that and listen()'s own\n"
                f"ls /proc/{details.get('pid') or 'PID'}/fd | wc -l; grep 'open files' "
                f"/proc/{details.get('pid') or 'PID'}/limits",
                undo="put the previous limits back", needs="shell on the application's host",
                targets=[{k: details[k] for k in ("local", "pid") if details.get(k)}])
    ]  # fmt: skip


def _room(verdict: Verdict, facts: Facts) -> list[Action]:
    runbook = "high_memory_usage" if verdict.details.get("kind") == "memory" else "high_disk_usage"
    return [_action("H14", "host.make_room", "Make room by the runbook for it", f"runbook run {runbook}",
                    undo="nothing is changed",
                    targets=[{k: verdict.details[k] for k in ("host", "mount") if k in verdict.details}])]  # fmt: skip


def _release(verdict: Verdict, facts: Facts) -> list[Action]:
    """A rollback, by the evidence of the release alone."""
    details = verdict.details
    before = details.get("release_before")
    if not before:
        return []
    return [
        _action("H15", "deploy.rollback", f"Stop the roll-out of {details.get('release')} and go back to {before}",
                "# first stop the roll-out, so that no further instance gets it; then deploy the release before",
                undo=f"deploy {details.get('release')} again", needs="who may deploy",
                targets=[{"from": details.get("release"), "to": before, "instances": details.get("instances") or []}],
                preconditions=(
                    Precondition(label="instances of the release before are well", holds=True, value=before),
                    Precondition(label="no irreversible migration lies between the two", holds=None),
                ))
    ]  # fmt: skip


def _degraded(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    refers_to = str(details.get("refers_to") or "")
    runbook, named = RUNBOOK_OF.get(refers_to[:1], ""), ", ".join(details.get("checks") or [])
    return [
        _action("H16", "dependency.treat", f"Treat what is degraded: {named or 'see its body'}",
                (f"runbook run {runbook}" if runbook else "# the owner of that part")
                + "\n# do not restart the application: it serves",
                undo="nothing is changed", targets=[{"check": c} for c in details.get("checks") or []])
    ]  # fmt: skip


Proposer = Callable[[Verdict, Facts], list[Action]]
PROPOSERS: dict[str, tuple[Proposer, ...]] = {
    "H01": (_instance,), "H02": (_instance,), "H03": (_port,), "H04": (_name,), "H05": (_certificate,),
    "H06": (_edge,), "H07": (_dependency,), "H08": (_slow,), "H09": (_question,), "H10": (_wait,), "H11": (_checker,),
    "H12": (_some,), "H13": (_queue,), "H14": (_room,), "H15": (_release,), "H16": (_degraded,),
}  # fmt: skip
