"""What the simulator answers is what the vendors' published specifications say they answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from runbook.sandbox.vendors.credentials import ACCOUNT, Credentials
from runbook.sandbox.vendors.discord import Discord
from runbook.sandbox.vendors.github import GitHub
from runbook.sandbox.vendors.mux import Mux
from runbook.sandbox.vendors.pagerduty import PagerDuty
from runbook.sandbox.vendors.sentry import Sentry
from runbook.sandbox.vendors.statuspage import StatusPage
from runbook.sandbox.vendors.stream import Stream
from tests.contract.simulator import Simulator
from tests.contract.specification import joined, specification

SPECIFIED = {
    "sentry": "sentry",
    "github": "github",
    "mux": "mux",
    "stream": "cloudflare",
    "pagerduty": "pagerduty",
    "discord": "discord",
    "status.stripe": "statuspage",
}
NOW = datetime.now(UTC)
SHA = "c0ffee0" * 5 + "c0ffe"
OLD = "badf00d" * 5 + "badf0"
#: A bad day at every vendor: what stands in the state only then must fit as well.
TROUBLE: dict[str, dict[str, Any]] = {
    "sentry": {
        "issues": [
            {
                "title": "TypeError: undefined is no function", "culprit": "charge in checkout",
                "count": 812, "users": 77, "substatus": "new", "level": "fatal",
                "first_seen": NOW - timedelta(minutes=9), "last_seen": NOW,
                "first_release": "api@9.9.9", "transaction": "/api/checkout", "exception_type": "TypeError",
                "exception_value": "undefined is no function", "frames": ["src/pay.ts:12 in charge", "node:internal"],
                "tags": {"server_name": "api-2"},
            },
        ],
        "releases": [
            {
                "version": "api@9.9.9", "created_at": NOW - timedelta(minutes=15), "new_issues": 1,
                "deploys": [{"finished_at": NOW - timedelta(minutes=10)}],
            },
        ],
    },
    "github": {
        "commits": [
            {"sha": SHA, "at": NOW - timedelta(minutes=20), "files": [{"filename": "a.ts", "status": "added"}]},
            {"sha": OLD, "at": NOW - timedelta(days=1), "message": "Second\n\nwith a body"},
        ],
        "deployments": [
            {"id": 7, "sha": SHA, "created_at": NOW - timedelta(minutes=12), "state": "failure", "ref": "v9.9.9"},
            {"id": 6, "sha": OLD, "created_at": NOW - timedelta(days=1), "state": "inactive"},
            {"id": 5, "sha": OLD, "created_at": NOW - timedelta(days=2), "state": "queued", "environment": "staging"},
        ],
        "workflow_runs": [
            {"id": 3, "sha": SHA, "created_at": NOW, "status": "in_progress", "conclusion": None},
            {"id": 2, "sha": SHA, "created_at": NOW - timedelta(hours=1), "conclusion": "failure"},
        ],
    },
    "mux": {
        "assets": [
            {
                "id": "a1", "status": "errored", "created_at": NOW, "passthrough": "video:1", "creator": "creator-7",
                "errors": {"type": "invalid_input", "messages": ["No video track."]}, "upload_id": "u1",
            },
            {"id": "a2", "status": "preparing", "created_at": NOW - timedelta(hours=1)},
            {"id": "a3", "created_at": NOW - timedelta(hours=2)},
        ],
        "uploads": [
            {"id": "u1", "status": "errored", "error": {"type": "invalid", "message": "bad"}, "asset_id": "a1"},
            {"id": "u2", "cors_origin": "https://app.example"},
        ],
    },
    "stream": {
        "videos": [
            {
                "uid": "6b9e68b07dfee8cc2d116e4c51d6a957", "created": NOW, "state": "error", "name": "small.mp4",
                "error_code": "ERR_NON_VIDEO", "error_text": "The file was not recognized as a valid video file.",
                "creator": "creator-7",
            },
            {"uid": "0" * 32, "created": NOW - timedelta(hours=1), "state": "inprogress", "percent": 39},
        ],
        "token_status": "expired", "token_expires_on": NOW,
    },
    "status.stripe": {
        "components": [{"name": "API", "status": "major_outage"}],
        "incidents": [{"name": "API errors", "impact": "critical", "created_at": NOW - timedelta(minutes=30)}],
        "maintenances": [
            {
                "name": "Database work", "status": "in_progress",
                "scheduled_for": NOW, "scheduled_until": NOW + timedelta(hours=1),
            },
        ],
    },
    "pagerduty": {
        "incidents": [{"number": 501, "title": "Error rate", "created_at": NOW - timedelta(minutes=8), "key": "k1"}],
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request, and the documented operation that it is."""

    vendor: str
    method: str
    path: str
    template: str
    body: Any = None
    status: int = 200
    query: str = ""


