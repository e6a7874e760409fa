"""The application's own metrics endpoint: what only the process itself knows, of each instance.

Reads the text format of Prometheus and OpenMetrics and keeps the figures that speak of waiting inside the process
(event loop, garbage collection, heap, processor, database pool), whatever the client library calls them. A figure that
is not exported is not in the rows, and hence unknown.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.connectors.health import AT_ONCE, Endpoint, endpoints, fetch
from runbook.connectors.http import connection_error
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.settings import App

LIMIT_SECONDS = 6.0
ANSWER_SECONDS = 4.0
MAX_BYTES = 4_000_000
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?\s*(?:#.*)?")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure and the names under which client libraries export it."""

    name: str
    pattern: str
    #: What the exported value is multiplied by.
    factor: float = 1.0
    #: Labels that a sample must have.
    labels: Mapping[str, str] | None = None
    #: Whether several samples add up (heap spaces, kinds of collection); else the largest counts.
    adds: bool = False

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a sample of that name and these labels is this figure."""
        wanted = self.labels or {}
        return re.fullmatch(self.pattern, name) is not None and all(labels.get(k) == v for k, v in wanted.items())


FIGURES = (
    # prom-client (Node), OpenTelemetry (nodejs.eventloop.delay.p99), home-grown
    Figure(name="event_loop_lag_p99_ms", pattern=r"(?:nodejs_)?event_?loop_(?:lag|delay)_p99(?:_seconds)?",
           factor=1000),
    Figure(name="event_loop_lag_p99_ms", pattern=r"(?:nodejs_)?event_?loop_(?:lag|delay)_p99_(?:ms|milliseconds)"),
    Figure(name="event_loop_lag_p99_ms", pattern=r"(?:nodejs_)?event_?loop_(?:lag|delay)(?:_seconds)?", factor=1000,
           labels={"quantile": "0.99"}),
    Figure(name="event_loop_lag_ms", pattern=r"(?:nodejs_)?event_?loop_(?:lag|delay)_(?:mean_)?seconds", factor=1000),
    Figure(name="gc_seconds_total", pattern=r"(?:nodejs|v8js|jvm)_gc_(?:duration|pause)_seconds_sum", adds=True),
    Figure(name="cpu_seconds_total", pattern=r"process_cpu_seconds_total"),
    Figure(name="heap_used_bytes", pattern=r"nodejs_heap_size_used_bytes"),
    Figure(name="heap_total_bytes", pattern=r"nodejs_heap_size_total_bytes"),
    Figure(name="resident_bytes", pattern=r"process_resident_memory_bytes"),
    # Prisma, HikariCP, pg-pool exporters, home-grown
    Figure(name="pool_busy", pattern=r"prisma_pool_connections_busy|hikaricp_connections_active|"
           r"(?:db_|pg_|database_)?pool_(?:connections_)?(?:busy|used|active)"),
    Figure(name="pool_size", pattern=r"prisma_pool_connections_open|hikaricp_connections_max|"
           r"(?:db_|pg_|database_)?pool_(?:connections_)?(?:size|max|limit)"),
    Figure(name="pool_waiting", pattern=r"prisma_client_queries_wait|hikaricp_connections_pending|"
           r"(?:db_|pg_|database_)?pool_(?:connections_)?(?:waiting|pending|waiters)"),
    Figure(name="pool_wait_seconds_total", pattern=r"hikaricp_connections_acquire_seconds_sum|"
           r"(?:db_|pg_|database_)?pool_(?:wait|acquire)_seconds_sum", adds=True),
    Figure(name="pool_wait_seconds_total", pattern=r"prisma_client_queries_wait_histogram_ms_sum", factor=0.001,
           adds=True),
    Figure(name="pool_waits_total", pattern=r"prisma_client_queries_wait_histogram_ms_count|"
           r"hikaricp_connections_acquire_seconds_count|(?:db_|pg_|database_)?pool_(?:wait|acquire)_seconds_count",
           adds=True),
)  # fmt: skip


class AppMetrics(Connector):
    """The endpoint ``app.metrics_url`` of every instance."""

    source = "app_metrics"
    failures = (OSError, httpx.HTTPError)

    def __init__(self, context: Context, section: App) -> None:
        url = section.metrics_url
        self._endpoints = list(endpoints({"metrics": url}, section.instances)) if url else []
        super().__init__(context, ", ".join(dict.fromkeys(e.instance for e in self._endpoints)) or "application")

    def scrape(self, name: str = "app_metrics") -> Reading:
        """Rows of ``app_metrics``: one for each instance, its figures and when; take two for a rate."""
        query = " · ".join(f"GET {endpoint.url}" for endpoint in self._endpoints)[:500] or "GET"
        if not self._endpoints:
            return self.missing(name, query, Failure(state="not_configured", reason="app.metrics_url is not set"))
        return self.read(name, query, self._asked, limit_seconds=LIMIT_SECONDS)

    def failure(self, error: Exception) -> Failure:
        if isinstance(error, httpx.TimeoutException):
            return Failure(state="timeout", reason=f"no answer within {ANSWER_SECONDS:g} s")
        code, reason = connection_error(error)
        return Failure(state="unreachable", reason=reason, code=code)

    def _asked(self) -> Fetched:
        with ThreadPoolExecutor(min(AT_ONCE, len(self._endpoints)), thread_name_prefix="metrics") as pool:
            answers = list(pool.map(self._instance, self._endpoints))
        rows = [row for row in answers if isinstance(row, dict)]
        lacking = [answer for answer in answers if isinstance(answer, Failure)]
        if not rows:
            raise Unavailable(lacking[0])
        return Fetched(value=rows, partial="; ".join(failure.reason for failure in lacking)[:300])

    def _instance(self, endpoint: Endpoint) -> dict[str, Any] | Failure:
        began = time.perf_counter()
        try:
            status, _, body = fetch(endpoint, accept="text/plain, */*", seconds=ANSWER_SECONDS, most=MAX_BYTES)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
            return Failure(state="not_configured", reason=f"{endpoint.instance}: not a URL that can be asked")
        except (httpx.HTTPError, OSError) as error:
            found = self.failure(error)
            return Failure(state=found.state, reason=f"{endpoint.instance}: {found.reason}", code=found.code)
        if status != 200:
            state = "auth_failed" if status == 401 else "permission_denied" if status == 403 else "unreachable"
            return Failure(state=state, reason=f"{endpoint.instance}: answered {status}", code=str(status))  # type: ignore[arg-type]
        found_figures = figures(body.decode("utf-8", "replace"))
        if found_figures is None:
            return Failure(state="partial", reason=f"{endpoint.instance}: answers no metrics in the text format")
        took = round((time.perf_counter() - began) * 1000, 1)
        at = self.context.now().isoformat(timespec="milliseconds")
        return {"instance": endpoint.instance, "at": at, "milliseconds": took, **found_figures}


def figures(text: str) -> dict[str, float] | None:
    """The known figures of one exposition; ``None`` when the text is none at all."""
    found: dict[str, float] = {}
    samples = 0
    for name, labels, value in _samples(text):
        samples += 1
        for figure in FIGURES:
            if figure.matches(name, labels):
                scaled = value * figure.factor
                before = found.get(figure.name)
                found[figure.name] = (
                    scaled if before is None else before + scaled if figure.adds else max(before, scaled)
                )
                break
    return {name: round(value, 6) for name, value in found.items()} if samples else None


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line.strip())
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            yield match[1], dict(_LABEL.findall(match[2] or "")), value
