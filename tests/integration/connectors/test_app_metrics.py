"""The application's own metrics, scraped from real HTTP servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runbook.connectors.app_metrics import AppMetrics, figures
from runbook.connectors.base import Context
from runbook.result import Reading
from runbook.settings import App
from tests.integration.connectors.web import says, web
from tests.support import free_port

NODE = """# HELP nodejs_eventloop_lag_p99_seconds The 99th percentile of the recorded event loop delays.
# TYPE nodejs_eventloop_lag_p99_seconds gauge
nodejs_eventloop_lag_p99_seconds 0.2514
nodejs_eventloop_lag_mean_seconds 0.012
nodejs_gc_duration_seconds_sum{kind="major"} 1.5
nodejs_gc_duration_seconds_sum{kind="minor"} 0.25
nodejs_heap_size_used_bytes 41000000
process_cpu_seconds_total 12.5
prisma_pool_connections_busy 9
prisma_pool_connections_open 10
prisma_client_queries_wait 4
prisma_client_queries_wait_histogram_ms_sum 2500
prisma_client_queries_wait_histogram_ms_count 50
"""


def scraped(**section: Any) -> Reading:
    return AppMetrics(Context(), App(**section)).scrape()


def test_what_node_and_prisma_export_is_read_in_our_units() -> None:
    with web(says(NODE, kind="text/plain")) as port:
        reading = scraped(metrics_url=f"http://127.0.0.1:{port}/metrics")
    (row,) = reading.rows
    assert reading.state == "ok"
    assert {k: v for k, v in row.items() if k not in ("instance", "at", "milliseconds")} == {
        "event_loop_lag_p99_ms": 251.4, "event_loop_lag_ms": 12.0, "gc_seconds_total": 1.75, "heap_used_bytes": 41e6,
        "cpu_seconds_total": 12.5, "pool_busy": 9.0, "pool_size": 10.0, "pool_waiting": 4.0,
        "pool_wait_seconds_total": 2.5, "pool_waits_total": 50.0,
    }  # fmt: skip


def test_every_instance_is_asked_and_one_that_is_gone_is_named() -> None:
    with web(says(NODE, kind="text/plain")) as port:
        gone = free_port()
        reading = scraped(metrics_url="http://app/metrics", instances=[f"127.0.0.1:{port}", f"127.0.0.1:{gone}"])
    assert [row["instance"] for row in reading.rows] == [f"127.0.0.1:{port}"]
    assert reading.state == "partial"
    assert f"127.0.0.1:{gone}" in reading.reason


@pytest.mark.parametrize(
    ("body", "status", "state"),
    [
        ("", 401, "auth_failed"),
        ("", 403, "permission_denied"),
        ("", 500, "unreachable"),
        ("<html><body>sign in</body></html>", 200, "partial"),
        ("", 200, "partial"),
    ],
)
def test_what_is_no_exposition_is_unknown(body: str, status: int, state: str) -> None:
    with web(says(body, status, kind="text/plain")) as port:
        reading = scraped(metrics_url=f"http://127.0.0.1:{port}/metrics")
    assert (reading.state, reading.known) == (state, False), reading.reason


def test_none_configured_is_not_configured() -> None:
    assert scraped().state == "not_configured"


@pytest.mark.parametrize("url", ["nonsense", "ftp://h/", "http://[::1/", "http://h:99999/"])
def test_what_is_no_url_is_unknown_and_no_error(url: str) -> None:
    assert not scraped(metrics_url=url).known


def test_labels_and_samples_that_nobody_knows_are_left_out() -> None:
    text = 'secret_total{password="swordfish9"} 1\nprocess_cpu_seconds_total NaN\nnot a sample\nup 1 1700000000\n'
    assert figures(text) == {}
    with web(says(text, kind="text/plain")) as port:
        assert "swordfish9" not in json.dumps(scraped(metrics_url=f"http://127.0.0.1:{port}/m").as_dict())
