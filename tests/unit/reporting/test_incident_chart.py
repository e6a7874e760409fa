"""The chart of an incident: one axis, lanes that say what is unknown, the same bytes for the same readings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest

from runbook.reporting.charts import Chart
from runbook.reporting.incident_chart import incident_chart
from runbook.result import Reading

BEGAN = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


def at(minutes: float) -> str:
    return (BEGAN + timedelta(minutes=minutes)).isoformat()


def reading(name: str, value: Any, **how: Any) -> Reading:
    return Reading(name=name, source="x", target="", query="", measured_at=at(60), duration_ms=1.0, value=value, **how)


def curve(*percent: float) -> Reading:
    rows = [{"at": at(n), "seconds": 60, "requests": 1000, "errors": round(10 * p)} for n, p in enumerate(percent)]
    return reading("request_curve", rows)


RATE = curve(*[0.2] * 40, *[14.0] * 20)
DEPLOYED = reading("deployments", [{"sha": "c" * 40, "ref": "v2", "finished_at": at(38), "state": "success"}])
PAGES = reading(
    "vendor_status",
    [{"vendor": "acme", "indicator": "major", "incidents": [{"name": "API errors", "created_at": at(41)}]}],
)


def drawn(*readings: Reading) -> Chart:
    chart = incident_chart(readings, threshold_percent=5)
    assert chart is not None
    return chart


def test_it_says_in_words_when_what_happened() -> None:
    alt = drawn(RATE, DEPLOYED, PAGES).alt
    assert "14 % at the end" in alt
    assert "deploy v2 at 02:38" in alt
    assert "acme: API errors at 02:41" in alt


@pytest.mark.parametrize(
    "failed", [[], [reading("vendor_status", None, state="timeout"), reading("deployments", None, state="auth_failed")]]
)
def test_a_lane_that_could_not_be_read_says_unknown_and_not_none(failed: list[Reading]) -> None:
    chart = drawn(RATE, *failed)
    assert "Changes: unknown. Vendors: unknown." in chart.alt
    assert chart.svg.count(">unknown<") == 2


def test_a_lane_without_an_event_says_that_there_was_none() -> None:
    pages = reading("vendor_status", [{"vendor": "acme", "indicator": "none", "incidents": []}])
    chart = drawn(RATE, reading("deployments", []), pages)
    assert chart.svg.count(">none in the window<") == 2


def test_what_ended_before_the_window_is_not_drawn() -> None:
    early = reading("deployments", [{"sha": "d" * 40, "ref": "v1", "finished_at": at(-30)}])
    over = {"name": "Yesterday's", "created_at": at(-900), "resolved_at": at(-600)}
    lasting = {"name": "Old but open", "created_at": at(-900), "resolved_at": None}
    pages = reading("vendor_status", [{"vendor": "acme", "indicator": "minor", "incidents": [over, lasting]}])
    alt = drawn(RATE, early, pages).alt
    assert "Changes: none" in alt
    assert "Yesterday" not in alt
    assert "Old but open" in alt


@pytest.mark.parametrize("rows", [[], None, [{"at": "no time", "requests": 5}]])
def test_without_a_curve_there_is_no_chart(rows: Any) -> None:
    state: Any = "unreachable" if rows is None else "ok"
    assert incident_chart([reading("request_curve", rows, state=state), DEPLOYED], threshold_percent=5) is None


def test_minutes_without_requests_are_gaps_and_no_zeros() -> None:
    rows = [{"at": at(n), "seconds": 60, "requests": 0 if n < 5 else 100, "errors": 10} for n in range(10)]
    chart = drawn(reading("request_curve", rows))
    assert chart.svg.count("<rect") == 1 + 5
    silent = [{"at": at(0), "seconds": 60, "requests": 0, "errors": 0}]
    assert drawn(reading("request_curve", silent)).alt == "No request was seen in the window."


def test_hostile_names_are_text() -> None:
    hostile = reading("deployments", [{"sha": "e", "ref": "<script>alert(1)</script>", "finished_at": at(30)}])
    chart = drawn(RATE, hostile)
    assert "<script" not in chart.svg
    ElementTree.fromstring(chart.svg)


def test_the_same_readings_give_the_same_bytes() -> None:
    assert drawn(RATE, DEPLOYED, PAGES).svg == drawn(PAGES, DEPLOYED, RATE).svg
