"""Causes that came with a change: a bad release, a changed configuration, flag or secret, and data that is new.

Source of every rule: reference fault model, runbook R1.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.errors.changes import Change, Changes, moment, same_release
from runbook.diagnosis.errors.facts import REQUESTS, SPLITS, Facts, Group, Row, count
from runbook.diagnosis.errors.rates import times
from runbook.diagnosis.errors.systems import is_configured
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, WEAK, Evidence

NAME = "bad release"
MIN_ERRORS = 5
"""Fewer failing requests of a release than these are no rate of it."""


def bad_release(facts: Facts, changes: Changes, *, others: bool | None) -> Cause:
    """E01: a new release fails.

    Where two releases serve in the same minutes: the gate, decisive by itself, is that the newer one fails three times
    as often there; refuted when it is one of its instances that fails and not the release. Where the new release has
    replaced the old one: the gate is an onset within 15 minutes after the roll-out, weak by itself; clauses: the rate
    has risen three times, Sentry's leading new issue first appeared in that release, and nothing else is found
    (``others``).
    """
    return _beside(facts, changes) if len(changes.beside) >= 2 else _replaced(facts, changes, others=others)


def _beside(facts: Facts, changes: Changes) -> Cause:
    bench = Bench("E01", facts.readings)
    worst, rest = changes.beside[0], changes.beside[1:]
    newest = changes.newest([g.value for g in changes.beside])
    ratio = times(worst.errors, worst.requests, sum(g.errors for g in rest), sum(g.requests for g in rest))
    apart = ratio is not None and ratio >= facts.limits.release_ratio and worst.errors >= MIN_ERRORS
    is_new = newest is not None and same_release(newest, worst.value)
    label = f"{worst.value} fails so many times as often as the others in the same minutes"
    if apart and newest is None:
        unsure = f"{worst.value} fails {ratio:g} times as often, and nothing tells that it is the newer one"
        gate = facts.gate(bench, "ratio", label, None, rests_on=(SPLITS, "deployments"), reason=unsure)
    elif apart and not is_new:
        gate = bench.fact("ratio", "the release that fails more often is the newest", False, otherwise="refutes",
                          value=f"{worst.value} fails more; {newest} is newer", rests_on=(SPLITS,))  # fmt: skip
    else:
        value = ratio if worst.errors >= MIN_ERRORS or ratio is None else min(ratio, 1.0)
        gate = facts.gate(bench, "ratio", label, value, rests_on=(SPLITS,), at_least=facts.limits.release_ratio,
                          unit="times", weight=DECISIVE)  # fmt: skip
    deployment = changes.deployed(worst.value)
    share = next((g.share for g in facts.split("release") or [] if g.value == worst.value), 0.0)
    return Cause(
        id="E01",
        name=NAME,
        applicable=True,
        gate=gate,
        clauses=(_not_one_instance(bench, facts, worst, rest),),
        hints=(_near_hint(bench, facts, changes, deployment), *_issue_hint(bench, facts, worst.value)),
        share=share if facts.splittable else 0.0,
        details=_details(facts, changes, worst.value, deployment, sorted(g.value for g in rest)) | {
            "error_percent": worst.percent, "previous_error_percent": _pooled_percent(rest), "times": ratio,
        } if apart and is_new else {},
    )  # fmt: skip


def _pooled_percent(groups: list[Group]) -> float | None:
    requests = sum(g.requests for g in groups)
    return round(100.0 * sum(g.errors for g in groups) / requests, 2) if requests else None


def _not_one_instance(bench: Bench, facts: Facts, worst: Group, rest: list[Group]) -> Evidence:
    """Without the instance that fails most, the release fails all the same; neutral when it has but that one."""
    label = "it is the release that fails, not one of its instances"
    instance = facts.top("instance")
    release = next((g for g in facts.split("release") or [] if g.value == worst.value), None)
    if instance is None or release is None or instance.values < 2:
        holds = None if instance is None and facts.carries("instance") else True
        return bench.fact("release", label, holds, rests_on=(SPLITS,))
    left = release.requests - instance.requests
    if left < max(facts.limits.min_calls, 0.1 * release.requests):
        seen = f"it runs on {instance.value} alone"
        return bench.fact("release", label, True, value=seen, rests_on=(SPLITS,), weight=WEAK)
    elsewhere = max(0, release.errors - instance.errors)
    ratio = times(elsewhere, left, sum(g.errors for g in rest), sum(g.requests for g in rest)) or 0.0
    well = elsewhere < MIN_ERRORS or ratio < facts.limits.release_ratio
    one = instance.share >= facts.limits.instance_share and well
    whose = f"{instance.value} has {round(100 * instance.share)} % of the failures" if one else None
    return bench.fact("release", label, not one, value=whose, rests_on=(SPLITS,), otherwise="refutes")


def _near_hint(bench: Bench, facts: Facts, changes: Changes, deployment: Change | None) -> Evidence:
    known = changes.deployments is not None and changes.onset is not None
    near = changes.near([deployment] if deployment else [], changes.onset)
    return bench.fact("near", f"it was deployed up to {facts.limits.deploy_minutes:g} minutes before the onset",
                      near is not None if known else None, value=near.ended.isoformat() if near else None,
                      rests_on=("deployments", "request_curve"), weight=WEAK, reason=_no_onset(changes))  # fmt: skip


def _no_onset(changes: Changes) -> str:
    known = changes.deployments is not None
    return "no onset shows in the curve" if known and changes.onset is None else ""


def _issue_hint(bench: Bench, facts: Facts, release: str) -> tuple[Evidence, ...]:
    if not is_configured(facts, "sentry_issues"):
        return ()
    issue = new_issue(facts, release)
    return (
        bench.fact("issue", "a new issue in Sentry first appeared in it",
                   None if facts.readings.rows("sentry_issues") is None else issue is not None,
                   value=_named(issue), rests_on=("sentry_issues",), weight=WEAK),
    )  # fmt: skip


def new_issue(facts: Facts, release: str) -> Row | None:
    """The leading issue of the window that first appeared in this release."""
    rows = facts.readings.rows("sentry_issues") or []
    mine = [r for r in rows if r.get("is_new") and same_release(r.get("first_release"), release)]
    return max(mine, key=lambda r: (count(r, "count"), str(r.get("id"))), default=None)


def _named(issue: Row | None) -> str | None:
    return f"{issue.get('short_id') or issue.get('id')}: {str(issue.get('title') or '')[:120]}" if issue else None


def _details(
    facts: Facts, changes: Changes, release: str, deployment: Change | None, previous: list[str]
) -> dict[str, Any]:
    """Who it is, and what a rollback needs to know."""
    row: Row = deployment.row if deployment is not None else {}
    good = previous_good(changes, deployment)
    compare = facts.readings.row("compare")
    found: dict[str, Any] = {
        "release": release, "previous_release": ", ".join(previous) or None, "deployment_id": row.get("id"),
        "sha": row.get("sha"), "deployed_at": deployment.ended.isoformat() if deployment is not None else None,
        "previous_sha": good.row.get("sha") if good is not None else None,
        "previous_ref": good.row.get("ref") if good is not None else None,
        "migrations": list(compare.get("migrations") or []) if compare is not None else None,
        "issue": _named(new_issue(facts, release)),
    }  # fmt: skip
    return {k: v for k, v in found.items() if v is not None}


def previous_good(changes: Changes, deployment: Change | None) -> Change | None:
    """The deployment of another commit that stood before this one."""
    before = [
        d
        for d in changes.deployments or []
        if deployment is not None and d.began < deployment.began and d.row.get("sha") != deployment.row.get("sha")
    ]
    return before[0] if before else None


def _replaced(facts: Facts, changes: Changes, *, others: bool | None) -> Cause:
    bench = Bench("E01", facts.readings)
    rollout = changes.near(changes.rollouts, changes.onset)
    known = changes.rollouts is not None and (changes.onset is not None or not changes.rollouts)
    release = _release_of(facts, rollout) if rollout is not None else ""
    issue = new_issue(facts, release) if release else None
    sentry = facts.readings.rows("sentry_issues") is not None
    return Cause(
        id="E01",
        name=NAME,
        applicable=is_configured(facts, "deployments") or facts.carries("release"),
        gate=facts.fact_gate(bench, "near", f"errors begin up to {facts.limits.deploy_minutes:g} min after a roll-out",
                             rollout is not None if known else None, value=_between(rollout, changes),
                             rests_on=("deployments", "request_curve"), weight=WEAK, reason=_no_onset(changes)),
        clauses=(
            bench.weigh("rise", "times as often as before the onset", changes.rise, at_least=facts.limits.release_ratio,
                        rests_on=("request_curve",), weight=WEAK),
            bench.fact("issue", "the leading new issue in Sentry first appeared in it",
                       (issue is not None) if sentry and rollout is not None else None, value=_named(issue),
                       rests_on=("sentry_issues",)),
            bench.fact("alone", "nothing else explains the errors", None if others is None else not others,
                       rests_on=(REQUESTS,), otherwise="refutes", weight=WEAK,
                       reason="another cause could not be checked"),
        ),
        share=1.0 if others is False and rollout is not None and facts.splittable else 0.0,
        details=_details(facts, changes, release, rollout, []) if rollout is not None else {},
    )  # fmt: skip


def _between(change: Change | None, changes: Changes) -> str | None:
    """What a change was, and how long before the errors it ended."""
    if change is None or changes.onset is None:
        return None
    seconds = (changes.onset - change.ended).total_seconds()
    return f"{change.what}: {seconds / 60:.0f} min before" if seconds >= 30 else f"{change.what}: just then"


def _release_of(facts: Facts, rollout: Change) -> str:
    """The release that a roll-out brought, as the log or Sentry calls it."""
    names = [g.value for g in facts.split("release") or []]
    names += [str(r.get("version")) for r in facts.readings.rows("sentry_releases") or []]
    brought = [n for n in names if any(same_release(rollout.row.get(k), n) for k in ("sha", "ref"))]
    if brought:
        return brought[0]
    near = [
        str(r.get("version"))
        for r in facts.readings.rows("sentry_releases") or []
        if (at := moment(r.get("released_at") or r.get("created_at"))) is not None
        and abs((at - rollout.began).total_seconds()) <= 60 * facts.limits.deploy_minutes
    ]
    return near[0] if len(near) == 1 else str(rollout.row.get("sha") or "")


def changed_configuration(facts: Facts, changes: Changes, *, others: bool | None) -> Cause:
    """E02: a configuration, a flag or a secret was changed.

    Gate: the errors begin up to 15 minutes after a change that is no roll-out of a new commit (the same commit deployed
    again, a workflow that touches production). Clauses: all releases fail alike; nothing else is found (``others``).
    """
    bench = Bench("E02", facts.readings)
    change = changes.near(changes.others, changes.onset)
    known = changes.others is not None and (changes.onset is not None or not changes.others)
    return Cause(
        id="E02",
        name="configuration, flag or secret change",
        applicable=is_configured(facts, "deployments") or is_configured(facts, "workflow_runs"),
        gate=facts.fact_gate(bench, "near",
                             f"errors begin up to {facts.limits.deploy_minutes:g} min after such a change",
                             change is not None if known and facts.readings.known("workflow_runs") else None,
                             value=_between(change, changes), reason=_no_onset(changes),
                             rests_on=("workflow_runs", "deployments", "request_curve")),
        clauses=(
            bench.fact("alike", "all releases fail alike", _alike(facts, changes), rests_on=(SPLITS, "deployments"),
                       otherwise="refutes", reason="it is not known whether a release was rolled out just then"),
            bench.fact("alone", "nothing else explains the errors", None if others is None else not others,
                       rests_on=(REQUESTS,), otherwise="refutes", reason="another cause could not be checked"),
        ),
        share=1.0 if others is False and change is not None and facts.splittable else 0.0,
        details={"change": change.what, "kind": change.kind, "at": change.ended.isoformat(), "id": change.row.get("id"),
                 "url": change.row.get("url"), "onset": changes.onset.isoformat() if changes.onset else None}
        if change is not None else {},
    )  # fmt: skip


def _alike(facts: Facts, changes: Changes) -> bool | None:
    if len(changes.beside) >= 2:
        worst, rest = changes.beside[0], changes.beside[1:]
        ratio = times(worst.errors, worst.requests, sum(g.errors for g in rest), sum(g.requests for g in rest))
        return ratio is not None and ratio < facts.limits.release_ratio
    if changes.rollouts is None:
        return None
    return changes.near(changes.rollouts, changes.onset) is None


def bad_data(facts: Facts, changes: Changes) -> Cause:
    """E18: one record, or a few, that the code cannot digest.

    Gate: Sentry's leading issue of the window is new, though the release that it first appeared in is not: it was there
    before the onset. Clauses: a handful of users fail (refutes otherwise); the failing requests concentrate on one
    route or one user that fails three times as often as the others.
    """
    bench = Bench("E18", facts.readings)
    rows = facts.readings.rows("sentry_issues")
    issue = max(rows or [], key=lambda r: (count(r, "count"), str(r.get("id"))), default=None)
    fresh = issue is not None and bool(issue.get("is_new"))
    old = _is_old(facts, changes, str(issue.get("first_release") or "")) if issue is not None and fresh else False
    group = _concentrating(facts)
    return Cause(
        id="E18",
        name="bad data",
        applicable=is_configured(facts, "sentry_issues"),
        gate=facts.fact_gate(bench, "issue", "the leading issue in Sentry is new, in a release that is not",
                             None if rows is None else old, value=_named(issue) if old else None,
                             rests_on=("sentry_issues", "deployments"),
                             reason="it is not known how old that release is" if rows is not None else ""),
        clauses=(
            bench.weigh("users", "users that it touches, or that fail in the access log", _users(facts, issue), below=6,
                        rests_on=("sentry_issues", SPLITS), otherwise="refutes"),
            bench.weigh("share", "failing requests on the route or of the user that fails most",
                        (group.share if group is not None else 0.0) if facts.split("route") is not None else None,
                        at_least=facts.limits.instance_share, share=True, rests_on=(SPLITS,)),
        ),
        share=group.share if group is not None and facts.splittable else 0.0,
        details={"issue": _named(issue), "first_release": issue.get("first_release"), "users": issue.get("users"),
                 "where": group.value if group is not None else None, "url": issue.get("url")}
        if issue is not None and old else {},
    )  # fmt: skip


def _users(facts: Facts, issue: Row | None) -> int | None:
    """Users of the issue, or those seen failing where they are more: then the issue is not what fails."""
    told = issue.get("users") if issue is not None else None
    seen = facts.split("user")
    known = [told] if isinstance(told, int) else []
    known += [sum(g.errors > 0 for g in seen)] if seen is not None else []
    return max(known, default=None)


def _is_old(facts: Facts, changes: Changes, release: str) -> bool | None:
    """Whether a release stood already when the errors began; ``None`` when nothing tells."""
    if not release or changes.onset is None:
        return None
    known = [d.ended for d in [changes.deployed(release)] if d is not None]
    known += [
        at
        for r in facts.readings.rows("sentry_releases") or []
        if same_release(r.get("version"), release)
        and (at := moment(r.get("released_at") or r.get("created_at"))) is not None
    ]
    if not known:
        return None
    return (changes.onset - min(known)).total_seconds() > 60 * facts.limits.deploy_minutes


def _concentrating(facts: Facts) -> Group | None:
    """The route or user that the failing requests concentrate on and that fails apart from the others."""
    tops = [facts.top(by) for by in ("user", "route")]
    apart = [
        g
        for g in tops
        if g is not None
        and g.values > 1
        and (g.ratio or 0.0) >= facts.limits.release_ratio
        and g.share_of_requests < facts.limits.concentration_share
    ]
    return max(apart, key=lambda g: (g.share, g.value), default=None)
