"""What could be done, proposed: exact targets, what must hold, the statement to copy, how to undo it.

Nothing here acts. A session is named by pid, ``backend_start`` and ``state_change`` (or ``query_start``), so that a
session that has moved on since is left alone by the statement itself. Cancel comes before terminate, except for a
session idle in a transaction, where a cancel returns true and does nothing. Source: reference fault model, section 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.connections.facts import Facts
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

MAX_TARGETS = 10
DENIED = re.compile(r"(?i)\A(?:pg_dump|pg_dumpall|pg_basebackup|pgbackrest|barman|wal-g|runbook)")
NEEDS_SIGNAL = "pg_signal_backend and pg_read_all_stats"
Row = Mapping[str, Any]


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    actions: list[Action] = []
    for verdict in verdicts:
        if found(verdict.tier) and verdict.role != "consequence" and verdict.cause in PROPOSERS:
            actions += PROPOSERS[verdict.cause](verdict, facts)
    return actions


def literal(value: Any) -> str:
    """A value as an SQL literal, for a statement that a person copies."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = str(value).replace("\x00", "")
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def identifier(name: Any) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + str(name).replace("\x00", "").replace('"', '""') + '"'


def _allowed(targets: Sequence[Row], facts: Facts) -> list[Row]:
    """Targets that may be touched at all: no superuser, no replication, no backup tool; at most ten."""
    special = {int(s["pid"]) for s in facts.sessions or [] if s.get("superuser") or s.get("replication")}
    return _touchable([t for t in targets if int(t["pid"]) not in special])


def _touchable(targets: Sequence[Row]) -> list[Row]:
    return [
        t
        for t in targets
        if not t.get("superuser")
        and not t.get("replication")
        and not DENIED.match(str(t.get("application_name") or ""))
    ][:MAX_TARGETS]


@dataclass(frozen=True)
class _Guarded:
    """A statement that acts on named sessions and on nothing else."""

    kind: str
    #: Function of the server, and what the copied statement calls its answer.
    call: str
    answer: str
    #: The moment that, with pid and ``backend_start``, tells that a session is still doing the same.
    moment: str
    #: The state that it must still be in, as a condition on ``a``.
    state: str
    still: str
    undo: str

    def action(self, cause: str, title: str, targets: Sequence[Row], facts: Facts) -> list[Action]:
        """The proposal for the targets that may be touched; none when there is no such."""
        return self.proposal(cause, title, _allowed(targets, facts), listed=len(targets))

    def proposal(self, cause: str, title: str, targets: Sequence[Row], *, listed: int | None = None) -> list[Action]:
        """The same for targets that tell themselves whether they are a superuser's or a replication's.

        ``listed``: how many there were before some were left out.
        """
        allowed = [t for t in _touchable(targets) if t.get(self.moment)]
        if not allowed:
            return []
        return [
            Action(
                id=f"{cause}.{self.kind.split('.')[-1].split('_')[0]}",
                kind=self.kind,
                title=title,
                cause=cause,
                targets=[_identity(t) for t in allowed],
                preconditions=(
                    Precondition(label=self.still, holds=None, value="checked in the statement"),
                    Precondition(label="no superuser, replication or backup session among them", holds=True),
                    Precondition(
                        label=f"at most {MAX_TARGETS} targets a run, the oldest first",
                        holds=True,
                        value=f"{len(allowed)} of {len(targets) if listed is None else listed} listed",
                    ),
                ),
                by_hand=self._statement(allowed),
                undo=self.undo,
                needs=NEEDS_SIGNAL,
            )
        ]

    def _statement(self, allowed: Sequence[Row]) -> str:
        values = ",\n    ".join(
            f"({literal(t['pid'])}, {literal(t['backend_start'])}::timestamptz, {literal(t[self.moment])}::timestamptz)"
            for t in allowed
        )
        return (
            f"SELECT a.pid, {self.call}(a.pid) AS {self.answer}\n"
            "FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid\n"
            f"JOIN (VALUES\n    {values}\n  ) AS t (pid, backend_start, {self.moment})\n"
            f"  ON a.pid = t.pid AND a.backend_start = t.backend_start AND a.{self.moment} = t.{self.moment}\n"
            "WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()\n"
            f"  AND {self.state} AND NOT r.rolsuper AND NOT r.rolreplication;"
        )


