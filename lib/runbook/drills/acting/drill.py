"""Runs drills of actions against the service: over HTTP, as a person does who decides, with nobody else in between."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from runbook import catalog
from runbook.actions.plan import Plan, Refused, plan_of
from runbook.drills.acting.case import Case, Place, Scene
from runbook.drills.crew import Crew, thresholds_of
from runbook.drills.report import report_of
from runbook.drills.service import Service
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import FaultPlan, inject, plan, systems
from runbook.sandbox.sandbox import System

log = structlog.get_logger(__name__)

LEFT_ALONE = "left alone"
"""What becomes of targets that somebody else has changed."""
_LOOKS, _BETWEEN_SECONDS = 5, 5.0
"""What looks back over the last seconds needs them, before it can see that it is over."""
_SECTIONS: Mapping[str, Mapping[str, Any]] = {"actions": {"cooldown_minutes": 0}}
"""One drill after the other acts on the same targets."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How far an action came."""

    #: What became of the symptom, or :data:`LEFT_ALONE`; empty = it did not come so far.
    found: str = ""
    #: Whether it was put back; ``None`` = it cannot be.
    undone: bool | None = None
    #: What is not as it should be, in words.
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ActionScore:
    """How the drill of one action went."""

    case: Case
    #: Whether somebody else changed the targets between plan and apply.
    drifted: bool
    outcome: Outcome
    seconds: float

    @property
    def expected(self) -> str:
        return LEFT_ALONE if self.drifted else self.case.verdict

    @property
    def passed(self) -> bool:
        return not self.outcome.problems

    def as_dict(self) -> dict[str, Any]:
        """The form of ``drill --actions --json``."""
        shown = {
            "runbook": self.case.runbook, "fault": self.case.fault, "action": self.case.kind, "drifted": self.drifted,
            "expected": self.expected, "found": self.outcome.found, "undone": self.outcome.undone,
            "seconds": round(self.seconds, 2), "passed": self.passed,
        }  # fmt: skip
        return shown if self.passed else shown | {"problems": list(self.outcome.problems)}


