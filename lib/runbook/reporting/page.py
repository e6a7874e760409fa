"""What the top of a report says, worked out from the result document before any markup is written.

Pure: mappings in, value objects with plain text out. A document that lacks half of its keys, as that of a run which
died early does, still gives a page; what is missing reads *unknown*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook.reporting import words
from runbook.reporting.words import mapping, mappings, texts

FOUND = ("confirmed", "probable")
SHOWN = ("confirmed", "probable", "possible")
UNEXPLAINED_IS_SAID_ABOVE = 0.3

_NAMING = (
    "application_name",
    "application",
    "app",
    "pid",
    "root_pid",
    "gid",
    "role",
    "database",
    "table",
    "query_id",
    "refers_to",
)
"""Details that name the culprit, the best first."""

_NOBODY = (*words.NOTHING, 0, "(unset)")
"""Values that name nobody: a prepared transaction has pid 0, and not every client sets its application's name."""

_MARKS = {True: ("✓", "holds"), False: ("✗", "does not hold"), None: ("?", "unknown")}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of evidence, in words."""

    label: str
    value: str
    threshold: str
    weight: str
    source: str
    measured_at: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CauseEntry:
    """One cause of the ranking."""

    id: str
    name: str
    #: The name as it was given, for the middle of a sentence.
    plain_name: str
    tier: str
    tier_word: str
    #: Percent of the symptom that it explains, 0–100, for the bar.
    percent: float
    share: str
    score: str
    coverage: str
    role: str
    #: What it is in this case, in a few words: ``application api-leaky``.
    naming: str
    details: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, tuple[Mapping[str, Any], ...]], ...]
    because: tuple[Item, ...]
    against: tuple[Item, ...]
    unknown: tuple[Item, ...]
    neutral: tuple[Item, ...]
    #: Sources that could not be read and leave this cause open.
    blocked_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """The symptom against its threshold."""

    label: str
    value: str
    peak: str
    #: The value against the threshold in words: ``over the threshold of 80 %``.
    verdict: str
    breached: bool | None
    #: Positions on the bar, percent of its width; ``None`` when there is nothing to draw.
    value_at: float | None
    threshold_at: float | None


@dataclass(frozen=True, kw_only=True)
class ActionEntry:
    id: str
    title: str
    state: str
    kind: str
    cause: str
    targets: tuple[Mapping[str, Any], ...]
    #: Mark, what it means in words, the precondition, its value.
    preconditions: tuple[tuple[str, str, str, str], ...]
    #: A precondition is known not to hold.
    blocked: bool
    by_hand: str
    undo: str
    needs: str
    #: What became of the symptom when it was applied; empty when it was not.
    became: str = ""


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A source that could not be read."""

    source: str
    state: str
    reason: str
    blocks: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """The findings of a run, ready to be laid out."""

    headline: str
    lead: str
    outcome: str
    outcome_word: str
    gauge: Gauge
    impact: str
    causes: tuple[CauseEntry, ...]
    considered: tuple[CauseEntry, ...]
    unexplained: str
    actions: tuple[ActionEntry, ...]
    unread: tuple[Unread, ...]


def page(findings: Mapping[str, Any]) -> Page:
    """The findings (``symptom`` to ``actions``) in words."""
    evidence = {str(item.get("id", "")): item for item in mappings(findings.get("evidence"))}
    not_checked = mappings(findings.get("not_checked"))
    proposed = actions(findings.get("actions"))
    acted_on = {action.cause for action in proposed if action.targets}
    causes = [_cause(v, evidence, not_checked, acted_on) for v in mappings(findings.get("verdict"))]
    outcome = str(findings.get("outcome") or "undetermined")
    gauge = _gauge(mapping(findings.get("symptom")))
    unexplained = findings.get("unexplained")
    said = isinstance(unexplained, int | float) and unexplained > UNEXPLAINED_IS_SAID_ABOVE and outcome == "diagnosed"
    return Page(
        headline=_headline(outcome, causes),
        lead=_lead(outcome, causes, gauge, not_checked),
        outcome=outcome,
        outcome_word=words.OUTCOME_WORDS.get(outcome, words.label(outcome)),
        gauge=gauge,
        impact=words.sentence(str(findings.get("impact") or "unknown")),
        causes=tuple(c for c in causes if c.tier in SHOWN),
        considered=tuple(c for c in causes if c.tier not in SHOWN),
        unexplained=words.percent(unexplained) if said and isinstance(unexplained, int | float) else "",
        actions=proposed,
        unread=tuple(_unread(n) for n in not_checked),
    )


