"""Which cause explains which: a consequence is named, and not treated.

Source: reference fault model, section 1 (static edges), and what the readings tell of one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from runbook.diagnosis.errors.changes import Changes
from runbook.diagnosis.errors.facts import Facts, count
from runbook.diagnosis.errors.systems import Database
from runbook.diagnosis.errors.vendors import failing, never_left, probe_of
from runbook.diagnosis.verdict import Cause

EXPLAINS: tuple[tuple[str, str], ...] = (
    # A release that fails asks the database, a vendor or a schema for what it should not.
    ("E01", "E03"), ("E01", "E05"), ("E01", "E07"), ("E01", "E08"),
    # A database or a disk that fails takes with it what stands on it.
    ("E04", "E03"), ("E15", "E04"), ("E15", "E14"),
    # One client's flood, or everybody's, uses up connections and vendors' limits.
    ("E10", "E03"), ("E10", "E08"), ("E10", "E09"), ("E09", "E08"),
    # A vendor that is down fails the release and the clients that call it.
    ("E06", "E01"), ("E06", "E10"), ("E07", "E10"), ("E08", "E10"), ("E13", "E06"), ("E13", "E07"),
    # What the proxy reports when the application behind it is drowned or one of its instances is gone.
    *((a, "E11") for a in ("E03", "E04", "E06", "E09", "E12", "E13", "E15")),
    # One record fails for the one who owns it. Whatever fails brings a new issue with it.
    ("E18", "E10"), *((a, "E18") for a in ("E03", "E04", "E05", "E06", "E07", "E08", "E13", "E14", "E15")),
)  # fmt: skip
"""Static edges. Of two that could explain each other, the readings decide (:func:`edges`)."""

LOAD_FOLLOWS = frozenset({"P03", "P04", "P05", "P11", "P12"})
"""Findings of the connection runbook that more load brings about; a leak or a lock is none of them."""


def edges(facts: Facts, changes: Changes, causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The static edges that hold, and those that the readings decide."""
    dropped = ("E10", "E08") if _is_no_flood(causes, facts) else ("E08", "E10")
    taken = [edge for edge in EXPLAINS if edge != dropped]
    finding = Database(facts).finding
    if finding is None or finding.cause in LOAD_FOLLOWS:
        taken.append(("E09", "E03"))
    if _slow_vendor(facts):
        taken.append(("E06", "E03"))
    if _one_instance_cannot_reach(facts):
        taken = [*(edge for edge in taken if edge != ("E06", "E01")), ("E12", "E06")]
    else:
        taken.append(("E06", "E12"))
    taken.extend(_release_or_instance(facts, changes))
    return taken


def _is_no_flood(causes: Sequence[Cause], facts: Facts) -> bool:
    """Whether the one client sends little: then a vendor's limit explains its failures and not the reverse."""
    client = next((c for c in causes if c.id == "E10"), None)
    share = float(client.details.get("share_of_requests") or 0.0) if client is not None else 0.0
    return share < facts.limits.client_share


def _slow_vendor(facts: Facts) -> bool:
    """Whether calls to the worst vendor mostly time out: requests that wait keep their database connections."""
    worst = next(iter(failing(facts, "upstream_errors") or []), None)
    return worst is not None and 2 * count(worst.row, "timeouts") >= max(1, worst.failures)


def _one_instance_cannot_reach(facts: Facts) -> bool:
    """Whether a vendor answers us while calls from one instance get no connection."""
    worst = next(iter(failing(facts, "upstream_errors") or []), None)
    probe = probe_of(facts, worst.host) if worst is not None else None
    return worst is not None and probe is not None and bool(probe.get("answered")) and never_left(worst.row)


def _release_or_instance(facts: Facts, changes: Changes) -> list[tuple[str, str]]:
    """Which of the two it is where the failing instance is the only one of its release.

    The release, unless it had been serving there for long when the errors began.
    """
    instance, releases = facts.top("instance"), facts.split("release") or []
    mine = next((r for r in releases if instance is not None and _alike(r.requests, instance.requests)
                 and _alike(r.errors, instance.errors)), None)  # fmt: skip
    if mine is None or len(releases) < 2:
        return []
    deployment = changes.deployed(mine.value)
    long_ago = (
        deployment is not None and changes.onset is not None and changes.near([deployment], changes.onset) is None
    )
    return [("E12", "E01")] if long_ago else [("E01", "E12")]


def _alike(one: int, other: int) -> bool:
    return abs(one - other) <= 0.05 * max(one, other, 1)
