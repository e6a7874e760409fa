"""A service that is known by its metrics only: a real Prometheus that scrapes a small exporter."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook.connectors.base import Context
from runbook.connectors.http import HttpConnector
from runbook.connectors.traffic import READINGS, Traffic
from runbook.settings import Traffic as Section
from tests.integration.connectors.web import says, web
from tests.support import free_port, require_program, wait_until

WINDOW = 12.0


@contextlib.contextmanager
def prometheus(directory: Path, exporters: dict[str, int]) -> Iterator[dict[str, str]]:
    """One Prometheus for each exporter (name → port): name → URL."""
    program = require_program("prometheus", package="prometheus")
    processes, urls = [], {}
    try:
        for name, exporter in exporters.items():
            port = free_port()
            place = directory / name
            place.mkdir()
            (place / "config.yml").write_text(
                "global: {scrape_interval: 1s}\n"
                f"scrape_configs: [{{job_name: shop, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n"
            )
            arguments = (f"--config.file={place}/config.yml", f"--storage.tsdb.path={place}/data",
                         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error")  # fmt: skip
            processes.append(subprocess.Popen([program, *arguments], cwd=place))
            urls[name] = f"http://127.0.0.1:{port}"
        yield urls
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def exporter(lines: Callable[[float], str]) -> Callable[[Any], None]:
    """Metrics that grow with time: ``lines`` is given the seconds since its first scrape."""
    began: list[float] = []

    def answer(handler: Any) -> None:
        began.append(time.monotonic())
        says(lines(began[-1] - began[0]), 200, "text/plain; version=0.0.4")(handler)

    return answer


def application(seconds: float) -> str:
    """40 requests a second: 30 by v1 of which none fails, 10 by v2 of which half fail; one slow route."""

    def line(rate: float, code: str, version: str, route: str) -> str:
        labels = f'code="{code}",version="{version}",route="{route}",method="get",pod="web-1"'
        return f"http_requests_total{{{labels}}} {rate * seconds:.3f}\n"

    return (
        "# TYPE http_requests_total counter\n"
        + line(30, "200", "v1", "/videos") + line(4, "200", "v2", "/videos") + line(1, "404", "v2", "/videos")
        + line(5, "503", "v2", "/pay")
        + 'prometheus_http_requests_total{code="500"} 1000\n'
        # An ingress counts the same requests again, and must not be added.
        + f'nginx_ingress_controller_requests{{status="200",ingress="shop"}} {40 * seconds:.3f}\n'
    )  # fmt: skip


def spring(seconds: float) -> str:
    """Spring's histogram: 20 requests a second, a tenth of which fail; all take 0.1 to 0.2 s."""
    text = "# TYPE http_server_requests_seconds histogram\n"
    for status, rate in (("200", 18.0), ("500", 2.0)):
        labels = f'status="{status}",uri="/api",method="GET",outcome="X"'
        total = rate * seconds
        for le, share in (("0.1", 0.0), ("0.2", 1.0), ("+Inf", 1.0)):
            text += f'http_server_requests_seconds_bucket{{{labels},le="{le}"}} {share * total:.3f}\n'
        text += f"http_server_requests_seconds_count{{{labels}}} {total:.3f}\n"
        text += f"http_server_requests_seconds_sum{{{labels}}} {0.15 * total:.3f}\n"
    return text


def envoy(seconds: float) -> str:
    """Envoy tells the class of a status only."""
    return "".join(
        f'envoy_http_downstream_rq_xx{{envoy_response_code_class="{code}",envoy_http_conn_manager_prefix="in"}} '
        f"{rate * seconds:.3f}\n"
        for code, rate in (("2", 19.0), ("5", 1.0))
    )


def nothing(_: float) -> str:
    return "process_cpu_seconds_total 5\n"


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    made = {"application": application, "spring": spring, "envoy": envoy, "nothing": nothing}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(web(exporter(lines))) for name, lines in made.items()}
        found = stack.enter_context(prometheus(tmp_path_factory.mktemp("prometheus"), ports))
        for url in found.values():
            wait_until(lambda url=url: _scraped(url), seconds=60, what=f"{url} to have scraped for long enough")
        yield found


