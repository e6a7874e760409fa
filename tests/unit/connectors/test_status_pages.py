"""What is made of status pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from runbook.connectors.status_pages import StatusPages
from tests.vendor_stub import Stub, context, row, rows, serving

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
SUMMARY, INCIDENTS = "/api/v2/summary.json", "/api/v2/incidents.json"


def pages(**urls: str) -> StatusPages:
    return StatusPages(context(now=lambda: NOW), urls)


def summary(indicator: str = "none", **fields: Any) -> dict[str, Any]:
    return {"page": {"id": "p"}, "status": {"indicator": indicator, "description": "All Systems Operational"}, **fields}


def incident(name: str, *, resolved_at: str | None = None) -> dict[str, Any]:
    return {"id": name, "name": name, "status": "identified", "impact": "major", "resolved_at": resolved_at,
            "created_at": "2026-11-20T01:40:00.000-08:00", "shortlink": "https://stspg.io/x",
            "incident_updates": [{"body": "long text"}]}  # fmt: skip


def test_only_what_is_not_operational_is_kept_and_groups_are_not_counted_twice() -> None:
    components = [
        {"name": "API", "status": "partial_outage", "group": False},
        {"name": "Everything", "status": "partial_outage", "group": True},
        {"name": "Dashboard", "status": "operational", "group": False},
    ]
    with serving({SUMMARY: summary("major", components=components), INCIDENTS: {"incidents": []}}) as stub:
        found = row(pages(stripe=stub.url).all())
    assert (found["vendor"], found["indicator"], found["answered"]) == ("stripe", "major", True)
    assert found["components"] == [{"name": "API", "status": "partial_outage"}]


def test_incidents_are_the_open_ones_and_those_resolved_within_a_day() -> None:
    past = [
        incident("today", resolved_at="2026-11-20T09:00:00Z"),
        incident("long ago", resolved_at="2026-01-01T00:00:00Z"),
        incident("now"),
    ]
    with serving({SUMMARY: summary("major", incidents=[incident("now")]), INCIDENTS: {"incidents": past}}) as stub:
        found = row(pages(mux=stub.url).all())
    assert [(item["name"], item["resolved_at"]) for item in found["incidents"]] == [
        ("now", None), ("today", "2026-11-20T09:00:00.000+00:00"),
    ]  # fmt: skip
    assert found["incidents"][0]["created_at"] == "2026-11-20T09:40:00.000+00:00", "an offset is not UTC"


def test_a_page_without_a_history_is_read_and_says_so() -> None:
    with serving({SUMMARY: summary("minor")}) as stub:
        found = row(pages(mux=stub.url).all())
    assert (found["indicator"], found["answered"]) == ("minor", True)
    assert "resolved incidents not read" in found["reason"]


@pytest.mark.parametrize("body", [summary("purple"), summary(indicator="operational")])
def test_an_indicator_that_is_new_to_us_is_unknown(body: dict[str, Any]) -> None:
    with serving({SUMMARY: body, INCIDENTS: {"incidents": []}}) as stub:
        assert row(pages(mux=stub.url).all())["indicator"] == "unknown"


def test_a_page_that_does_not_answer_is_unknown_and_leaves_the_others() -> None:
    with serving({SUMMARY: summary(), INCIDENTS: {"incidents": []}}) as up, serving() as lost:
        reading = pages(stripe=up.url, mux=lost.url, nobody="http://127.0.0.1:9").all()
    found = {item["vendor"]: item for item in rows(reading, "partial")}
    assert [found[v]["indicator"] for v in ("stripe", "mux", "nobody")] == ["none", "unknown", "unknown"]
    assert [found[v]["answered"] for v in ("stripe", "mux", "nobody")] == [True, False, False]
    assert "ECONN" in found["nobody"]["reason"] or "refused" in found["nobody"]["reason"]
    assert reading.reason == "no answer from mux, nobody"


@pytest.mark.parametrize("body", [[], {"status": "ok"}, {"page": {}}])
def test_json_that_is_no_status_page_is_unknown(body: Any) -> None:
    with serving({SUMMARY: body, INCIDENTS: body}) as stub:
        found = row(pages(mux=stub.url).all(), "partial")
    assert (found["indicator"], found["answered"]) == ("unknown", False)


def test_the_address_of_the_summary_itself_is_taken_as_well() -> None:
    with serving({f"/status/mux{SUMMARY}": summary(), f"/status/mux{INCIDENTS}": {"incidents": []}}) as stub:
        assert row(pages(mux=f"{stub.url}/status/mux{SUMMARY}").all())["indicator"] == "none"


def aws_page(stub: Stub) -> StatusPages:
    return pages(aws=f"{stub.url}/public/currentevents")


@pytest.mark.parametrize("mark", [b"\xfe\xff", b""])
def test_aws_answers_in_utf_16(mark: bytes) -> None:
    services = {
        "s3-us-east-1": {"service_name": "Amazon S3", "current": "2", "max": "3"},
        "lambda-us-east-1": {"service_name": "Lambda", "current": "0", "max": "1"},
    }
    event = {"arn": "a", "date": "1795400000", "status": "2", "service": "s3-us-east-1", "service_name": "Amazon S3",
             "region_name": "N. Virginia", "summary": "Increased error rates – S3",
             "impacted_services": services}  # fmt: skip
    body = mark + json.dumps([event], ensure_ascii=False).encode("utf-16-be")
    kind = {"Content-Type": "application/json;charset=utf-16"}
    with serving({"/public/currentevents": (200, body, kind)}) as stub:
        found = row(aws_page(stub).all())
    assert (found["indicator"], found["description"]) == ("major", "1 current events")
    assert found["components"] == [
        {"name": "Amazon S3 (N. Virginia)", "status": "degraded_performance", "code": "s3-us-east-1"}
    ]
    assert found["incidents"][0]["created_at"] == "2026-11-23T02:13:20.000+00:00"


def test_what_aws_calls_resolved_is_no_current_event() -> None:
    events = [
        {"status": "0", "summary": "Errors", "service": "ec2", "end_time": "2026-11-20T09:00:00Z"},
        {"status": "1", "summary": "[RESOLVED] Latency", "service": "ec2"},
        {"status": "3", "summary": "Down", "service": "rds", "end_time": 1},
    ]
    with serving({"/public/currentevents": events}) as stub:
        found = row(aws_page(stub).all())
    assert (found["indicator"], found["components"]) == ("none", [])
    assert [item["name"] for item in found["incidents"]] == ["Errors"], (
        "the others ended long ago, or nobody knows when"
    )


def test_no_event_at_aws_is_well() -> None:
    with serving({"/public/currentevents": []}) as stub:
        assert row(aws_page(stub).all())["indicator"] == "none"


def test_without_pages_nothing_is_asked() -> None:
    reading = pages().all()
    assert (reading.state, reading.reason) == ("not_configured", "status_pages is not set")
