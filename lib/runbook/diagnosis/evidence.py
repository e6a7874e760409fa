"""Makes evidence: a value held against a threshold, *unknown* when there is no value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.result import STRONG, Answer, Evidence


@dataclass(frozen=True)
class Bench:
    """Where the evidence of one cause is weighed: knows the cause's id and the readings."""

    cause: str
    readings: Readings

    def weigh(
        self,
        slug: str,
        label: str,
        value: Any,
        *,
        rests_on: Sequence[str],
        at_least: float | None = None,
        below: float | None = None,
        unit: str = "",
        weight: int = STRONG,
        otherwise: Answer = "neutral",
        reason: str = "",
        share: bool = False,
    ) -> Evidence:
        """``value`` against a threshold.

        Parameters
        ----------
        value
            ``None`` is unknown.
        at_least, below
            The threshold; one of the two.
        otherwise
            What a known value says that does not reach it.
        reason
            Why it is unknown, when the readings themselves do not tell.
        share
            Value and threshold are shares 0–1, to be shown as percent.
        """
        answer: Answer
        if value is None:
            answer = "unknown"
        elif (at_least is not None and value >= at_least) or (below is not None and value < below):
            answer = "supports"
        else:
            answer = otherwise
        if share:
            unit = "%"
            value = round(100 * value, 1) if value is not None else None
            at_least, below = (None if t is None else 100 * t for t in (at_least, below))
        threshold = f"≥ {at_least:g}" if at_least is not None else f"< {below:g}" if below is not None else ""
        return self._item(slug, label, value, answer, rests_on, threshold, unit, weight, reason)

    def gate(self, slug: str, label: str, value: Any, **how: Any) -> Evidence:
        """Necessary evidence: a known value that does not reach the threshold refutes."""
        return self.weigh(slug, label, value, otherwise="refutes", **how)

    def fact(
        self,
        slug: str,
        label: str,
        holds: bool | None,
        *,
        rests_on: Sequence[str],
        value: Any = None,
        unit: str = "",
        weight: int = STRONG,
        otherwise: Answer = "neutral",
        reason: str = "",
    ) -> Evidence:
        """Something that holds or does not; ``None`` is unknown."""
        answer: Answer = "unknown" if holds is None else "supports" if holds else otherwise
        shown = value if value is not None else holds
        return self._item(slug, label, shown, answer, rests_on, "", unit, weight, reason)

    def _item(
        self,
        slug: str,
        label: str,
        value: Any,
        answer: Answer,
        rests_on: Sequence[str],
        threshold: str,
        unit: str,
        weight: int,
        reason: str,
    ) -> Evidence:
        if isinstance(value, float):
            value = round(value, 3)
        return Evidence(
            id=f"{self.cause}.{slug}",
            label=label,
            value=value,
            unit=unit,
            threshold=threshold,
            reading=answer,
            weight=weight,
            source=", ".join(rests_on),
            measured_at=self.readings.measured_at(rests_on),
            reason=(reason or self.readings.why_unknown(rests_on)) if answer == "unknown" else "",
        )
