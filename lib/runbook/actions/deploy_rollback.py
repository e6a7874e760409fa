"""Rolling a deployment back: the workflow for it is started with the last good commit, or that one's run is run again.

Never by a policy. Across a migration only where the order says so, since a schema that is newer than the code may not
fit it. What is deployed now is compared with what the run saw, and again before anything is started. Source: reference
fault model, section 2 and R1 (E01); contracts, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.actions.attempts import left_alone, made_by, only_target, tried
from runbook.actions.github_deployments import UNDER_WAY, Deployment, Repository
from runbook.actions.kinds import Kind
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.result import Precondition


class Rollback(Kind):
    """``deploy.rollback``: the commit that was deployed before, deployed again."""

    may_be_automatic = False

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = only_target(order)
        repository = Repository(self.settings)
        _same_place(wanted, repository)
        current, good = _now_and_before(repository, wanted)
        names, unread = repository.migrations(good.sha, current.sha)
        across = wanted.get("across_migration") is True
        if not across and (names or names is None):
            what = f"{len(names)} migrations lie between the two, {names[0]} first" if names else (
                f"whether a migration lies between the two is not known: {unread}"
            )  # fmt: skip
            raise Refused(what, remedy='Read them with their author; then order it with "across_migration": true')
        how = self._how(repository, current, good)
        return Draft(
            targets=[_target(repository, current, good, how)],
            preconditions=(
                Precondition(label="the cause is confirmed", holds=order.tier == "confirmed", value=order.tier),
                Precondition(label="a deployment that succeeded stood before it", holds=True,
                             value=f"{good.shown}, deployment {good.id} of {good.at}"),
                Precondition(label="no migration between the two", holds=None if names is None else not names,
                             value=unread if names is None else ", ".join(names[:5]) or "none"),
                Precondition(label="no deployment is under way", holds=True, value=current.state),
                Precondition(label="the rate falls within 10 minutes afterwards", holds=None, value="to be watched"),
            ),
            risks=_risks(how, across=across and names != []),
            undo=_undo_text(how, current),
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        repository, identity = Repository(self.settings), target.identity
        now = repository.newest()
        if now.id != identity["deployment"] or now.sha != identity["commit"]:
            return [left_alone(target.name, f"deployment {now.id} of {now.shown} is the newest by now")]
        if now.state in UNDER_WAY:
            return [left_alone(target.name, f"deployment {now.id} is {now.state}")]
        return [_started(repository, target, str(target.after), identity["run"])]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`. A deployment takes minutes: until it is there, nobody can tell."""
        (target,) = plan.draft.targets
        repository = Repository(self.settings)
        now, run = repository.newest(), made_by(effects, target.name)
        if now.id == target.identity["deployment"]:
            return _of_run(repository, run)
        said = f"deployment {now.id} of {now.shown} is {now.state}"
        if now.sha != target.after:
            return False, f"{said}, and that is another commit"
        return (None if now.state in UNDER_WAY else now.state == "success"), said

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        (target,) = plan.draft.targets
        repository = Repository(self.settings)
        now = repository.newest()
        if now.id == target.identity["deployment"] or now.sha != target.after:
            return [left_alone(target.name, f"deployment {now.id} of {now.shown} is the newest, which is not ours")]
        if now.state in UNDER_WAY:
            return [left_alone(target.name, f"deployment {now.id} is {now.state}")]
        return [_started(repository, target, str(target.before), target.identity["undo_run"])]

    def _how(self, repository: Repository, current: Deployment, good: Deployment) -> dict[str, Any]:
        """The workflow and its branch, or the runs that are run again; part of the target's identity."""
        name = self.settings.github.rollback_workflow
        if name:
            branch = repository.default_branch()
            return {"workflow": repository.workflow(name), "branch": branch, "run": None, "undo_run": None}
        reason = repository.why_not_again(good)
        if reason:
            raise Refused(reason, remedy="Set github.rollback_workflow, or deploy it by hand")
        back = current.run if not repository.why_not_again(current) else None
        return {"workflow": None, "branch": None, "run": good.run, "undo_run": back}


