"""A real Prometheus with eight weeks of history."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from runbook.connectors.prometheus import Prometheus
from tests.support import free_port, require_program, wait_until
from tests.vendor_stub import context, row, rows

# Whole hours, so that a sample stands at the very times that are asked about.
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
WEEK = timedelta(weeks=1)
STEP = timedelta(minutes=4)  # a sample is looked for no further back than five minutes
PEAKS = (40, 42, 44, 47, 49, 52, 54, 57)
"""Sessions at the peak of each week, about five per cent more each time."""


RULES = """groups:
- name: disks
  rules:
  - alert: DiskFillsUp
    expr: node_filesystem_avail_bytes / node_filesystem_size_bytes < 0.15
    for: 5m
    labels: {severity: page}
  - alert: SomethingElse
    expr: up == 0
  - record: some:recording
    expr: sum(node_filesystem_avail_bytes)
"""


def filesystems() -> list[str]:
    """A disk that had 29 GB left an hour ago and has 4 now, as node_exporter tells it."""
    labels = '{instance="db1:9100",mountpoint="/data",fstype="ext4",device="/dev/sdb1"}'
    hour_ago = NOW - timedelta(hours=1)
    sizes = {"size": (100, 100), "free": (34, 9), "avail": (29, 4)}
    lines = []
    for measure, values in sizes.items():
        name = f"node_filesystem_{measure}_bytes"
        lines.append(f"# TYPE {name} gauge")
        lines += [
            f"{name}{labels} {value}e9 {at.timestamp()}" for value, at in zip(values, (hour_ago, NOW), strict=True)
        ]
    return lines


def history() -> str:
    """OpenMetrics: quiet weeks with one busy hour each; of the oldest week only the last days."""
    lines = ["# TYPE pg_stat_database_numbackends gauge", "# TYPE jobs gauge"]
    at = NOW - len(PEAKS) * WEEK + timedelta(days=4)
    while at <= NOW:
        week = int((at - (NOW - len(PEAKS) * WEEK)) / WEEK)
        busy = at.weekday() == 2 and at.hour == 12
        sessions = PEAKS[min(week, len(PEAKS) - 1)] if busy else 10
        lines.append(f'pg_stat_database_numbackends{{instance="db:9187",datname="app"}} {sessions} {at.timestamp()}')
        lines.append(f'pg_stat_database_numbackends{{instance="db:9187",datname="x"}} 1 {at.timestamp()}')
        at += STEP
    lines += [
        f'jobs{{queue="{queue}"}} {value} {NOW.timestamp()}' for queue, value in (("video", "3"), ("mail", "NaN"))
    ]
    metrics = sorted(lines[2:], key=lambda line: line.startswith("jobs"))
    return "\n".join([lines[0], *(m for m in metrics if m.startswith("pg")), lines[1],
                      *(m for m in metrics if m.startswith("jobs")), *queues(), *filesystems(), "# EOF",
                      ""])  # fmt: skip


def queues() -> list[str]:
    """Two hours of two queues: as BullMQ counts one of them, and as bull_exporter does the other."""
    times = [NOW - timedelta(hours=2) + STEP * n for n in range(31)]
    counted = [80 if n == 5 else 4 for n in range(31)]
    own = [
        f'bullmq_job_count{{queue="a \\"b",state="waiting"}} {n} {at.timestamp()}'
        for at, n in zip(times, counted, strict=True)
    ]
    other = [f'bull_queue_waiting{{prefix="bull",queue="mail"}} 7 {at.timestamp()}' for at in times]
    return ["# TYPE bullmq_job_count gauge", *own, "# TYPE bull_queue_waiting gauge", *other]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = require_program("prometheus", package="prometheus")
    promtool = require_program("promtool", package="prometheus")
    folder: Path = tmp_path_factory.mktemp("prometheus")
    (folder / "history.txt").write_text(history(), encoding="utf-8")
    (folder / "prometheus.yml").write_text("scrape_configs: []\nrule_files: [rules.yml]\n", encoding="utf-8")
    (folder / "rules.yml").write_text(RULES, encoding="utf-8")
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h", "history.txt", "data"],
        cwd=folder, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=1y",
             f"--web.listen-address=127.0.0.1:{port}"],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_until(ready, seconds=60, what="Prometheus")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def prometheus(url: str) -> Prometheus:
    return Prometheus(context(now=lambda: NOW), url)


def test_values_and_labels_of_a_query(prometheus: Prometheus) -> None:
    found = sorted(rows(prometheus.query("jobs", "jobs", NOW)), key=lambda item: item["queue"])
    assert [(item["queue"], item["value"]) for item in found] == [("mail", None), ("video", 3.0)]
    assert row(prometheus.query("all", 'scalar(jobs{queue="video"})', NOW)) == {"value": 3.0}


def test_a_range_has_its_steps(prometheus: Prometheus) -> None:
    found = rows(prometheus.range("r", "sum(pg_stat_database_numbackends)", NOW - timedelta(hours=2), NOW, 3600))
    assert [item["at"][11:16] for item in found] == [
        (NOW - timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 1, 0)
    ]
    assert all(item["value"] is not None for item in found)


def test_growth_over_the_weeks_leaves_out_the_week_that_was_half_recorded(prometheus: Prometheus) -> None:
    found = rows(prometheus.weekly_peaks())
    assert len(found) == len(PEAKS) - 1
    assert found[-1]["weekly_growth"] == pytest.approx(0.05, abs=0.02)
    assert found[-1]["week_start"] == (NOW - WEEK).isoformat(timespec="milliseconds")


@pytest.mark.parametrize("promql", ["up(", "sum by (", 'jobs{queue=~"["}'])
def test_a_query_that_does_not_parse_is_unknown_and_says_why(prometheus: Prometheus, promql: str) -> None:
    reading = prometheus.query("bad", promql)
    assert (reading.known, reading.code) == (False, "400")
    assert "parse error" in reading.reason or "error parsing" in reading.reason


def test_a_metric_that_nobody_records_is_no_row_and_not_0(prometheus: Prometheus) -> None:
    assert rows(prometheus.query("none", "nothing_of_that_name", NOW)) == []


@pytest.mark.parametrize(
    ("queue", "most"), [('a "b', 80.0), ("mail", 7.0)], ids=["of BullMQ's own exporter", "of bull_exporter"]
)
def test_a_week_of_a_queue_is_told_by_state(url: str, queue: str, most: float) -> None:
    (found,) = rows(Prometheus(context(now=lambda: NOW), url).queue_week(queue))
    assert (found["state"], found["most"]) == ("waiting", most)
    assert found["mean"] <= most


def test_a_queue_that_nobody_counts_has_no_rows(url: str) -> None:
    assert rows(Prometheus(context(now=lambda: NOW), url).queue_week("nowhere")) == []


def test_filesystems_are_told_with_what_they_had_an_hour_ago(prometheus: Prometheus) -> None:
    found = rows(prometheus.filesystems(NOW))
    assert {item["mountpoint"] for item in found} == {"/data"}
    measures = {item["measure"]: item["value"] for item in found}
    assert measures == {"size": 100e9, "free": 9e9, "available": 4e9, "available_before": 29e9, "least_available": 4e9}


def test_alerting_rules_about_filesystems_are_found_and_others_are_not(prometheus: Prometheus) -> None:
    found = rows(prometheus.alert_rules("disk_alerts", "node_filesystem"))
    assert [(item["name"], item["for_seconds"], item["severity"]) for item in found] == [("DiskFillsUp", 300.0, "page")]
