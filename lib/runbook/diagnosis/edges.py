"""Static edges between findings of different runbooks: a full disk makes Redis refuse, which stops the queue.

A cause may stand for another runbook's finding: it says which in ``details["refers_to"]``, or it stands for a whole
family by its nature (``STANDS_FOR``). What explains what is said once, for findings; each runbook gets the edges
between its own causes from it. Source: reference fault model, section 1, rule 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runbook.diagnosis.verdict import Cause

EXPLAINS: tuple[tuple[str, str], ...] = (
    # A full or read-only disk stops what writes to it: Redis' snapshots, the queue behind it, jobs, the database.
    ("D", "K08"), ("D", "K19"), ("D", "K01"), ("D", "Q"), ("D", "P"), ("D", "H01"),
    # Memory that is short kills or slows what runs there.
    ("M", "K01"), ("M", "K07"), ("M", "K19"), ("M", "Q"), ("M", "H01"), ("M", "P"),
    # A Redis that refuses stops its queue and the health check that asks it.
    ("K", "Q"),
    # A lock makes statements wait, waiting sessions fill the pools, and all of it is felt as slow answers.
    ("P02", "P03"), ("P02", "P04"), ("P02", "P10"), ("P02", "P11"), ("P02", "P12"), ("P03", "P10"), ("P03", "P11"),
    ("P01", "P11"), ("P01", "P10"),
)  # fmt: skip
"""Pairs *A explains B*; a letter stands for every finding of that runbook."""

STANDS_FOR: Mapping[str, tuple[str, ...]] = {
    "L02": ("P02",), "L03": ("P10", "P11"), "L06": ("M",),
    "H14": ("D", "M"),
    "Q14": ("K",), "Q15": ("K16",), "Q17": ("D", "M"),
}  # fmt: skip
"""Causes that are another runbook's finding by their nature. ``details["refers_to"]`` is more exact and goes first."""


def across(causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The edges between these causes that follow from what they stand for; each runbook adds its own to them."""
    return [
        (a.id, b.id)
        for a in causes
        for b in causes
        if a.id != b.id and any(_matches(x, first) and _matches(y, then)
                                for x in _meanings(a) for y in _meanings(b) for first, then in EXPLAINS)
    ]  # fmt: skip


def _meanings(cause: Cause) -> tuple[str, ...]:
    """The findings that a cause stands for, or itself."""
    told = cause.details.get("refers_to")
    return (told,) if isinstance(told, str) and told else STANDS_FOR.get(cause.id, (cause.id,))


def _matches(finding: str, pattern: str) -> bool:
    """Whether a finding is meant by a pattern, which is a cause's id or the letter of a runbook."""
    return finding == pattern or (len(pattern) == 1 and finding.startswith(pattern))
