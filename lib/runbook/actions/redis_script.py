"""Ending a script that keeps a Redis from answering anybody; never the server with it.

While a script runs Redis answers ``BUSY`` to everything but the command that ends the script, and does not tell which
one it is. A script that has written cannot be ended (``UNKILLABLE``): that is refused, and ``SHUTDOWN`` is never sent.
Source: reference fault model, R8 (K11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbook.actions.kinds import Kind
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.redis_acting import acting, place, reason, shared_login
from runbook.connectors.redis_session import Session, error_code
from runbook.result import Precondition

NOTHING_RUNS = "nothing keeps it busy any more, and nothing was ended"


class KillScript(Kind):
    """``redis.script_kill``: end the script, or function, that runs now."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        with acting(self.settings) as session:
            command = _that_ends_it(session)
        if command is None:
            raise Refused("nothing is left to do: no script keeps this Redis busy")
        name = place(self.settings)
        target = Target(
            name=name, identity={"server": name, "command": command}, shown=f"{name} answers BUSY: a script runs",
            change=f"{command}: the script ends with an error",
        )  # fmt: skip
        return Draft(
            targets=[target],
            risks=(
                "Redis does not tell which script it is: the one that keeps it busy then is ended",
                "its client gets an error, and may send the same script again",
                *shared_login(self.settings),
            ),
            preconditions=(
                Precondition(label="it answers BUSY", holds=True),
                Precondition(label="the script has written nothing (checked by the command itself)", holds=None),
            ),
            undo="irreversible: the script ends with an error, having written nothing",
        )

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        with acting(self.settings) as session:
            if _that_ends_it(session) != target.identity["command"]:
                return [Effect(target=target.name, done=False, said=NOTHING_RUNS)]
            (answer,) = session.batch([(str(target.identity["command"]),)])
        return [_effect(target.name, answer)]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        with acting(self.settings) as session:
            busy = _that_ends_it(session) is not None
        return not busy, "it still answers BUSY" if busy else "it answers again"


def _that_ends_it(session: Session) -> str | None:
    """The command that ends what keeps the server busy, as the server names it; ``None`` when it answers."""
    (answer,) = session.batch([("PING",)])
    if not isinstance(answer, Exception):
        return None
    if error_code(answer) != "BUSY":
        raise Refused(f"Redis refuses: {reason(answer)}")
    return "FUNCTION KILL" if "FUNCTION KILL" in str(answer) else "SCRIPT KILL"


def _effect(name: str, answer: Any) -> Effect:
    if not isinstance(answer, Exception):
        return Effect(target=name, done=True, said="the script was ended")
    code = error_code(answer)
    if code == "NOTBUSY":
        return Effect(target=name, done=False, said=NOTHING_RUNS)
    if code == "UNKILLABLE":
        raise Refused(
            "the script has written, and Redis ends none that has (UNKILLABLE)",
            remedy="Wait for its end; SHUTDOWN NOSAVE would lose what is not saved, and is its owner's decision",
        )
    raise Refused(f"Redis refuses: {reason(answer)}", remedy="See what the action needs")
