"""Thresholds of the error-rate runbook, from its parameters. Source: reference fault model, runbook R1."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1 of the failing requests."""

    #: Percent of requests answered 5xx above which the symptom is there.
    threshold_percent: float = 5.0
    #: Percent above which it is worth to look at what fails, though it is no incident yet.
    warn_percent: float = 2.0
    #: Fewer requests than these say nothing.
    min_requests: int = 100
    #: Fewer failing requests than these are not split.
    min_errors: int = 10
    #: A release, an instance or a client that fails so many times as often as the others is apart from them.
    release_ratio: float = 3.0
    #: Errors that begin so soon after a change may come from it, minutes.
    deploy_minutes: float = 15.0
    #: A vendor that so many of the failing requests touch concentrates them.
    concentration_share: float = 0.5
    instance_share: float = 0.8
    client_share: float = 0.5
    #: Requests a second against the same time before, from which on it is a surge.
    surge_ratio: float = 2.0
    #: p95 against before, from which on latency has risen.
    latency_ratio: float = 1.5
    #: Percent of our calls to a vendor that fail, from which on it is failing.
    vendor_error_percent: float = 20.0
    #: Fewer calls than these say nothing about a vendor.
    min_calls: int = 10
    #: 499 or 4xx of so many percent of the requests may be taken for errors.
    artefact_percent: float = 20.0
    #: A system whose error lines stand for less of the failing requests is no cause of them.
    log_share: float = 0.2
    #: Fewer error lines than these are chance.
    min_lines: int = 3
    #: A filesystem so full fails writes, percent.
    disk_percent: float = 97.0
