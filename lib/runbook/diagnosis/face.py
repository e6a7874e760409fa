"""One way in which a symptom shows: a symptom with several faces is there when any of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runbook.result import Symptom


@dataclass(frozen=True, kw_only=True)
class Face:
    """A measure held against its threshold. ``breached`` is ``None`` when it cannot be told."""

    label: str
    unit: str
    value: float | None
    threshold: float | None
    breached: bool | None
    peak: float | None = None

    @property
    def peaked(self) -> bool:
        """Whether it was there at any moment that the run saw."""
        return self.peak is not None and self.threshold is not None and self.peak >= self.threshold

    def symptom(self, breached: bool | None) -> Symptom:
        """The symptom as the report shows it by this face; ``breached`` speaks of all of them."""
        return Symptom(
            label=self.label,
            value=self.value,
            unit=self.unit,
            threshold=self.threshold,
            breached=breached,
            peak=self.value if self.peak is None else self.peak,
        )


def is_breached(faces: Sequence[Face]) -> bool | None:
    """Whether any face is breached; ``None`` when none is known to be, and one is unknown."""
    if any(face.breached for face in faces):
        return True
    return None if any(face.breached is None for face in faces) else False
