"""Kinds that set one value of one thing: compared before it is set, and once more before it is put back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from runbook.actions.kinds import Kind
from runbook.actions.plan import Effect, Plan, Target


class OneValue(Kind):
    """A kind whose plan has one target, with the value before and after."""

    @abstractmethod
    def set(self, target: Target, *, expected: Any, value: Any) -> Effect:
        """Set the value where it is still ``expected``, and the target still the same; else leave it alone."""

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        return [self.set(target, expected=target.before, value=target.after)]

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        (target,) = plan.draft.targets
        return [self.set(target, expected=target.after, value=target.before)]
