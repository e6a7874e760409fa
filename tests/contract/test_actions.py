"""What the kinds of action ask of a vendor is what its published specification allows, bodies included."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook import settings as settings_module
from runbook.actions.http_acting import ActingApi
from runbook.actions.kinds import kind_named
from runbook.actions.plan import Plan
from runbook.sandbox.vendors.pagerduty import Incident
from tests.contract.simulator import Simulator
from tests.contract.specification import joined, specification
from tests.integration.actions.desk import order

NOW = datetime.now(UTC)
INCIDENT = Incident(number=501, title="Error rate", created_at=NOW)
GOOD, BAD = "a" * 40, "c" * 40
HISTORY: dict[str, dict[str, Any]] = {
    "pagerduty": {"incidents": [{"number": 501, "title": "Error rate", "created_at": NOW}]},
    "github": {
        "commits": [{"sha": BAD, "at": NOW - timedelta(hours=2)}, {"sha": GOOD, "at": NOW - timedelta(hours=30)}],
        "deployments": [
            {"id": 12, "sha": BAD, "created_at": NOW - timedelta(hours=1)},
            {"id": 11, "sha": GOOD, "created_at": NOW - timedelta(hours=29), "state": "inactive"},
        ],
        "workflow_runs": [
            {"id": 102, "sha": BAD, "created_at": NOW - timedelta(hours=1)},
            {"id": 101, "sha": GOOD, "created_at": NOW - timedelta(hours=29)},
        ],
    },
}
CASES = {
    "a rollback by its workflow": ("github", "deploy.rollback", {"from": BAD, "to": GOOD}, {}),
    "a rollback by a run": ("github", "deploy.rollback", {"from": BAD}, {"rollback_workflow": ""}),
    "an acknowledgement": ("pagerduty", "pagerduty.acknowledge", {"incident_id": INCIDENT.identity}, {}),
    "a note": ("pagerduty", "pagerduty.note", {"incident_id": INCIDENT.identity}, {}),
    "a message": ("discord", "discord.post", {"content": "It is being worked on"}, {}),
}
UNPUBLISHED = re.compile(r"/repos/[^/]+/[^/]+")
"""Of the repository itself our copy of the schema says nothing."""


@pytest.mark.parametrize("name", CASES)
def test_a_kind_asks_what_the_specification_allows(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    vendor, kind, target, changed = CASES[name]
    simulator.vendors.change(vendor, **HISTORY.get(vendor, {}))
    bodies: list[Any] = []
    send = ActingApi.send

    def noted(self: ActingApi, method: Any, path: str, body: Any = None, params: Any = None) -> Any:
        bodies.append(body)
        return send(self, method, path, body, params)

    monkeypatch.setattr(ActingApi, "send", noted)
    _there_and_back(settings_module.from_plain({vendor: simulator.settings[vendor] | changed}), kind, target)
    rules, prefix = specification(vendor), "/api" if vendor == "discord" else ""
    complaints = []
    for one in simulator.vendors.requests(vendor):
        path = one["path"].removeprefix(prefix)
        if UNPUBLISHED.fullmatch(path) is None:
            body = bodies.pop(0) if one["method"] != "GET" else None
            complaints += rules.complaints_of_request(one["method"], path, one["query"], body)
    assert not complaints, joined(complaints)
    assert not bodies


def _there_and_back(settings: settings_module.Settings, kind: str, target: dict[str, Any]) -> None:
    asked = order(kind, [target])
    found = kind_named(kind)
    assert found is not None
    acting = found(settings)
    plan = Plan(action=asked.id, kind=kind, title=asked.title, runbook=asked.runbook, cause=asked.cause,
                tier=asked.tier, draft=acting.draft(asked), planner="person:ada", planned_at=NOW,
                expires_at=NOW + timedelta(minutes=5))  # fmt: skip
    effects = acting.apply(plan)
    assert [effect.done for effect in effects] == [True]
    assert acting.holds(plan, effects)[0] is True
    if plan.reversible:
        assert [effect.done for effect in acting.undo(plan, effects)] == [True]