def _headline(outcome: str, causes: Sequence[CauseEntry]) -> str:
    if outcome == "diagnosed":
        found = [c for c in causes if _is_main(c)] or list(causes[:1])
        names = [f"{c.plain_name} ({c.naming})" if c.naming else c.plain_name for c in found]
        if names:
            return words.sentence(names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}")
    return {
        "diagnosed": "A cause was found",
        "insufficient_data": "Not enough data to say what is wrong",
        "undetermined": "The cause could not be determined",
        "no_current_fault": "Nothing is wrong now",
        "healthy": "Healthy: no fault found",
    }.get(outcome, words.label(outcome))


def _is_main(cause: CauseEntry) -> bool:
    """Found, and not only as the consequence of another."""
    return cause.tier in FOUND and not cause.role.startswith("consequence")


def _lead(outcome: str, causes: Sequence[CauseEntry], gauge: Gauge, not_checked: Sequence[Mapping[str, Any]]) -> str:
    if outcome == "diagnosed":
        told = [f"{c.id} {c.tier_word.lower()}, explains {c.share} of the symptom" for c in causes if _is_main(c)]
        return f"{'; '.join(told)}." if told else ""
    blind = f"{len(not_checked)} {'source' if len(not_checked) == 1 else 'sources'} could not be read"
    if outcome in ("undetermined", "insufficient_data"):
        return f"{blind}; what would decide is listed below." if not_checked else "What would decide is listed below."
    if outcome == "no_current_fault":
        return f"The symptom is gone{f'; it peaked at {gauge.peak}' if gauge.peak else ''}."
    if outcome == "healthy":
        return "Every check that applies was made and none of them found a fault."
    return ""


def _cause(
    verdict: Mapping[str, Any],
    evidence: Mapping[str, Mapping[str, Any]],
    not_checked: Sequence[Mapping[str, Any]],
    acted_on: set[str],
) -> CauseEntry:
    cause = str(verdict.get("cause", ""))
    tier = str(verdict.get("tier", "undetermined"))
    share = _share(verdict.get("share"))
    details = {str(k): v for k, v in mapping(verdict.get("details")).items() if v not in words.NOTHING}
    if cause in acted_on:
        details.pop("targets", None)  # they stand with the action
    because, against = texts(verdict.get("because")), texts(verdict.get("against"))
    own = [e for i, e in evidence.items() if i.startswith(f"{cause}.") and i not in (*because, *against)]
    return CauseEntry(
        id=cause,
        name=words.sentence(str(verdict.get("name") or cause)),
        plain_name=str(verdict.get("name") or cause),
        tier=tier,
        tier_word=words.TIER_WORDS.get(tier, tier),
        percent=round(share * 100, 1),
        share=words.percent(share),
        score=words.plain(verdict.get("score")),
        coverage=words.percent(_share(verdict.get("coverage"))),
        role=_role(verdict),
        naming=_naming(details),
        details=tuple((words.label(k), words.detail(k, v)) for k, v in details.items() if not _is_table(v)),
        tables=tuple((words.label(k), tuple(v)) for k, v in details.items() if _is_table(v)),
        because=tuple(_item(evidence.get(i, {"label": i})) for i in because),
        against=tuple(_item(evidence.get(i, {"label": i})) for i in against),
        unknown=tuple(_item(e) for e in own if e.get("reading") == "unknown"),
        neutral=tuple(_item(e) for e in own if e.get("reading") != "unknown"),
        blocked_by=tuple(
            f"{u.source} ({u.state})" for u in map(_unread, (n for n in not_checked if cause in texts(n.get("blocks"))))
        ),
    )


def _share(value: Any) -> float:
    return min(1.0, max(0.0, float(value))) if isinstance(value, int | float) and value == value else 0.0


