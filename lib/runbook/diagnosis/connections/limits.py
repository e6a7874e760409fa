"""Thresholds of the connection runbook, from its parameters. Source: reference fault model, runbook R2."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1 of the usable slots unless said otherwise."""

    #: Percent of usable slots at which the symptom is there.
    threshold_percent: float = 80.0
    critical_percent: float = 95.0
    #: Idle in a transaction at least so long (median of an application) is a leak, seconds.
    idle_after_seconds: float = 30.0
    #: A statement that runs so long counts as long, seconds.
    long_query_seconds: float = 300.0
    #: A backend stuck so long in writing to its client has lost it, seconds.
    orphan_after_seconds: float = 60.0
    #: Cores of the database host; 0 = as measured.
    cores: int = 0
    leak_share: float = 0.20
    running_share: float = 0.30
    running_per_core: float = 2.0
    one_statement_share: float = 0.50
    idle_share: float = 0.50
    quiet_share: float = 0.50
    orphan_share: float = 0.20
    half_open_share: float = 0.20
    blocked_sessions: int = 3
    orphan_sessions: int = 3
    pool_timeouts: int = 3
    #: New sessions a second, as a share of the usable slots: at that rate every slot is reopened within 30 s.
    storm_per_slot: float = 1 / 30
    storm_at_least: float = 1.0
    young_seconds: float = 60.0