def _same_place(wanted: Mapping[str, Any], repository: Repository) -> None:
    for key, ours in (("repository", repository.name), ("environment", repository.environment)):
        named = wanted.get(key)
        if named and str(named).lower() != ours.lower():
            raise Refused(f"it is for {key} {named}, and the settings name {ours}", remedy="Do it by hand")


def _now_and_before(repository: Repository, wanted: Mapping[str, Any]) -> tuple[Deployment, Deployment]:
    """What is deployed, which must be what the run saw, and the last good one before it, or the one that is named."""
    bad, to = str(wanted.get("from") or ""), str(wanted.get("to") or "")
    if not bad:
        raise Refused("it does not say which commit or release is bad", remedy="Roll back by hand")
    history = repository.deployments()
    current = next(history, None)
    if current is None:
        raise Refused(f"{repository.name} has no deployment to {repository.environment}")
    if not current.is_of(bad):
        raise Refused(
            f"{repository.environment} runs {current.shown} by deployment {current.id} by now, and not {bad}",
            remedy="Run the runbook again, or deploy by hand where deployments are not called after releases",
        )
    if current.state in UNDER_WAY:
        raise Refused(f"deployment {current.id} is {current.state}", remedy="Wait for its end, or cancel it")
    for one in history:
        if one.succeeded and one.sha != current.sha and (not to or one.is_of(to)):
            return current, one
    what = f"of {to} " if to else ""
    raise Refused(f"no deployment {what}that succeeded stood before {current.shown}", remedy="Deploy by hand")


def _target(repository: Repository, current: Deployment, good: Deployment, how: Mapping[str, Any]) -> Target:
    where = f"{repository.name}:{repository.environment}"
    change = f"workflow {how['workflow']} is started on {how['branch']} with the input ref = {good.sha}"
    return Target(
        name=where,
        identity={"repository": repository.name, "environment": repository.environment, "deployment": current.id,
                  "commit": current.sha, **how},
        shown=f"{where} runs {current.shown}: deployment {current.id} of {current.at}, {current.state}",
        change=change if how["workflow"] else f"run {how['run']}, which deployed {good.shown}, is run again",
        before=current.sha, after=good.sha,
    )  # fmt: skip


def _risks(how: Mapping[str, Any], *, across: bool) -> tuple[str, ...]:
    return (
        "what the newer release brought is gone for those who use it",
        "GitHub takes no condition with this: a deployment that begins in the moment before it is not seen",
        *((f"{how['workflow']} must take the input ref, a commit, and deploy it to the same environment",)
          if how["workflow"] else ()),
        *(("the database's schema is newer than the code that will run on it",) if across else ()),
    )  # fmt: skip


def _undo_text(how: Mapping[str, Any], current: Deployment) -> str:
    unless = "unless something else was deployed since"
    if how["workflow"]:
        return f"{how['workflow']} is started with ref = {current.sha}, {unless}"
    if how["undo_run"]:
        return f"run {how['undo_run']}, which deployed {current.shown}, is run again, {unless}"
    return f"irreversible: no run is known that deploys {current.shown} again"


def _started(repository: Repository, target: Target, commit: str, run: int | None) -> Effect:
    file, branch = target.identity["workflow"], target.identity["branch"]
    if file:
        said = f"{file} was started for {commit[:12]}"
        return tried(target.name, said, lambda: repository.dispatch(file, branch, commit))
    if run is None:
        raise Refused(f"no run is known that deploys {commit[:12]}")
    return tried(target.name, f"run {run} was started again for {commit[:12]}", lambda: repository.run_again(run))


def _of_run(repository: Repository, run: str) -> tuple[bool | None, str]:
    if not run.isdecimal():
        return None, "no deployment of it is there yet"
    found = repository.run(int(run))
    status, conclusion = found.get("status"), found.get("conclusion")
    if status == "completed" and conclusion != "success":
        return False, f"run {run} ended: {conclusion}"
    return None, f"run {run} is {status}, no deployment of it is there yet"
