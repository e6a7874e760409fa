"""Retrying jobs that failed for good, the oldest first: only those that failed once and have not been touched since.

A job is the same when the moment and the reason of its failure are. Source: reference fault model, R9 (Q08).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from runbook.actions.kinds import Kind
from runbook.actions.looking import redactor
from runbook.actions.plan import MAX_TARGETS, Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.queue_acting import Hands, on_queue, state_of
from runbook.actions.redis_acting import reason as said_by
from runbook.actions.redis_acting import shared_login
from runbook.connectors.bullmq_rows import iso
from runbook.result import Precondition

FIELDS = ("failedReason", "finishedOn", "name", "opts")
"""What is read of a job; never its data."""
MAX_LEFT = 20
"""So many of those left alone are named."""


class Retry(Kind):
    """``queue.retry``: put failed jobs back among those that wait."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        state = state_of(self.settings)
        wanted = [dict(target) for target in order.targets if target.get("id")]
        wanted.sort(key=lambda target: (str(target.get("failed_at")), str(target["id"])))
        found = on_queue(self.settings, lambda hands: _looked(hands, [str(t["id"]) for t in wanted]))
        targets: list[Target] = []
        left: list[str] = []
        more = 0
        for target in wanted:
            job = found[str(target["id"])]
            why = _why_not(job, target)
            if why:
                left.append(f"job {target['id']}: {why}")
            elif len(targets) < MAX_TARGETS:
                targets.append(self._target(str(target["id"]), job, state))
            else:
                more += 1
        if not targets:
            raise Refused("nothing is left to do: " + "; ".join(_shortened(left) or ["no job was named"]))
        left = _shortened(left)
        if more:
            left.append(f"{more} younger ones: {MAX_TARGETS} at once, run the runbook again for the next")
        return Draft(
            targets=targets, left_alone=left,
            risks=("a job that is retried runs again, with whatever it does twice",
                   "it fails anew while its cause is there", *shared_login(self.settings)),
            preconditions=(
                Precondition(label="each is still failed, with the same reason", holds=True),
                Precondition(label="the scripts are of the queue's version", holds=True, value=state["version"]),
                Precondition(label="the queue is not paused", holds=not state["paused"]),
                Precondition(label=f"{order.cause} is gone (run this runbook again)", holds=None),
            ),
            undo="irreversible: a job that is retried runs again; its id and reason are listed here",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        return on_queue(self.settings, lambda hands: _retried(hands, plan.draft.targets))

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        done = {effect.target for effect in effects if effect.done}
        ids = [str(t.identity["job_id"]) for t in plan.draft.targets if t.name in done]
        found = on_queue(self.settings, lambda hands: _looked(hands, ids))
        failed = [job for job in ids if found[job]["failed"]]
        return (False, f"failed again: {', '.join(failed)}") if failed else (True, f"{len(ids)} are failed no longer")

    def _target(self, job_id: str, job: Mapping[str, Any], state: Mapping[str, Any]) -> Target:
        queue = self.settings.queue
        said = f"job {job_id} ({job['name']}) failed at {iso(_milliseconds(job))}: {job['failedReason']}"
        return Target(
            name=f"{queue.name}/{job_id}",
            identity={"prefix": queue.prefix, "queue": queue.name, "version": state["version"], "job_id": job_id,
                      "finished_on": job["finishedOn"], "reason_sha256": _sealed(job["failedReason"])},
            shown=redactor(self.settings).text(said)[:400],
            change="it waits again, and runs when its turn comes",
        )  # fmt: skip


def _shortened(left: Sequence[str]) -> list[str]:
    rest = len(left) - MAX_LEFT
    return [*left[:MAX_LEFT], f"{rest} more"] if rest > 0 else list(left)


async def _looked(hands: Hands, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    async with hands.client.pipeline(transaction=False) as pipe:
        for job in ids:
            pipe.hmget(hands.key(job), *FIELDS)
            pipe.zscore(hands.key("failed"), job)
        answers = await pipe.execute()
    return {job: _job(answers[2 * n], answers[2 * n + 1]) for n, job in enumerate(ids)}


def _job(fields: Sequence[Any], score: Any) -> dict[str, Any]:
    return dict(zip(FIELDS, fields, strict=True)) | {"failed": score is not None}


def _why_not(job: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """Why a job must not be retried; empty when it may."""
    if job["finishedOn"] is None and job["name"] is None:
        return "it is gone"
    if not job["failed"] or job["failedReason"] is None:
        return "it is failed no longer"
    same = target.get("failed_at") is None or iso(_milliseconds(job)) == target["failed_at"]
    return "" if same else "it has failed anew since"


async def _retried(hands: Hands, targets: Sequence[Target]) -> list[Effect]:
    """One after the other; once the server refuses one, those behind it are left."""
    import redis

    effects: list[Effect] = []
    for number, target in enumerate(targets):
        try:
            effects.append(await _retry(hands, target))
        except redis.RedisError as error:
            if number == 0:
                raise
            said = f"not known to be done: {said_by(error)}"
            effects.append(Effect(target=target.name, done=False, said=said))
            rest = targets[number + 1 :]
            return effects + [Effect(target=t.name, done=False, said="not tried") for t in rest]
    return effects


async def _retry(hands: Hands, target: Target) -> Effect:
    identity = target.identity
    job_id = str(identity["job_id"])
    options: dict[str, Any] = {}

    async def look(pipe: Any) -> str:
        job = _job(await pipe.hmget(hands.key(job_id), *FIELDS), await pipe.zscore(hands.key("failed"), job_id))
        options.update(_options(job["opts"]))
        if await pipe.hget(hands.key("meta"), "version") != identity["version"]:
            return "the queue is of another version by now"
        if not job["failed"]:
            return "it is failed no longer, and was left alone"
        same = (job["finishedOn"], _sealed(job["failedReason"])) == (identity["finished_on"], identity["reason_sha256"])
        return "" if same else "it has failed anew since the plan, and was left alone"

    async def act(scripts: Any) -> None:
        # Of a job the script wants its id and options alone: its data stays where it is.
        await scripts.reprocessJob(SimpleNamespace(id=job_id, opts=options), "failed")

    watched = [hands.key(last) for last in (job_id, "meta")]
    why, answer = await hands.in_one_step(watched, look, act)
    if not why and answer != 1:
        why = "it is failed no longer"
    return Effect(target=target.name, done=not why, said=why or "it waits again")


def _options(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _milliseconds(job: Mapping[str, Any]) -> int | None:
    return int(job["finishedOn"]) if str(job["finishedOn"] or "").isdigit() else None


def _sealed(text: Any) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()
