"""Processes that the kernel killed for want of memory, and when.

Counters count since the boot, or since a cgroup was made, and tell no time: one that stands still while we look is no
fault of today. What counts is a counter that rises under our eyes, or a kill that the kernel's log dates within the
window. A kill in a cgroup that is gone says nothing about what runs now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.memory.processes import megabytes, number
from runbook.diagnosis.memory.scopes import Scope
from runbook.result import Reading

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kills:
    """The kills of the window, by all that tells of them."""

    #: Rows of the kernel's log within the window whose cgroup, if any, is still there; ``None`` = not read.
    dated: list[Row] | None
    #: Such rows whose cgroup is gone.
    gone: list[Row]
    #: What the hosts' counters, and those of cgroups, rose by while we looked; ``None`` = not known.
    risen: float | None
    #: What the counters stand at, whenever that was.
    counted: float | None
    #: Whether there is a log that could not be read; one that we may not read at all is none.
    log_lost: bool = False

    @property
    def number(self) -> int | None:
        """Kills within the window; ``None`` when neither the log nor a counter tells."""
        if self.dated:
            return len(self.dated)
        if self.risen:
            return int(self.risen)
        if self.log_lost and self.counted != 0:
            return None
        return None if self.counted is None and self.dated is None else 0

    @property
    def undated(self) -> bool:
        """Whether there were kills at a time that nobody tells."""
        return self.number == 0 and bool(self.counted) and self.dated is None

    def in_cgroup(self, scope: Scope) -> int | None:
        """How many of them in one cgroup; ``None`` when its counter stands above 0 and no log dates that."""
        counted = number(scope.row, "oom_kills")
        found = len(self.of(scope.path)) or int(scope.delta("oom_kills") or 0)
        return None if not found and self.dated is None and counted != 0 else found

    def of(self, path: str) -> list[Row]:
        """Those of one cgroup, and of what is below it."""
        return [row for row in self.dated or [] if _within(str(row.get("cgroup") or ""), path)]


def kills(log: Reading | None, hosts: Sequence[Scope], cgroups: Sequence[Scope], *, window: float) -> Kills:
    """What the readings tell of kills.

    Parameters
    ----------
    log
        The kernel's log.
    window
        How far back a kill counts, seconds.
    """
    rows: list[Row] | None = list(log.rows) if log is not None and log.known else None
    counters = [n for scope in hosts if (n := number(scope.row, "oom_kills")) is not None]
    counters += [n for scope in cgroups if (n := number(scope.row, "oom_kills")) is not None]
    risen = [n for scope in (*hosts, *cgroups) if (n := scope.delta("oom_kills")) is not None]
    recent = None if rows is None else [row for row in rows if _recent(row, window)]
    here = sorted(
        (row for row in recent or [] if _is_here(row, cgroups)), key=lambda r: number(r, "age_seconds") or 0.0
    )
    return Kills(
        dated=None if recent is None else here,
        gone=[row for row in recent or [] if row not in here],
        risen=max(risen) if risen else None,
        counted=max(counters) if counters else None,
        log_lost=_is_lost(log),
    )


def _is_lost(log: Reading | None) -> bool:
    """Whether the log of a host could not be read for a reason that passes."""
    if log is None:
        return False
    if not log.known:
        return log.state != "not_configured"
    return any(row.get("reason") and row.get("state") != "not_configured" for row in log.rows)


def _recent(row: Row, window: float) -> bool:
    age = number(row, "age_seconds")
    return age is not None and age <= window


def _is_here(row: Row, cgroups: Sequence[Scope]) -> bool:
    """Whether a kill is the host's own, or of a cgroup that is still there and counts it."""
    path = str(row.get("cgroup") or "")
    if not path or path == "/":
        return True
    counting = [s for s in cgroups if s.host == row.get("host") and (number(s.row, "oom_kills") or 0) > 0]
    return any(s.path == "/" or _within(path, s.path) or s.path.startswith(f"{path}/") for s in counting)


def _within(killed_in: str, path: str) -> bool:
    """Whether a path of the kernel's log is this cgroup or below it; a container sees only the end of its own path."""
    if path in ("", "/"):
        return False
    return killed_in == path or killed_in.startswith(f"{path}/") or killed_in.endswith(path)


def victim(row: Row) -> dict[str, Any]:
    """A row of the kernel's log as the details of a verdict name it."""
    age = number(row, "age_seconds")
    return {"pid": row.get("pid"), "command": row.get("command"), "mb": megabytes(number(row, "rss_bytes")),
            "seconds_ago": None if age is None else round(age)}  # fmt: skip
