"""What is made of Prometheus' answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook.connectors.prometheus import MAX_ROWS, Prometheus
from tests.vendor_stub import Asked, Stub, context, row, rows, serving

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
QUERY, RANGE = "/api/v1/query", "/api/v1/query_range"
WEEK = timedelta(weeks=1).total_seconds()


def prometheus(stub: Stub) -> Prometheus:
    return Prometheus(context(now=lambda: NOW), stub.url)


def data(kind: str, result: Any, **fields: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **fields}


@pytest.mark.parametrize(("text", "value"), [("1.5", 1.5), ("0", 0.0), ("NaN", None), ("+Inf", None), ("-Inf", None)])
def test_a_value_is_a_number_or_unknown(text: str, value: float | None) -> None:
    with serving({QUERY: data("vector", [{"metric": {"job": "api"}, "value": [1795400000, text]}])}) as stub:
        assert row(prometheus(stub).query("up", "up")) == {"job": "api", "value": value}


def test_a_query_may_ask_about_a_time() -> None:
    with serving({QUERY: data("vector", [])}) as stub:
        assert rows(prometheus(stub).query("up", 'up{job="a b"}', NOW)) == []
    (asked,) = stub.asked
    assert (asked.first("query"), asked.first("time")) == ('up{job="a b"}', "1795168800.000")


def test_a_scalar_is_one_row() -> None:
    with serving({QUERY: data("scalar", [1795400000, "42"])}) as stub:
        assert row(prometheus(stub).query("n", "scalar(up)")) == {"value": 42.0}


def test_a_native_histogram_has_no_one_value() -> None:
    with serving({QUERY: data("vector", [{"metric": {"job": "a"}, "histogram": [1, {"count": "2"}]}])}) as stub:
        assert row(prometheus(stub).query("h", "h")) == {"job": "a", "value": None}


def test_a_label_that_is_called_value_does_not_hide_the_value() -> None:
    with serving({QUERY: data("vector", [{"metric": {"value": "x"}, "value": [1, "2"]}])}) as stub:
        assert row(prometheus(stub).query("n", "n")) == {"label_value": "x", "value": 2.0}


def test_a_range_is_a_row_for_every_series_and_step() -> None:
    series = [{"metric": {"i": "a"}, "values": [[1795400000, "1"], [1795400060, "NaN"]]}]
    with serving({RANGE: data("matrix", series)}) as stub:
        found = rows(prometheus(stub).range("r", "up", NOW - timedelta(hours=1), NOW, 60))
    assert found == [
        {"i": "a", "at": "2026-11-23T02:13:20.000+00:00", "value": 1.0},
        {"i": "a", "at": "2026-11-23T02:14:20.000+00:00", "value": None},
    ]
    assert stub.asked[0].first("step") == "60"


def test_a_range_of_too_many_steps_is_an_error_of_the_caller() -> None:
    with serving() as stub, pytest.raises(ValueError, match="11000"):
        prometheus(stub).range("r", "up", NOW - timedelta(days=1), NOW, 1)


def test_warnings_make_an_answer_partial() -> None:
    with serving({QUERY: data("vector", [], warnings=["store a did not answer"])}) as stub:
        reading = prometheus(stub).query("up", "up")
    assert (reading.state, reading.reason) == ("partial", "store a did not answer")


def test_more_points_than_a_reading_holds_are_cut_and_said() -> None:
    series = [{"metric": {"i": str(n)}, "value": [1, "1"]} for n in range(MAX_ROWS + 1)]
    with serving({QUERY: data("vector", series)}) as stub:
        reading = prometheus(stub).query("up", "up")
    assert len(rows(reading, "partial")) == MAX_ROWS


def test_a_query_that_does_not_parse_is_said_in_prometheus_words() -> None:
    body = {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end"}
    with serving({QUERY: (400, body, {})}) as stub:
        reading = prometheus(stub).query("up", "up(")
    assert (reading.known, reading.code) == (False, "400")
    assert "unexpected end" in reading.reason


def history(peaks: list[float], samples: list[float], instances: tuple[str, ...] = ("db:9187",)) -> Any:
    """Peaks and counts of weeks that end at ``NOW``, one week after the other."""

    def answer(asked: Asked) -> Any:
        values = peaks if str(asked.first("query")).startswith("max_over_time") else samples
        first = NOW.timestamp() - (len(values) - 1) * WEEK
        points = [[first + n * WEEK, str(value)] for n, value in enumerate(values)]
        return data("matrix", [{"metric": {"instance": name}, "values": points} for name in instances])

    return answer


def test_growth_is_the_median_of_the_weeks() -> None:
    with serving({RANGE: history([40, 44, 100, 110, 121], [1008] * 5)}) as stub:
        found = rows(prometheus(stub).weekly_peaks())
    assert [item["peak"] for item in found] == [40, 44, 100, 110, 121]
    assert {item["weekly_growth"] for item in found} == {0.1}, "one step up is not growth"
    assert found[-1]["week_start"] == "2026-11-13T10:00:00.000+00:00"


def test_a_week_that_was_half_recorded_does_not_count() -> None:
    with serving({RANGE: history([5, 50, 50, 50], [300, 1008, 1008, 1008])}) as stub:
        found = rows(prometheus(stub).weekly_peaks())
    assert [(item["peak"], item["weekly_growth"]) for item in found] == [(50, 0.0)] * 3


def test_two_weeks_are_no_trend() -> None:
    with serving({RANGE: history([50, 60], [1008, 1008])}) as stub:
        assert [item["weekly_growth"] for item in rows(prometheus(stub).weekly_peaks())] == [None, None]


def test_of_several_servers_nobody_knows_which() -> None:
    with serving({RANGE: history([50, 60], [1008, 1008], ("a:9187", "b:9187"))}) as stub:
        reading = prometheus(stub).weekly_peaks()
    assert (reading.state, reading.value) == ("partial", None)
    assert "a:9187, b:9187" in reading.reason


def test_no_history_is_no_row() -> None:
    with serving({RANGE: data("matrix", [])}) as stub:
        assert rows(prometheus(stub).weekly_peaks()) == []


def test_without_an_address_nothing_is_asked() -> None:
    reading = Prometheus(context(), "").query("up", "up")
    assert (reading.state, reading.reason) == ("not_configured", "prometheus.url is not set")
