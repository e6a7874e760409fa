"""The connectors against the simulator: each request is one the specification allows, each answer is understood."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook.connectors.base import Context
from runbook.connectors.systems import Systems
from runbook.redaction import Redactor
from runbook.result import Reading
from runbook.settings import Settings
from tests.contract.simulator import Simulator
from tests.contract.specification import joined, specification

NOW = datetime.now(UTC)
SINCE = NOW - timedelta(days=30)
HEAD, BASE = "a" * 40, "b" * 40
FETCHES: dict[str, tuple[str, str, Callable[[Systems], Reading]]] = {
    "sentry_issues": ("sentry", "sentry", lambda run: run.sentry.issues(60)),
    "sentry_event": ("sentry", "sentry", lambda run: run.sentry.latest_event(run.sentry.issues(60).rows[0]["id"])),
    "sentry_curve": ("sentry", "sentry", lambda run: run.sentry.error_curve(60)),
    "sentry_releases": ("sentry", "sentry", lambda run: run.sentry.releases()),
    "sentry_outcomes": ("sentry", "sentry", lambda run: run.sentry.outcomes(60)),
    "sentry_by_release": ("sentry", "sentry", lambda run: run.sentry.by_release(60)),
    "deployments": ("github", "github", lambda run: run.github.deployments()),
    "workflow_runs": ("github", "github", lambda run: run.github.workflow_runs(SINCE)),
    "commits": ("github", "github", lambda run: run.github.commits(SINCE)),
    "compare": ("github", "github", lambda run: run.github.compare(BASE, HEAD)),
    "vendor_status": ("status.stripe", "statuspage", lambda run: run.status_pages.all()),
    "mux_assets": ("mux", "mux", lambda run: run.mux.assets(SINCE)),
    "mux_uploads": ("mux", "mux", lambda run: run.mux.uploads()),
    "stream_videos": ("stream", "cloudflare", lambda run: run.stream.videos(SINCE)),
    "stream_token": ("stream", "cloudflare", lambda run: run.stream.token()),
    "stream_storage": ("stream", "cloudflare", lambda run: run.stream.storage()),
    "pagerduty_incidents": ("pagerduty", "pagerduty", lambda run: run.pagerduty.incidents(SINCE)),
}
UNPUBLISHED = ("/stats_v2/",)
"""Paths that Sentry has and that its published schema leaves out."""


@pytest.fixture
def systems(simulator: Simulator) -> Systems:
    sections = simulator.settings
    settings = Settings(**sections)
    return Systems(Context(redactor=Redactor(settings.secrets())), settings)


@pytest.mark.parametrize("name", FETCHES)
def test_a_connector_reads_the_simulator(simulator: Simulator, systems: Systems, name: str) -> None:
    simulator.vendors.change("github", commits=[{"sha": HEAD, "at": NOW}, {"sha": BASE, "at": NOW - timedelta(days=1)}])
    reading = FETCHES[name][2](systems)
    assert (reading.name, reading.state, reading.reason) == (name, "ok", "")


@pytest.mark.parametrize("name", FETCHES)
def test_a_connector_asks_what_the_specification_allows(simulator: Simulator, systems: Systems, name: str) -> None:
    vendor, published, fetch = FETCHES[name]
    rules = specification(published)
    simulator.vendors.change("github", commits=[{"sha": HEAD, "at": NOW}, {"sha": BASE, "at": NOW - timedelta(days=1)}])
    fetch(systems)
    asked = [one for one in simulator.vendors.requests(vendor) if not one["path"].endswith(UNPUBLISHED)]
    assert asked or name == "sentry_outcomes"
    complaints = [
        text for one in asked for text in rules.complaints_of_request(one["method"], one["path"], one["query"])
    ]
    # GitHub's range of times is documented in words and typed as one moment.
    complaints = [text for text in complaints if "/actions/runs: created: " not in text]
    assert not complaints, joined(complaints)


def test_what_stands_in_the_state_is_what_is_read(simulator: Simulator, systems: Systems) -> None:
    vendors = simulator.vendors
    vendors.change(
        "sentry",
        issues=[
            {"title": "TypeError: x", "count": 812, "users": 77, "first_seen": NOW - timedelta(minutes=9),
             "last_seen": NOW, "substatus": "new", "first_release": "api@9", "frames": ["src/pay.ts:12 in charge"]},
            {"title": "Old", "count": 3, "first_seen": SINCE, "last_seen": NOW - timedelta(minutes=25)},
            {"title": "Long gone", "count": 9999, "first_seen": SINCE, "last_seen": NOW - timedelta(hours=2)},
        ],
    )  # fmt: skip
    issues = systems.sentry.issues(60).rows
    assert [(row["title"], row["count"], row["users"], row["is_new"]) for row in issues] == [
        ("TypeError: x", 812, 77, True),
        ("Old", 3, 0, False),
    ]
    assert issues[0]["first_release"] == "api@9"
    assert systems.sentry.latest_event(issues[0]["id"]).rows[0]["frames"] == ["src/pay.ts:12 in charge"]
    assert sum(row["errors"] for row in systems.sentry.error_curve(60).rows) == 815


def test_a_deployment_is_read_with_its_last_state(simulator: Simulator, systems: Systems) -> None:
    begun = (NOW - timedelta(minutes=12)).replace(microsecond=0)
    row = {"sha": HEAD, "ref": "v9", "creator": "dev", "created_at": begun, "description": "Faster checkout"}
    older = {"sha": BASE, "created_at": begun - timedelta(days=1), "state": "inactive"}
    elsewhere = {"sha": HEAD, "created_at": begun, "environment": "staging"}
    simulator.vendors.change("github", deployments=[row | {"state": "failure"}, older, elsewhere])
    first, second = systems.github.deployments().rows
    assert (first["state"], first["ref"], first["creator"], first["description"]) == (
        "failure", "v9", "dev", "Faster checkout",
    )  # fmt: skip
    assert (second["sha"], second["state"]) == (BASE, "inactive")
    assert second["finished_at"] is not None


def test_long_lists_are_read_to_their_end(simulator: Simulator, systems: Systems) -> None:
    vendors = simulator.vendors
    times = [NOW - timedelta(minutes=n) for n in range(230)]
    vendors.change("github", commits=[{"sha": f"{n:040x}", "at": at} for n, at in enumerate(times)])
    vendors.change("mux", assets=[{"id": f"a{n}", "created_at": at} for n, at in enumerate(times)])
    vendors.change("pagerduty", incidents=[{"number": n, "title": "t", "created_at": at} for n, at in enumerate(times)])
    assert len(systems.github.commits(SINCE).rows) == 230
    assert len({row["id"] for row in systems.mux.assets(SINCE).rows}) == 230
    assert len({row["number"] for row in systems.pagerduty.incidents(SINCE).rows}) == 230


def test_a_comparison_names_commits_and_files_between(simulator: Simulator, systems: Systems) -> None:
    files: list[dict[str, Any]] = [{"filename": "prisma/migrations/1_add/migration.sql", "status": "added"}]
    commits = [
        {"sha": HEAD, "at": NOW, "message": "Two"},
        {"sha": "c" * 40, "at": NOW - timedelta(hours=1), "message": "One", "files": files},
        {"sha": BASE, "at": NOW - timedelta(hours=2), "message": "Base"},
    ]
    simulator.vendors.change("github", commits=commits)
    (row,) = systems.github.compare(BASE, HEAD).rows
    assert [commit["message"] for commit in row["commits"]] == ["One", "Two"]
    assert (row["status"], row["ahead_by"], row["migrations"]) == ("ahead", 2, [files[0]["filename"]])


def test_trouble_on_a_page_is_read_and_a_silent_page_is_unknown(simulator: Simulator, systems: Systems) -> None:
    simulator.vendors.change(
        "status.stripe",
        components=[{"name": "API", "status": "partial_outage"}],
        incidents=[{"name": "API errors", "impact": "major", "created_at": NOW - timedelta(minutes=30)}],
    )
    simulator.vendors.fail("status.mux", status=503)
    simulator.vendors.change("aws", events=[{"service": "s3", "status": "3", "at": NOW, "summary": "Größere Störung"}])
    reading = systems.status_pages.all()
    rows = {row["vendor"]: row for row in reading.rows}
    assert reading.state == "partial"
    assert rows["stripe"]["indicator"] == "major"
    assert rows["stripe"]["components"] == [{"name": "API", "status": "partial_outage"}]
    assert [incident["name"] for incident in rows["stripe"]["incidents"]] == ["API errors"]
    assert (rows["mux"]["indicator"], rows["mux"]["answered"]) == ("unknown", False)
    assert (rows["aws"]["indicator"], rows["aws"]["incidents"][0]["name"]) == ("critical", "Größere Störung")
    assert rows["github"]["indicator"] == "none"


@pytest.mark.parametrize("vendor", ["sentry", "github", "mux", "stream", "pagerduty"])
def test_a_wrong_credential_is_an_authentication_that_failed(simulator: Simulator, vendor: str) -> None:
    sections = simulator.settings
    wrong = "0" * 32
    section = "cloudflare" if vendor == "stream" else vendor
    sections[section] |= {"token_secret" if vendor == "mux" else "token": wrong}
    settings = Settings(**sections)
    run = Systems(Context(redactor=Redactor(settings.secrets())), settings)
    name = {"sentry": "sentry_issues", "github": "commits", "mux": "mux_assets", "stream": "stream_videos",
            "pagerduty": "pagerduty_incidents"}[vendor]  # fmt: skip
    assert FETCHES[name][2](run).state == "auth_failed"
