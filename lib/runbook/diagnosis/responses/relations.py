"""What explains what among the causes of slow responses."""

from __future__ import annotations

from collections.abc import Sequence

from runbook.diagnosis import edges as between_runbooks
from runbook.diagnosis.responses.facts import Facts
from runbook.diagnosis.verdict import Cause

SQL = ("L02", "L17", "L14", "L10", "L07", "L01")
"""What makes SQL slow, what explains another of them before it: a consequence is that of the first."""

EXPLAINS: tuple[tuple[str, str], ...] = (
    # What statements wait for makes them slow, and fills the pool before them.
    ("L02", "L01"), ("L17", "L01"), ("L14", "L01"),
    *((cause, "L03") for cause in (*SQL, "L09")),
    # Who stands still keeps the connection that he has.
    *((cause, "L03") for cause in ("L16", "L06", "L05", "L04")),
    # More work than there is room for is felt in the machine and in the process; who waits for a quota, in the queue.
    ("L09", "L04"), ("L16", "L04"), ("L09", "L16"), ("L09", "L05"), ("L01", "L04"), ("L10", "L04"), ("L05", "L04"),
    ("L06", "L05"), ("L06", "L04"), ("L16", "L05"), ("L10", "L05"),
    # A way to a host that is slow is felt as the host's slowness.
    ("L12", "L08"),
    # What a release brought: a loop, a statement, a place.
    *(("L15", cause) for cause in ("L10", "L01", "L17", "L05", "L18")),
    # What is slow by nature in one route, tenant or instance.
    *((cause, "L13") for cause in (*SQL, "L03", "L08", "L11", "L12", "L15", "L18")),
    *((cause, "L18") for cause in (*SQL, "L08", "L11", "L12")),
)  # fmt: skip
"""Static edges. Source: reference fault model, section 1, rule 6, and R4."""


def _same_statement(loop: Cause, slow: Cause) -> bool:
    """Whether the statement with most of the time is the one that is run in a loop: then it is many, not slow."""
    identity, table = loop.details.get("query_id"), loop.details.get("table")
    if identity is not None:
        return bool(identity == slow.details.get("query_id"))
    return table is not None and str(table).strip('"') in str(slow.details.get("query"))


def edges(facts: Facts, causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The static edges, less those that do not fit: one bad instance is no consequence of what all instances share."""
    by_id = {cause.id: cause for cause in causes}
    shared = "instance" in by_id["L13"].details
    return [
        *((a, b) for a, b in EXPLAINS if not (b == "L13" and shared and a not in ("L15", "L05"))),
        # A statement that reads a large table in whole keeps the disk busy; else the disk makes statements slow.
        ("L01", "L07") if by_id["L01"].details.get("table") else ("L07", "L01"),
        *([("L10", "L01")] if _same_statement(by_id["L10"], by_id["L01"]) else []),
        *between_runbooks.across(causes),
    ]
