"""Runs drills: one sandbox, one service, and for each fault inject, set, fire, wait, judge, heal."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import structlog

from runbook import catalog
from runbook.drills.alerts import alertmanager_body
from runbook.drills.judge import Score, failed, judge
from runbook.drills.service import Service
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import SCENARIOS, FaultPlan, Injected, inject, known, plan, systems

log = structlog.get_logger(__name__)

#: What a run may take beyond the runbook's own limit: waiting for a kernel, rendering, writing.
_SLACK_SECONDS = 60.0


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
        crew = _Crew(chosen, sandbox, Path(place), services, scaled)
        for one in plans:
            if one.missing() is None:
                tell(f"{one.id}: {one.title}")
                scores.append(_drill(crew, one, full_length=one.id in at_defaults))
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


class _Crew:
    """What the drills of one call share: the runbook, the sandbox, and a service."""

    def __init__(
        self,
        runbook: catalog.Runbook,
        sandbox: Sandbox,
        place: Path,
        services: ExitStack,
        scaled: Mapping[str, Any],
    ) -> None:
        self.runbook = runbook
        self.sandbox = sandbox
        self._scaled = scaled
        self._place = place
        self._services = services
        self._running: Service | None = None

    def thresholds(self, *, full_length: bool) -> dict[str, Any]:
        """The notebook's own parameters, or the scaled ones of all drills together, so that one service serves many."""
        own = {name: parameter.default for name, parameter in self.runbook.parameters.items()}
        return own if full_length else own | {name: value for name, value in self._scaled.items() if name in own}

    def service(self, injected: Injected, thresholds: Mapping[str, Any]) -> Service:
        """The service, by the settings that this fault needs."""
        settings = self.sandbox.settings()
        for section, values in injected.settings.items():
            settings[section] = settings.get(section, {}) | dict(values)
        settings["thresholds"] = {self.runbook.name: dict(thresholds)}
        if self._running is None:
            directory = Path(tempfile.mkdtemp(prefix="service-", dir=self._place))
            self._running = self._services.enter_context(Service(directory, settings))
        self._running.use(settings)
        return self._running


def _drill(crew: _Crew, one: FaultPlan, *, full_length: bool) -> Score:
    """Inject, fire, wait, judge; the fault is healed and that is checked before it returns."""
    thresholds = crew.thresholds(full_length=full_length)
    began = time.monotonic()
    try:
        with inject(one, crew.sandbox, thresholds=thresholds) as injected:
            service = crew.service(injected, thresholds)
            began = time.monotonic()
            labels = {"service": "app", "drill": one.id, **injected.labels}
            body = alertmanager_body(crew.runbook, labels, datetime.now(UTC), public_url=service.base_url)
            limit = crew.runbook.timeout_seconds + _SLACK_SECONDS
            result = service.wait_for(service.fire(body), seconds=limit)
            seconds = time.monotonic() - began
    except SandboxError as error:
        log.warning("drill failed", fault=one.id, reason=str(error))
        return failed(one, runbook=crew.runbook.name, seconds=time.monotonic() - began, problem=str(error))
    score = judge(one, injected.named, result, runbook=crew.runbook.name, seconds=seconds)
    if not score.passed:
        log.warning("drill failed", fault=one.id, problems=list(score.problems))
    return score
