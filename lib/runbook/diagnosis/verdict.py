"""Ranks causes by their evidence, and says what may be concluded.

Evidence weighs 6 (decisive), 3 (strong) or 1 (weak) when it supports and −4 when it refutes. A cause's *gate* is what
must hold: refuted, the cause is excluded; unknown, it is undetermined, whatever else fits. A cause is decisive when its
gate and all its clauses support it. Source: reference fault model, section 1 (verdict method).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runbook.result import DECISIVE, TIERS, Evidence, Outcome, Role, Tier, Verdict

REFUTES = -4
CONFIRMED_COVERAGE = 0.6
CONFIRMED_SHARE = 0.5
PROBABLE_SCORE = 4
PROBABLE_SHARE = 0.2
POSSIBLE_SCORE = 1


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One cause with its evidence, before ranking."""

    id: str
    name: str
    #: Necessary evidence.
    gate: Evidence
    #: With the gate, decisive together.
    clauses: Sequence[Evidence] = ()
    #: Symptom-side hints, weak.
    hints: Sequence[Evidence] = ()
    #: How much of the symptom it explains, 0–1.
    share: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    #: ``False`` when the subsystem that its gate needs is not configured: listed, not blocking.
    applicable: bool = True

    @property
    def evidence(self) -> list[Evidence]:
        return [self.gate, *self.clauses, *self.hints]

    @property
    def score(self) -> int:
        return sum(e.weight if e.reading == "supports" else REFUTES for e in self.evidence if e.reading in ANSWERS)

    @property
    def coverage(self) -> float:
        """Known weight over total weight."""
        total = sum(e.weight for e in self.evidence)
        return round(sum(e.weight for e in self.evidence if e.reading != "unknown") / total, 2) if total else 0.0

    @property
    def decisive(self) -> bool:
        """Gate and all clauses support it, or one decisive item does beside the gate."""
        core = [self.gate, *self.clauses]
        return self.gate.reading == "supports" and (
            (bool(self.clauses) and all(e.reading == "supports" for e in core))
            or any(e.reading == "supports" and e.weight == DECISIVE for e in core)
        )

    @property
    def open(self) -> bool:
        """Whether what is unknown could still make it a finding: its gate, or a clause behind a gate that holds."""
        if self.gate.reading == "unknown":
            return True
        return self.gate.reading == "supports" and any(e.reading == "unknown" for e in self.clauses)

    @property
    def refuted(self) -> bool:
        return any(e.reading == "refutes" for e in self.evidence)


ANSWERS = ("supports", "refutes")


def tier(cause: Cause, *, in_compound: bool = False, breached: bool | None = True) -> Tier:
    """The tier of one cause.

    Parameters
    ----------
    in_compound
        Another cause is found beside it.
    breached
        Whether the symptom is there. When it is known not to be, only a decisive cause is a finding.
    """
    if cause.gate.reading == "unknown":
        return "undetermined"
    if cause.gate.reading != "supports":
        return "excluded"
    wanted_share = PROBABLE_SHARE if in_compound else CONFIRMED_SHARE
    if (
        cause.decisive
        and not cause.refuted
        and cause.coverage >= CONFIRMED_COVERAGE
        and cause.share + 1e-9 >= wanted_share
    ):
        return "confirmed"
    enough = cause.score >= PROBABLE_SCORE and (breached is not False or cause.decisive)
    if enough and cause.share + 1e-9 >= PROBABLE_SHARE:
        return "probable"
    return "possible" if cause.score >= POSSIBLE_SCORE else "excluded"


def found(tier_: Tier) -> bool:
    """Whether a tier counts as a finding."""
    return tier_ in ("confirmed", "probable")


def rank(
    causes: Iterable[Cause], explains: Iterable[tuple[str, str]] = (), *, breached: bool | None = True
) -> list[Verdict]:
    """The verdict: tier, then share in steps of 0.05, then score, then id; consequences behind what explains them,
    which a consequence does not outrank either that is surer than its cause.

    Parameters
    ----------
    explains
        Pairs *A explains B*: with both found, B is a consequence of A.
    breached
        Whether the symptom is there; see :func:`tier`.
    """
    causes = list(causes)
    alone = {c.id: tier(c, breached=breached) for c in causes}

    def beside(cause: Cause) -> bool:
        return any(found(t) for other, t in alone.items() if other != cause.id)

    tiers = {c.id: tier(c, in_compound=beside(c), breached=breached) for c in causes}
    origin: dict[str, str] = {}
    for a, b in explains:
        if found(tiers.get(a, "excluded")) and found(tiers.get(b, "excluded")) and origin.get(a) != b:
            origin.setdefault(b, a)
    by_id = {c.id: c for c in causes}

    def key(cause_id: str) -> tuple[int, bool, float, int, str]:
        cause = by_id[cause_id]
        step = round(cause.share / 0.05) * 0.05
        line = _line(cause_id, origin)
        return (max(TIERS.index(tiers[one]) for one in line), len(line) > 1, -round(step, 2), -cause.score, cause_id)

    verdicts = [_verdict(by_id[i], tiers[i], origin.get(i)) for i in sorted(by_id, key=key)]
    return [v if n == 0 or v.role == "consequence" else replace(v, role="contributing") for n, v in enumerate(verdicts)]


def _line(cause_id: str, origin: Mapping[str, str]) -> list[str]:
    """The cause, what it follows from, and so on."""
    line = [cause_id]
    while (before := origin.get(line[-1])) is not None and before not in line:
        line.append(before)
    return line


def _verdict(cause: Cause, tier_: Tier, origin: str | None) -> Verdict:
    role: Role = "consequence" if origin else "main"
    return Verdict(
        cause=cause.id,
        name=cause.name,
        tier=tier_,
        share=round(min(1.0, max(0.0, cause.share)), 2) if tier_ not in ("excluded", "undetermined") else 0.0,
        score=cause.score,
        coverage=cause.coverage,
        role=role,
        consequence_of=origin,
        details=dict(cause.details),
        because=[e.id for e in cause.evidence if e.reading == "supports"],
        against=[e.id for e in cause.evidence if e.reading == "refutes"],
    )


def unexplained(verdicts: Iterable[Verdict]) -> float:
    """1 − Σ share of what was found, consequences apart."""
    explained = sum(v.share for v in verdicts if found(v.tier) and v.role != "consequence")
    return round(max(0.0, 1.0 - explained), 2)


def outcome(
    causes: Sequence[Cause],
    verdicts: Sequence[Verdict],
    *,
    healthy: str,
    breached: bool | None,
    peaked: bool,
    sufficient: bool = True,
) -> Outcome:
    """What may be concluded; the first that applies.

    Parameters
    ----------
    healthy
        Id of the cause that stands for *nothing wrong*; it is no finding.
    breached, peaked
        Whether the symptom is there now (``None``: unknown), and whether it was within the window.
    sufficient
        Whether there was enough data to judge at all.
    """
    if any(found(v.tier) for v in verdicts if v.cause != healthy):
        return "diagnosed"
    if not sufficient:
        return "insufficient_data"
    if breached is not False or any(c.applicable and c.open for c in causes):
        return "undetermined"
    return "no_current_fault" if peaked else "healthy"
