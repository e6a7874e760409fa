"""Closing clients that do nothing, and how many clients a Redis takes.

A client is the same when its id, its address, its name and the moment of its last command are. Never ours, a replica,
a master, a monitor, a subscriber, one of Sentinel's, or one that waits in a blocking command as workers do.
Source: reference fault model, R8 (K05, K06).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runbook.actions.kinds import Kind
from runbook.actions.one_by_one import one_by_one
from runbook.actions.one_value import OneValue
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.redis_acting import acting, asked, place, shared_login
from runbook.connectors.redis_session import Command, Session
from runbook.result import Precondition

MOVED_SECONDS = 2.0
"""The server tells idle times in whole seconds: so much later, the last command is another one."""
MAX_MAXCLIENTS = 100_000
NO_NAME = "(no name)"
"""What a report calls a client without a name."""
MAXCLIENTS: Command = ("CONFIG GET", "maxclients")
_OURS, _SENTINEL = "runbook", "sentinel-"
_FLAGS = {"S": "a replica", "M": "its master", "O": "a monitor", "P": "a subscriber", "b": "in a blocking command"}

Client = Mapping[str, Any]


class KillClient(Kind):
    """``redis.kill_client``: close clients that do nothing, each by its id and address."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = {int(target["id"]): target for target in order.targets if target.get("id") is not None}
        with acting(self.settings) as session:
            clients = _clients(session)
        targets, left = [], []
        for number, target in wanted.items():
            client = clients.get(number)
            why = _why_not(client) or _another(client, target)
            if why or client is None:
                left.append(f"client {number}: {why}")
            else:
                targets.append(_target(client, place(self.settings)))
        if not targets:
            raise Refused("nothing is left to do: " + "; ".join(left or ["no client was named"]))
        return Draft(
            targets=targets, left_alone=left,
            risks=("a client that lives connects again; one in the middle of a transaction loses it",
                   *shared_login(self.settings)),
            preconditions=(Precondition(label="each is the same client, and has done nothing since", holds=True),),
            undo="irreversible, and harmless: a client that lives connects again",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        with acting(self.settings) as session:
            return one_by_one(plan.draft.targets, lambda target: _closed(session, target))

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        done = {effect.target for effect in effects if effect.done}
        with acting(self.settings) as session:
            there = _clients(session)
        left = [t.name for t in plan.draft.targets if t.name in done and int(t.identity["id"]) in there]
        return (False, f"still connected: {', '.join(left)}") if left else (True, f"{len(done)} are gone")


def _clients(session: Session) -> dict[int, dict[str, Any]]:
    """Every client by its id, with ``quiet_since``: the moment of its last command; and whether it is our own."""
    (seconds, micros), listed, own = asked(session, [("TIME",), ("CLIENT LIST",), ("CLIENT ID",)])
    now = int(seconds) + int(micros) / 1e6
    return {
        int(client["id"]): client | {"quiet_since": now - int(client.get("idle") or 0), "own": int(client["id"]) == own}
        for client in listed
    }


def _why_not(client: Client | None) -> str:
    """Why a client must not be closed; empty when it may."""
    if client is None:
        return "it is gone"
    name, flags = str(client.get("name") or ""), str(client.get("flags") or "")
    if client["own"] or name.startswith(_OURS):
        return "it is our own"
    if name.startswith(_SENTINEL):
        return "it is Sentinel's"
    return next((f"it is {words}" for flag, words in _FLAGS.items() if flag in flags), "")


def _another(client: Client | None, target: Mapping[str, Any]) -> str:
    """Why it is not the one that the run saw; empty when it is. What the run did not tell is not compared."""
    if client is None:
        return "it is gone"
    name = "" if target.get("name") == NO_NAME else target.get("name") or ""
    if (client.get("addr"), client.get("name") or "") != (target.get("addr"), name):
        return "it is another client by now"
    idle = target.get("idle_seconds")
    return "it has done something since" if idle is not None and int(client.get("idle") or 0) < int(idle) else ""


def _target(client: Client, server: str) -> Target:
    quiet = datetime.fromtimestamp(client["quiet_since"], UTC)
    name = client.get("name") or ""
    return Target(
        name=f"{server}#{client['id']}",
        identity={"id": int(client["id"]), "addr": client.get("addr"), "name": name, "quiet_since": quiet.isoformat()},
        shown=f"client {client['id']}, {name or NO_NAME} at {client.get('addr')}, idle for {client.get('idle')} s",
        change="its connection is closed",
    )


def _closed(session: Session, target: Target) -> Effect:
    """Look once more, then close it: the server compares id, address and type with the command itself."""
    identity = target.identity
    client = _clients(session).get(int(identity["id"]))
    if why := _why_not(client) or _another(client, {"addr": identity["addr"], "name": identity["name"]}):
        return Effect(target=target.name, done=False, said=f"{why}, and nothing was closed")
    assert client is not None
    quiet = datetime.fromisoformat(str(identity["quiet_since"])).timestamp()
    if client["quiet_since"] - quiet > MOVED_SECONDS:
        return Effect(target=target.name, done=False, said="it has done something since the plan, and was left alone")
    kill: Command = ("CLIENT KILL", "ID", int(identity["id"]), "ADDR", str(identity["addr"]), "TYPE", "normal",
                     "SKIPME", "yes")  # fmt: skip
    (count,) = asked(session, [kill])
    closed = int(count) == 1
    return Effect(target=target.name, done=closed, said="it was closed" if closed else "it is gone or another one")


class RaiseMaxclients(OneValue):
    """``redis.raise_maxclients``: how many clients the server takes, until it is restarted."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = _wanted(order)
        with acting(self.settings) as session:
            before = _maxclients(session)
        after = wanted or min(2 * before, MAX_MAXCLIENTS)
        if after <= before:
            raise Refused(f"nothing is left to do: maxclients is {before} already")
        name = place(self.settings)
        target = Target(name=name, identity={"server": name}, shown=f"maxclients of {name} is {before}",
                        change=f"maxclients becomes {after}", before=before, after=after)  # fmt: skip
        return Draft(
            targets=[target],
            risks=(
                "each client takes a descriptor and some memory",
                "holds until the server is restarted: its configuration file keeps the old value",
                *shared_login(self.settings),
            ),
            preconditions=(
                Precondition(label=f"maxclients is still {before}", holds=True, value=before),
                Precondition(label="its limit of open files allows it (checked by the command itself)", holds=None),
            ),
            undo=f"maxclients becomes {before} again, unless somebody has changed it since; those that are there stay",
        )

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        with acting(self.settings) as session:
            now = _maxclients(session)
        return now == target.after, f"maxclients is {now}"

    def set(self, target: Target, *, expected: Any, value: Any) -> Effect:
        """See :meth:`OneValue.set`."""
        with acting(self.settings) as session:
            now = _maxclients(session)
            if now != expected:
                return Effect(target=target.name, done=False, said=f"it is {now} by now, and was left alone")
            asked(session, [("CONFIG SET", "maxclients", value)])
        return Effect(target=target.name, done=True, said=f"maxclients is {value}")


def _wanted(order: Order) -> int | None:
    """How many it shall take; ``None`` from a run that was turned away itself: then twice as many as it takes now."""
    if len(order.targets) != 1:
        raise Refused("the run did not learn how many clients it takes", remedy="Run the runbook again")
    if order.targets[0].get("to") is None:
        return None
    after = int(order.targets[0]["to"])
    if not 0 < after <= MAX_MAXCLIENTS:
        raise Refused(f"{after} is no number of clients")
    return after


def _maxclients(session: Session) -> int:
    (answer,) = asked(session, [MAXCLIENTS])
    return int(answer["maxclients"])
