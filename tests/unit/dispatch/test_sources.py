from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.dispatch.alert import Alert, MalformedAlert, UnreadableBody, iso, keepable, moment
from runbook.dispatch.sources import SOURCES, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=12), inner, max_size=4)
    ),
    max_leaves=20,
)
ALERT = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["firing", "resolved"]) | JSON,
        "labels": st.dictionaries(st.sampled_from(["alertname", "service", "severity", "x"]) | st.text(), JSON) | JSON,
        "annotations": st.dictionaries(st.sampled_from(["runbook_url", "summary"]), JSON) | JSON,
        "startsAt": st.datetimes().map(lambda d: d.isoformat()) | st.text() | JSON,
        "fingerprint": st.text() | JSON,
        "name": st.text() | JSON,
        "starts_at": st.text() | st.integers() | st.floats() | JSON,
    },
)


def keeps(alerts: Any) -> None:
    """Everything that an alert holds can be written as JSON in UTF-8 without a character that PostgreSQL refuses."""
    for alert in alerts:
        assert isinstance(alert, Alert)
        text = json.dumps([alert.raw, dict(alert.labels), dict(alert.annotations), alert.name], allow_nan=False)
        assert "\\u0000" not in text
        json.dumps(alert.raw, ensure_ascii=False).encode()
        assert 0 < len(alert.fingerprint) <= 128
        assert alert.starts_at is None or iso(alert.starts_at)


@pytest.mark.parametrize("source", SOURCES)
@given(body=st.binary(max_size=200))
def test_no_bytes_crash_a_source(source: str, body: bytes) -> None:
    try:
        keeps(parse(source, body))
    except MalformedAlert:
        return


@pytest.mark.parametrize("source", SOURCES)
@given(
    value=JSON | st.fixed_dictionaries({"alerts": st.lists(ALERT | JSON, max_size=3), "truncatedAlerts": JSON}) | ALERT
)
def test_no_json_crashes_a_source(source: str, value: Any) -> None:
    try:
        keeps(parse(source, json.dumps(value).encode("utf-8", "surrogatepass")))
    except MalformedAlert:
        return


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b'{"alerts": [], "x": ' + b"[" * 33 + b"]" * 33 + b"}",
        b'{"alerts": ' + b"9" * 10_000 + b"}",
        b'{"alerts": [NaN]}',
        b'{"alerts": [Infinity]}',
        b"\x00",
        "{}".encode("utf-16"),
        b"null",
        b"",
    ],
)
def test_a_body_that_is_no_json_object_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        parse("alertmanager", body)


def test_a_number_beyond_all_bounds_is_dropped_not_kept() -> None:
    (alert,) = parse("generic", b'{"name": "x", "labels": {"n": 1e999}}')
    assert alert.raw["labels"]["n"] is None


def test_half_an_emoji_does_not_lose_the_alert() -> None:
    (alert,) = parse("generic", rb'{"name": "cut \ud83d", "annotations": {"a": "nul \u0000 esc \u001b[31m"}}')
    assert alert.name == "cut \ufffd"
    assert alert.annotations["a"] == "nul \ufffd esc \ufffd[31m"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-23T07:25:13Z", datetime(2026, 11, 23, 7, 25, 13, tzinfo=UTC)),
        ("2026-11-23T07:25:13.123456789Z", datetime(2026, 11, 23, 7, 25, 13, 123456, tzinfo=UTC)),
        ("2026-11-23T09:25:13+02:00", datetime(2026, 11, 23, 7, 25, 13, tzinfo=UTC)),
        ("2026-11-23T07:25:13", datetime(2026, 11, 23, 7, 25, 13, tzinfo=UTC)),
        (1795418713, datetime(2026, 11, 23, 7, 25, 13, tzinfo=UTC)),
        (1795418713000, datetime(2026, 11, 23, 7, 25, 13, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("yesterday", None),
        ("", None),
        (True, None),
        (float("nan"), None),
        (1e300, None),
        (None, None),
        ({}, None),
    ],
)
def test_times_are_read_or_none(value: Any, expected: datetime | None) -> None:
    assert moment(value) == expected


def test_alerts_that_the_sender_left_out_are_noted() -> None:
    body = {"alerts": [{"status": "firing", "labels": {"alertname": "A"}}], "truncatedAlerts": 12}
    (alert,) = parse("alertmanager", json.dumps(body).encode())
    assert any("12 alerts" in note for note in alert.notes)


def test_the_same_labels_give_the_same_fingerprint_whatever_their_order() -> None:
    one, other = (
        parse("generic", json.dumps({"name": "A", "labels": labels}).encode())[0].fingerprint
        for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    (third,) = parse("generic", json.dumps({"name": "A", "labels": {"a": "1"}}).encode())
    assert one == other != third.fingerprint


def test_an_overlong_fingerprint_is_replaced() -> None:
    body = {"alerts": [{"status": "firing", "labels": {"alertname": "A"}, "fingerprint": "f" * 10_000}]}
    assert len(parse("alertmanager", json.dumps(body).encode())[0].fingerprint) < 64


@given(JSON)
def test_keepable_values_stay_as_they_are_when_kept_again(value: Any) -> None:
    once = keepable(value)
    assert keepable(once) == once