def _scraped(url: str) -> bool:
    """Whether there is a window's worth of samples."""
    with contextlib.suppress(OSError):
        query = f"/api/v1/query?query=count_over_time(up[60s])>{WINDOW + 4}".replace(">", "%3E")
        with urllib.request.urlopen(url + query, timeout=5) as answer:
            return b'"value"' in answer.read()
    return False


def measured(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    context = Context()
    Traffic(context, Section(), HttpConnector(context, url)).measure(WINDOW, curve_minutes=10)
    found = {reading.name: reading for reading in context.recorder.readings}
    assert list(found) == ["requests", *READINGS]
    return (found["requests"].rows or [{}])[0], found


def split(found: dict[str, Any], by: str) -> dict[str, dict[str, Any]]:
    return {row["value"]: row for row in found["splits"].rows if row["by"] == by and not row.get("missing")}


def test_the_application_s_counter_gives_rate_splits_and_curve(urls: dict[str, str]) -> None:
    row, found = measured(urls["application"])
    assert found["requests"].state == "ok", found["requests"].reason
    assert row["format"] == "metrics: http_requests_total"
    assert row["requests_per_second"] == pytest.approx(40, rel=0.15)
    assert row["error_percent"] == pytest.approx(12.5, abs=0.5)
    assert row["client_errors"] == pytest.approx(WINDOW, rel=0.3)
    assert row["closed_by_client"] == 0
    release = split(found, "release")
    assert release["v2"]["error_percent"] == pytest.approx(50, abs=1)
    assert (release["v1"]["errors"], release["v2"]["share_of_errors"]) == (0, 1.0)
    assert split(found, "route")["/pay"]["share_of_requests"] == pytest.approx(0.125, abs=0.01)
    assert set(split(found, "instance")) == {"web-1"}
    assert set(split(found, "status")) == {"200", "404", "503"}
    assert sum(point["requests"] for point in found["request_curve"].rows) > 0


def test_what_metrics_do_not_tell_is_missing_or_unknown_and_never_empty(urls: dict[str, str]) -> None:
    _, found = measured(urls["application"])
    missing = {row["by"] for row in found["splits"].rows if row.get("missing")}
    assert missing == {"user", "client", "upstream", "upstream_status", "release_overlap"}
    assert (found["upstreams"].state, found["upstreams"].value) == ("not_configured", None)
    assert found["traffic_baseline"].value == []


def test_a_histogram_gives_the_95th_percentile_in_milliseconds(urls: dict[str, str]) -> None:
    row, found = measured(urls["spring"])
    assert row["format"] == "metrics: http_server_requests_seconds_count"
    assert row["p95_ms"] == pytest.approx(195, abs=2)
    assert row["error_percent"] == pytest.approx(10, abs=0.5)
    assert set(split(found, "route")) == {"/api"}


def test_classes_of_statuses_are_enough_for_a_rate(urls: dict[str, str]) -> None:
    row, _ = measured(urls["envoy"])
    assert row["error_percent"] == pytest.approx(5, abs=0.5)
    assert row["closed_by_client"] is None


def test_no_counter_of_requests_is_not_configured(urls: dict[str, str]) -> None:
    row, found = measured(urls["nothing"])
    assert row == {}
    assert {reading.state for reading in found.values()} == {"not_configured"}
    assert "none of the usual counters" in found["requests"].reason


def test_a_prometheus_that_is_down_is_unreachable() -> None:
    row, found = measured(f"http://127.0.0.1:{free_port()}")
    assert row == {}
    assert {(reading.state, reading.code) for reading in found.values()} == {("unreachable", "ECONNREFUSED")}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (says('{"status":"success","data":{"result":"x"}}'), "partial"),
        (says('{"status":"success"}'), "partial"),
        (says("<html>"), "partial"),
        (says('{"status":"error","error":"bad"}', 422), "partial"),
        (says("", 401), "auth_failed"),
        (says("", 503), "unreachable"),
        (says('{"status":"success","data":{"result":[{"metric":{},"value":[1,"NaN"]}]}}'), "not_configured"),
        (says('{"status":"success","data":{"result":[{"metric":{},"value":[]}]}}'), "partial"),
    ],
)
def test_answers_of_another_form_are_unknown(answer: Callable[[Any], None], state: str) -> None:
    with web(answer) as port:
        _, found = measured(f"http://127.0.0.1:{port}")
    assert {reading.state for reading in found.values()} == {state}
