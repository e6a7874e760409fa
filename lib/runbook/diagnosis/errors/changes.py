"""What was changed, and when the errors began: roll-outs, other changes, releases in their order, the onset.

A deployment nearby is weak evidence: there nearly always is one. Source: reference fault model, section 1 and R1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from runbook.diagnosis.errors.facts import Facts, Group, Row, count
from runbook.diagnosis.errors.systems import is_configured

BEFORE_ONSET = timedelta(minutes=2)
"""Clocks differ, and a curve has minutes: a change may seem to follow the errors that it caused."""
FAILED = frozenset({"failure", "error", "cancelled", "skipped", "timed_out", "queued", "pending", "waiting"})
"""States of deployments and conclusions of workflow runs after which production is as it was."""
_TOUCHES = re.compile(
    r"(?i)\b(?:deploy\w*|releas\w*|roll\w*|promot\w*|config\w*|flags?|feature\w*|secrets?|env\w*|rotat\w*|"
    r"migrat\w*|terraform|infra\w*|provision\w*|settings?)"
)
_ASKED = frozenset({"workflow_dispatch", "repository_dispatch", "deployment"})
_HEX = re.compile(r"[0-9a-f]{7,40}")


def moment(value: Any) -> datetime | None:
    """An ISO 8601 time with its zone; ``None`` when it is none."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return when if when.tzinfo is not None else None


def normalised(release: Any) -> str:
    """A release as its systems agree on it: without the package in front and the ``v``."""
    return str(release or "").rsplit("@", 1)[-1].strip().lower().removeprefix("refs/tags/").removeprefix("v")


def same_release(one: Any, other: Any) -> bool:
    """Whether two names mean one release: equal, or one the beginning of the other's commit hash."""
    a, b = normalised(one), normalised(other)
    if not a or not b:
        return False
    short, long = sorted((a, b), key=len)
    return short == long or bool(_HEX.fullmatch(short) and _HEX.fullmatch(long) and long.startswith(short))


