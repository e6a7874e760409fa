"""What an action is before it is done: the order that a run's proposal makes, and the plan that is approved.

Pure data. A plan names its targets one by one, as they are now; its digest is what an approval is bound to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from runbook.diagnosis.verdict import found
from runbook.errors import RunbookError
from runbook.result import Precondition, Tier

Verdict = Literal["fixed", "unchanged", "worse", "unknown"]
"""What became of the symptom."""
MAX_TARGETS = 10
"""No action touches more than these at once. Source: reference fault model, section 2."""


class Refused(RunbookError):
    """The action may not be taken, or not now; the message says why, the remedy what would have to be so."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Order:
    """One proposal of one run, as it stands in its result document; or what a person ordered about that run."""

    #: ``<run id>:<action id>``
    id: str
    run_id: str
    runbook: str
    parameters: Mapping[str, Any]
    cause: str
    #: Tier of the cause: how sure the run was.
    tier: str
    kind: str
    title: str
    targets: Sequence[Mapping[str, Any]]
    by_hand: str
    undo: str
    needs: str | None
    #: The symptom as the run measured it.
    symptom: Mapping[str, Any]
    #: Who ordered it; empty = the run proposed it.
    ordered_by: str = ""

    @property
    def service(self) -> str:
        return str(self.parameters.get("service") or "")


def orders(result: Mapping[str, Any]) -> list[Order]:
    """The proposals of a result document, in its order."""
    tiers = {entry["cause"]: entry["tier"] for entry in result.get("verdict") or []}
    return [
        Order(
            id=f"{result['run_id']}:{action['id']}",
            run_id=result["run_id"],
            runbook=result["runbook"],
            parameters=result.get("parameters") or {},
            cause=action["cause"],
            tier=tiers.get(action["cause"], ""),
            kind=action["kind"],
            title=action["title"],
            targets=action.get("targets") or [],
            by_hand=action.get("by_hand") or "",
            undo=action.get("undo") or "irreversible",
            needs=action.get("needs"),
            symptom=result.get("symptom") or {},
        )
        for action in result.get("actions") or []
    ]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing that will be changed: enough to tell it from any other, and whether it is still the same."""

    #: What a person types to confirm it, and what a second action on it is recognised by.
    name: str
    identity: Mapping[str, Any]
    #: What it is now, in words.
    shown: str
    #: What will be done to it, in words.
    change: str
    #: The value that will be changed, where there is one: undoing puts it back.
    before: Any = None
    after: Any = None


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a kind of action finds when it looks at its targets."""

    targets: Sequence[Target]
    risks: Sequence[str] = ()
    preconditions: Sequence[Precondition] = ()
    #: How it is taken back, or ``irreversible`` and why.
    undo: str = "irreversible"
    #: Targets of the proposal that are left alone, and why.
    left_alone: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done if somebody approves it."""

    action: str
    kind: str
    title: str
    runbook: str
    cause: str
    tier: str
    draft: Draft
    planner: str
    planned_at: datetime
    #: After this moment it has to be planned again: what is there may have changed.
    expires_at: datetime
    digest: str = field(default="")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, the digest among them."""
        plain = asdict(self)
        plain["planned_at"], plain["expires_at"] = self.planned_at.isoformat(), self.expires_at.isoformat()
        return plain

    @property
    def confirmation(self) -> str:
        """What a person types to confirm it: the name of its target, of several the first and how many follow."""
        names = [target.name for target in self.draft.targets]
        return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"

    @property
    def reversible(self) -> bool:
        return not self.draft.undo.startswith("irreversible")


def sealed(plan: Plan) -> Plan:
    """The plan with its digest: SHA-256 of everything that it says."""
    from dataclasses import replace

    said = {name: value for name, value in plan.as_dict().items() if name != "digest"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return replace(plan, digest=hashlib.sha256(text.encode()).hexdigest())


def plan_of(plain: Mapping[str, Any]) -> Plan:
    """The plan that :meth:`Plan.as_dict` told."""
    draft = plain["draft"]
    return Plan(
        **{name: value for name, value in plain.items() if name not in ("draft", "planned_at", "expires_at")},
        planned_at=datetime.fromisoformat(plain["planned_at"]),
        expires_at=datetime.fromisoformat(plain["expires_at"]),
        draft=Draft(
            **{name: value for name, value in draft.items() if name not in ("targets", "preconditions")},
            targets=[Target(**target) for target in draft["targets"]],
            preconditions=[Precondition(**one) for one in draft["preconditions"]],
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What became of one target."""

    target: str
    #: Whether it was changed; ``False`` = it was left alone.
    done: bool
    said: str
    #: Id of what came into being by it (a silence, a message, a run); empty = nothing did, or it is not known.
    made: str = ""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The symptom, measured anew by a run of the same runbook."""

    run_id: str
    label: str
    value: float | None
    unit: str
    breached: bool | None
    #: Causes and their tiers.
    tiers: Mapping[str, Tier]


def compared(order: Order, now: Measure) -> tuple[Verdict, str]:
    """What became of the symptom, in a word and in a sentence.

    Fixed is what is not there any more and whose cause is not found either. A symptom of which nobody knows whether it
    is there is no success. What a person ordered is for no cause: there the symptom alone decides.
    """
    before, label = order.symptom.get("value"), str(order.symptom.get("label") or now.label or "symptom")
    same = now.label in ("", label)  # a run shows what is worst, which may be another figure than before
    shown = f"{label}: {_figure(before)} before{',' if same else f'; {now.label}:'} {_figure(now.value)} now"
    still = found(now.tiers.get(order.cause, "excluded"))
    if now.breached is None:
        return "unknown", f"{shown}; nobody can tell whether the symptom is still there"
    if not now.breached:
        rest = f"; {order.cause} is still found" if still else ""
        return ("unchanged" if still else "fixed"), f"{shown}: the symptom is gone{rest}"
    worse = same and isinstance(before, int | float) and now.value is not None and now.value > 1.1 * before
    gone = "" if still or not order.cause else f"; {order.cause} is found no longer, {_others(now)}"
    return ("worse" if worse else "unchanged"), f"{shown}: the symptom is still there{gone}"


def _others(now: Measure) -> str:
    """The other causes that are found."""
    names = [cause for cause, tier in now.tiers.items() if found(tier)]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}" if names else "and no other cause is"


def _figure(value: Any) -> str:
    return "unknown" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)