def _cases() -> list[Case]:
    found = []
    organization = "/api/0/organizations/{organization_id_or_slug}"
    for template, path, query in (
        ("/issues/", "/issues/", "project=api&environment=production&statsPeriod=1h&query=is:unresolved&sort=freq"),
        ("/issues/{issue_id}/", "/issues/ISSUE/", ""),
        ("/issues/{issue_id}/events/", "/issues/ISSUE/events/", ""),
        ("/issues/{issue_id}/events/{event_id}/", "/issues/ISSUE/events/latest/", ""),
        ("/events/", "/events/", "field=release&field=count()&dataset=errors&statsPeriod=1h"),
        ("/events-timeseries/", "/events-timeseries/", "dataset=errors&yAxis=count()&statsPeriod=1h"),
        ("/releases/", "/releases/", "project=api"),
        ("/releases/{version}/deploys/", "/releases/RELEASE/deploys/", ""),
        ("/projects/", "/projects/", ""),
    ):
        found.append(Case(vendor="sentry", method="GET", path=f"/api/0/organizations/acme{path}",
                          template=organization + template, query=query))  # fmt: skip
    repository = "/repos/{owner}/{repo}"
    for template, path, query in (
        ("/deployments", "/deployments", "environment=production"),
        ("/deployments/{deployment_id}", "/deployments/DEPLOYMENT", ""),
        ("/deployments/{deployment_id}/statuses", "/deployments/DEPLOYMENT/statuses", ""),
        ("/actions/runs", "/actions/runs", "branch=main"),
        ("/actions/runs/{run_id}", "/actions/runs/RUN", ""),
        ("/commits", "/commits", "per_page=5"),
        ("/commits/{ref}", "/commits/main", ""),
        ("/compare/{basehead}", "/compare/BASE...HEAD", ""),
        ("/environments", "/environments", ""),
    ):
        found.append(Case(vendor="github", method="GET", path=f"/repos/acme/api{path}", template=repository + template,
                          query=query))  # fmt: skip
    found.append(Case(vendor="github", method="GET", path="/rate_limit", template="/rate_limit"))
    dispatch = {"ref": "main", "inputs": {"ref": "main"}, "return_run_details": True}
    for method, template, path, body, status in (
        ("GET", "/actions/workflows", "/actions/workflows", None, 200),
        ("POST", "/actions/workflows/{workflow_id}/dispatches", "/actions/workflows/rollback.yml/dispatches", dispatch,
         200),
        ("POST", "/actions/runs/{run_id}/rerun", "/actions/runs/DONE/rerun", None, 201),
    ):  # fmt: skip
        found.append(Case(vendor="github", method=method, path=f"/repos/acme/api{path}", body=body, status=status,
                          template=repository + template))  # fmt: skip
    asset, upload = "/video/v1/assets/{ASSET_ID}", "/video/v1/uploads/{UPLOAD_ID}"
    creation = {"input": [{"url": "https://bucket.example/v.mp4"}], "playback_policy": ["public"], "passthrough": "v:1"}
    for method, template, path, body, status in (
        ("GET", "/video/v1/assets", "/video/v1/assets", None, 200),
        ("POST", "/video/v1/assets", "/video/v1/assets", creation, 201),
        ("GET", asset, "/video/v1/assets/ASSET", None, 200),
        ("GET", f"{asset}/input-info", "/video/v1/assets/ASSET/input-info", None, 200),
        ("DELETE", asset, "/video/v1/assets/ASSET", None, 204),
        ("GET", "/video/v1/uploads", "/video/v1/uploads", None, 200),
        ("POST", "/video/v1/uploads", "/video/v1/uploads", {"cors_origin": "*", "timeout": 60}, 201),
        ("GET", upload, "/video/v1/uploads/UPLOAD", None, 200),
        ("PUT", f"{upload}/cancel", "/video/v1/uploads/UPLOAD/cancel", None, 200),
    ):
        found.append(Case(vendor="mux", method=method, path=path, template=template, body=body, status=status))
    stream = "/accounts/{account_id}/stream"
    for template, path in (
        (stream, f"/accounts/{ACCOUNT}/stream"),
        (f"{stream}/storage-usage", f"/accounts/{ACCOUNT}/stream/storage-usage"),
        (f"{stream}/{{identifier}}", f"/accounts/{ACCOUNT}/stream/VIDEO"),
        ("/user/tokens/verify", "/user/tokens/verify"),
    ):
        query = "include_counts=true&limit=10" if template == stream else ""
        found.append(Case(vendor="stream", method="GET", path=path, template=template, query=query))
    for name in (
        "summary", "status", "components", "incidents", "incidents/unresolved", "scheduled-maintenances",
        "scheduled-maintenances/upcoming", "scheduled-maintenances/active",
    ):  # fmt: skip
        path = f"/api/v2/{name}.json"
        found.append(Case(vendor="status.stripe", method="GET", path=path, template=path))
    event = {
        "routing_key": "ROUTING", "event_action": "trigger", "dedup_key": "d",
        "payload": {"summary": "s", "source": "runbook", "severity": "critical"},
    }  # fmt: skip
    change = {"routing_key": "ROUTING", "payload": {"summary": "runbook ran"}}
    for method, template, path, body, status in (
        ("GET", "/incidents", "/incidents", None, 200),
        ("GET", "/incidents/{id}", "/incidents/INCIDENT", None, 200),
        ("PUT", "/incidents/{id}", "/incidents/INCIDENT",
         {"incident": {"type": "incident_reference", "status": "acknowledged"}}, 200),
        ("POST", "/incidents/{id}/notes", "/incidents/INCIDENT/notes", {"note": {"content": "seen"}}, 200),
        ("GET", "/incidents/{id}/notes", "/incidents/INCIDENT/notes", None, 200),
        ("POST", "/v2/enqueue", "/v2/enqueue", event, 202),
        ("POST", "/v2/change/enqueue", "/v2/change/enqueue", change, 202),
    ):  # fmt: skip
        found.append(Case(vendor="pagerduty", method=method, path=path, template=template, body=body, status=status))
    webhook = "/webhooks/{webhook_id}/{webhook_token}"
    message = {"content": "hello", "embeds": [{"title": "t"}], "allowed_mentions": {"parse": []}}
    for method, template, path, body, status in (
        ("GET", webhook, "/webhooks/1/WEBHOOK", None, 200),
        ("POST", webhook, "/webhooks/1/WEBHOOK", message, 200),
        ("GET", f"{webhook}/messages/{{message_id}}", "/webhooks/1/WEBHOOK/messages/MESSAGE", None, 200),
        ("PATCH", f"{webhook}/messages/{{message_id}}", "/webhooks/1/WEBHOOK/messages/MESSAGE", {"content": "x"}, 200),
        ("DELETE", f"{webhook}/messages/{{message_id}}", "/webhooks/1/WEBHOOK/messages/MESSAGE", None, 204),
    ):
        query = "wait=true" if method == "POST" else ""
        found.append(Case(vendor="discord", method=method, path=path, template=template, body=body, status=status,
                          query=query))  # fmt: skip
    return found


