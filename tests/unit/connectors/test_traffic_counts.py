"""What is counted of requests, and what is left unknown."""

from __future__ import annotations

from typing import Any

import pytest

from runbook.connectors import traffic_counts as counts
from runbook.connectors.access_log import Request

T0 = 1_790_000_040.0  # the begin of a minute


def request(at: float = 0, status: int = 200, **more: Any) -> Request:
    fields: dict[str, Any] = dict.fromkeys(Request._fields)
    return Request(**(fields | {"at": T0 + at, "status": status, "path": "/x", "method": "GET"} | more))


def by(rows: list[counts.Row], name: str) -> dict[Any, counts.Row]:
    return {row["value"]: row for row in rows if row["by"] == name}


@pytest.mark.parametrize(
    ("errors", "requests", "low"),
    [(0, 0, None), (3, 20, 5.24), (10, 100, 5.52), (6, 100, 2.78), (100, 100, 96.3), (0, 100, 0.0), (50, 1000, 3.81)],
)
def test_the_lower_bound_is_wilsons(errors: int, requests: int, low: float | None) -> None:
    assert counts.wilson_low(errors, requests) == low


def test_the_rate_counts_each_kind_of_answer_once() -> None:
    window = [request(n, status) for n, status in enumerate((200, 301, 404, 429, 499, 500, 503, 504))]
    row = counts.rate(window, seconds=16)
    assert {k: row[k] for k in ("requests", "errors", "error_percent", "client_errors", "closed_by_client")} == {
        "requests": 8, "errors": 3, "error_percent": 37.5, "client_errors": 2, "closed_by_client": 1
    }  # fmt: skip
    assert (row["requests_per_second"], row["p95_ms"], row["retried"]) == (0.5, None, None)
    assert row["first_at"] < row["last_at"]


def test_no_requests_have_no_rate_of_errors() -> None:
    row = counts.rate([], seconds=300)
    assert (row["requests"], row["error_percent"], row["low_percent"], row["p95_ms"]) == (0, None, None, None)


def test_a_request_that_was_tried_twice_counts_once_and_is_called_retried() -> None:
    window = [request(upstream="a, b", upstream_status="502, 200"), request(upstream="a", upstream_status="200")]
    row = counts.rate(window, seconds=1)
    assert (row["requests"], row["errors"], row["retried"]) == (2, 0, 1)


def test_the_95th_percentile_is_that_of_the_known_durations() -> None:
    assert counts.p95([request(duration_ms=float(n)) for n in range(1, 101)] + [request()]) == 95.0
    assert counts.p95([request(duration_ms=7.0)]) == 7.0


def test_the_peak_is_the_worst_minute_with_enough_requests() -> None:
    quiet = [request(n, 500) for n in range(5)]
    busy = [request(60 + n, 500 if n < 5 else 200) for n in range(20)]
    calm = [request(120 + n, 200) for n in range(30)]
    assert counts.peak([*quiet, *busy, *calm]) == {"peak_percent": 25.0, "peak_at": counts.iso(T0 + 60)}
    assert counts.peak(quiet) == {"peak_percent": None, "peak_at": None}


def test_the_curve_has_a_zero_where_the_log_has_nothing_and_no_row_where_it_does_not_reach() -> None:
    found = [request(at, 500 if at == 95 else 200, client=f"c{at}", duration_ms=5.0) for at in (61, 62, 95, 275)]
    rows = counts.curve(found, begin=T0, end=T0 + 280, covered_from=T0 + 60)
    shown = {row["at"][11:19]: (row["requests"], row["errors"], row["clients"], row["seconds"]) for row in rows}
    assert len(rows) == 44  # steps of 5 s
    assert rows[0]["at"] == counts.iso(T0 + 60)
    assert sum(row[0] for row in shown.values()) == 4
    assert (0, 0, 0, 5) in shown.values()
    assert next(row for row in rows if row["errors"])["at"] == counts.iso(T0 + 90)


def test_the_first_and_the_last_step_of_the_curve_say_how_much_of_them_was_looked_at() -> None:
    rows = counts.curve([request(3600)], begin=T0 + 10, end=T0 + 3610, covered_from=float("-inf"))
    assert (rows[0]["seconds"], rows[1]["seconds"], rows[-1]["seconds"]) == (20, 30, 10)


def test_clients_are_unknown_where_the_log_names_none() -> None:
    assert counts.curve([request(1)], begin=T0, end=T0 + 5, covered_from=T0)[0]["clients"] is None


# -- splits -----------------------------------------------------------------------------------------------------------


def test_every_split_counts_the_same_requests() -> None:
    window = [
        request(n, 503 if n % 10 == 0 else 200, instance=f"web-{n % 2}", release="r1", client=f"c{n % 5}", user=None)
        for n in range(100)
    ]
    rows = counts.splits(window)
    for name in ("instance", "release", "client", "route", "method", "status"):
        assert sum(row["requests"] for row in rows if row["by"] == name) == 100
        assert sum(row["errors"] for row in rows if row["by"] == name) == 10
    web = by(rows, "instance")["web-0"]
    assert (web["share_of_errors"], web["share_of_requests"], web["error_percent"]) == (1.0, 0.5, 20.0)
    assert (web["first_at"], web["first_error_at"], web["last_at"]) == tuple(counts.iso(T0 + n) for n in (0, 0, 98))
    assert by(rows, "instance")["web-1"]["first_error_at"] is None


def test_a_field_that_no_line_has_is_said_to_be_missing_once() -> None:
    rows = counts.splits([request(n) for n in range(3)])
    missing = [row["by"] for row in rows if row.get("missing")]
    assert missing == ["release", "instance", "upstream", "client", "user", "upstream_status", "release_overlap"]
    assert all(row["value"] is None for row in rows if row.get("missing"))


