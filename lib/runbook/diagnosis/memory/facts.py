"""One run's view of memory: where it may be short, who holds it, and what was killed for it.

Each process belongs to one owner, in this order: Redis, PostgreSQL, transcoders, processes that grow, many alike; so no
byte explains two causes. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from runbook.diagnosis import verdict
from runbook.diagnosis.memory import kills, processes, scopes
from runbook.diagnosis.memory.kills import Kills
from runbook.diagnosis.memory.limits import Limits
from runbook.diagnosis.memory.processes import Process, number
from runbook.diagnosis.memory.scopes import Scope
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause

Row = Mapping[str, Any]
MAX_SCOPES = 12
HIDDEN_SHARE = 0.5
"""With more of the anonymous memory than this in processes that we do not see, nothing can be said of processes."""
_HEAP_LIMIT = re.compile(r"--max[-_]old[-_]space[-_]size[= ](\d{1,7})\b")
_ORDER = {"supports": 3, "unknown": 2, "neutral": 1, "refutes": 0}


@dataclass(frozen=True)
class Facts:
    """Memory as this run saw it."""

    readings: Readings
    limits: Limits

    # -- where --------------------------------------------------------------------------------------------------------

    @cached_property
    def hosts(self) -> list[Scope]:
        return scopes.hosts(self.readings, self.limits.threshold_percent)

    @cached_property
    def cgroups(self) -> list[Scope]:
        return scopes.cgroups(self.readings, self.limits.threshold_percent)

    @cached_property
    def limited(self) -> list[Scope]:
        """Cgroups whose working set can be held against a limit."""
        return [scope for scope in self.cgroups if scope.percents]

    @cached_property
    def scopes(self) -> list[Scope]:
        """Hosts and limited cgroups: what was asked about first, then the fullest."""
        return self._ranked([*self.hosts, *self.limited])

    @cached_property
    def judged(self) -> list[Scope]:
        """Those in which a cause is looked for: short, asked about, killed in, or with their processes read."""
        looked_at = {str(row.get("host")) for row in self.readings.rows("processes") or []}

        def chosen(scope: Scope) -> bool:
            if scope.breached or self.asked(scope):
                return True
            if scope.path:
                return bool(self.kills.of(scope.path) or scope.delta("oom_kills"))
            return not looked_at or scope.host in looked_at

        return [s for s in self._ranked([*self.hosts, *self.cgroups]) if chosen(s)][:MAX_SCOPES]

    def _ranked(self, places: list[Scope]) -> list[Scope]:
        return sorted(places, key=lambda s: (not self.asked(s), -(s.percent or 0.0), s.host, s.path))

    def asked(self, scope: Scope) -> bool:
        """Whether this is the cgroup that was asked about."""
        wanted = self.limits.cgroup.rstrip("/")
        return bool(wanted) and bool(scope.path) and (scope.path == wanted or wanted.endswith(scope.path)
                                                      or scope.path == f"/{wanted}")  # fmt: skip

    def host_of(self, scope: Scope) -> Scope | None:
        """The host that a cgroup is on."""
        return next((host for host in self.hosts if host.host == scope.host), None)

    @cached_property
    def breached(self) -> bool:
        """Whether memory is known to be short anywhere."""
        return any(scope.breached for scope in self.scopes)

    def lost(self, name: str) -> list[str]:
        """Hosts that gave nothing for a reading, ``*`` for all of them."""
        return scopes.lost(self.readings, name)

    # -- who ----------------------------------------------------------------------------------------------------------

    def seen(self, host: str) -> tuple[list[Process], int]:
        """A host's processes, and in how many samples."""
        known = self._seen.get(host)
        if known is None:
            known = self._seen[host] = processes.seen(self.readings.series("processes"), host)
        return known

    @cached_property
    def _seen(self) -> dict[str, tuple[list[Process], int]]:
        return {}

    def inside(self, scope: Scope) -> list[Process] | None:
        """What runs there; ``None`` when it was not read."""
        found, samples = self.seen(scope.host)
        return [process for process in found if scope.holds(process.cgroup)] if samples else None

    def owned(self, scope: Scope) -> dict[str, list[Process]] | None:
        """What runs there by owner: ``redis``, ``postgres``, ``transcoders``, ``growing``, ``rest``."""
        found = self.inside(scope)
        if found is None:
            return None
        groups: dict[str, list[Process]] = {
            name: [] for name in ("redis", "postgres", "transcoders", "growing", "rest")
        }
        for process in found:
            groups[self.owner(process)].append(process)
        return groups

    def owner(self, process: Process) -> str:
        """Whose it is: one of the groups of :meth:`owned`."""
        if processes.is_redis(process):
            return "redis"
        if processes.is_postgres(process):
            return "postgres"
        if processes.transcodes(process, self.limits.transcoders):
            return "transcoders"
        return "growing" if process.grows(at_least=2**20 * self.limits.min_growth_mb) else "rest"

    def settled(self, process: Process) -> bool:
        """Whether it is not just starting: a start grows as a leak does."""
        return (process.age_seconds or 0.0) >= self.limits.settled_seconds

    def hidden(self, scope: Scope) -> str:
        """Why processes there say nothing; empty when they do."""
        found, whole = self.inside(scope), number(scope.row, "anonymous_bytes")
        if found is None:
            return self.readings.why_unknown(("processes",))
        shown = sum(process.anonymous or 0.0 for process in found)
        if scope.breached and whole and scope.used and whole - shown > HIDDEN_SHARE * max(whole, scope.used / 2):
            missing = processes.megabytes(whole - shown)
            return f"{missing:g} MB of {scope.label} belong to processes that are hidden from us"
        return ""

    # -- how short ----------------------------------------------------------------------------------------------------

    def minutes_left(self, scope: Scope, pace: float) -> float | None:
        """Until memory is used up at that pace, bytes a second."""
        if scope.total is None or scope.used is None or pace <= 0:
            return None
        return round(max(0.0, scope.total - scope.used) / pace / 60, 1)

    def short(self, scope: Scope, pace: float = 0.0) -> bool | None:
        """Whether memory is short there: at the threshold, or used up soon by what grows at that pace."""
        left = self.minutes_left(scope, pace)
        if left is not None and left <= self.limits.full_minutes and scope.rose:
            return True
        return scope.breached

    @cached_property
    def _paces(self) -> list[tuple[Scope, float]]:
        """Bytes a second by which processes grow that have grown like this for all of their life, where memory rose."""
        found = []
        for scope in self.judged:
            owned = self.owned(scope) if scope.rose else None
            grown = owned["growing"] if owned is not None else []
            if pace := sum(process.pace for process in grown if self.settled(process) and process.has_lasted):
                found.append((scope, pace))
        return found

    @cached_property
    def soonest(self) -> float | None:
        """Minutes until memory is used up at that pace."""
        return min((left for s, pace in self._paces if (left := self.minutes_left(s, pace)) is not None), default=None)

    @cached_property
    def projected_percent(self) -> float | None:
        """Memory in use in ``full_minutes`` at that pace, of all there is; more than 100 = it does not last so long."""
        seconds = 60 * self.limits.full_minutes
        shares = [(s.used + pace * seconds) / s.total for s, pace in self._paces if s.used is not None and s.total]
        return round(100 * max(shares), 1) if shares else None

    # -- killed -------------------------------------------------------------------------------------------------------

    @cached_property
    def kills(self) -> Kills:
        return kills.kills(self.readings.last("oom_kills"), self.hosts, self.cgroups, window=self.limits.window_seconds)

    @cached_property
    def exits(self) -> int | None:
        """Lines of the application's log within the window that name exit status 137; ``None`` = not read."""
        return self._logged("exit 137")

    @cached_property
    def heap_errors(self) -> int | None:
        """Lines of the log in which Node says that its heap is full."""
        return self._logged("heap out of memory")

    @cached_property
    def no_memory_errors(self) -> int | None:
        """Lines of the log in which an allocation or a fork was refused."""
        return self._logged("ENOMEM")

    def _logged(self, pattern: str) -> int | None:
        rows = self.readings.rows("app_errors")
        if rows is None:
            return None
        return int(sum(number(row, "count") or 0.0 for row in rows if row.get("pattern") == pattern))

    # -- limits of single programs ------------------------------------------------------------------------------------

    @cached_property
    def redis_percent(self) -> float | None:
        """What Redis uses of its own limit, where it refuses at that limit; ``None`` = unknown, or no such limit."""
        row = self.readings.row("redis_memory")
        used, most = number(row, "used_memory"), number(row, "maxmemory")
        if row is None or used is None or not most or row.get("maxmemory_policy") != "noeviction":
            return None
        return round(100 * used / most, 1)

    @cached_property
    def heap_percent(self) -> float | None:
        """The fullest Node heap against ``--max-old-space-size``; ``None`` where one of them is not told."""
        limits = {int(found[1]) for row in self.readings.rows("processes") or []
                  if (found := _HEAP_LIMIT.search(str(row.get("command") or "")))}  # fmt: skip
        used = [n for row in self.readings.rows("app_metrics") or []
                if (n := number(row, "heap_used_bytes")) is not None]  # fmt: skip
        if len(limits) != 1 or not used or min(limits) == 0:
            return None  # with several limits nobody knows whose heap it is
        return round(100 * max(used) / (min(limits) * 2**20), 1)

    @cached_property
    def stalled_percent(self) -> float | None:
        """Share of the last ten seconds in which all work waited for memory, of the worst place."""
        hosts = [n for row in self.readings.rows("pressure") or []
                 if row.get("resource") == "memory" and row.get("scope") == "full"
                 and (n := number(row, "avg10")) is not None]  # fmt: skip
        groups = [n for scope in self.cgroups if (n := number(scope.row, "pressure_full_avg10")) is not None]
        return max((*hosts, *groups), default=None)

    @cached_property
    def overcommitted_percent(self) -> float | None:
        """Promised memory against what may be promised, where the kernel keeps to that (mode 2)."""
        shares = [
            100 * committed / most
            for host in self.hosts
            if number(host.row, "overcommit_mode") == 2
            and (committed := number(host.row, "committed_bytes")) is not None
            and (most := number(host.row, "commit_limit_bytes"))
        ]
        return round(max(shares), 1) if shares else None


def over(facts: Facts, rule: Callable[[Facts, Scope | None], Cause]) -> Cause:
    """A cause where it is strongest; unknown where it could not be looked for everywhere and was not found."""
    if not facts.judged:
        return rule(facts, None)
    found = max((rule(facts, scope) for scope in facts.judged), key=_strength)
    missing = facts.lost("memory")
    if missing and found.gate.reading in ("refutes", "neutral"):
        reason = f"{', '.join(missing[:5])} could not be read"
        return replace(found, gate=replace(found.gate, reading="unknown", value=None, reason=reason), share=0.0)
    return found


def _strength(cause: Cause) -> tuple[int, bool, bool, float, int]:
    return (_ORDER[cause.gate.reading], verdict.found(verdict.tier(cause, in_compound=True)), cause.decisive,
            cause.share, cause.score)  # fmt: skip
