"""Actions over HTTP: who may read, who may act, and how a refusal is told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.web.service import TOKENS, Service, bearer, webhook


def proposed(service: Service, headers: dict[str, str]) -> str:
    """The id of an action that a run has proposed."""
    service.client.headers.update(headers)
    (alert,) = service.client.post("/alerts/alertmanager", json=webhook(fingerprint="acts")).json()["alerts"]
    service.ended(alert["run_id"])
    (action,) = service.client.get("/api/actions", params={"run": alert["run_id"]}).json()["actions"]
    assert (action["state"], action["plan"], action["log"]) == ("proposed", None, [])
    assert action["title"] == "Terminate 24 leaked sessions"
    return str(action["id"])


def test_what_only_hands_can_do_is_refused_and_says_so(guarded: Service) -> None:
    action = proposed(guarded, bearer("admin"))
    assert guarded.client.get(f"/api/actions/{action}").json()["can_be_applied"] is False
    answer = guarded.client.post(f"/api/actions/{action}/plan")
    assert (answer.status_code, "own hands" in answer.json()["error"]) == (409, True)


@pytest.mark.parametrize(("role", "read", "act"), [("alerts", 403, 403), ("viewer", 200, 403), ("operator", 200, 403),
                                                   ("admin", 200, 409)])  # fmt: skip
@pytest.mark.parametrize("step", ["plan", "apply", "verify", "undo"])
def test_only_who_may_act_acts(guarded: Service, role: str, read: int, act: int, step: str) -> None:
    action = proposed(guarded, bearer("admin"))
    headers = bearer(role)
    assert guarded.client.get(f"/api/actions/{action}", headers=headers).status_code == read
    assert guarded.client.post(f"/api/actions/{action}/{step}", headers=headers).status_code == act


def test_nobody_acts_where_no_token_is_configured(service: Service) -> None:
    action = proposed(service, {})
    answer = service.client.post(f"/api/actions/{action}/plan")
    assert (answer.status_code, "nobody acts over HTTP without one" in answer.json()["error"]) == (403, True)


def ordered(service: Service, run: str, kind: str, *targets: Any, role: str = "admin", **more: Any) -> Any:
    body = {"run": run, "kind": kind, "targets": targets} | more
    return service.client.post("/api/actions", json=body, headers=bearer(role))


def test_a_person_orders_what_no_run_proposed(guarded: Service) -> None:
    run = proposed(guarded, bearer("admin")).partition(":")[0]
    answer = ordered(guarded, run, "alertmanager.silence", {"minutes": 30})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["ordered_by"], made["state"], made["can_be_applied"]) == ("token:admin", "proposed", True)
    labels = {"alertname": "ConnectionsHigh", "service": "api", "severity": "page"}
    assert made["targets"] == [{"labels": labels, "minutes": 30}]
    assert [entry["event"] for entry in made["log"]] == ["ordered"]
    listed = guarded.client.get("/api/actions", params={"run": run}).json()["actions"]
    assert [one["ordered_by"] for one in listed] == ["", "token:admin"]
    assert guarded.client.get(f"/api/actions/{made['id']}").json() == made
    refused = guarded.client.post(f"/api/actions/{made['id']}/plan")
    assert (refused.status_code, "alertmanager.url is not set" in refused.json()["error"]) == (409, True)


def test_only_who_may_act_orders(guarded: Service, service: Service) -> None:
    run = proposed(guarded, bearer("admin")).partition(":")[0]
    statuses = [ordered(guarded, run, "reload", role=role).status_code for role in ("alerts", "viewer", "operator")]
    assert statuses == [403, 403, 403]
    assert service.client.post("/api/actions", json={"run": run, "kind": "reload"}).status_code == 403


def test_an_order_that_does_not_fit_is_refused(guarded: Service) -> None:
    run = proposed(guarded, bearer("admin")).partition(":")[0]
    for answer, status, said in (
        (ordered(guarded, "20261123T072513042-k3f9qa7m", "reload"), 404, "no run"),
        (ordered(guarded, run, "silence", {"minute": 5}), 422, "knows no minute"),
        (ordered(guarded, run, "nothing"), 422, "no action 'nothing'"),
        (ordered(guarded, run, "aws.scale"), 409, "never ordered"),
        (ordered(guarded, run, "reload", "x"), 422, "not an order"),
        (ordered(guarded, run, "reload", cause="P01"), 422, "not an order"),
    ):
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("action", "status"), [("nothing", 404), ("20261123T072513042-k3f9qa7m:P01.x", 404), ("a%2Fb:c", 404)]
)
def test_what_nobody_proposed_is_not_found(guarded: Service, action: str, status: int) -> None:
    answer = guarded.client.get(f"/api/actions/{action}", headers=bearer("admin"))
    assert answer.status_code == status


def test_an_approval_names_a_plan(guarded: Service) -> None:
    action = proposed(guarded, bearer("admin"))
    for body in ({}, {"plan": "x"}, {"plan": "0" * 64, "more": 1}):
        assert guarded.client.post(f"/api/actions/{action}/approve", json=body).status_code == 422
    answer = guarded.client.post(f"/api/actions/{action}/approve", json={"plan": "0" * 64})
    assert (answer.status_code, "no plan to approve" in answer.json()["error"]) == (409, True)
    assert TOKENS["admin"] not in guarded.log.read_text()