def test_without_errors_the_share_of_errors_is_unknown_and_not_0() -> None:
    assert by(counts.splits([request()]), "route")["/x"]["share_of_errors"] is None


def test_only_the_worst_values_of_a_split_are_kept_and_shares_are_still_of_all() -> None:
    window = [request(n, 500 if n == 77 else 200, client=f"c{n}") for n in range(100)]
    clients = by(counts.splits(window), "client")
    assert len(clients) == counts.MAX_VALUES
    assert clients["c77"]["share_of_errors"] == 1.0
    assert clients["c77"]["share_of_requests"] == 0.01


def test_ids_in_paths_do_not_split_a_route() -> None:
    rows = counts.splits([request(n, path=f"/api/videos/{n}") for n in range(30)])
    assert by(rows, "route")["/api/videos/:id"]["requests"] == 30


def test_a_request_through_two_hosts_counts_for_both() -> None:
    rows = counts.splits([request(status=502, upstream="a, b", upstream_status="502, 502")])
    assert {value: row["errors"] for value, row in by(rows, "upstream").items()} == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("old", "new", "counted"),
    [
        (range(0, 60, 2), range(1, 60, 2), 60),  # a canary beside the old one
        (range(30), range(30, 60), 0),  # a switch: one after the other
        (range(40), range(20, 60), 80),  # a rolling deployment
        (range(60), range(60, 120), 0),  # in different minutes
        (range(60), [30], 61),
        (range(60), [], 0),
    ],
)
def test_releases_are_compared_only_where_they_served_at_the_same_time(old: Any, new: Any, counted: int) -> None:
    window = [request(n, release="v1") for n in old] + [request(n, 500, release="v2") for n in new]
    rows = by(counts.splits(window), "release_overlap")
    assert sum(row["requests"] for row in rows.values()) == counted
    assert None not in rows


# -- upstreams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "status", "connect", "counted"),
    [
        (502, "-", "-", {"upstream_errors": 1, "refused": 1}),
        (504, "-", "-", {"upstream_errors": 1, "timeouts": 1}),
        (504, "504", "0.001", {"upstream_errors": 1, "timeouts": 1}),
        (504, "-", "0.001", {"upstream_errors": 1, "timeouts": 1}),
        (500, "503", "0.001", {"upstream_errors": 1}),
        (500, "401", "0.001", {"auth": 1}),
        (500, "403", "0.001", {"auth": 1}),
        (500, "429", "0.001", {"throttled": 1}),
        (500, "200", "0.001", {}),
        (500, "-", "0.001", {"upstream_errors": 1}),
        (200, "503", "0.001", {"upstream_errors": 1}),
        (500, "ETIMEDOUT", "-", {"upstream_errors": 1, "timeouts": 1}),
        (500, "ECONNREFUSED", "-", {"upstream_errors": 1, "refused": 1}),
        (500, "502, 200", "0.1, 0.1", {}),
    ],
)
def test_what_an_upstream_answered_is_counted_as_what_it_was(
    ours: int, status: str, connect: str, counted: dict[str, int]
) -> None:
    upstream = ", ".join(["api.pay.example"] * (status.count(",") + 1))
    row = counts.upstreams(
        [request(status=ours, upstream=upstream, upstream_status=status, upstream_connect_time=connect)], []
    )[0]
    kinds = ("upstream_errors", "refused", "timeouts", "auth", "throttled")
    assert {kind: row[kind] for kind in kinds if row[kind]} == counted
    assert (row["requests"], row["failing"]) == (1, int(ours >= 500))


def test_shares_of_upstreams_are_of_all_our_failing_requests() -> None:
    window = [request(n, 502, upstream="api.pay.example:443", upstream_status="503") for n in range(3)]
    window += [request(n, 200, upstream="api.pay.example:443", upstream_status="200") for n in range(7)]
    window += [request(9, 500)]
    row = counts.upstreams(window, ["API.pay.example"])[0]
    assert (row["share_of_failing"], row["upstream_error_percent"], row["known_host"]) == (0.75, 30.0, True)


def test_failures_of_a_host_that_we_got_over_are_told_from_those_that_we_passed_on() -> None:
    window = [request(n, 200, upstream="a", upstream_status="503") for n in range(8)]  # a fallback served these
    window += [request(n, 500, upstream="a", upstream_status="200") for n in range(3)]  # these failed for themselves
    window += [request(n, 500, upstream="a", upstream_status=status) for n, status in enumerate(("503", "401", "429"))]
    row = counts.upstreams(window, [])[0]
    assert (row["upstream_errors"], row["failing"]) == (9, 6)
    assert [row[f"failing_with_{kind}"] for kind in ("error", "auth", "throttled")] == [1, 1, 1]


def test_what_a_log_does_not_say_of_upstreams_is_unknown() -> None:
    row = counts.upstreams([request(status=500, upstream="a")], [])[0]
    assert {row[k] for k in ("upstream_errors", "auth", "refused", "timeouts", "upstream_error_percent")} == {None}
    assert (row["requests"], row["failing"], row["known_host"]) == (1, 1, False)


def test_without_connect_times_a_refusal_is_not_told_from_silence() -> None:
    row = counts.upstreams([request(status=502, upstream="a", upstream_status="-")], [])[0]
    assert (row["upstream_errors"], row["refused"]) == (1, None)


def test_a_baseline_of_nothing_is_unknown() -> None:
    assert counts.baseline("before", [request(5)], begin=T0 + 10, end=T0 + 100) is None
    row = counts.baseline("before", [request(n, client=f"c{n % 3}") for n in range(1, 61)], begin=T0, end=T0 + 120)
    assert row is not None
    assert (row["requests_per_second"], row["clients"], row["error_percent"]) == (0.5, 3, 0.0)
