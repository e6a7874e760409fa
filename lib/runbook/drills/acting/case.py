"""What a drill of an action is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

from runbook.actions.plan import Plan, Target, Verdict
from runbook.errors import SandboxError
from runbook.sandbox import laid_over
from runbook.sandbox.faults.registry import find_program
from runbook.settings import Settings, from_plain

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox
    from runbook.sandbox.faults import Injected


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the fault is."""

    sandbox: Sandbox
    injected: Injected
    #: What :attr:`Case.prepared` gave, by section.
    sections: Sections


@dataclass(frozen=True, kw_only=True)
class Scene(Place):
    """What a drift is given: where the fault is, and what is planned."""

    plan: Plan

    @property
    def settings(self) -> Settings:
        """How one gets to the systems, with what the fault needs."""
        return from_plain(laid_over(self.sandbox.settings(), self.injected.settings, self.sections))

    @property
    def target(self) -> Target:
        """The only one."""
        (target,) = self.plan.draft.targets
        return target

    def identities(self, name: str) -> list[Any]:
        """That part of each target's identity."""
        return [target.identity[name] for target in self.plan.draft.targets]


Sections = Mapping[str, Mapping[str, Any]]
"""Settings, by section."""
Drift = Callable[[Scene], AbstractContextManager[object]]
"""Changes the planned targets as somebody else would who is quicker; what holds when it ends is what he left.

Raises :class:`runbook.errors.SandboxError` in the end where that is not so any more.
"""
Preparation = Callable[["Sandbox"], AbstractContextManager[Sections | None]]
"""Gives the settings that the drill needs besides."""
Wanted = Callable[[Place], Mapping[str, Any]]
"""What a person orders: the target, as far as he says it."""
Look = Callable[[], object]
"""Tells how the targets are."""


def drift(change: Callable[[Scene], Look]) -> Drift:
    """A drift of what changes the targets and gives the look at them by which it is seen whether that holds."""

    @contextmanager
    @wraps(change)
    def drifting(scene: Scene) -> Iterator[None]:
        look = change(scene)
        left = look()
        yield
        if (now := look()) != left:
            raise SandboxError(f"somebody else left {left}, and now it is {now}")

    return drifting


def _as_it_is(place: Place) -> None:
    return


def _nothing(sandbox: Sandbox) -> AbstractContextManager[Sections | None]:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of action on one fault."""

    kind: str
    runbook: str
    fault: str
    #: What becomes of the symptom, by the run that verifies.
    verdict: Verdict
    drift: Drift | None = None
    #: Sizes of the fault.
    sizes: Mapping[str, Any] = field(default_factory=dict)
    #: Thresholds of the runbook, beside those that the fault scales.
    scaled: Mapping[str, Any] = field(default_factory=dict)
    #: What the sandbox needs for it before the fault is injected.
    prepared: Preparation = _nothing
    #: What a person orders, where no run proposes it.
    wanted: Wanted | None = None
    #: Whether what was changed is so afterwards; ``None`` = the system does not tell.
    holds: bool | None = True
    #: Programs with their Debian packages, beside those of the fault.
    programs: Mapping[str, str] = field(default_factory=dict)
    #: What happens between the run and the plan: somebody heals the cause, a client leaves a slot.
    meanwhile: Callable[[Place], object] = _as_it_is

    def missing(self) -> str | None:
        """Why it cannot be drilled on this machine, beside what its fault lacks; ``None`` when it can."""
        lacking = next((one for one in self.programs.items() if find_program(one[0]) is None), None)
        return f"needs {lacking[0]} (Debian package {lacking[1]})" if lacking else None

    @property
    def id(self) -> str:
        return f"{self.kind}@{self.fault}"