CASES = _cases()


def _filled(simulator: Simulator, case: Case) -> tuple[str, Any]:
    """Path and body with what can only be known at run time."""
    path, body = case.path, case.body
    if "MESSAGE" in path:
        sent = simulator.ask(
            "discord", "POST", f"/webhooks/1/{simulator.known.discord}?wait=true", json={"content": "a"}
        )
        path = path.replace("MESSAGE", sent.json()["id"])
    path = path.replace("WEBHOOK", simulator.known.discord)
    state = simulator.vendors.state(case.vendor)
    if case.vendor == "sentry":
        issues = simulator.ask("sentry", "GET", "/api/0/organizations/acme/issues/").json()
        path = path.replace("ISSUE", issues[0]["id"]).replace("RELEASE", state["releases"][0]["version"])
    elif case.vendor == "github":
        first = simulator.ask("github", "GET", "/repos/acme/api/deployments").json()[0]["id"]
        runs = simulator.ask("github", "GET", "/repos/acme/api/actions/runs").json()["workflow_runs"]
        done = next(run["id"] for run in runs if run["status"] == "completed")
        path = path.replace("DEPLOYMENT", str(first)).replace("RUN", str(runs[0]["id"])).replace("DONE", str(done))
        path = path.replace("BASE", state["commits"][-1]["sha"]).replace("HEAD", state["commits"][0]["sha"])
    elif case.vendor == "mux":
        if "UPLOAD" in path:
            path = path.replace(
                "UPLOAD", simulator.ask("mux", "POST", "/video/v1/uploads", json={}).json()["data"]["id"]
            )
        path = path.replace("ASSET", state["assets"][0]["id"])
    elif case.vendor == "stream":
        path = path.replace("VIDEO", state["videos"][0]["uid"])
    elif case.vendor == "pagerduty":
        path = path.replace("INCIDENT", str(state["incidents"][0]["number"]))
        body = {**body, "routing_key": simulator.known.pagerduty_routing} if body and "routing_key" in body else body
    return path, body


