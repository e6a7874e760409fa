"""What goes into the store and what comes out of it, as value objects.

They carry redacted data only; the one who makes a :class:`NewAlert` or a :class:`NewRun` has redacted it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Status = Literal["firing", "resolved"]
Fate = Literal["queued", "duplicate", "resolved", "unrouted"]

FINAL_STATES = ("succeeded", "failed", "interrupted", "cancelled")
"""States that a run never leaves."""


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run to be queued."""

    id: str
    #: Unique: runbook, fingerprint and startsAt of a firing, or the run's own id when somebody asked for it by hand.
    key: str
    runbook: str
    parameters: Mapping[str, Any]
    title: str = ""
    severity: str = ""
    service: str = ""
    alert: Mapping[str, Any] | None = None
    alert_id: str | None = None
    incident_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewAlert:
    """An alert that starts a run (``run_id``), found no runbook, or says that an earlier one is over."""

    id: str
    source: str
    fingerprint: str
    starts_at: datetime
    status: Status
    name: str
    severity: str = ""
    service: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    raw: Any = None
    notes: Sequence[str] = ()
    runbook: str | None = None
    run_id: str | None = None

    @property
    def fate(self) -> Fate:
        """What becomes of it when nobody has sent it before."""
        if self.status == "resolved":
            return "resolved"
        return "queued" if self.run_id else "unrouted"

    @property
    def key(self) -> tuple[str, datetime, str]:
        """What makes two messages the same one."""
        return self.fingerprint, self.starts_at, self.status

    @property
    def incident_key(self) -> str:
        """Alerts of one runbook and one service belong together; without a runbook, those of one name."""
        return f"{self.runbook or self.name}/{self.service}"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of one alert."""

    alert_id: str
    fate: Fate
    run_id: str | None

    def as_dict(self) -> dict[str, Any]:
        return {"alert_id": self.alert_id, "fate": self.fate, "run_id": self.run_id}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that a worker holds: its last word counts only with this token."""

    run_id: str
    token: int
    runbook: str
    parameters: dict[str, Any]
    alert: dict[str, Any] | None
    incident_id: str | None
    queued_at: datetime
    #: How many times a worker has begun it, this time included.
    attempts: int
    title: str
    severity: str
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One row of the runs table."""

    id: str
    runbook: str
    parameters: dict[str, Any]
    alert: dict[str, Any] | None
    alert_id: str | None
    incident_id: str | None
    state: str
    error: dict[str, Any] | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    attempts: int
    progress: dict[str, Any] | None
    title: str
    severity: str
    service: str
    outcome: str | None
    summary: dict[str, Any]
    report: str | None

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, one way or another."""
        return self.state in FINAL_STATES
