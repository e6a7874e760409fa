"""What could be done, proposed: exact targets, what must hold, what to copy, how to undo it.

Nothing here acts. A session is named by pid, ``backend_start`` and the moment of its last change, so that one that has
moved on since is left alone by the statement itself; a superuser's, a replication's and a backup's is never named.
Indexes are a proposal and never made here. Source: reference fault model, sections 2 and R4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from runbook.diagnosis.connections.proposals import CANCEL, DENIED, TERMINATE, identifier
from runbook.diagnosis.responses.facts import Facts
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

OWNER = "owner of the table"


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    actions: list[Action] = []
    for verdict in verdicts:
        if found(verdict.tier) and verdict.role != "consequence" and verdict.cause in PROPOSERS:
            actions += PROPOSERS[verdict.cause](verdict, facts)
    return actions


def _action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
            targets: Sequence[dict[str, Any]] = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def relation(name: Any) -> str:
    """A relation's name as the server gave it, each part quoted anew, so that nothing in it is SQL."""
    parts = re.findall(r'"(?:[^"]|"")*"|[^."]+', str(name))
    return ".".join(identifier(p[1:-1].replace('""', '"') if p.startswith('"') else p) for p in parts)


def _statement(verdict: Verdict, facts: Facts) -> list[Action]:
    return [*_cancel(verdict, facts), *_index(verdict, facts), *_analyze(verdict, facts)]


def _cancel(verdict: Verdict, facts: Facts) -> list[Action]:
    """Cancel what runs the one statement, the longest first; only what has run beyond the threshold."""
    details = verdict.details
    sessions = [
        s for s in facts.readings.rows("sessions") or []
        if s.get("state") == "active" and details.get("query_id") and s.get("query_id") == details["query_id"]
        and float(s.get("query_seconds") or 0) * 1000 >= facts.limits.threshold_ms
        and not s.get("superuser") and not s.get("replication")
    ]  # fmt: skip
    sessions.sort(key=lambda s: (-float(s.get("query_seconds") or 0), int(s["pid"])))
    return CANCEL.proposal(
        verdict.cause, "Cancel what runs this statement for longer than a request may take", sessions
    )


def _index(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    if not details.get("table"):
        return []
    table = relation(details["table"])
    return [
        _action(
            verdict.cause, "postgres.create_index",
            f"Its owner decides: give {details['table']} the index that the statement lacks",
            "-- what was there before? a migration, a pg_dump of the schema or \\d on a replica tell\n"
            f"-- the plan, without running it: EXPLAIN (GENERIC_PLAN) <the statement> from version 16 on\n"
            f"CREATE INDEX CONCURRENTLY ON {table} (/* column or expression of the WHERE clause */);\n"
            "-- then: is it valid?\n"
            f"SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = '{table}'::regclass;",
            undo="DROP INDEX CONCURRENTLY with the name that it was given", needs=OWNER,
            targets=[{k: details[k] for k in ("table", "query_id") if details.get(k)}],
            preconditions=(
                Precondition(label="its owner has read the plan", holds=None),
                Precondition(label="no transaction runs for long: CONCURRENTLY waits for all of them", holds=None),
                Precondition(label="free disk for an index of a large table", holds=None),
            ),
        )
    ]  # fmt: skip


def _analyze(verdict: Verdict, facts: Facts) -> list[Action]:
    stale = facts.database.stale(facts.database.leading)
    if stale is None:
        return []
    table = relation(stale["relation"])
    return [
        _action(
            verdict.cause, "postgres.analyze", f"Refresh the planner's statistics of {stale['relation']}",
            f"SET lock_timeout = '500ms';\nANALYZE {table};",
            undo="irreversible, and harmless: statistics are gathered again", needs=OWNER,
            targets=[{"table": stale["relation"], "modified_since_analyze": stale["modified_since_analyze"]}],
            preconditions=(Precondition(label="no migration holds the table", holds=None),),
        )
    ]  # fmt: skip


def _lock(verdict: Verdict, facts: Facts) -> list[Action]:
    """End the root where it idles, cancel it where it runs; never a superuser, a backup, a vacuum."""
    details = dict(verdict.details)
    if not details.get("pid") or details.get("superuser") or details.get("replication"):
        return []
    if details.get("backend_type", "client backend") != "client backend" or DENIED.match(
        str(details.get("application_name") or "")
    ):
        return []
    idle = str(details.get("state") or "").startswith("idle in transaction")
    how, title = (TERMINATE, "End the idle session that holds the lock") if idle else (
        CANCEL, "Cancel the statement whose transaction holds the lock"
    )  # fmt: skip
    return how.proposal(verdict.cause, title, [details])


def _pool(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "L03", "app.pool", "Let connections go before slow work elsewhere; a larger pool only buys time",
            "# connection_limit and pool_timeout in the database URL, one instance at a time;\n"
            "# the sum over all instances must stay below the server's usable slots (runbook db_connection_exhaustion)",
            undo="put the previous connection_limit back", needs="a deployment of the application",
            targets=[{k: v for k, v in verdict.details.items() if k in ("where", "waiting", "pool_size")}],
            preconditions=(Precondition(label="the server has slots left", holds=None),),
        )
    ]  # fmt: skip


