"""How a set of drills went, as ``drill --json`` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Scored(Protocol):
    """The score of one drill."""

    @property
    def passed(self) -> bool: ...

    def as_dict(self) -> dict[str, Any]: ...


def report_of(scores: Sequence[Scored], skipped: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """``{results, passed, failed, skipped}``."""
    passed = sum(score.passed for score in scores)
    return {
        "results": [score.as_dict() for score in scores],
        "passed": passed,
        "failed": len(scores) - passed,
        "skipped": list(skipped),
    }


def together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several reports as one."""
    return {
        "results": [result for report in reports for result in report["results"]],
        "passed": sum(report["passed"] for report in reports),
        "failed": sum(report["failed"] for report in reports),
        "skipped": [item for report in reports for item in report["skipped"]],
    }