def run_action_drills(cases: Sequence[Case], *, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Drill these actions, each twice: as planned, and with targets that somebody else changes before it is applied.

    Returns
    -------
    dict
        ``{results, passed, failed, skipped}``, as ``drill --actions --json`` prints it.

    Raises
    ------
    SandboxError
        The sandbox itself does not work.
    """
    tell = progress or (lambda line: None)
    by_systems: dict[tuple[System, ...], list[tuple[Case, catalog.Runbook, FaultPlan]]] = {}
    skipped = []
    for case in cases:
        runbook = catalog.load(case.runbook)
        one = plan(case.fault, causes=runbook.causes, **case.sizes)
        if lacking := one.missing() or case.missing():
            skipped.append({"fault": case.id, "reason": lacking})
        else:
            by_systems.setdefault(systems(runbook), []).append((case, runbook, one))
    scores: list[ActionScore] = []
    for needed, group in by_systems.items():
        with (
            tempfile.TemporaryDirectory(prefix="runbook-drill-") as place,
            Sandbox(Path(place) / "sandbox", systems=needed, owned=True) as sandbox,
            ExitStack() as services,
        ):
            crew = Crew(sandbox, Path(place), services, sections=_SECTIONS, token=secrets.token_urlsafe(24))
            for case, runbook, one in group:
                for drifted in (False, True) if case.drift else (False,):
                    tell(f"{case.id}: {one.title}{', and somebody else is quicker' if drifted else ''}")
                    scores.append(_drill(crew, case, runbook, one, drifted=drifted))
    return report_of(scores, skipped)


def _drill(crew: Crew, case: Case, runbook: catalog.Runbook, one: FaultPlan, *, drifted: bool) -> ActionScore:
    """Inject, prepare, fire, act; the fault is healed and that is checked before it returns."""
    thresholds = thresholds_of(runbook, {**one.scaled, **case.scaled})
    began, outcome = time.monotonic(), Outcome()
    try:
        with (
            case.prepared(crew.sandbox) as sections,
            inject(one, crew.sandbox, thresholds=thresholds) as injected,
        ):
            place = Place(sandbox=crew.sandbox, injected=injected, sections=sections or {})
            way = _Way(case, runbook, crew, place, crew.service(runbook, injected, thresholds, place.sections))
            outcome = way.drifted() if drifted else way.whole()
    except (SandboxError, Refused) as error:
        outcome = replace(outcome, problems=(*outcome.problems, str(error)))
    score = ActionScore(case=case, drifted=drifted, outcome=outcome, seconds=time.monotonic() - began)
    if not score.passed:
        log.warning("drill failed", action=case.id, drifted=drifted, problems=list(outcome.problems))
    return score


@dataclass(frozen=True)
class _Way:
    """The way of one action from its proposal on."""

    case: Case
    runbook: catalog.Runbook
    crew: Crew
    place: Place
    service: Service

    def whole(self) -> Outcome:
        """Plan, approve, apply, verify, undo."""
        action, made = self._approved()
        problems = _not_done(self.service.act(action, "apply")["effects"], "applied")
        verified = self._verified(action)
        verdict = verified["verdict"]
        if (verdict, verified["holds"]) != (self.case.verdict, self.case.holds):
            problems += (f"{verdict}, not {self.case.verdict}: {verified['said']}; {verified['effect']}",)
        if not made.reversible:
            return Outcome(found=verdict, problems=problems)
        not_undone = _not_done(self.service.act(action, "undo")["effects"], "undone")
        return Outcome(found=verdict, undone=not not_undone, problems=problems + not_undone)

    def drifted(self) -> Outcome:
        """Plan, approve, and let somebody else be quicker: nothing may be done."""
        assert self.case.drift is not None
        action, made = self._approved()
        with self.case.drift(Scene(**vars(self.place), plan=made)):
            try:
                effects = self.service.act(action, "apply")["effects"]
            except Refused:
                effects = []
        done = tuple(f"{one['target']} was changed all the same: {one['said']}" for one in effects if one["done"])
        return Outcome(found="" if done else LEFT_ALONE, problems=done)

    def _approved(self) -> tuple[str, Plan]:
        """The first proposal of the kind, or what a person orders, planned and approved."""
        result = self.crew.diagnosed(self.runbook, self.place.injected, self.service)
        action = self._ordered(result) if self.case.wanted else self._proposed(result)
        self.case.meanwhile(self.place)
        made = plan_of(self.service.act(action, "plan"))
        self.service.act(action, "approve", {"plan": made.digest})
        return action, made

    def _ordered(self, result: Mapping[str, Any]) -> str:
        assert self.case.wanted is not None
        return self.service.order(result["run_id"], self.case.kind, self.case.wanted(self.place))

    def _proposed(self, result: Mapping[str, Any]) -> str:
        proposed = self.service.proposed(result["run_id"])
        action = next((one["id"] for one in proposed if one["kind"] == self.case.kind), None)
        if action is None:
            kinds = ", ".join(one["kind"] for one in proposed) or "nothing"
            raise SandboxError(f"{self.case.kind} was not proposed, but {kinds}; the run is {result['outcome']}")
        return str(action)

    def _verified(self, action: str) -> dict[str, Any]:
        for look in range(_LOOKS):
            if look:
                time.sleep(_BETWEEN_SECONDS)
            verified = self.service.act(action, "verify")
            if (verified["verdict"], verified["holds"]) == (self.case.verdict, self.case.holds):
                break
        return verified


def _not_done(effects: Sequence[Mapping[str, Any]], how: str) -> tuple[str, ...]:
    return tuple(f"{one['target']} was not {how}: {one['said']}" for one in effects if not one["done"])
