"""Whose turn it is: what takes long is drilled some of it a day, so that over time each is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TypeVar

from runbook.sandbox.faults import SCENARIOS

T = TypeVar("T")


def taking_turns(turns: int, *, day: date, among: Sequence[T]) -> list[T]:
    """Those whose turn it is; within ``turns`` days each has had its turn."""
    return [one for number, one in enumerate(among) if number % turns == day.toordinal() % turns]


def by_turns(turns: int, *, day: date, among: Iterable[str]) -> list[str]:
    """The healthy control and the scenarios of the reference drill set, and of all else those whose turn it is."""
    ids = list(among)
    others = [id for id in ids if id != "healthy" and id not in SCENARIOS.values()]
    today = taking_turns(turns, day=day, among=others)
    return [id for id in ids if id not in others or id in today]


def rotating_few(count: int, *, day: date, among: Iterable[str]) -> list[str]:
    """The faults whose turn it is to run in real length that day."""
    ids = list(among)
    return [ids[(day.toordinal() * count + offset) % len(ids)] for offset in range(min(count, len(ids)))]
