"""Changing several targets, one after the other, so that what was done before one failed is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runbook.actions.plan import Effect, Refused, Target


def one_by_one(targets: Sequence[Target], change: Callable[[Target], Effect]) -> list[Effect]:
    """The effects of ``change`` on each of them; once one fails, those behind it are left.

    Raises
    ------
    Refused
        The first one failed: nothing is known to be changed.
    """
    effects: list[Effect] = []
    for number, target in enumerate(targets):
        try:
            effects.append(change(target))
        except Refused as error:
            if number == 0:
                raise
            effects.append(Effect(target=target.name, done=False, said=f"not known to be done: {error}"))
            return effects + [Effect(target=t.name, done=False, said="not tried") for t in targets[number + 1 :]]
    return effects
