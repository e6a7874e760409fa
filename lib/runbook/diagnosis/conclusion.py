"""What every runbook concludes in the same way: whether a cause is found, what stayed open, what was not checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from runbook.diagnosis import verdict
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Action, Findings, NotChecked, Symptom, Verdict


def findings(
    taken: Readings,
    causes: Sequence[Cause],
    edges: Iterable[tuple[str, str]],
    *,
    symptom: Symptom,
    impact: Callable[[Sequence[Verdict]], str],
    propose: Callable[[Sequence[Verdict]], list[Action]],
    healthy: str,
    breached: bool | None,
    peaked: bool,
    sufficient: bool = True,
) -> Findings:
    """Rank the causes, and say what follows from them.

    Parameters
    ----------
    edges
        Which cause explains which.
    impact, propose
        Who feels it, and what could be done, by the ranked verdicts.
    healthy
        The cause that stands for *nothing wrong*; empty where there is none.
    breached, peaked, sufficient
        Whether the symptom is there, was there within the window, and could be judged at all.
    """
    verdicts = verdict.rank(causes, edges, breached=breached)
    return Findings(
        symptom=symptom,
        impact=impact(verdicts),
        outcome=verdict.outcome(
            causes, verdicts, healthy=healthy, breached=breached, peaked=peaked, sufficient=sufficient
        ),
        verdict=verdicts,
        evidence=[item for cause in sorted(causes, key=lambda c: c.id) for item in cause.evidence],
        not_checked=not_checked(taken, causes),
        unexplained=verdict.unexplained(verdicts),
        actions=propose(verdicts),
    )


def any_other(causes: Sequence[Cause], breached: bool | None) -> bool | None:
    """Whether any of these is found; ``None`` when none is and one that applies could not be checked."""
    if any(verdict.found(verdict.tier(cause, in_compound=True, breached=breached)) for cause in causes):
        return True
    return None if unchecked(causes) else False


def leading(findings: Findings, healthy: str) -> Verdict | None:
    """The first finding, for a runbook whose cause stands for another's: it names this one in ``refers_to``."""
    return next((v for v in findings.verdict if v.cause != healthy and verdict.found(v.tier)), None)


def any_finding(verdicts: Sequence[Verdict], healthy: str) -> bool:
    """Whether anything was found."""
    return any(verdict.found(v.tier) for v in verdicts if v.cause != healthy)


def unchecked(causes: Sequence[Cause]) -> list[str]:
    """Ids of the causes that apply and that what is unknown could still make a finding."""
    return [cause.id for cause in causes if cause.applicable and cause.open]


def healthy(
    bench: Bench,
    name: str,
    causes: Sequence[Cause],
    *,
    breached: bool | None,
    rests_on: Sequence[str],
    quiet: str = "no face of the symptom shows, and every cause that applies could be checked",
    blind: str = "",
) -> Cause:
    """The cause that stands for *nothing wrong*: the symptom is known to be absent, and no other cause is found.

    Parameters
    ----------
    rests_on
        The readings of the symptom.
    quiet
        Label of its gate.
    blind
        Why nothing can be said, where that is known.
    """
    others, open_ones = any_other(causes, breached), unchecked(causes)
    nothing = None if breached is None or (open_ones and not breached) else not breached
    return Cause(
        id=bench.cause,
        name=name,
        gate=bench.fact(
            "quiet",
            quiet,
            nothing,
            rests_on=rests_on,
            otherwise="refutes",
            reason=blind or (f"could not be checked: {', '.join(open_ones)}" if open_ones else ""),
        ),
        clauses=(
            bench.fact(
                "no_cause",
                "no other cause found",
                None if others is None else not others,
                rests_on=rests_on[:1],
                otherwise="refutes",
            ),
        ),
        share=1.0,
    )


def not_checked(taken: Readings, causes: Sequence[Cause]) -> list[NotChecked]:
    """Readings that failed, each with the causes whose gate rests on it; one line a source, state and reason."""
    grouped: dict[tuple[str, str, str], set[str]] = {}
    for reading in taken.failed():
        blocks = {c.id for c in causes if c.gate.reading == "unknown" and reading.name in c.gate.source.split(", ")}
        grouped.setdefault((reading.source, reading.state, reading.reason), set()).update(blocks)
    return [
        NotChecked(source=source, state=state, reason=reason, blocks=sorted(blocks))  # type: ignore[arg-type]
        for (source, state, reason), blocks in grouped.items()
    ]