def version_key(release: str) -> tuple[tuple[int, int | str], ...] | None:
    """What a version sorts by; ``None`` when it is no version of numbers and dots."""
    text = normalised(release)
    if (_HEX.fullmatch(text) and not text.isdigit()) or not re.match(r"\d+([.\-+_]|$)", text):
        return None
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"[.\-+_]", text))


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of production."""

    kind: str
    began: datetime
    ended: datetime
    row: Row

    @property
    def what(self) -> str:
        return str(self.row.get("name") or self.row.get("description") or self.row.get("ref") or self.kind)


@dataclass(frozen=True)
class Changes:
    """The changes of the window, held against the errors."""

    facts: Facts

    # -- the change log -----------------------------------------------------------------------------------------------

    @cached_property
    def deployments(self) -> list[Change] | None:
        """Deployments that reached production, the newest first; ``None`` when they could not be read."""
        rows = self.facts.readings.rows("deployments")
        return None if rows is None else _dated(rows, "deployment", "created_at", "finished_at", "state")

    @cached_property
    def rollouts(self) -> list[Change] | None:
        """Deployments of a commit that had not been deployed before, the newest first.

        Where no deployments are to be had at all, the releases that Sentry was told of.
        """
        if self.deployments is None:
            return None if is_configured(self.facts, "deployments") else self._released
        return [
            d
            for position, d in enumerate(self.deployments)
            if d.row.get("sha") not in {o.row.get("sha") for o in self.deployments[position + 1 :]}
        ]

    @cached_property
    def _released(self) -> list[Change] | None:
        rows = self.facts.readings.rows("sentry_releases")
        named = [r | {"sha": r.get("version"), "ref": r.get("version")} for r in rows or []]
        return None if rows is None else _dated(named, "release", "released_at", "released_at", "state")

    @cached_property
    def others(self) -> list[Change] | None:
        """Changes that are no roll-out of a new commit: one deployed again, a workflow that touches production."""
        runs = self.facts.readings.rows("workflow_runs")
        if self.deployments is None or self.rollouts is None:
            return None
        again = [d for d in self.deployments if d not in self.rollouts]
        asked = _dated(runs or [], "workflow run", "started_at", "updated_at", "conclusion")
        return again + [
            r
            for r in asked
            if (r.row.get("event") in _ASKED or _TOUCHES.search(str(r.row.get("name") or "")))
            and not any(_same_rollout(r, d) for d in self.rollouts)
        ]

    def near(self, changes: Sequence[Change] | None, onset: datetime | None) -> Change | None:
        """The last of these that ended no longer before the onset than the limit says."""
        latest = timedelta(minutes=self.facts.limits.deploy_minutes)
        if onset is None:
            return None
        close = [c for c in changes or [] if c.began - BEFORE_ONSET <= onset <= c.ended + latest]
        return max(close, key=lambda c: (c.ended, c.what), default=None)

    # -- the onset ----------------------------------------------------------------------------------------------------

    @cached_property
    def onset(self) -> datetime | None:
        """When the errors of now began; ``None`` when unknown, or when they are as old as the curve."""
        high = self._high
        if not high or all(h for _, h in high) or not any(h for _, h in high[-2:]):
            return None
        began: datetime | None = None
        calm = 0
        for at, is_high in reversed(high):
            calm = 0 if is_high else calm + 1
            if calm > 1:
                break
            began = at if is_high else began
        return began

    @cached_property
    def _high(self) -> list[tuple[datetime, bool]]:
        """Stretches of the curve, oldest first, with whether they fail as now."""
        least = max(self.facts.limits.warn_percent, (self.facts.percent or 0.0) / 3)
        dated = [(at, r) for r in self.facts.readings.rows("request_curve") or [] if (at := moment(r.get("at")))]
        return [
            (at, 100.0 * count(r, "errors") / count(r, "requests") >= least)
            for at, r in sorted(dated, key=lambda item: item[0])
            if count(r, "requests") >= 5
        ]

    @cached_property
    def rise(self) -> float | None:
        """How many times as often requests fail since the onset as before it."""
        if self.onset is None:
            return None
        sums = {True: [0, 0], False: [0, 0]}
        for row in self.facts.readings.rows("request_curve") or []:
            if at := moment(row.get("at")):
                side = sums[at >= self.onset]
                side[0], side[1] = side[0] + count(row, "errors"), side[1] + count(row, "requests")
        (errors, requests), (old_errors, old_requests) = sums[True], sums[False]
        if not requests or not old_requests:
            return None
        return round((errors / requests) / (max(0.5, old_errors) / old_requests), 2)

    # -- releases -----------------------------------------------------------------------------------------------------

    def deployed(self, release: str) -> Change | None:
        """The deployment that first brought a release."""
        brought = [d for d in self.deployments or [] if _brings(d.row, release)]
        return brought[-1] if brought else None

    def newest(self, releases: Sequence[str]) -> str | None:
        """The newest of these releases; ``None`` when nothing tells.

        Asked in this order: when they were deployed, when Sentry first heard of them, their version numbers, which of
        them turned up later in the log.
        """
        if len(releases) < 2:
            return releases[0] if releases else None
        by_sentry = {
            release: at
            for row in self.facts.readings.rows("sentry_releases") or []
            for release in releases
            if same_release(row.get("version"), release)
            and (at := moment(row.get("released_at") or row.get("created_at")))
        }
        by_log = {g.value: at for g in self.facts.split("release") or [] if (at := moment(g.row.get("first_at")))}
        orders: list[Mapping[str, Any]] = [
            {r: d.began for r in releases if (d := self.deployed(r)) is not None},
            by_sentry,
            {r: key for r in releases if (key := version_key(r)) is not None},
            by_log,
        ]
        for order in orders:
            known = {r: order[r] for r in releases if r in order}
            if len(known) == len(releases) and len(set(known.values())) == len(releases):
                return max(known, key=lambda r: known[r])
        return None

    @cached_property
    def beside(self) -> list[Group]:
        """Releases that served in the same minutes, the one that fails most often first; empty without an overlap."""
        groups = [g for g in self.facts.split("release_overlap") or [] if g.requests >= self.facts.limits.min_calls]
        if len(groups) < 2:
            return []
        return sorted(groups, key=lambda g: (-g.errors / g.requests, g.value))


def _dated(rows: Sequence[Row], kind: str, began: str, ended: str, state: str) -> list[Change]:
    found = []
    for row in rows:
        start = moment(row.get(began)) or moment(row.get("created_at"))
        if start is None or str(row.get(state) or "").lower() in FAILED:
            continue
        found.append(Change(kind=kind, began=start, ended=max(start, moment(row.get(ended)) or start), row=row))
    return sorted(found, key=lambda c: (c.began, str(c.row.get("id"))), reverse=True)


def _same_rollout(run: Change, rollout: Change) -> bool:
    """Whether a workflow run is the one that carried out a roll-out: the same commit, at the same time."""
    near = timedelta(minutes=15)
    together = run.began - near <= rollout.ended and rollout.began - near <= run.ended
    return together and same_release(run.row.get("sha"), rollout.row.get("sha"))


def _brings(row: Row, release: str) -> bool:
    if any(same_release(row.get(key), release) for key in ("sha", "ref")):
        return True
    words = re.split(r"[\s,;:()]+", str(row.get("description") or ""))
    return any(same_release(word, release) for word in words)
