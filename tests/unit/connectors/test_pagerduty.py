"""What is made of PagerDuty's answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from runbook import settings
from runbook.connectors.pagerduty import PagerDuty
from tests.vendor_stub import SECRET, Asked, Stub, context, row, rows, serving

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
SINCE = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


def pagerduty(stub: Stub) -> PagerDuty:
    return PagerDuty(context(now=lambda: NOW), settings.PagerDuty(base_url=stub.url, token=SecretStr(SECRET)))


def incident(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"P{number}", "incident_number": number, "title": "API down\nmore", "status": "triggered",
            "urgency": "high", "created_at": "2026-11-20T10:40:00+01:00", "html_url": "https://acme.example/P1",
            "service": {"summary": "API"}, "assignments": [{"assignee": {"summary": "Ann B."}}], **fields}  # fmt: skip


def test_an_incident_keeps_what_it_is_about_and_not_who() -> None:
    with serving({"/incidents": {"incidents": [incident(7), incident(8, status="snoozed")], "more": False}}) as stub:
        reading = pagerduty(stub).incidents(SINCE)
    found = rows(reading)
    assert (found[0]["number"], found[0]["title"], found[0]["service"]) == (7, "API down", "API")
    assert (found[0]["created_at"], found[1]["status"]) == ("2026-11-20T09:40:00.000+00:00", "unknown")
    assert "Ann B." not in str(reading.as_dict())


def test_the_window_and_the_key_are_sent_as_pagerduty_wants_them() -> None:
    with serving({"/incidents": {"incidents": [], "more": False}}) as stub:
        pagerduty(stub).incidents(SINCE)
    (asked,) = stub.asked
    assert (asked.first("since"), asked.first("until")) == ("2026-11-20T09:00:00Z", "2026-11-20T10:00:00Z")
    assert asked.headers["authorization"] == f"Token token={SECRET}"
    assert asked.headers["accept"] == "application/vnd.pagerduty+json;version=2"


def test_pages_are_read_while_there_are_more_up_to_the_cap() -> None:
    def incidents(asked: Asked) -> Any:
        return {"incidents": [incident(int(asked.first("offset") or 0))], "more": True}

    with serving({"/incidents": incidents}) as stub:
        reading = pagerduty(stub).incidents(SINCE)
    assert [item["number"] for item in rows(reading, "partial")] == [0, 100, 200, 300, 400]
    assert reading.reason == "only the newest 5 incidents were read, there are more"


def test_an_incident_without_a_service_is_an_incident() -> None:
    with serving({"/incidents": {"incidents": [incident(7, service=None)], "more": False}}) as stub:
        assert row(pagerduty(stub).incidents(SINCE))["service"] is None


def test_without_a_token_nothing_is_asked() -> None:
    reading = PagerDuty(context(), settings.PagerDuty()).incidents(SINCE)
    assert (reading.state, reading.reason) == ("not_configured", "pagerduty.token is not set")
