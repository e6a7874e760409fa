"""A way that is walked layer by layer, as a ladder with the first failing rung marked: what a picture is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RungState = Literal["passes", "fails", "unknown", "none"]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One layer. ``none`` = there is no such layer on this way; ``unknown`` = not come to, or not to be told."""

    layer: str
    state: RungState
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The way from one side."""

    vantage: str
    target: str
    rungs: tuple[Rung, ...]
    #: Causes found at the first layer that fails.
    causes: tuple[str, ...] = ()
