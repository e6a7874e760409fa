"""The gate that most causes of a full disk share: what they claim explains enough of one that is short or fills.

What could not be read makes it unknown, unless no filesystem is short and none fills: then nothing that takes space is
a matter, whatever it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.disks.facts import SPACE, Claim, Facts
from runbook.diagnosis.evidence import Bench
from runbook.result import Evidence

OF_HALF = "share of what is too much, or of half of what is in use,"
"""What is there by right is held against at least half of what is in use: little too much is no fault of it."""


def claim_gate(
    facts: Facts,
    bench: Bench,
    label: str,
    claim: Claim | None,
    *,
    abnormal: bool,
    known: bool,
    rests_on: Sequence[str],
    reason: str = "",
) -> Evidence:
    """Whether a claim explains enough.

    Parameters
    ----------
    known
        Whether everything that could be claimed was read.
    reason
        Why it is unknown, where the readings do not tell.
    """
    share = facts.share(claim, abnormal=abnormal) if claim is not None else 0.0
    value: float | None = share
    if share < facts.limits.level_share and not known and not nothing_is_short(facts):
        value = None
    if facts.judged is None:
        value = None
    return bench.gate("takes", label, value, at_least=facts.limits.level_share, share=True,
                      rests_on=(*rests_on, *present(facts, SPACE)), reason=reason)  # fmt: skip


def nothing_is_short(facts: Facts) -> bool:
    """Whether it is known that no filesystem in question is short, and that none fills."""
    return facts.none_short is True and facts.none_fills is True


def present(facts: Facts, names: Sequence[str]) -> list[str]:
    """Of these readings those that were taken, the first one in any case."""
    return [name for n, name in enumerate(names) if n == 0 or facts.readings.known(name)]


def where(facts: Facts, claim: Claim | None) -> dict[str, Any]:
    """The filesystem of a claim, as a verdict names it."""
    one = facts.of(claim.key) if claim is not None else None
    if claim is None or one is None:
        return {}
    told: dict[str, Any] = {"host": one.host, "mount": one.mount, "used_percent": one.used_percent,
                            "available_bytes": one.available, "bytes": int(claim.bytes) or None}  # fmt: skip
    if claim.pace > 0:
        hours = one.hours_to_full(claim.pace)
        told |= {"hourly_growth_bytes": int(claim.pace * 3600),
                 "hours_to_full": round(hours, 2) if hours is not None else None,
                 "pace_seen": "in the looks of this run"}  # fmt: skip
    return told
