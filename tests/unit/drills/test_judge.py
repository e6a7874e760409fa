"""The judge: what passes, and each way to fail."""

from __future__ import annotations

from typing import Any

import pytest

from runbook.drills.judge import failed, judge
from runbook.sandbox.faults import plan

CAUSES = ("P00", "P01", "P02", "P02a", "P03", "P12")


def entry(cause: str, tier: str = "confirmed", **more: Any) -> dict[str, Any]:
    return {"cause": cause, "tier": tier, "role": "main", "consequence_of": None, "details": {}, **more}


def result(*verdict: dict[str, Any], outcome: str = "diagnosed", **more: Any) -> dict[str, Any]:
    return {"state": "succeeded", "outcome": outcome, "verdict": list(verdict), "error": None, **more}


def problems(fault: str, document: dict[str, Any], **named: Any) -> list[str]:
    score = judge(plan(fault, causes=CAUSES), named, document, runbook="db_connection_exhaustion", seconds=1.0)
    assert score.passed is not bool(score.problems)
    return list(score.problems)


PASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "the cause alone": ("P01", result(entry("P01"))),
    "probable is found": ("P01", result(entry("P01", "probable"))),
    "others that are only possible": ("P01", result(entry("P01"), entry("P12", "possible"), entry("P02", "excluded"))),
    "a consequence of the cause": (
        "P02",
        result(entry("P02"), entry("P03", role="consequence", consequence_of="P02")),
    ),
    "a compound in either order": ("P01+P02", result(entry("P02"), entry("P01", "probable"))),
    "healthy": ("healthy", result(entry("P00"), outcome="healthy")),
    "blind, and no guess": (
        "P01~no_pg_monitor",
        result(
            entry("P01", "undetermined"),
            outcome="undetermined",
            not_checked=[{"source": "postgresql", "state": "permission_denied", "reason": "hidden", "blocks": ["P01"]}],
        ),
    ),
    "a peak that has passed": ("healthy", result(entry("P00", "possible"), entry("P00"), outcome="no_current_fault")),
}

FAILS: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing found": ("P01", result(entry("P01", "possible"), outcome="undetermined"), "P01 not found"),
    "wrong cause": ("P01", result(entry("P01"), entry("P12", "probable")), "P12 found wrongly"),
    "not first": ("P02", result(entry("P03"), entry("P02")), "P03 stands first"),
    "the general form beside the special one": ("P02a", result(entry("P02a"), entry("P02")), "P02 found wrongly"),
    "the general form first": ("P02a", result(entry("P02"), entry("P02a")), "P02 stands first"),
    "half of a compound": ("P01+P02", result(entry("P02")), "P01 not found"),
    "a consequence of something else": (
        "P02",
        result(entry("P02"), entry("P03", role="consequence", consequence_of="P12")),
        "P03 found wrongly",
    ),
    "wrong outcome": ("P01", result(entry("P01"), outcome="undetermined"), "outcome undetermined, not diagnosed"),
    "a cause when healthy": (
        "healthy",
        result(entry("P00"), entry("P04", "probable"), outcome="healthy"),
        "P04 found wrongly",
    ),
    "what was not checked is not said": (
        "P01~no_pg_monitor",
        result(outcome="undetermined"),
        "does not say that postgresql was not checked",
    ),
    "a guess when blind": (
        "P01~no_pg_monitor",
        result(entry("P01"), outcome="undetermined"),
        "P01 found wrongly",
    ),
    "a failed run": (
        "P01",
        result(entry("P01"), state="failed", error={"cell": 3, "name": "DeadKernel", "message": "died"}),
        "the run is failed: DeadKernel died",
    ),
}


@pytest.mark.parametrize(("fault", "document"), PASSES.values(), ids=PASSES.keys())
def test_passes(fault: str, document: dict[str, Any]) -> None:
    assert problems(fault, document) == []


@pytest.mark.parametrize(("fault", "document", "problem"), FAILS.values(), ids=FAILS.keys())
def test_fails(fault: str, document: dict[str, Any], problem: str) -> None:
    assert problem in problems(fault, document)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"application_name": "api-leaky"}, []),
        ({"roots": [{"pid": 7, "app": "api-leaky"}]}, []),
        ({"application_name": "api"}, ['P01 does not name api-leaky, but {"application_name": "api"}']),
        ({}, ["P01 does not name api-leaky"]),
    ],
)
def test_what_was_injected_must_be_named(details: dict[str, Any], expected: list[str]) -> None:
    assert problems("P01", result(entry("P01", details=details)), P01=["api-leaky"]) == expected


def test_the_report_has_the_keys_of_the_interface_and_problems_only_when_there_are_any() -> None:
    keys = {"runbook", "fault", "expected", "found", "wrong", "outcome", "seconds", "passed"}
    good = judge(plan("P01"), {}, result(entry("P01")), runbook="r", seconds=1.234).as_dict()
    assert good.keys() == keys
    assert (good["found"], good["seconds"]) == ([{"cause": "P01", "tier": "confirmed"}], 1.23)
    bad = failed(plan("P01"), runbook="r", seconds=1.0, problem="no service").as_dict()
    assert bad.keys() == keys | {"problems"}
    assert (bad["passed"], bad["problems"]) == (False, ["no service"])