def _asked(simulator: Simulator, case: Case) -> httpx.Response:
    path, body = _filled(simulator, case)
    headers = {**simulator.authorization(case.vendor), "From": "oncall@acme.example"}
    return simulator.ask(case.vendor, case.method, path + (f"?{case.query}" if case.query else ""),
                         headers=headers, **({"json": body} if body is not None else {}))  # fmt: skip


@pytest.mark.parametrize("day", ["a good day", "a bad day"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.vendor}{case.template}")
def test_an_answer_fits_its_specification(simulator: Simulator, case: Case, day: str) -> None:
    published = specification(SPECIFIED[case.vendor])
    if day == "a bad day":
        trouble = dict(TROUBLE.get(case.vendor, {}))
        # An expired token may only ask about itself.
        if "tokens" not in case.path:
            trouble.pop("token_status", None)
        simulator.vendors.change(case.vendor, **trouble)
    answer = _asked(simulator, case)
    assert answer.status_code == case.status, answer.text
    body = answer.json() if answer.content else None
    complaints = published.complaints_of_answer(case.method, case.template, answer.status_code, body)
    assert not complaints, joined(complaints)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.vendor}{case.template}")
def test_these_tests_ask_as_the_specification_allows(simulator: Simulator, case: Case) -> None:
    path, body = _filled(simulator, case)
    complaints = specification(SPECIFIED[case.vendor]).complaints_of_request(case.method, path, case.query, body)
    assert not complaints, joined(complaints)


VENDORS = {
    vendor.name: vendor
    for vendor in (
        *(cls(Credentials.of("t")) for cls in (Sentry, GitHub, Mux, Stream, PagerDuty, Discord)),
        StatusPage(Credentials.of("t"), "stripe"),
    )
}


@pytest.mark.parametrize("vendor", SPECIFIED)
def test_every_documented_operation_that_is_served_is_tried(vendor: str) -> None:
    published = specification(SPECIFIED[vendor])
    prefix = "/api" if vendor == "discord" else ""
    served = {
        (method, re.sub(r"\{[^}]+\}", "x", path).removeprefix(prefix)) for method, path, _ in VENDORS[vendor].routes()
    }
    documented = {(method, template) for method, path in served if (template := published.find(method, path))}
    assert documented == {(case.method, case.template) for case in CASES if case.vendor == vendor}


REFUSED = [
    (
        "sentry",
        "GET",
        "/api/0/organizations/acme/issues/",
        "/api/0/organizations/{organization_id_or_slug}/issues/",
        401,
    ),
    ("mux", "GET", "/video/v1/assets", "/video/v1/assets", 401),
    ("stream", "GET", f"/accounts/{ACCOUNT}/stream", "/accounts/{account_id}/stream", 401),
    ("pagerduty", "GET", "/incidents", "/incidents", 401),
    ("discord", "GET", "/webhooks/1/wrong", "/webhooks/{webhook_id}/{webhook_token}", 401),
]


@pytest.mark.parametrize(("vendor", "method", "path", "template", "status"), REFUSED)
def test_a_wrong_credential_is_refused_in_the_specified_words(
    simulator: Simulator, vendor: str, method: str, path: str, template: str, status: int
) -> None:
    answer = simulator.ask(vendor, method, path, headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == status
    complaints = specification(SPECIFIED[vendor]).complaints_of_answer(method, template, status, answer.json())
    assert not complaints, joined(complaints)


@pytest.mark.parametrize("status", [404, 429])
@pytest.mark.parametrize(
    ("vendor", "template", "path"),
    [
        ("mux", "/video/v1/assets", "/video/v1/assets"),
        ("stream", "/accounts/{account_id}/stream", f"/accounts/{ACCOUNT}/stream"),
        ("pagerduty", "/incidents", "/incidents"),
        ("discord", "/webhooks/{webhook_id}/{webhook_token}", "/webhooks/1/x"),
        ("status.stripe", "/api/v2/summary.json", "/api/v2/summary.json"),
    ],
)
def test_a_failure_on_purpose_is_said_in_the_specified_words(
    simulator: Simulator, vendor: str, template: str, path: str, status: int
) -> None:
    simulator.vendors.fail(vendor, status=status)
    answer = simulator.ask(vendor, "GET", path)
    assert answer.status_code == status
    complaints = specification(SPECIFIED[vendor]).complaints_of_answer("GET", template, status, answer.json())
    assert not complaints, joined(complaints)


def test_a_pagerduty_event_that_is_wrong_is_refused_in_the_specified_words(simulator: Simulator) -> None:
    answer = simulator.ask(
        "pagerduty", "POST", "/v2/enqueue", json={"routing_key": "nobody", "event_action": "resolve"}
    )
    assert answer.status_code == 400
    complaints = specification("pagerduty").complaints_of_answer("POST", "/v2/enqueue", 400, answer.json())
    assert not complaints, joined(complaints)
