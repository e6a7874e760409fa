"""What could be done, proposed: exact targets, what must hold, the text to copy, how to undo it. Nothing here acts.

A rollback is proposed only for a confirmed bad release, and never across a migration that nobody has looked at.
Consequences are not treated. Source: reference fault model, section 2 and R1 (Actions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from typing import Any

from runbook.diagnosis.errors.changes import Changes
from runbook.diagnosis.errors.facts import Facts, count
from runbook.diagnosis.errors.places import instances
from runbook.diagnosis.errors.systems import Database
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

Targets = Sequence[Mapping[str, Any]]
_REPOSITORY = re.compile(r"/repos/([\w.-]+/[\w.-]+)/")


def propose(verdicts: Sequence[Verdict], facts: Facts, changes: Changes) -> list[Action]:
    """Actions for the causes found, in their order, and a message to the incident channel when there is any."""
    main = [v for v in verdicts if found(v.tier) and v.role != "consequence"]
    actions = [action for v in main if v.cause in PROPOSERS for action in PROPOSERS[v.cause](v, facts, changes)]
    return [*actions, _announce(main, facts)] if main or facts.breached else actions


def _action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
            targets: Targets = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def _repository(facts: Facts) -> str:
    """``owner/name`` as the deployments were read from it."""
    reading = facts.readings.last("deployments")
    match = _REPOSITORY.search(reading.query) if reading is not None else None
    return match[1] if match else "OWNER/REPOSITORY"


def _rollback(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    details = verdict.details
    previous, migrations = details.get("previous_sha"), details.get("migrations")
    if verdict.tier != "confirmed" or not previous or migrations:
        return []
    repository, bad = _repository(facts), str(details.get("sha") or "")
    environment = str(next((d.row.get("environment") for d in changes.deployments or []), None) or "production")
    return [
        _action(
            "E01", "deploy.rollback",
            f"Roll back from {details.get('release')} to {details.get('previous_release') or str(previous)[:12]}",
            _deploy(repository, str(previous), environment),
            undo=_deploy(repository, bad, environment) if bad else "deploy the newer commit again",
            needs="write access to deployments of the repository",
            targets=[{"repository": repository, "environment": environment, "from": bad, "to": previous}],
            preconditions=(
                Precondition(label="the bad release is confirmed", holds=True, value=verdict.tier),
                Precondition(label="a deployment of another commit stood before it", holds=True, value=previous),
                Precondition(label="no migration between the two", holds=None if migrations is None else True,
                             value="could not be compared" if migrations is None else "none among the changed files"),
                Precondition(label="the rate falls within 10 minutes afterwards", holds=None, value="to be watched"),
            ),
        )
    ]  # fmt: skip


def _deploy(repository: str, commit: str, environment: str) -> str:
    return (
        f"gh api --method POST repos/{quote(repository)}/deployments -f ref={quote(commit)} "
        f"-f environment={quote(environment)} -F auto_merge=false -f description='rollback by the on-call engineer'\n"
        "# or, where a workflow deploys: gh workflow run WORKFLOW (github.rollback_workflow) "
        f"-R {quote(repository)} -f ref={quote(commit)}"
    )


def _revert(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    details = verdict.details
    return [
        _action(
            "E02", "app.disable_flag", f"Undo the change: {details.get('change')}",
            f"# {details.get('kind')} {details.get('id')} at {details.get('at')}\n"
            "# put the previous value of the flag, setting or secret back, by the way it was changed",
            undo="set the new value again", targets=[{k: details.get(k) for k in ("kind", "id", "url")}],
            preconditions=(Precondition(label="its author agrees, or is not to be reached", holds=None),),
        )
    ]  # fmt: skip


def _database(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    refers = verdict.details.get("refers_to")
    words = f": {verdict.details.get('database_finding')} ({refers})" if refers else ""
    return [
        _action(
            verdict.cause, "runbook.run_next", f"Treat the database{words}", "runbook run db_connection_exhaustion",
            undo="nothing to undo: that runbook proposes as well", targets=[{"refers_to": refers}] if refers else (),
        )
    ]  # fmt: skip


def _schema(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    return [
        _action(
            "E05", "app.migrate", "Bring code and schema together: finish the migration, or undo it",
            "npx prisma migrate status   # what is applied, what is not\n"
            "-- decide with the author: apply what is missing, or add the column or table back as it was",
            undo="the migration's own down step; never roll code back across it unread",
            targets=[{"pattern": verdict.details.get("pattern")}],
        )
    ]  # fmt: skip


def _break_circuit(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    vendor, host = verdict.details.get("vendor"), verdict.details.get("host")
    return [
        _action(
            verdict.cause, "app.disable_flag", f"Switch off what needs {vendor}, or let it fall back",
            f"# turn on the kill switch or circuit breaker for {host}; queue what can wait and repeat it later",
            undo="turn the switch off again once calls succeed for 10 minutes",
            targets=[{"vendor": vendor, "host": host}],
        )
    ]  # fmt: skip


def _renew_credential(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    vendor = verdict.details.get("vendor")
    return [
        _action(
            "E07", "app.renew_credential", f"Put a working credential for {vendor} in place",
            f"# in the console of {vendor}: is the key revoked, expired or restricted? issue one, set it, restart one "
            "instance, watch",
            undo="put the previous credential back", needs=f"administrator at {vendor}", targets=[{"vendor": vendor}],
        )
    ]  # fmt: skip


def _slow_down(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    vendor = verdict.details.get("vendor")
    return [
        _action(
            "E08", "app.lower_rate", f"Call {vendor} less: honour Retry-After, lower concurrency, stop backfills",
            f"# lower the concurrency of jobs that call {verdict.details.get('host')}; ask {vendor} for a higher limit",
            undo="set the previous concurrency again", targets=[{"vendor": vendor}],
        )
    ]  # fmt: skip


def _scale(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    service, group = facts.readings.row("ecs_service"), facts.readings.row("autoscaling_group")
    factor = min(4.0, facts.surge or 2.0)
    if service:
        cluster, name = str(service.get("cluster")), str(service.get("service"))
        by_hand, undo, target = _ecs(cluster, name, count(service, "desired"), factor, service)
    elif group:
        name, desired = str(group.get("name")), count(group, "desired")
        wanted = min(count(group, "maximum") or desired, max(desired + 1, round(desired * factor)))
        call = f"aws autoscaling set-desired-capacity --auto-scaling-group-name {quote(name)} --desired-capacity"
        by_hand, undo, target = f"{call} {wanted}", f"{call} {desired}", {"group": name, "from": desired, "to": wanted}
    else:
        by_hand, undo = (
            "# add instances by the way that you deploy; one at a time, watching the database",
            "remove them",
        )
        target = {"service": "the application"}
    room = None if Database(facts).slots.short_of_slots is None else not Database(facts).slots.short_of_slots
    return [
        _action(
            "E09", "aws.scale", "Scale out for a while", by_hand, undo=undo, targets=[target],
            preconditions=(
                Precondition(label="the traffic is legitimate: many clients, none of them half of it", holds=True),
                Precondition(label="PostgreSQL has room for the pools of more instances", holds=room),
            ),
        )
    ]  # fmt: skip


def _ecs(
    cluster: str, name: str, desired: int, factor: float, row: Mapping[str, Any]
) -> tuple[str, str, dict[str, Any]]:
    """Where a scaler governs the service its minimum is raised, since it would undo a new desired count."""
    wanted = max(desired + 1, round(desired * factor))
    target = {"cluster": cluster, "service": name, "from": desired, "to": wanted}
    minimum, maximum = row.get("scaling_minimum"), row.get("scaling_maximum")
    if minimum is None:
        call = f"aws ecs update-service --cluster {quote(cluster)} --service {quote(name)} --desired-count"
        return f"{call} {wanted}", f"{call} {desired}", target
    wanted = min(wanted, int(maximum)) if maximum is not None else wanted
    call = (
        "aws application-autoscaling register-scalable-target --service-namespace ecs "
        f"--resource-id {quote(f'service/{cluster}/{name}')} "
        "--scalable-dimension ecs:service:DesiredCount --min-capacity"
    )
    return f"{call} {wanted}", f"{call} {minimum}", target | {"to": wanted}


def _rate_limit(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    by = "client" if "client" in verdict.details else "user"
    who = str(verdict.details.get(by) or "")
    where = (
        f"deny {who};" if by == "client" and re.fullmatch(r"[0-9a-fA-F:.]+", who) else f"# limit the {by} named above"
    )
    return [
        _action(
            "E10", "edge.rate_limit", f"Limit {by} {who} for 30 minutes",
            f"# at the edge, with an end after 30 minutes; in nginx, then reload:\n{where}",
            undo="remove the rule and reload", targets=[{by: who}],
            preconditions=(Precondition(label="it is no health check, proxy or partner", holds=None),),
        )
    ]  # fmt: skip


def _drain(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    instance = verdict.details.get("instance")
    others = [g for g in instances(facts) or [] if g.value != instance]
    well = [g.value for g in others if g.percent < facts.limits.threshold_percent]
    return [
        _action(
            "E12", "edge.drain", f"Take instance {instance} out of the balancer, then restart it",
            f"# mark {instance} as down in the balancer, let its requests end, restart it, let it back in",
            undo=f"let {instance} back in", targets=[{"instance": instance}],
            preconditions=(
                Precondition(label="another instance serves below the threshold", holds=bool(well),
                             value=", ".join(well)),
            ),
        )
    ]  # fmt: skip


def _dependency(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    host, vendor = verdict.details.get("host"), verdict.details.get("vendor")
    name = str(host)
    by_hand = (
        f"dig +short {quote(name)}" if verdict.details.get("layer") == "DNS"
        else f"openssl s_client -connect {quote(name)}:443 -servername {quote(name)} </dev/null"
        " | openssl x509 -noout -subject -dates"
    )  # fmt: skip
    return [
        _action(
            "E13", "vendor.report",
            f"Have {vendor} mend it, or mend our trust store; never switch verification off",
            by_hand, undo="nothing is changed by looking", targets=[{"host": host}],
        )
    ]  # fmt: skip


def _other_runbook(names: Mapping[str, str]) -> Callable[[Verdict, Facts, Changes], list[Action]]:
    def proposal(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
        refers = str(verdict.details.get("refers_to") or "")
        name = next((n for prefix, n in names.items() if refers.startswith(prefix)), "")
        return [
            _action(
                verdict.cause, "runbook.run_next", f"Go on with runbook {name}", f"runbook run {name}",
                undo="nothing to undo: that runbook proposes as well", targets=[{"refers_to": refers}],
            )
        ] if name else []  # fmt: skip

    return proposal


def _edge(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    return [
        _action(
            "E11", "edge.inspect", f"Mend the edge: {verdict.details.get('layer')}",
            "# nginx -t; the error log of the proxy; are its upstreams listening where it looks for them?",
            undo="put the previous configuration of the proxy back",
            targets=[dict(verdict.details.get("statuses") or {})],
        )
    ]  # fmt: skip


def _quarantine(verdict: Verdict, facts: Facts, changes: Changes) -> list[Action]:
    return [
        _action(
            "E18", "app.quarantine", "Set the record aside that the code cannot digest, then mend the code",
            f"# the record stands in the issue: {verdict.details.get('issue')}\n"
            "# keep a copy before changing it; never delete a person's data",
            undo="put the copy back", targets=[{"issue": verdict.details.get("issue")}],
        )
    ]  # fmt: skip


def _announce(main: Sequence[Verdict], facts: Facts) -> Action:
    """A message to the incident channel; names from outside mention nobody."""
    what = "; ".join(f"{v.cause} {v.name} ({v.tier})" for v in main) or "cause not yet known"
    rate = f"{facts.percent:g} % of requests fail" if facts.percent is not None else "requests could not be counted"
    content = f"High error rate: {rate}. {what}. Being worked on; next update in 15 minutes."
    body = json.dumps({"content": content, "allowed_mentions": {"parse": []}}, ensure_ascii=False)
    return _action(
        main[0].cause if main else "", "discord.post", "Post to the incident channel",
        f"curl -sS -H 'Content-Type: application/json' -d {quote(body)} \"$DISCORD_WEBHOOK_URL\"",
        undo="delete the message", targets=[{"channel": "incidents", "content": content}],
    )  # fmt: skip


PROPOSERS: dict[str, Callable[[Verdict, Facts, Changes], list[Action]]] = {
    "E01": _rollback, "E02": _revert, "E03": _database, "E04": _database, "E05": _schema, "E06": _break_circuit,
    "E07": _renew_credential, "E08": _slow_down, "E09": _scale, "E10": _rate_limit, "E11": _edge, "E12": _drain,
    "E13": _dependency, "E18": _quarantine,
    "E14": _other_runbook({"K": "redis_connection_failure", "R8": "redis_connection_failure",
                           "R9": "queue_processing_delays"}),
    "E15": _other_runbook({"R5": "high_disk_usage", "R6": "high_memory_usage"}),
}  # fmt: skip
