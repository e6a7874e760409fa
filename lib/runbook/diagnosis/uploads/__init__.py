"""R3, video uploads: readings of one run in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runbook.diagnosis import conclusion, verdict
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.uploads import delivery, processing, storage, symptom
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.uploads.funnel import funnel
from runbook.diagnosis.uploads.limits import Limits
from runbook.diagnosis.uploads.prevention import prevention
from runbook.diagnosis.uploads.proposals import propose
from runbook.diagnosis.uploads.queue import queue_stands_still
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK, Findings, NotChecked, Reading, Verdict

__all__ = ["diagnose", "funnel", "prevention"]

HEALTHY = "V00"
BUCKET = ("V01", "V02", "V03", "V04", "V16", "V18")

EXPLAINS: tuple[tuple[str, str], ...] = (
    *((a, b) for a in BUCKET for b in ("V05", "V12", "V14", "V17")),
    *((a, "V12") for a in ("V08", "V09", "V11", "V13", "V14")),
    ("V09", "V10"),
    ("V11", "V13"),
    ("V03", "V06"),
    ("V15", "V09"),
    ("V15", "V07"),
)
"""Static edges: a bucket that refuses fails the jobs that read from it; a full disk, a killed transcoder or a provider
that is out holds up the queue; a provider that is out sends no webhooks; one creator's files are what it refuses."""


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *video_upload_failures*; the same readings give the same findings."""
    taken = Readings(readings)
    facts = Facts(taken, Limits.of(parameters))
    faces = symptom.faces(facts)
    breached = symptom.is_breached(faces)
    causes = _causes(facts, breached)
    told = conclusion.findings(
        taken, causes, _edges(causes), symptom=symptom.shown(faces), impact=lambda verdicts: _impact(facts, verdicts),
        propose=lambda verdicts: propose(verdicts, facts), healthy=HEALTHY, breached=breached,
        peaked=symptom.peaked(facts), sufficient=symptom.sufficient(facts),
    )  # fmt: skip
    return replace(told, not_checked=[*told.not_checked, *_not_tried(causes)])


def _causes(facts: Facts, breached: bool | None) -> list[Cause]:
    causes = [
        storage.denied(facts),
        storage.credentials(facts),
        storage.skew(facts),
        storage.address(facts),
        storage.cors(facts),
        delivery.expired(facts),
        delivery.too_large(facts),
        processing.quota(facts),
        processing.provider(facts, breached=breached),
        processing.webhook_lost(facts, breached=breached),
        processing.worker_disk(facts),
        queue_stands_still(facts),
        processing.transcoder_killed(facts),
        processing.row_not_written(facts, breached=breached),
        processing.one_creator(facts, breached=breached),
        storage.throttled(facts),
        delivery.broken_connections(facts),
        storage.unreachable(facts),
    ]
    return [*causes, _normal(facts, causes, breached)]


def _normal(facts: Facts, causes: Sequence[Cause], breached: bool | None) -> Cause:
    """V00: no more uploads fail than usually do, and no other cause is found.

    Gate: the symptom is known to be absent, and every cause that applies could be checked. The hint holds the failed
    share against the 95th percentile of the week before. Source: R3, V00.
    """
    bench = Bench(HEALTHY, facts.readings)
    cause = conclusion.healthy(
        bench, "normal rate", causes, breached=breached, rests_on=("content_overview", "splits", "queue_state"),
        quiet="no more uploads fail than usual, and every cause that applies could be checked",
    )  # fmt: skip
    content = facts.content
    if content.usual_percent is None or not content.uploads or content.failed is None:
        return cause
    failed = round(100.0 * content.failed / content.uploads, 1)
    hint = bench.weigh(
        "usual", f"failed uploads, % (95th percentile of the week before: {content.usual_percent:g} %)", failed,
        below=content.usual_percent + 0.05, unit="%", rests_on=("content_overview", "content_history"), weight=WEAK,
    )  # fmt: skip
    return replace(cause, hints=(hint,))


def _edges(causes: Sequence[Cause]) -> list[tuple[str, str]]:
    """The static edges, less those that do not fit: a creator's files explain no outage, a full disk no pause."""
    by_id = {cause.id: cause for cause in causes}
    outage = by_id["V09"].details.get("kind") == "outage"
    signature = by_id["V12"].details.get("refers_to")
    held_up = signature in ("Q03", "Q04", "Q05", "Q08")
    return [
        (a, b)
        for a, b in EXPLAINS
        if not (b == "V12" and not held_up) and not ((a, b) == ("V15", "V09") and outage)
        and not ((a, b) == ("V09", "V10") and not outage)
    ]  # fmt: skip


def _impact(facts: Facts, verdicts: Sequence[Verdict]) -> str:
    """Who feels it, as far as the readings tell."""
    content = facts.content
    if content.uploads is None or content.bad is None:
        waiting = facts.jobs.waiting
        seen = f"; {waiting} jobs wait in the queue" if waiting else ""
        return f"Unknown: the application's rows could not be read{seen}."
    hit = f" of {content.creators_hit} creators" if content.creators_hit and content.bad else ""
    level = f"{content.bad} of {content.uploads} uploads{hit} failed or are stuck"
    if facts.jobs.waiting:
        level += f"; {facts.jobs.waiting} jobs wait in the queue"
    if facts.traffic.failing:
        level += f"; {facts.traffic.failing} requests of uploads failed"
    found = any(verdict.found(v.tier) for v in verdicts if v.cause != HEALTHY)
    return f"{level}." if content.bad or found else f"None seen: {level}."


def _not_tried(causes: Sequence[Cause]) -> list[NotChecked]:
    """The write that was not tried, where a cause rests on it."""
    blocked = sorted(c.id for c in causes if c.applicable and any(e.reason == storage.NO_CANARY for e in c.evidence))
    told = NotChecked(source="object_storage", state="not_configured", reason=storage.NO_CANARY, blocks=blocked)
    return [told] if blocked else []
