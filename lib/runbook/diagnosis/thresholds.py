"""Thresholds of a runbook, as its parameters set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What the thresholds of every runbook have in common: each has a default, and a parameter of its name sets it."""

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """The thresholds that these parameters set; anything else keeps its default."""
        names = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in parameters.items() if name in names})
