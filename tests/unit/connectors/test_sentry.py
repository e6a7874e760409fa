"""What is made of Sentry's answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from runbook import settings
from runbook.connectors.sentry import Sentry
from tests.vendor_stub import SECRET, Asked, Stub, context, row, rows, serving

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
ORG = "/api/0/organizations/acme"


def issue(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": str(number), "shortId": f"API-{number}", "title": f"Error {number}\nsecond line",
        "culprit": "pay in charge", "level": "error", "count": "150", "userCount": 7,
        "firstSeen": "2026-11-20T09:30:00Z", "lastSeen": "2026-11-20T09:59:00Z", "substatus": "new", "permalink": "https://sentry.example/1",
        "assignedTo": {"email": "ann@mail.example.org"}, **fields,
    }  # fmt: skip


def sentry(stub: Stub, *, project: str = "api", environment: str = "production") -> Sentry:
    section = settings.Sentry(
        base_url=stub.url, organization="acme", project=project, environment=environment, token=SecretStr(SECRET)
    )
    return Sentry(context(now=lambda: NOW), section)


def details(first_release: str) -> dict[str, Any]:
    return {f"{ORG}/issues/{n}/": {"firstRelease": {"version": first_release}} for n in range(1, 6)}


def test_an_issue_first_seen_inside_the_window_is_new() -> None:
    old = issue(2, lifetime={"firstSeen": "2026-01-01T00:00:00Z"})
    unknown = issue(3, firstSeen=None)
    with serving({f"{ORG}/issues/": [issue(1), old, unknown], **details("v2")}) as stub:
        found = rows(sentry(stub).issues(60))
    assert [item["is_new"] for item in found] == [True, False, None]
    assert (found[0]["count"], found[0]["users"], found[0]["title"]) == (150, 7, "Error 1")


def test_the_window_and_the_scope_are_asked_for() -> None:
    with serving({f"{ORG}/issues/": []}) as stub:
        assert rows(sentry(stub).issues(90)) == []
    (asked,) = stub.asked
    assert (asked.query["statsPeriod"], asked.query["project"], asked.query["environment"]) == (
        ["90m"], ["api"], ["production"],
    )  # fmt: skip
    assert asked.headers["authorization"] == f"Bearer {SECRET}"


def test_first_releases_are_fetched_for_the_top_issues_only() -> None:
    with serving({f"{ORG}/issues/": [issue(n) for n in range(1, 9)], **details("v2")}) as stub:
        found = rows(sentry(stub).issues(60))
    assert [item["first_release"] for item in found] == ["v2"] * 5 + [None] * 3


def test_a_first_release_that_cannot_be_read_leaves_the_others_and_is_said() -> None:
    answers = {f"{ORG}/issues/": [issue(1), issue(2)], **details("v2")}
    answers[f"{ORG}/issues/2/"] = (403, {"detail": "no"}, {})
    with serving(answers) as stub:
        reading = sentry(stub).issues(60)
    assert [item["first_release"] for item in rows(reading, "partial")] == ["v2", None]
    assert reading.reason == "first release of 1 of 2 not read: answered 403: no"


def test_a_server_that_wants_a_projects_number_gets_it() -> None:
    def issues(asked: Asked) -> Any:
        if asked.first("project") != "42":
            return 400, {"detail": "Invalid project parameter. Values must be numbers."}, {}
        return [issue(1)]

    projects = [{"id": "41", "slug": "api-old"}, {"id": "42", "slug": "api"}]
    with serving({f"{ORG}/issues/": issues, f"{ORG}/projects/": projects, **details("v2")}) as stub:
        connector = sentry(stub)
        assert rows(connector.issues(60))[0]["id"] == "1"
        asked = len(stub.asked)
        connector.issues(60)
        assert len(stub.asked) - asked == 2, "the number is remembered"


def test_a_project_that_is_not_there_is_no_empty_list() -> None:
    with serving({f"{ORG}/issues/": (400, {"detail": "bad"}, {}), f"{ORG}/projects/": []}) as stub:
        reading = sentry(stub).issues(60)
    assert (reading.known, reading.value, reading.reason) == (False, None, "answered 400: bad")


def test_an_event_says_where_it_was_thrown_innermost_frame_first() -> None:
    frames = [{"filename": f"f{n}.py", "lineNo": n, "function": "go", "vars": {"card": "4242"}} for n in range(12)]
    values = [{"type": "Cause", "value": "first"}, {"type": "KeyError", "value": "'x' for ann@mail.example.org",
                                                    "stacktrace": {"frames": frames}}]  # fmt: skip
    event = {
        "eventID": "e1", "title": "KeyError", "dateCreated": "2026-11-20T09:59:00Z", "release": {"version": "v2"},
        "user": {"email": "ann@mail.example.org", "ip_address": "10.1.2.3"},
        "tags": [{"key": "environment", "value": "production"}, {"key": "transaction", "value": "POST /pay"},
                 {"key": "customer", "value": "Ann B."}, {"key": "url", "value": "https://x/?ssn=1"}],
        "entries": [{"type": "request", "data": {"cookies": "c"}}, {"type": "exception", "data": {"values": values}}],
    }  # fmt: skip
    with serving({f"{ORG}/issues/7/events/latest/": event}) as stub:
        reading = sentry(stub).latest_event("7")
    found = row(reading)
    assert found["frames"] == [f"f{n}.py:{n} in go" for n in range(11, 3, -1)]
    assert (found["exception_type"], found["release"], found["transaction"]) == ("KeyError", "v2", "POST /pay")
    kept = str(reading.as_dict())
    assert not [word for word in ("4242", "ann@", "10.1.2.3", "Ann B.", "ssn") if word in kept]


def test_an_event_without_an_exception_is_an_event_all_the_same() -> None:
    with serving({f"{ORG}/issues/7/events/latest/": {"eventID": "e1", "release": None, "tags": None}}) as stub:
        found = row(sentry(stub).latest_event("7"))
    assert (found["frames"], found["release"], found["exception_type"]) == ([], None, None)


def test_an_issue_id_is_one_segment_of_the_path() -> None:
    with serving() as stub:
        sentry(stub).latest_event("../../x?y=1")
    assert stub.asked[0].raw_path == f"{ORG}/issues/..%2F..%2Fx%3Fy%3D1/events/latest/"


def test_the_curve_is_in_order_of_time() -> None:
    values = [{"timestamp": 1795400060000, "value": 3, "incomplete": True}, {"timestamp": 1795400000000, "value": 5}]
    with serving({f"{ORG}/events-timeseries/": {"timeSeries": [{"yAxis": "count()", "values": values}]}}) as stub:
        found = rows(sentry(stub).error_curve(60))
    assert [(item["at"][11:19], item["errors"], item["incomplete"]) for item in found] == [
        ("02:13:20", 5.0, False), ("02:14:20", 3.0, True),
    ]  # fmt: skip


def test_a_version_with_a_slash_finds_its_deploys() -> None:
    releases = [{"version": v, "dateCreated": "2026-11-20T09:00:00Z", "newGroups": 2} for v in ("a/1", "b", "c")]
    deploys = [{"environment": "production", "dateFinished": "2026-11-20T09:05:00Z", "name": "n", "url": None}]
    with serving({f"{ORG}/releases/": releases, f"{ORG}/releases/a/1/deploys/": deploys,
                  f"{ORG}/releases/b/deploys/": []}) as stub:  # fmt: skip
        found = rows(sentry(stub).releases())
    assert f"{ORG}/releases/a%2F1/deploys/" in [asked.raw_path for asked in stub.asked]
    assert found[0]["deploys"] == [
        {"environment": "production", "finished_at": "2026-11-20T09:05:00.000+00:00", "name": "n"}
    ]
    assert [item["deploys"] for item in found[1:]] == [[], None]


def test_dropped_events_are_counted_over_whole_hours() -> None:
    groups = [{"by": {"outcome": "accepted"}, "totals": {"sum(quantity)": 90}},
              {"by": {"outcome": "rate_limited"}, "totals": {"sum(quantity)": 10}}]  # fmt: skip
    with serving({f"{ORG}/stats_v2/": {"groups": groups}}) as stub:
        found = rows(sentry(stub).outcomes(90))
    assert stub.asked[0].query["statsPeriod"] == ["2h"]
    assert found == [
        {"outcome": "accepted", "quantity": 90, "hours": 2},
        {"outcome": "rate_limited", "quantity": 10, "hours": 2},
    ]


def test_errors_are_counted_by_release() -> None:
    data = [{"release": "v2", "count()": 30}, {"release": "", "count()": 2}]
    with serving({f"{ORG}/events/": {"data": data}}) as stub:
        assert rows(sentry(stub).by_release(60)) == [{"release": "v2", "errors": 30}, {"release": None, "errors": 2}]
    assert stub.asked[0].query["field"] == ["release", "count()"]


def test_an_answer_of_another_form_is_unknown() -> None:
    with serving({f"{ORG}/issues/": {"issues": []}}) as stub:
        reading = sentry(stub).issues(60)
    assert (reading.state, reading.known) == ("partial", False)


def test_without_settings_nothing_is_asked_and_the_setting_is_named() -> None:
    readings = [
        Sentry(context(), settings.Sentry()).issues(60),
        Sentry(context(), settings.Sentry(token=SecretStr(SECRET))).releases(),
    ]
    assert [(r.state, r.reason) for r in readings] == [
        ("not_configured", "sentry.token is not set"), ("not_configured", "sentry.organization is not set"),
    ]  # fmt: skip
