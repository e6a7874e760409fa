"""Where uploads stop, stage by stage, from browser to row: what a picture of it is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.uploads.limits import Limits
from runbook.diagnosis.verdict import found
from runbook.result import Findings, Reading, Verdict

StageState = Literal["passes", "stops", "unknown"]

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


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. Counts are uploads; ``None`` is unknown."""

    name: str
    state: StageState
    #: Uploads of the window that come as far as this stage.
    reached: int | None = None
    #: Of those, the ones that end here.
    stopped: int | None = None
    #: The causes found here.
    causes: tuple[str, ...] = ()
    #: What was seen of it, in words.
    note: str = ""


def funnel(readings: Sequence[Reading], parameters: Mapping[str, Any], findings: Findings | None) -> list[Stage]:
    """The stages with what stops there, by the verdict; a stage that could not be seen is unknown."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    by_id = {v.cause: v for v in findings.verdict} if findings is not None else {}
    seen = _seen(facts)
    reached = None if facts.content.uploads is None else facts.content.uploads + (facts.bad - (facts.content.bad or 0))
    stages = []
    for name, causes in STAGES:
        stage = _stage(name, [by_id[c] for c in causes if c in by_id], reached, facts.total, *seen[name])
        stages.append(stage)
        if reached is not None:
            reached = max(0, reached - (stage.stopped or 0))
    return stages


def _stage(
    name: str, verdicts: Sequence[Verdict], reached: int | None, bad: int, passes: bool | None, note: str
) -> Stage:
    here = [v for v in verdicts if found(v.tier) and v.role != "consequence"]
    if here:
        share = min(1.0, sum(v.share for v in here))
        stopped = min(round(share * bad), bad if reached is None else reached) or None
        causes = tuple(v.cause for v in here)
        return Stage(name=name, state="stops", reached=reached, stopped=stopped, causes=causes, note=note)
    return Stage(name=name, state="passes" if passes else "unknown", reached=reached, stopped=0 if passes else None,
                 note=note)  # fmt: skip


def _seen(facts: Facts) -> dict[str, tuple[bool | None, str]]:
    """By stage, whether uploads were seen to get through it, and in words."""
    traffic, jobs, videos = facts.traffic, facts.jobs, facts.videos
    allowed, writes, hooks = facts.bucket.preflight_allowed, facts.bucket.writes, traffic.webhooks
    ready = None if videos.rows is None else sum(1 for row in videos.rows if row.get("status") == "ready")
    done = None if jobs.completed is None else len(jobs.completed)
    through = None if traffic.requests is None or traffic.failing is None else traffic.requests - traffic.failing
    idle = "nothing waits" if jobs.waiting == 0 else f"{jobs.waiting} jobs wait"
    return {
        "browser": (allowed, {True: "preflight allowed", False: "preflight refused", None: "not seen"}[allowed]),
        "edge": _counted(traffic.requests, "upload requests"),
        "app": _counted(through, "upload requests answered well"),
        "bucket": (writes, {True: "test upload works", False: "test upload refused", None: "no test upload"}[writes]),
        "queue": (None, "not read") if jobs.waiting is None else (True, idle),
        "worker": _counted(done, "jobs completed"),
        "provider": _counted(ready, "videos ready"),
        "webhook": _counted(hooks["requests"] - hooks["errors"] if hooks else None, "webhooks arrived"),
        "row": _counted(facts.content.finished, "uploads came through"),
    }  # fmt: skip


def _counted(count: int | None, what: str) -> tuple[bool | None, str]:
    """Something was seen to get through; none at all proves neither way."""
    if count is None:
        return None, "not read"
    return (True if count > 0 else None), f"{count} {what}"
