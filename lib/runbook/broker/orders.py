"""What a cell orders, and how the order is told to its card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from runbook.broker.publish import RunId

if TYPE_CHECKING:
    from runbook.actions.plan import Order


class Wish(BaseModel):
    """What a person orders in a cell, about a run that was handed in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: RunId
    kind: str = Field(max_length=64)
    targets: list[dict[str, Any]] = []
    title: str = ""
    #: The file of the notebook, where it is known: whose working copy it is says which alert it is about.
    notebook: Path | None = None


def as_proposed(order: Order) -> dict[str, Any]:
    """An order as the actions of a result document are told."""
    return {"id": order.id.partition(":")[2], "kind": order.kind, "title": order.title, "cause": order.cause,
            "targets": list(order.targets), "preconditions": [], "by_hand": order.by_hand, "undo": order.undo,
            "needs": order.needs, "state": "ordered"}  # fmt: skip
