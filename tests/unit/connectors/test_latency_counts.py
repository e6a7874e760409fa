"""Durations of an access log, counted: what is long by its nature stays out, and what is not told stays unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.connectors.access_log import Parser, Request, seconds_of
from runbook.connectors.latency_counts import Look, baseline, curve, latency, quantile, splits

LOOK = Look(slow_ms=1000)
AT = 1_772_334_000.0


def request(milliseconds: float | None = 20.0, **how: Any) -> Request:
    usual: dict[str, Any] = {
        "at": AT, "status": 200, "client": "10.0.0.1", "user": "u1", "method": "GET", "path": "/items",
        "release": "1.0", "instance": "a1", "upstream": None, "upstream_status": None, "upstream_connect_time": None,
    }  # fmt: skip
    return Request(duration_ms=milliseconds, **(usual | how))


def rows(requests: list[Request], before: list[Request] | None = None, *hosts: str) -> dict[tuple[str, Any], Any]:
    return {(row["by"], row["value"]): row for row in splits(requests, before or [], LOOK, hosts)}


@pytest.mark.parametrize(
    ("path", "method", "status", "counted"),
    [
        ("/api/items", "GET", 200, True),
        ("/api/uploads/7/complete", "POST", 200, False),
        ("/api/videos/7/upload", "PUT", 200, False),
        ("/events", "GET", 200, False),
        ("/api/uploader", "GET", 200, True),
        ("/api/items", "GET", 101, False),
        ("/api/items", "CONNECT", 200, False),
        (None, "GET", 200, True),
    ],
)
def test_requests_that_are_long_by_their_nature_are_left_out(
    path: str | None, method: str, status: int, counted: bool
) -> None:
    row = latency([request(path=path, method=method, status=status)], LOOK, seconds=60)
    assert (row["requests"], row["excluded"]) == ((1, 0) if counted else (0, 1))


def test_the_words_that_are_left_out_are_a_parameter() -> None:
    look = Look(slow_ms=1000, exclude="report")
    assert latency([request(path="/report/7"), request(path="/uploads")], look, seconds=60)["requests"] == 1


def test_a_request_without_a_duration_is_unknown_and_never_fast() -> None:
    row = latency([request(None) for _ in range(50)] + [request(3000.0)], LOOK, seconds=60)
    assert (row["requests"], row["without_duration"], row["p95_ms"], row["slow"]) == (1, 50, 3000.0, 1)


def test_the_percentile_is_by_nearest_rank_and_the_times_add_up() -> None:
    row = latency([request(float(n)) for n in range(1, 101)] + [request(2000.0)], LOOK, seconds=10)
    assert (row["p50_ms"], row["p95_ms"], row["p99_ms"]) == (51.0, 96.0, 100.0)
    assert (row["total_ms"], row["slow_total_ms"], row["slow"]) == (7050.0, 2000.0, 1)
    assert row["requests_per_second"] == 10.1


def test_uploads_show_in_the_percentile_that_counts_them() -> None:
    uploads = [request(9000.0, path="/uploads") for _ in range(20)]
    row = latency([*(request() for _ in range(80)), *uploads], LOOK, seconds=9)
    assert (row["p95_ms"], row["p95_with_excluded_ms"]) == (20.0, 9000.0)


def test_slow_requests_are_split_beside_how_the_same_was_before() -> None:
    now = [request(instance="a1") for _ in range(30)] + [request(1500.0, instance="a2") for _ in range(10)]
    found = rows(now, [request(25.0, instance="a2")])
    row = found["instance", "a2"]
    assert (row["slow"], row["share_of_slow"], row["share_of_requests"]) == (10, 1.0, 0.25)
    assert (row["p95_ms"], row["others_p95_ms"], row["before_p95_ms"]) == (1500.0, 20.0, 25.0)
    assert (row["total_ms"], row["slow_total_ms"]) == (15_000.0, 15_000.0)


def test_a_field_that_no_line_has_is_said_to_be_missing() -> None:
    assert rows([request(release=None)])["release", None]["missing"] is True


def test_a_hosts_own_time_is_told_apart_from_the_way_to_it() -> None:
    call = {"upstream": "api.pay.example", "upstream_status": "200"}
    now = [request(1500.0, upstream_connect_time="0.002", upstream_response_time="1.480", **call) for _ in range(4)]
    row = rows([*now, request(900.0, **call)], [], "api.pay.example")["upstream", "api.pay.example"]
    assert (row["spans"], row["span_ms"], row["span_p95_ms"]) == (4, 5920.0, 1480.0)
    assert (row["connect_p95_ms"], row["known_host"]) == (2.0, True)


def test_where_no_line_tells_a_hosts_time_it_is_unknown() -> None:
    row = rows([request(1500.0, upstream="api.pay.example")])["upstream", "api.pay.example"]
    assert (row["spans"], row["span_ms"], row["span_p95_ms"]) == (0, None, None)


def test_releases_are_compared_in_the_minutes_in_which_both_served() -> None:
    old = [request(at=AT + n) for n in range(0, 50, 10)] + [request(at=AT - 600)]
    new = [request(1500.0, at=AT + n + 5, release="2.0") for n in range(0, 50, 10)]
    found = rows(old + new)
    assert found["release_overlap", "1.0"]["requests"] == 5
    assert found["release", "1.0"]["requests"] == 6


@pytest.mark.parametrize(
    ("joined", "seconds"),
    [("0.310", 0.31), ("0.004, 0.310", 0.314), ("0.1 : 0.2", 0.3), ("-", None), (None, None), ("-, 0.5", 0.5),
     ("NaN", None), ("1e9", None)],
)  # fmt: skip
def test_the_seconds_of_all_tries_are_added(joined: str | None, seconds: float | None) -> None:
    found = seconds_of(joined)
    assert found == pytest.approx(seconds) if seconds is not None else found is None


def test_a_line_tells_a_hosts_time_under_nginx_s_name_or_under_a_mapped_one() -> None:
    text = b'{"time":"2026-03-01T03:00:00Z","status":200,"upstream":"a","upstream_response_time":"0.250"}'
    found = Parser().request(text)
    assert found is not None
    assert found[1].upstream_response_time == "0.250"
    mapped = Parser("", {"upstream_response_time": "backend.seconds"})
    found = mapped.request(b'{"time":"2026-03-01T03:00:00Z","status":200,"backend":{"seconds":0.25}}')
    assert found is not None
    assert found[1].upstream_response_time == "0.25"


def test_an_empty_stretch_is_no_baseline_and_a_step_without_requests_has_no_percentile() -> None:
    assert baseline("before", [], LOOK, begin=AT - 60, end=AT) is None
    rows_ = curve([request(None, at=AT - 30)], LOOK, begin=AT - 60, end=AT)
    assert [(row["requests"], row["p95_ms"]) for row in rows_] == [(1, None)]


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_durations_and_grows_with_its_share(durations: list[float], share: float) -> None:
    known = sorted(durations)
    found = quantile(known, share)
    assert found is not None
    assert any(round(ms, 1) == found for ms in known)
    assert (quantile(known, min(1.0, share + 0.1)) or 0) >= found
