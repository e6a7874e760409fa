"""What a run knows and concludes: readings, evidence, causes, verdict, findings.

Value objects only. Nothing here touches network, clock or file, so that diagnosis, which is built on it, stays pure.
The JSON form of :class:`Findings` is the notebook's result display; the engine adds the envelope (``result.json``,
schema 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 1
RESULT_MIME = "application/vnd.runbook.result+json"
"""MIME type of the display that carries the findings out of a notebook."""

ReadingState = Literal[
    "ok",
    "not_configured",
    "unreachable",
    "auth_failed",
    "permission_denied",
    "rate_limited",
    "timeout",
    "partial",
    "stale",
]
"""``ok`` or how the reading failed. Everything but ``ok`` reads *unknown*: never 0, never "healthy"."""

Tier = Literal["confirmed", "probable", "possible", "undetermined", "excluded"]
TIERS: tuple[Tier, ...] = ("confirmed", "probable", "possible", "undetermined", "excluded")
"""Tiers in the order in which they are printed."""

Role = Literal["main", "contributing", "consequence"]
Outcome = Literal["diagnosed", "insufficient_data", "undetermined", "no_current_fault", "healthy"]
Answer = Literal["supports", "refutes", "neutral", "unknown"]
RunState = Literal["queued", "running", "succeeded", "failed", "interrupted", "cancelled"]
ActionState = Literal["proposed", "approved", "applied", "verified", "undone", "refused", "expired", "failed"]

DECISIVE, STRONG, WEAK = 6, 3, 1
"""Weights of evidence. What refutes counts −4, whatever its weight."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One fact fetched from outside, as it was recorded (already redacted)."""

    #: What the reading is called in its runbook: ``holders``, ``headroom``.
    name: str
    #: The system it came from: ``postgresql``, ``pgbouncer``, ``shell``, ``clock``.
    source: str
    #: Which one: host, port and database, or host name; never with credentials.
    target: str
    #: The exact query or argv.
    query: str
    #: ISO 8601, UTC.
    measured_at: str
    #: Milliseconds from asking to having the last row.
    duration_ms: float
    state: ReadingState = "ok"
    #: Why it is not ``ok``, or what is missing from a ``partial`` one.
    reason: str = ""
    #: The system's own code for the failure: a SQLSTATE, an errno name, an exit status.
    code: str = ""
    #: Rows for a table, one mapping for a single fact; JSON values only. ``None`` when there is nothing.
    value: Any = None

    @property
    def known(self) -> bool:
        """Whether the value can be used; ``partial`` can, with care, when there is anything of it."""
        return self.state == "ok" or (self.state == "partial" and self.value is not None)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The value as rows; empty when unknown, so ask :attr:`known` first."""
        if isinstance(self.value, list):
            return self.value
        return [self.value] if isinstance(self.value, dict) else []

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A reading held against a threshold."""

    #: ``<cause>.<slug>``; unique in a result.
    id: str
    label: str
    value: Any
    unit: str = ""
    #: What the value was compared with, in words that stand beside it: ``≥ 30``.
    threshold: str = ""
    reading: Answer
    weight: int
    #: The readings that it rests on.
    source: str
    measured_at: str = ""
    #: Why it is unknown.
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One cause as it came out of the ranking."""

    cause: str
    name: str
    tier: Tier
    #: How much of the symptom it explains, 0–1, in the symptom's own unit.
    share: float
    #: Sum of the weights of supporting evidence, less 4 for each item that refutes.
    score: int
    #: Known weight over total weight, 0–1.
    coverage: float
    role: Role = "main"
    consequence_of: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    because: Sequence[str] = ()
    against: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class NotChecked:
    """A source that could not be read, and the causes that it leaves open."""

    source: str
    state: ReadingState
    reason: str
    blocks: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """The symptom as re-measured by this run."""

    label: str
    value: float | None
    unit: str
    threshold: float | None
    breached: bool | None
    #: Highest value that the run saw, with its time where known.
    peak: float | None = None


@dataclass(frozen=True, kw_only=True)
class Precondition:
    label: str
    holds: bool | None
    value: Any = None


@dataclass(frozen=True, kw_only=True)
class Action:
    """A guarded change, as proposed: exact targets, what must hold, how to do it by hand, how to undo it."""

    id: str
    kind: str
    title: str
    cause: str
    targets: Sequence[Mapping[str, Any]] = ()
    preconditions: Sequence[Precondition] = ()
    by_hand: str = ""
    undo: str = "irreversible"
    needs: str | None = None
    state: ActionState = "proposed"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a notebook concludes: the part of the result document from ``symptom`` to ``actions``."""

    symptom: Symptom
    impact: str
    outcome: Outcome
    verdict: Sequence[Verdict]
    evidence: Sequence[Evidence]
    not_checked: Sequence[NotChecked] = ()
    #: 1 − Σ share of the causes found, 0–1.
    unexplained: float = 0.0
    actions: Sequence[Action] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, key order as in the result document."""
        return asdict(self)


def empty_findings(reason: str, *, source: str = "run", state: ReadingState = "partial") -> dict[str, Any]:
    """Findings of a run that ended before it could conclude anything: undetermined, and why."""
    return Findings(
        symptom=Symptom(label="not measured", value=None, unit="", threshold=None, breached=None),
        impact="unknown",
        outcome="undetermined",
        verdict=(),
        evidence=(),
        not_checked=(NotChecked(source=source, state=state, reason=reason),),
        unexplained=1.0,
    ).as_dict()
