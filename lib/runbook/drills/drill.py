"""Runs drills: one sandbox, one service, and for each fault inject, set, fire, wait, judge, heal."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import structlog

from runbook import catalog
from runbook.drills.crew import Crew
from runbook.drills.judge import Score, failed, judge
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import SCENARIOS, FaultPlan, inject, known, plan, systems

log = structlog.get_logger(__name__)


def run_drills(
    runbook: str,
    faults: Sequence[str] | None = None,
    *,
    at_defaults: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Drill a runbook and report the scores.

    Parameters
    ----------
    runbook
        Name of the runbook.
    faults
        Fault ids; default: all that the sandbox knows for this runbook.
    at_defaults
        Ids among them that run at the notebook's own thresholds, in real length. The others run scaled.
    progress
        Told in a line what happens now.

    Returns
    -------
    dict
        ``{results, passed, failed, skipped}``, as ``drill --json`` prints it.

    Raises
    ------
    SandboxError
        A fault is unknown, or the sandbox itself does not work.
    """
    chosen = catalog.load(runbook)
    plans = [plan(fault, causes=chosen.causes) for fault in (faults if faults is not None else known(chosen))]
    tell = progress or (lambda line: None)
    skipped = [{"fault": p.id, "reason": lacking} for p in plans if (lacking := p.missing())]
    scores: list[Score] = []
    scaled = {name: value for p in plans if p.id not in at_defaults for name, value in p.scaled.items()}
    with (
        tempfile.TemporaryDirectory(prefix="runbook-drill-") as place,
        Sandbox(Path(place) / "sandbox", systems=systems(chosen), owned=True) as sandbox,
        ExitStack() as services,
    ):
        crew = Crew(sandbox, Path(place), services)
        for one in plans:
            if one.missing() is None:
                tell(f"{one.id}: {one.title}")
                # Those that are scaled have the scaled ones of all together, so that one service serves many.
                thresholds = _thresholds(chosen, {} if one.id in at_defaults else scaled)
                scores.append(_drill(crew, chosen, one, thresholds))
    passed = sum(score.passed for score in scores)
    return {
        "results": [score.as_dict() for score in scores],
        "passed": passed,
        "failed": len(scores) - passed,
        "skipped": skipped,
    }


def together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several reports as one."""
    return {
        "results": [result for report in reports for result in report["results"]],
        "passed": sum(report["passed"] for report in reports),
        "failed": sum(report["failed"] for report in reports),
        "skipped": [item for report in reports for item in report["skipped"]],
    }


def rotating_few(count: int, *, day: date, among: Iterable[str]) -> list[str]:
    """The faults whose turn it is to run in real length that day, so that over time each does."""
    ids = list(among)
    return [ids[(day.toordinal() * count + offset) % len(ids)] for offset in range(min(count, len(ids)))]


def by_turns(turns: int, *, day: date, among: Iterable[str]) -> list[str]:
    """The healthy control and the scenarios of the reference drill set, and of all else those whose turn it is.

    Within ``turns`` days each has had its turn.
    """
    ids = list(among)
    others = [id for id in ids if id != "healthy" and id not in SCENARIOS.values()]
    today = {id for number, id in enumerate(others) if number % turns == day.toordinal() % turns}
    return [id for id in ids if id not in others or id in today]


def _thresholds(runbook: catalog.Runbook, scaled: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's own parameters with what is scaled of them."""
    own = {name: parameter.default for name, parameter in runbook.parameters.items()}
    return own | {name: value for name, value in scaled.items() if name in own}


def _drill(crew: Crew, runbook: catalog.Runbook, one: FaultPlan, thresholds: Mapping[str, Any]) -> Score:
    """Inject, fire, wait, judge; the fault is healed and that is checked before it returns."""
    began = time.monotonic()
    try:
        with inject(one, crew.sandbox, thresholds=thresholds) as injected:
            service = crew.service(runbook, injected, thresholds)
            began = time.monotonic()
            result = crew.diagnosed(runbook, injected, service)
            seconds = time.monotonic() - began
    except SandboxError as error:
        log.warning("drill failed", fault=one.id, reason=str(error))
        return failed(one, runbook=runbook.name, seconds=time.monotonic() - began, problem=str(error))
    score = judge(one, injected.named, result, runbook=runbook.name, seconds=seconds)
    if not score.passed:
        log.warning("drill failed", fault=one.id, problems=list(score.problems))
    return score
