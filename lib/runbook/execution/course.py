"""How an execution goes: what is told while it goes, and what is known when it is over. Free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from runbook.result import RunState

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One cell began or ended."""

    #: Number of the code cell, from 1; the same as its ``In [n]``.
    cell: int
    #: How many code cells there are.
    cells: int
    #: The heading it stands under.
    title: str
    state: Literal["running", "ok", "failed"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What went wrong, and at which cell."""

    #: ``12 · Lock waits``; empty when it was between cells.
    cell: str
    #: Name of the exception, or ``KernelDied``, ``DeadlineExceeded``, ``Cancelled``, ``Interrupted``, ``CellTimeout``.
    name: str
    message: str

    def as_dict(self) -> dict[str, str]:
        return {"cell": self.cell, "name": self.name, "message": self.message}


@dataclass(kw_only=True)
class Course:
    """How an execution went, filled in while it goes."""

    notebook: NotebookNode | None = None
    #: What ended it early, if anything did.
    ended: Failure | None = None
    #: The state that this end gives the run.
    state: RunState = "succeeded"
    #: Cells that raised; the ones after them were executed all the same.
    raised: list[Failure] = field(default_factory=list)