TERMINATE = _Guarded(
    kind="postgres.terminate_session",
    call="pg_terminate_backend",
    answer="gone",
    moment="state_change",
    state="a.state LIKE 'idle in transaction%'",
    still="still the same session, still idle in a transaction",
    undo="irreversible: the open transaction of each session is rolled back",
)
CANCEL = _Guarded(
    kind="postgres.cancel_statement",
    call="pg_cancel_backend",
    answer="sent",
    moment="query_start",
    state="a.state = 'active'",
    still="still the same session, still running the same statement",
    undo="irreversible: the statement has to be sent again",
)


def _identity(target: Row) -> dict[str, Any]:
    keys = ("pid", "backend_start", "state_change", "query_start", "application_name", "role", "database", "client",
            "state_seconds")  # fmt: skip
    return {k: target[k] for k in keys if target.get(k) is not None}


def _by_hand(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
             targets: Sequence[Row] = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def _leak(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    role = details.get("role")
    actions = TERMINATE.action(
        "P01", f"End the oldest sessions of {details.get('application_name')} that idle in a transaction",
        details.get("targets", ()), facts,
    )  # fmt: skip
    if role and role != "(none)":
        actions.append(
            _by_hand(
                "P01", "postgres.set_role_timeout", f"Give role {role} a time limit for idling in a transaction",
                f"ALTER ROLE {identifier(role)} SET idle_in_transaction_session_timeout = '60s';",
                undo=f"ALTER ROLE {identifier(role)} RESET idle_in_transaction_session_timeout;",
                needs="CREATEROLE with ADMIN on the role",
                targets=[{"role": role, "setting": "idle_in_transaction_session_timeout", "to": "60s"}],
                preconditions=(Precondition(label="holds for new sessions only: end the old ones too", holds=None),),
            )
        )  # fmt: skip
    return actions


def _pile_up(verdict: Verdict, facts: Facts) -> list[Action]:
    details, cause = verdict.details, verdict.cause
    amplifier = details.get("amplifier")
    actions: list[Action] = []
    if amplifier:
        actions += CANCEL.action(
            cause, f"Cancel the queued {amplifier.get('mode')} request on {amplifier.get('relation')} "
            f"(pid {amplifier.get('pid')}); that alone frees {amplifier.get('amplified')} sessions",
            [amplifier], facts,
        )  # fmt: skip
    if cause == "P02b" and details.get("gid"):
        gid = literal(details["gid"])
        actions.append(
            _by_hand(
                cause, "postgres.finish_prepared", f"Its owner decides: finish prepared transaction {details['gid']}",
                f"-- in database {details.get('database')}, one of the two, after asking the transaction manager\n"
                f"COMMIT PREPARED {gid};\nROLLBACK PREPARED {gid};",
                undo="irreversible", needs=f"owner {details.get('owner')} or superuser",
                targets=[{"gid": details["gid"], "owner": details.get("owner")}],
                preconditions=(Precondition(label="the owner has said which of the two; never automatic", holds=None),),
            )
        )  # fmt: skip
    if cause in ("P02", "P02a"):
        root = dict(details)
        if str(details.get("state")).startswith("idle in transaction"):
            actions += TERMINATE.action(cause, f"End the root of the pile-up, pid {details.get('pid')}", [root], facts)
        elif not amplifier:
            actions += CANCEL.action(
                cause, f"Cancel the statement of the root, pid {details.get('pid')}", [root], facts
            )
    return actions


def _saturation(verdict: Verdict, facts: Facts) -> list[Action]:
    return CANCEL.action("P03", "Cancel the longest of the statements that fill the slots",
                   verdict.details.get("targets", ()), facts)  # fmt: skip


def _pools(verdict: Verdict, facts: Facts) -> list[Action]:
    pools = verdict.details.get("pools", ())
    usable = facts.usable or 0
    return [
        _by_hand(
            "P04", "app.lower_pool", "Lower the pools so that their sum fits the usable slots",
            f"-- usable slots: {usable}; keep the sum of (pool size × instances) under {int(usable * 0.8)}\n"
            "-- Prisma: connection_limit in DATABASE_URL; node-postgres: max; SQLAlchemy: pool_size + max_overflow",
            undo="set the previous pool size again", targets=list(pools),
        )
    ]  # fmt: skip


def _storm(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _by_hand(
            "P05", "app.calm_reconnects",
            f"Calm the reconnects of {verdict.details.get('application_name')}: pool in the application or before it, "
            "reconnect with back-off and jitter",
            "-- put the clients behind a pooler, or stop the instance that crash-loops",
            undo="revert the configuration", targets=[{k: verdict.details.get(k) for k in ("role", "client")}],
        )
    ]  # fmt: skip


def _limit(verdict: Verdict, facts: Facts) -> list[Action]:
    kind = "role" if verdict.cause == "P06" else "database"
    details = verdict.details
    name, limit = details.get(kind), int(details.get("limit") or 0)
    free = _free_slots(facts)
    if free < 1:
        return []
    raised = limit + max(1, min(free, limit))
    statement = f"ALTER {kind.upper()} {identifier(name)} CONNECTION LIMIT"
    return [
        _by_hand(
            verdict.cause, f"postgres.raise_{kind}_limit", f"Raise the connection limit of {kind} {name} for a while",
            f"{statement} {raised};", undo=f"{statement} {limit};",
            needs="CREATEROLE with ADMIN on the role" if kind == "role" else "owner of the database",
            targets=[{kind: name, "limit": limit, "to": raised}],
            preconditions=(_has_room(facts),),
        )
    ]  # fmt: skip


def _free_slots(facts: Facts) -> int:
    """Slots that may be taken before 80 % are in use."""
    return max(0, int((facts.usable or 0) * 0.8) - (facts.used or 0))


def _has_room(facts: Facts) -> Precondition:
    free = _free_slots(facts)
    holds = free > 0 if facts.usable else None
    return Precondition(label="PostgreSQL has room below 80 %", holds=holds, value=f"{free} slots")


def _half_open(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _by_hand(
            "P08", "network.shut_out", "Shut out the addresses that open sessions and never log in",
            "-- at the firewall or load balancer, the addresses listed; a shorter authentication_timeout\n"
            "-- (ALTER SYSTEM, reload) ends them sooner and is a change for later",
            undo="remove the block", targets=verdict.details.get("peers", ()),
        )
    ]  # fmt: skip


def _orphans(verdict: Verdict, facts: Facts) -> list[Action]:
    targets = verdict.details.get("targets", ())
    return CANCEL.action("P09", "Cancel the statements of clients that are gone", targets, facts)


def _pooler(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    if details.get("paused"):
        return [
            _by_hand("P10", "pgbouncer.resume", f"Resume database {details.get('database')} at PgBouncer",
                     f"RESUME {identifier(details.get('database'))};",
                     undo=f"PAUSE {identifier(details.get('database'))};", needs="PgBouncer admin",
                     targets=[{"database": details.get("database")}],
                     preconditions=(Precondition(label="nobody paused it on purpose within the hour", holds=None),))
        ]  # fmt: skip
    size = int(details.get("pool_size") or 0)
    raised = size + max(1, min(_free_slots(facts), size or 1))
    return [
        _by_hand(
            "P10", "pgbouncer.pool_size", f"Raise the pool of database {details.get('database')} for a while",
            f"SET default_pool_size = {raised};", undo=f"SET default_pool_size = {size};",
            needs="PgBouncer admin",
            targets=[{"database": details.get("database"), "pool_size": size, "to": raised}],
            preconditions=(_has_room(facts),),
        )
    ]  # fmt: skip


def _app_pool(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _by_hand(
            "P11", "app.raise_pool", "Raise the application's pool for a while; find who keeps its connections",
            "-- connection_limit and pool_timeout in the application's DATABASE_URL, one instance at a time",
            undo="set the previous pool size again",
            preconditions=(_has_room(facts),),
        )
    ]  # fmt: skip


def _walsenders(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _by_hand(
            "P13", "postgres.end_walsender",
            "End a replication connection that nobody needs, raise max_wal_senders later",
            "SELECT pid, application_name, client_addr, state, backend_start FROM pg_stat_replication;",
            undo="the receiver reconnects by itself", needs="superuser decides; max_wal_senders needs a restart",
        )
    ]  # fmt: skip


def _superusers(verdict: Verdict, facts: Facts) -> list[Action]:
    role = verdict.details.get("role")
    return [
        _by_hand(
            "P14", "app.leave_superuser",
            f"Move {verdict.details.get('application_name')} to an ordinary role and lower its pool",
            f"-- role {role} is a superuser; its sessions may use the slots kept for emergencies",
            undo="put the previous credentials back", targets=[{"role": role}],
        )
    ]  # fmt: skip


PROPOSERS: dict[str, Callable[[Verdict, Facts], list[Action]]] = {
    "P01": _leak, "P02": _pile_up, "P02a": _pile_up, "P02b": _pile_up, "P02c": _pile_up, "P03": _saturation,
    "P04": _pools, "P05": _storm, "P06": _limit, "P07": _limit, "P08": _half_open, "P09": _orphans, "P10": _pooler,
    "P11": _app_pool, "P13": _walsenders, "P14": _superusers,
}  # fmt: skip
