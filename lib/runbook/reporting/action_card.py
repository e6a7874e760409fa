"""What a card of an action says above and below its buttons: the proposal, the plan, what became of it.

HTML fragments only; every value is escaped. The buttons are :mod:`runbook.cards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbook.reporting.fragment import template
from runbook.reporting.page import actions

VERDICTS = {
    "fixed": "Fixed",
    "unchanged": "Not fixed: unchanged",
    "worse": "Not fixed: worse",
    "unknown": "Unknown whether it is fixed",
}
"""What became of the symptom, in words."""
STATES = {
    "proposed": "proposed",
    "approved": "approved",
    "expired": "the plan has expired",
    "applied": "applied, not verified yet",
    "verified": "verified",
    "undone": "undone",
    "refused": "nothing was changed",
    "failed": "failed",
}


def proposal_html(action: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The head of a card: title, how far it has come, the targets as the run saw them, what to copy."""
    (entry,) = actions([action])
    return template("card.html.j2").render(part="proposal", action=entry, told=told, state_word=_state(told)).strip()


def progress_html(told: Mapping[str, Any]) -> str:
    """The foot of a card: the newest plan, and what was done and found since."""
    plan = told.get("plan")
    draft = plan["draft"] if plan else None
    return (
        template("card.html.j2")
        .render(
            part="progress",
            told=told,
            plan=plan,
            draft=draft,
            targets=[{"target": t["name"], "now": t["shown"], "then": t["change"]} for t in draft["targets"]]
            if draft
            else [],
            effects=_effects(told),
            verdict=VERDICTS.get((told.get("verified") or {}).get("verdict", ""), ""),
        )
        .strip()
    )


def _state(told: Mapping[str, Any]) -> str:
    state = str(told.get("state", "proposed"))
    verified = told.get("verified")
    if state == "verified" and verified:
        return VERDICTS.get(verified["verdict"], state).lower()
    if state == "proposed" and told.get("ordered_by"):
        return "ordered, nothing is changed yet"
    return STATES.get(state, state)


def _effects(told: Mapping[str, Any]) -> list[dict[str, str]]:
    """What became of each target by the newest step that changed something."""
    newest = {"undone": "undone", "refused": "refused"}.get(str(told.get("state")), "applied")
    detail = told.get(newest) or {}
    return [
        {"target": e["target"], "done": "yes" if e["done"] else "left alone", "what": e["said"]}
        for e in detail.get("effects") or []
    ]
