"""Runs drills: one sandbox, one service, and for each fault inject, set, fire, wait, judge, heal."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from runbook import catalog
from runbook.drills.crew import Crew, thresholds_of
from runbook.drills.judge import Score, failed, judge
from runbook.drills.report import report_of
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import FaultPlan, inject, known, plan, systems

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
                thresholds = thresholds_of(chosen, {} if one.id in at_defaults else scaled)
                scores.append(_drill(crew, chosen, one, thresholds))
    return report_of(scores, skipped)


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