def _vendor(verdict: Verdict, facts: Facts) -> list[Action]:
    host = verdict.details.get("host")
    return [
        _action(
            verdict.cause, "app.fallback", f"Switch off or fall back what waits for {host}",
            f"# the application's own switch for {host}: a circuit breaker, a queue, a cached answer\n"
            f"# and a time limit for it that is shorter than ours ({facts.limits.threshold_ms:g} ms)",
            undo="switch it on again when the vendor's p95 is what it was", needs="owner of the feature",
            targets=[{"host": host, "routes": verdict.details.get("routes")}],
            preconditions=(Precondition(label="what is lost without it is known and acceptable", holds=None),),
        )
    ]  # fmt: skip


def _restart(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "L05", "app.profile", "Find what blocks the event loop, then take it off the loop",
            "# a profile of ten seconds from the running process, before anything is restarted:\n"
            "kill -USR1 <pid of the instance>   # Node opens its inspector on 127.0.0.1:9229\n"
            "# the usual ones: synchronous crypto or zlib, JSON of megabytes, a regular expression that backtracks",
            undo="nothing is changed; the inspector closes with the process", needs="a shell on the instance",
            preconditions=(Precondition(label="the inspector's port is reachable from this host alone", holds=None),),
        )
    ]  # fmt: skip


def _redis(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    return [
        _action(
            "L11", "redis.find_command", "Find who sends the commands that block Redis, and stop sending them",
            "redis-cli SLOWLOG GET 20   # arguments are people's data: read them, do not paste them\n"
            "redis-cli CLIENT LIST      # whose name or address goes with them",
            undo="nothing is changed", needs="read access to Redis",
            targets=[{k: details[k] for k in ("commands", "clients") if details.get(k)}],
        )
    ]  # fmt: skip


def _instance(verdict: Verdict, facts: Facts) -> list[Action]:
    instance = verdict.details.get("instance")
    if not instance:
        return []
    others = [g for g in facts.split("instance") or [] if g.value != instance
              and (g.p95_ms or 0.0) < facts.limits.threshold_ms]  # fmt: skip
    return [
        _action(
            "L13", "app.drain_instance", f"Take instance {instance} out of the balancer, look at it, then restart it",
            "# at the balancer: drain it; keep it running until somebody has looked at it",
            undo="put it back into the balancer", needs="operator of the balancer", targets=[{"instance": instance}],
            preconditions=(Precondition(label="two other instances are well", holds=len(others) >= 2,
                                        value=f"{len(others)} well"),),
        )
    ]  # fmt: skip


def _release(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "L15", "deploy.rollback", f"Roll {verdict.details.get('release')} back",
            "# the deployment's own workflow, with the commit that stood before; runbook high_error_rate shows it",
            undo="deploy it again", needs="whoever may deploy", targets=[{"from": verdict.details.get("release")}],
            preconditions=(
                Precondition(label="it is confirmed, in the same minutes as the old one",
                             holds=verdict.tier == "confirmed"),
                Precondition(label="no migration lies between the two", holds=None),
            ),
        )
    ]  # fmt: skip


def _bloat(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    actions = []
    if details.get("holder") == "session":
        row = next((s for s in facts.readings.rows("sessions") or []
                    if str(s.get("pid")) == str(details.get("name"))), None)  # fmt: skip
        idle = row is not None and str(row.get("state")).startswith("idle in transaction")
        if row is not None and idle and not row.get("superuser") and not row.get("replication"):
            actions += TERMINATE.proposal("L17", "End the idle session whose snapshot keeps dead rows", [row])
    if details.get("table"):
        actions.append(
            _action(
                "L17", "postgres.vacuum", f"Vacuum {details['table']} once nothing holds its dead rows any more",
                f"SET lock_timeout = '500ms';\nVACUUM (ANALYZE, VERBOSE) {relation(details['table'])};",
                undo="irreversible, and harmless", needs=OWNER, targets=[{"table": details["table"]}],
                preconditions=(Precondition(label="the old snapshot is gone", holds=None, value=details.get("name")),),
            )
        )  # fmt: skip
    return actions


def _scale(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            verdict.cause, "aws.scale", "Add instances, if the database has room for their connections",
            "# each instance opens a pool of its own: look at the usable slots first "
            "(runbook db_connection_exhaustion)",
            undo="scale in again when the traffic is gone", needs="operator of the platform",
            preconditions=(
                Precondition(label="the traffic is legitimate", holds=None),
                Precondition(label="PostgreSQL has slots for their pools", holds=None),
            ),
        )
    ]  # fmt: skip


PROPOSERS: dict[str, Callable[[Verdict, Facts], list[Action]]] = {
    "L01": _statement, "L02": _lock, "L03": _pool, "L04": _scale, "L05": _restart, "L08": _vendor, "L09": _scale,
    "L11": _redis, "L12": _vendor, "L13": _instance, "L15": _release, "L17": _bloat,
}  # fmt: skip
