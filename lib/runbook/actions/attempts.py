"""One try at a change, and what is known of it afterwards.

A change is asked for once and never again by itself. Where no answer came, nobody knows whether it was made: that is
told as done, so that it is verified, and never as not done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runbook.actions.plan import Effect, Order, Refused
from runbook.errors import RunbookError


class Unheard(RunbookError):
    """A change was asked for, and no answer came: it may have been made."""

    exit_code = 1


def tried(target: str, said: str, change: Callable[[], str | None]) -> Effect:
    """The effect of one try.

    Parameters
    ----------
    said
        What was done, in words.
    change
        Asks for it; returns the id of what came into being by it, if anything did.

    Raises
    ------
    Refused
        The system refused, or was not reached: nothing was changed.
    """
    try:
        made = change() or ""
    except Unheard as unheard:
        return Effect(target=target, done=True, said=f"it may have happened: {unheard.message}")
    return Effect(target=target, done=True, said=said, made=made)


def left_alone(target: str, why: str) -> Effect:
    """The effect on a target that is not what it was."""
    return Effect(target=target, done=False, said=f"{why}, and was left alone")


def only_target(order: Order) -> Mapping[str, Any]:
    """The one target of an order.

    Raises
    ------
    Refused
        It names none, or several.
    """
    if len(order.targets) != 1:
        raise Refused(
            f"it names {len(order.targets)} targets, and one at a time is changed",
            remedy="Do it by hand, or choose one of those that are proposed",
        )
    return order.targets[0]


def made_by(effects: Sequence[Effect], target: str) -> str:
    """The id of what came into being on that target; empty when it is not known."""
    return next((effect.made for effect in effects if effect.target == target and effect.made), "")


def short_digest(text: str) -> str:
    """A few characters that tell one text from another."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def instant(text: object) -> datetime:
    """A moment as a vendor writes it.

    Raises
    ------
    Refused
        It is none.
    """
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise Refused(f"{str(text)[:40]!r} is no time") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
