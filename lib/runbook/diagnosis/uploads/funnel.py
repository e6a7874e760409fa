"""Where uploads stop, stage by stage, from browser to row: what a picture of it is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.uploads.limits import Limits
from runbook.result import Findings, Reading, Verdict

StageState = Literal["passes", "stops", "unknown", "absent"]

STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("browser", ("V05", "V06", "V15")),
    ("edge", ("V07", "V17")),
    ("app", ()),
    ("bucket", ("V01", "V02", "V03", "V04", "V16", "V18")),
    ("queue", ("V12",)),
    ("worker", ("V11", "V13")),
    ("provider", ("V08", "V09")),
    ("webhook", ("V10",)),
    ("row", ("V14",)),
)
"""The stages in their order, and the causes that stop an upload there."""
FOUND = ("confirmed", "probable")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. ``stopped`` counts uploads that end there."""

    name: str
    state: StageState
    stopped: int | None
    #: The causes found there, and what was seen.
    causes: tuple[str, ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"stage": self.name, "state": self.state, "stopped": self.stopped, "causes": list(self.causes),
                "note": self.note}  # fmt: skip


def funnel(readings: Sequence[Reading], parameters: Mapping[str, Any], findings: Findings | None) -> list[Stage]:
    """The stages with what stops there, by the verdict; a stage whose causes could not be checked is unknown."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    by_id = {v.cause: v for v in findings.verdict} if findings is not None else {}
    notes = _notes(facts)
    return [_stage(name, [by_id[c] for c in causes if c in by_id], facts, notes) for name, causes in STAGES]


def _stage(name: str, verdicts: Sequence[Verdict], facts: Facts, notes: Mapping[str, tuple[int | None, str]]) -> Stage:
    passed, note = notes[name]
    found = [v for v in verdicts if v.tier in FOUND and v.role != "consequence"]
    if found:
        share = min(1.0, sum(v.share for v in found))
        stopped = round(share * facts.total) or None
        return Stage(name=name, state="stops", stopped=stopped, causes=tuple(v.cause for v in found), note=note)
    if passed is not None:
        return Stage(name=name, state="passes", stopped=0, note=note)
    return Stage(name=name, state="unknown", stopped=None, note=note)


def _notes(facts: Facts) -> dict[str, tuple[int | None, str]]:
    """By stage, how many got through it as far as is known, and that in words."""
    traffic, jobs, content, videos = facts.traffic, facts.jobs, facts.content, facts.videos
    preflight = facts.bucket.preflight_allowed
    hooks = traffic.webhooks
    ready = None if videos.rows is None else sum(1 for row in videos.rows if row.get("status") == "ready")
    done = None if jobs.completed is None else len(jobs.completed)
    through = None if traffic.requests is None or traffic.failing is None else traffic.requests - traffic.failing
    return {
        "browser": (1 if preflight else None, "preflight allowed" if preflight else
                    "preflight refused" if preflight is False else "not seen from here"),
        "edge": _counted(traffic.requests, "requests"),
        "app": _counted(through, "requests answered"),
        "bucket": (1 if facts.bucket.writes else None, "test upload works" if facts.bucket.writes else
                   "test upload refused" if facts.bucket.writes is False else "no test upload made"),
        "queue": _counted(jobs.waiting, "jobs wait") if jobs.state is not None else (None, "not read"),
        "worker": _counted(done, "jobs completed"),
        "provider": _counted(ready, "videos ready"),
        "webhook": _counted(hooks["requests"] - hooks["errors"] if hooks else None, "webhooks arrived"),
        "row": _counted(content.finished, "uploads came through"),
    }  # fmt: skip


def _counted(count: int | None, what: str) -> tuple[int | None, str]:
    return (None, "not read") if count is None else (count, f"{count} {what}")
