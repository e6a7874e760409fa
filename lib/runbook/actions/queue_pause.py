"""Pausing a queue and resuming it; each undoes the other, where the queue is still as it was left.

A pause keeps every worker from taking another job; those under way run to their end. Redis keeps neither who paused a
queue nor when, so whether it was on purpose is for a person to say. Source: reference fault model, R9 (Q02), R3 (V11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from runbook.actions.kinds import Kind, Said
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.queue_acting import Hands, on_queue, state_of
from runbook.actions.redis_acting import shared_login
from runbook.result import Precondition

ROUNDS = 100
"""One resume moves so many thousand jobs at most; more of them are given back round by round."""


class _Switch(Kind):
    """What pausing and resuming have in common."""

    may_be_ordered = True
    said: ClassVar[Mapping[str, Said]] = {
        "queue": Said(means="the queue's name; there is only that of the settings"),
        "prefix": Said(means="the prefix of its keys"),
    }

    #: Whether the queue is paused afterwards.
    paused: ClassVar[bool]
    change: ClassVar[str]
    undo_text: ClassVar[str]
    risks: ClassVar[tuple[str, ...]]
    preconditions: ClassVar[tuple[Precondition, ...]]

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        queue = self.settings.queue
        for said in order.targets:
            if said.get("queue") not in (None, queue.name) or said.get("prefix") not in (None, queue.prefix):
                raise Refused(f"the run was about queue {said.get('queue')}, and the settings name {queue.name}")
        state = state_of(self.settings)
        if state["paused"] == self.paused:
            raise Refused(f"nothing is left to do: the queue is {_word(self.paused)} already")
        target = Target(
            name=queue.name, identity={"prefix": queue.prefix, "queue": queue.name, "version": state["version"]},
            shown=f"queue {queue.name} is {_word(state['paused'])}, {state['waiting']} wait, {state['active']} active",
            change=self.change, before=state["paused"], after=self.paused,
        )  # fmt: skip
        return Draft(
            targets=[target], risks=(*self.risks, *shared_login(self.settings)), undo=self.undo_text,
            preconditions=(
                Precondition(label=f"the queue is still {_word(state['paused'])}", holds=True),
                Precondition(label="the scripts are of the queue's version", holds=True, value=state["version"]),
                *self.preconditions,
            ),
        )  # fmt: skip

    def completed(self, given: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :meth:`Kind.completed`."""
        return {"queue": self.settings.queue.name, "prefix": self.settings.queue.prefix, **given}

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        return self._switched(plan, paused=self.paused)

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        return self._switched(plan, paused=not self.paused)

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        state = state_of(self.settings)
        return state["paused"] == self.paused, f"the queue is {_word(state['paused'])}, {state['waiting']} wait"

    def _switched(self, plan: Plan, *, paused: bool) -> list[Effect]:
        (target,) = plan.draft.targets
        return on_queue(self.settings, lambda hands: _switch(hands, target, paused))


async def _switch(hands: Hands, target: Target, paused: bool) -> list[Effect]:
    meta = hands.key("meta")

    async def look(pipe: Any) -> str:
        version, now = await pipe.hmget(meta, "version", "paused")
        if version != target.identity["version"]:
            return "the queue is of another version by now, and was left alone"
        return f"it is {_word(paused)} by now, and was left alone" if (now is not None) == paused else ""

    why, left = await hands.in_one_step([meta], look, lambda scripts: scripts.pause(paused))
    rounds = 0
    while not why and left and rounds < ROUNDS:  # jobs that an older version left among the paused ones
        why, left = await hands.in_one_step([meta], _still(meta, paused), lambda scripts: scripts.pause(paused))
        rounds += 1
    done = not why or rounds > 0
    return [Effect(target=target.name, done=done, said=why or f"the queue is {_word(paused)}")]


def _still(meta: str, paused: bool) -> Any:
    async def look(pipe: Any) -> str:
        now = await pipe.hget(meta, "paused")
        return "" if (now is not None) == paused else "somebody switched it back meanwhile"

    return look


def _word(paused: bool) -> str:
    return "paused" if paused else "not paused"


class Pause(_Switch):
    """``queue.pause``: no worker takes another job."""

    called = "Pause the queue"
    paused = True
    change = "no worker takes another job; those under way run to their end"
    undo_text = "the queue is resumed, unless somebody has done that since"
    risks = ("whatever waits for these jobs waits as long as the queue is paused",)
    preconditions = ()


class Resume(_Switch):
    """``queue.resume``: workers take jobs again."""

    may_be_automatic = False
    called = "Resume the queue"
    paused = False
    change = "workers take jobs again"
    undo_text = "the queue is paused again, unless somebody has done that since; jobs that began run to their end"
    risks = ("what waits runs at once: provider, bucket and database get all of it",)
    preconditions = (
        Precondition(label="nobody paused it on purpose (Redis does not keep who, or when: ask)", holds=None),
    )
