"""Judges one verdict against what was injected. Pure: a result document in, a score out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.sandbox.faults import FaultPlan

_MOST = 400
FOUND = ("confirmed", "probable")
"""Tiers that count as found."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How one drill went."""

    runbook: str
    fault: str
    expected: tuple[str, ...]
    #: Cause and tier, in the order of the verdict.
    found: tuple[tuple[str, str], ...]
    #: Causes found that were not injected and do not follow from one that was.
    wrong: tuple[str, ...]
    outcome: str
    #: From the alert to the finished report.
    seconds: float
    #: What is not as it should be, in words; empty when the drill passed.
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The form of ``drill --json``, with ``problems`` where there are any."""
        shown: dict[str, Any] = {
            "runbook": self.runbook,
            "fault": self.fault,
            "expected": list(self.expected),
            "found": [{"cause": cause, "tier": tier} for cause, tier in self.found],
            "wrong": list(self.wrong),
            "outcome": self.outcome,
            "seconds": round(self.seconds, 2),
            "passed": self.passed,
        }
        return shown if self.passed else shown | {"problems": list(self.problems)}


def judge(
    plan: FaultPlan, named: Mapping[str, Sequence[Any]], result: Mapping[str, Any], *, runbook: str, seconds: float
) -> Score:
    """Hold a result document against what was injected.

    Expected causes must be found, and one of them must stand first; nothing else may be found unless it is a
    consequence of one of them; the outcome and the details must be as the fault says.
    """
    entries = [entry for entry in result.get("verdict") or [] if entry["tier"] in FOUND]
    accepted = set(plan.expects)
    wrong = tuple(e["cause"] for e in entries if e["cause"] not in accepted and not _follows(e, accepted))
    outcome = str(result.get("outcome", ""))
    return Score(
        runbook=runbook,
        fault=plan.id,
        expected=plan.expects,
        found=tuple((e["cause"], e["tier"]) for e in entries),
        wrong=wrong,
        outcome=outcome,
        seconds=seconds,
        problems=tuple(_problems(plan, named, result, entries, wrong)),
    )


def failed(plan: FaultPlan, *, runbook: str, seconds: float, problem: str) -> Score:
    """The score of a drill that never came to a verdict."""
    return Score(
        runbook=runbook,
        fault=plan.id,
        expected=plan.expects,
        found=(),
        wrong=(),
        outcome="",
        seconds=seconds,
        problems=(problem,),
    )


def _follows(entry: Mapping[str, Any], accepted: set[str]) -> bool:
    return entry.get("role") == "consequence" and entry.get("consequence_of") in accepted


def _problems(
    plan: FaultPlan,
    named: Mapping[str, Sequence[Any]],
    result: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    wrong: Sequence[str],
) -> list[str]:
    problems = []
    if result.get("state") != "succeeded":
        error = result.get("error") or {}
        problems.append(f"the run is {result.get('state')}: {error.get('name', '')} {error.get('message', '')}".strip())
    if result.get("outcome") not in plan.outcomes:
        problems.append(f"outcome {result.get('outcome')}, not {' or '.join(plan.outcomes)}")
    told = {item["source"] for item in result.get("not_checked") or []}
    problems += [f"does not say that {source} was not checked" for source in plan.unknown if source not in told]
    by_cause = {entry["cause"]: entry for entry in entries}
    problems += [f"{cause} not found" for cause in plan.expects if cause not in by_cause]
    if plan.expects and entries and entries[0]["cause"] not in plan.expects:
        problems.append(f"{entries[0]['cause']} stands first")
    problems += [f"{cause} found wrongly{_instead(by_cause[cause])}" for cause in wrong]
    for cause, values in named.items():
        told_of_it = _told(by_cause.get(cause, {}), result)
        problems += [
            f"{cause} does not name {value}{_instead(by_cause[cause])}"
            for value in values
            if cause in by_cause and str(value) not in told_of_it
        ]
    return problems


def _instead(entry: Mapping[str, Any]) -> str:
    """What the verdict says of a cause instead."""
    if not entry.get("details"):
        return ""
    text = json.dumps(entry["details"], ensure_ascii=False)
    return f", but {text[:_MOST]}{'…' if len(text) > _MOST else ''}"


def _told(entry: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Everything that the verdict says of a cause: its details and the evidence that supports it."""
    because = set(entry.get("because", ()))
    evidence = [item for item in result.get("evidence") or [] if item["id"] in because]
    return json.dumps([entry.get("details", {}), evidence], ensure_ascii=False)