def _role(verdict: Mapping[str, Any]) -> str:
    role = verdict.get("role")
    if role == "consequence":
        return f"consequence of {verdict.get('consequence_of') or 'another cause'}"
    return "contributing" if role == "contributing" else ""


def _is_table(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _naming(details: Mapping[str, Any]) -> str:
    """What leads to the culprit: the two best details, so that a root blocker has its application and its pid."""
    named = [key for key in _NAMING if details.get(key) not in _NOBODY and not _is_table(details[key])][:2]
    kept = named if len(named) > 1 and named[1].endswith("pid") else named[:1]
    return ", ".join(f"{words.label(key).removesuffix(' name')} {words.identity(details[key])}" for key in kept)


def _item(evidence: Mapping[str, Any]) -> Item:
    unit = str(evidence.get("unit") or "")
    weight = evidence.get("weight")
    return Item(
        label=words.sentence(str(evidence.get("label") or evidence.get("id") or "")),
        value=words.amount(evidence.get("value"), unit),
        threshold=words.threshold(evidence.get("threshold"), unit),
        weight=words.WEIGHT_WORDS.get(weight, f"weight {weight}") if isinstance(weight, int) else "",
        source=str(evidence.get("source") or ""),
        measured_at=words.clock(evidence["measured_at"])[11:19] if words.moment(evidence.get("measured_at")) else "",
        reason=str(evidence.get("reason") or ""),
    )


def _gauge(symptom: Mapping[str, Any]) -> Gauge:
    unit, value, limit = str(symptom.get("unit") or ""), symptom.get("value"), symptom.get("threshold")
    breached = symptom.get("breached") if isinstance(symptom.get("breached"), bool) else None
    side = {True: "over the threshold", False: "within the threshold", None: "the threshold is"}[breached]
    of = "of " if breached is not None else ""
    label = str(symptom.get("label") or "")
    drawn = [v for v in (value, limit) if isinstance(v, int | float) and v >= 0]
    full = 0.0
    if len(drawn) == 2:
        bounded = unit in ("%", "share", "ratio")
        whole = 100.0 if unit == "%" else 1.0
        full = max(whole, *drawn) if bounded else max(drawn) * 1.25
    return Gauge(
        label=words.sentence(label) if label and label != "not measured" else "Symptom",
        value=words.amount(value, unit) if value is not None else "not measured",
        peak=words.amount(symptom.get("peak"), unit) if symptom.get("peak") is not None else "",
        verdict=f"{side} {of}{words.amount(limit, unit)}" if limit is not None else "",
        breached=breached,
        value_at=round(drawn[0] / full * 100, 2) if full else None,
        threshold_at=round(drawn[1] / full * 100, 2) if full else None,
    )


def actions(proposed: Any) -> tuple[ActionEntry, ...]:
    """Proposed actions in words."""
    return tuple(_action(action) for action in mappings(proposed))


def _action(action: Mapping[str, Any]) -> ActionEntry:
    preconditions = []
    for p in mappings(action.get("preconditions")):
        holds = p.get("holds")
        mark, word = _MARKS[holds if isinstance(holds, bool) else None]
        value = p.get("value")
        preconditions.append(
            (mark, word, words.sentence(str(p.get("label") or "")), "" if value is None else words.identity(value))
        )
    return ActionEntry(
        id=str(action.get("id") or ""),
        title=words.sentence(str(action.get("title") or action.get("kind") or "Action")),
        state=str(action.get("state") or "proposed"),
        kind=str(action.get("kind") or ""),
        cause=str(action.get("cause") or ""),
        targets=tuple(mappings(action.get("targets"))),
        preconditions=tuple(preconditions),
        blocked=any(word == _MARKS[False][1] for _, word, *_ in preconditions),
        by_hand=str(action.get("by_hand") or ""),
        undo=str(action.get("undo") or "irreversible"),
        needs=str(action.get("needs") or ""),
        became=words.sentence(str(action.get("became") or "")),
    )


def _unread(source: Mapping[str, Any]) -> Unread:
    state = str(source.get("state") or "unknown")
    return Unread(
        source=str(source.get("source") or ""),
        state=words.STATE_WORDS.get(state, words.label(state)),
        reason=str(source.get("reason") or ""),
        blocks=", ".join(texts(source.get("blocks"))),
    )
