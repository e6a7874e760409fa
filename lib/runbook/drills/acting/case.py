"""What a drill of an action is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runbook.actions.plan import Plan, Verdict

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox
    from runbook.sandbox.faults import Injected


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a drill's own steps are given: where the fault is, and what is planned."""

    sandbox: Sandbox
    injected: Injected
    plan: Plan


Drift = Callable[[Scene], AbstractContextManager[object]]
"""Changes the planned targets as somebody else would who is quicker; what holds when it ends is what he left.

Raises :class:`runbook.errors.SandboxError` in the end where that is not so any more.
"""
Preparation = Callable[["Sandbox"], AbstractContextManager[object]]


def _nothing(sandbox: Sandbox) -> AbstractContextManager[object]:
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
    #: What the sandbox needs for it before the fault is injected.
    prepared: Preparation = _nothing

    @property
    def id(self) -> str:
        return f"{self.kind}@{self.fault}"
