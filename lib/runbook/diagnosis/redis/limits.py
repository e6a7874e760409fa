"""Thresholds of the Redis runbook, from its parameters. Source: reference fault model, runbook R8."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1."""

    #: Lines of the application's log younger than this speak of now, seconds.
    recent_seconds: float = 120.0
    #: Fewer recent lines than this may be chance.
    min_lines: int = 3
    #: An answer that takes longer is slow, milliseconds.
    slow_ms: float = 1000.0
    #: A command that kept the server for so long kept everybody else waiting, seconds.
    block_seconds: float = 1.0
    #: Client slots in use, from which on they are short, percent.
    clients_percent: float = 80.0
    #: Clients of one application that hold this share of the slots and are idle for so long are a leak.
    leak_share: float = 0.5
    leak_idle_seconds: float = 300.0
    #: A fork that took longer stopped everybody for that time, milliseconds.
    fork_ms: float = 500.0
