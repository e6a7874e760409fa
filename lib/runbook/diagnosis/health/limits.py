"""Thresholds of the health-check runbook, from its parameters. Source: reference fault model, runbook R7."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses."""

    #: How far back the run looks, minutes.
    window_minutes: float = 60.0
    #: What the checker waits for an answer, seconds.
    checker_timeout: float = 5.0
    #: Share of the looks at an endpoint that must fail: two of three.
    failing_share: float = 0.6
    #: A process younger than this, and a migration, may still be starting, seconds.
    startup_seconds: float = 120.0
    #: Regular expression of the application's command lines; empty = told by what listens at its addresses.
    process_pattern: str = ""
    #: Share of one processor from which on a silent process is busy in a loop, 0–1.
    busy_share: float = 0.8
    #: A file system fuller than this has no room, percent.
    disk_percent: float = 98.0
    #: Open files as a share of the limit, from which on no connection is taken any more.
    files_share: float = 0.98
    #: A deployment this long before the alert may be its cause, minutes.
    deploy_minutes: float = 30.0
    #: A certificate that ends sooner should have been renewed, days.
    expiry_days: float = 21.0
    #: When the alert began, ISO 8601; empty = now.
    alert_at: str = ""
