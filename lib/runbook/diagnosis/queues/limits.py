"""Thresholds of the queue runbook, from its parameters. Source: reference fault model, runbook R9."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1."""

    window_minutes: float = 60.0
    #: The oldest waiter, and the 95th percentile of the waits that ended, from which on it is an incident, minutes.
    threshold_minutes: float = 5.0
    #: Over how long a rate, and the percentile *now*, is taken, minutes.
    rate_minutes: float = 5.0
    #: A job that runs for so long is stuck, minutes; 0 = ten.
    job_stuck_minutes: float = 0.0
    #: Fewer jobs than this say nothing about a rate, a percentile or a common reason.
    min_jobs: int = 5
    #: Percent of the jobs that ended and failed, from which on it is an incident.
    failed_percent: float = 20.0
    #: Arrivals so many times the usual are a burst.
    burst_factor: float = 3.0
    #: Jobs that run so many times as long as usual wait for something.
    slow_factor: float = 3.0
    #: A worker's connection that says nothing for so long is not waiting for work (it asks every 5 to 10 s), seconds.
    silent_seconds: float = 12.0
    #: A call of a dependency that takes so long is slow, seconds.
    slow_call_seconds: float = 1.0
    #: A file system fuller than this has no room to work in, percent.
    disk_percent: float = 98.0

    @property
    def stuck_seconds(self) -> float:
        return 60.0 * (self.job_stuck_minutes or 10.0)

    @property
    def threshold_seconds(self) -> float:
        return 60.0 * self.threshold_minutes
