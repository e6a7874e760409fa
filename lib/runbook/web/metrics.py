"""Numbers about the service for Prometheus, in a registry of their own. No label's value comes from an alert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runbook.store.rows import Receipt


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._alerts = Counter(
            "runbook_alerts", "Alerts taken in, by source and fate.", ("source", "fate"), registry=self._registry
        )
        self._refused = Counter(
            "runbook_alert_requests_refused", "Alert requests refused, by status.", ("status",), registry=self._registry
        )
        self._intake = Histogram(
            "runbook_alert_intake_seconds",
            "From the request to its durable answer.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self._registry,
        )
        self._runs = Gauge("runbook_runs", "Runs that wait or are under way.", ("state",), registry=self._registry)

    def taken_in(self, source: str, receipts: Sequence[Receipt], seconds: float) -> None:
        """Count the alerts of one request that was answered with 202."""
        self._intake.observe(seconds)
        for receipt in receipts:
            self._alerts.labels(source, receipt.fate).inc()

    def refused(self, status: int) -> None:
        """Count an alert request that was answered with an error."""
        self._refused.labels(str(status)).inc()

    def exposition(self, runs: Mapping[str, int]) -> bytes:
        """The text that Prometheus reads, with the present number of runs by state."""
        for state, number in runs.items():
            self._runs.labels(state).set(number)
        return generate_latest(self._registry)
