"""Thresholds of the response-time runbook, from its parameters. Source: reference fault model, runbook R4."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1 of the slow requests or of their time."""

    #: p95 above which the symptom is there, and from which on a request counts as slow, milliseconds.
    threshold_ms: float = 1000.0
    #: Fewer requests than these say nothing about a p95.
    min_requests: int = 200
    #: Fewer slow requests than these are not split.
    min_slow: int = 10
    #: One statement with so much of the time in SQL is the one.
    statement_share: float = 0.5
    #: A statement's mean against before, from which on it has become slower.
    mean_ratio: float = 3.0
    #: A part of the slow requests' time from which on it matters.
    material_share: float = 0.2
    #: Rows read by one scan of a whole table, from which on it is a large one.
    scan_rows: int = 10_000
    #: A statement run so many times a request is run in a loop.
    calls_per_request: float = 10.0
    #: Waiting for a connection of the pool, milliseconds.
    pool_wait_ms: float = 100.0
    #: Event loop lag (99th percentile) from which on it is blocked, milliseconds.
    loop_lag_ms: float = 100.0
    #: Of the slow requests, those that one vendor must have.
    concentration_share: float = 0.5
    #: Of the slow requests, those that one route, instance, client or user must have.
    place_share: float = 0.8
    #: A release, route or instance that is slow so many times as often as the others is apart from them.
    release_ratio: float = 3.0
    #: Requests a second against the same time before, from which on it is a surge.
    surge_ratio: float = 2.0
    #: Time in which work waited for a processor (PSI), percent.
    cpu_pressure_percent: float = 20.0
    #: The same for the disk.
    io_pressure_percent: float = 20.0
    #: Time in which everything waited for memory (PSI full), percent.
    memory_pressure_percent: float = 5.0
    #: Periods in which a cgroup's quota was used up.
    throttled_share: float = 0.05
    #: Redis' answer to PING, milliseconds, from which on it is slow.
    redis_ms: float = 20.0
    #: Name, connection and certificate of a host together, milliseconds.
    connect_ms: float = 200.0
    #: A standby that is so far behind, seconds.
    replica_lag_seconds: float = 5.0
    #: Dead rows of a table, percent, from which on it is bloated.
    dead_percent: float = 20.0
    #: Fewer dead rows than these are no bloat.
    dead_rows: int = 10_000
