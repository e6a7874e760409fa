"""Thresholds of the upload runbook, from its parameters. Source: reference fault model, runbook R3."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1."""

    window_minutes: float = 60.0
    #: Percent of the window's uploads that failed or got stuck, from which on it is an incident.
    threshold_percent: float = 5.0
    #: Fewer uploads than this in the window say nothing about a rate.
    min_uploads: int = 5
    #: Fewer bad uploads than this are no incident.
    min_bad: int = 2
    #: A row that has not moved for so long is stuck, minutes.
    stuck_after_minutes: float = 60.0
    #: A job that waits or runs for so long is stuck, minutes; 0 = ten.
    job_stuck_minutes: float = 0.0
    #: Parts of the routes of uploads and of the provider's webhooks.
    upload_route: str = "upload"
    webhook_route: str = "webhook"
    #: Limits of a body by layer, MB; 0 = not known, or no such layer.
    edge_limit_mb: float = 0.0
    proxy_limit_mb: float = 0.0
    app_limit_mb: float = 500.0
    #: One creator with so much of what is bad, while others succeed, is the matter.
    creator_share: float = 0.8
    #: A clock that is off by more than this has its requests refused, seconds (S3: 15 minutes).
    skew_seconds: float = 900.0
    #: A file system fuller than this has no room to transcode, percent.
    disk_percent: float = 98.0
    #: Open multipart uploads that speak of broken connections rather than of slow ones.
    open_multipart: int = 5

    @property
    def job_stuck_seconds(self) -> float:
        return 60.0 * (self.job_stuck_minutes or 10.0)
