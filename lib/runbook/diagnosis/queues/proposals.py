"""What could be done for the causes found in a queue; consequences are not treated. Source: R9 (Actions)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from runbook.diagnosis.queues import remedies
from runbook.diagnosis.queues.facts import Facts
from runbook.diagnosis.queues.jobs import as_targets
from runbook.diagnosis.queues.remedies import WRITES, action
from runbook.diagnosis.verdict import found
from runbook.diagnosis.words import Kind
from runbook.result import Action, Precondition, Verdict


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; the same one is proposed once."""
    actions: dict[str, Action] = {}
    for verdict in verdicts:
        if found(verdict.tier) and verdict.role != "consequence":
            for one in PROPOSERS.get(verdict.cause, _nothing)(verdict, facts):
                actions.setdefault(f"{one.kind} {one.by_hand}", one)
    return list(actions.values())


def _nothing(verdict: Verdict, facts: Facts) -> list[Action]:
    return []


def _resume(verdict: Verdict, facts: Facts) -> list[Action]:
    return [remedies.resume("Q02", facts.jobs.state or {}, verdict.details.get("not_before"))]


def _restart(verdict: Verdict, facts: Facts) -> list[Action]:
    return [remedies.restart(verdict.cause, facts.jobs)]


def _retry(verdict: Verdict, facts: Facts) -> list[Action]:
    _, those = facts.common_reason
    for_good = [row for row in those if row.get("failed_at")]
    return remedies.retry(verdict.cause, as_targets(for_good), facts.jobs.state or {})


def _retry_of_room(verdict: Verdict, facts: Facts) -> list[Action]:
    kind: Kind = "memory" if str(verdict.details.get("refers_to")).startswith("M") else "disk"
    return [
        action(verdict.cause, "worker.make_room", "Make room on the worker first: see the runbook it refers to",
               "df -h; df -i   # then high_disk_usage or high_memory_usage", undo="nothing is changed",
               targets=[{k: verdict.details[k] for k in ("host", "mount") if verdict.details.get(k)}]),
        *remedies.retry(verdict.cause, facts.jobs.targets(kind), facts.jobs.state or {}),
    ]  # fmt: skip


def _scale(verdict: Verdict, facts: Facts) -> list[Action]:
    return [remedies.scale(verdict.cause)]


def _quarantine(verdict: Verdict, facts: Facts) -> list[Action]:
    state = facts.jobs.state or {}
    ids = [str(i) for i in verdict.details.get("job_ids", [])]
    return [
        action(
            "Q07", "queue.quarantine", f"Leave {len(ids)} jobs failed, look at them, and do not retry them",
            f"{remedies.with_library(state)}// read only: what do they have in common?\n"
            f"for (const id of {json.dumps(ids)}) console.log(id, (await Job.fromId(queue, id))?.failedReason)",
            undo="nothing is changed", targets=[{"job_id": i} for i in ids],
            preconditions=(Precondition(label="their owner looks at what they hold", holds=None),),
        )
    ]  # fmt: skip


def _cap(verdict: Verdict, facts: Facts) -> list[Action]:
    details, state = verdict.details, facts.jobs.state or {}
    most = details.get("concurrency")
    by_hand = (
        f"{remedies.with_library(state)}await queue.setGlobalConcurrency(N)   // now {most}"
        if most
        else "// in the worker's own options: limiter { max, duration }; then a rolling restart"
    )
    return [
        action(
            "Q09", "queue.raise_limit", "Its owner decides: raise the limit that holds the queue", by_hand,
            undo=f"set it to {most} again" if most else "put the previous limiter back", needs=WRITES,
            targets=[{"limit": details.get("limit")}],
            preconditions=(
                Precondition(label="what the limit protects takes more", holds=None),
                remedies.version_known(state),
            ),
        )
    ]  # fmt: skip


def _turns(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action(
            "Q11", "queue.own_queue", "Give jobs of low priority a queue, and a worker, of their own",
            "// or let their priority rise with their age: job.changePriority({ priority })",
            undo="put the previous priority back",
            targets=[{"job_id": verdict.details.get("oldest_id"), "priority": verdict.details.get("oldest_priority")}],
        ),
        remedies.scale("Q11"),
    ]  # fmt: skip


def _merge(verdict: Verdict, facts: Facts) -> list[Action]:
    state = facts.jobs.state or {}
    return [
        action(
            "Q19", "queue.merge", "Give the jobs left in the list paused back, by the resume of version 6 alone",
            f"{remedies.with_library(state)}await queue.resume()   // version 6 merges both lists; version 5 would "
            "RENAME one over the other and lose jobs",
            undo="irreversible, and nothing is lost", needs=WRITES,
            targets=[{"in_paused_list": verdict.details.get("in_paused_list"),
                      "in_wait_list": verdict.details.get("in_wait_list")}],
            preconditions=(
                Precondition(label="every process that opens this queue runs version 6", holds=None),
                remedies.version_known(state),
            ),
        )
    ]  # fmt: skip


def _child(verdict: Verdict, facts: Facts) -> list[Action]:
    child = str(verdict.details.get("child"))
    return [
        action(
            "Q20", "queue.retry_child", "Its owner decides: retry the child, or let the parent go on without it",
            "// once the child's reason is gone, in the child's own queue: await job.retry('failed')\n"
            "// for the next ones: ignoreDependencyOnFailure or failParentOnFailure in the child's options",
            undo="irreversible: a child that is retried runs again", needs=WRITES,
            targets=[{"parent": verdict.details.get("parent_id"), "child": child,
                      "reason": verdict.details.get("child_reason")}],
        )
    ]  # fmt: skip


def _dependency(verdict: Verdict, facts: Facts) -> list[Action]:
    name = verdict.details.get("dependency") or "what the jobs call"
    return [
        action(
            "Q13", "dependency.wait", f"Wait for {name}, or switch to its fallback; more workers would call it more",
            "# lower the workers' concurrency while it is slow; a time-out below the lock's time; then retry",
            undo="put the previous concurrency back", targets=[{"dependency": name}],
        ),
        *_retry(verdict, facts),
    ]  # fmt: skip


def _redis(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action("Q14", "redis.look", "Follow the runbook of Redis: the queue comes back with it",
               "runbook run redis_connection_failure", undo="nothing is changed",
               targets=[{"code": verdict.details.get("code"), "refers_to": verdict.details.get("refers_to")}])
    ]  # fmt: skip


def _evicted(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action(
            "Q15", "redis.noeviction", "Its owner decides: maxmemory-policy noeviction, and the lost jobs added anew",
            "redis-cli CONFIG GET maxmemory-policy   # keep what it says\n"
            "redis-cli CONFIG SET maxmemory-policy noeviction\n"
            "# what a job held is gone with its hash: add it again from the application's own rows",
            undo="redis-cli CONFIG SET maxmemory-policy with the value kept", needs="administrator of Redis",
            targets=[{"job_id": i} for i in verdict.details.get("job_ids", [])],
            preconditions=(Precondition(label="memory suffices without eviction", holds=None),),
        )
    ]  # fmt: skip


PROPOSERS: dict[str, Callable[[Verdict, Facts], list[Action]]] = {
    "Q01": _restart, "Q02": _resume, "Q03": _scale, "Q04": _restart, "Q05": _restart, "Q06": _restart,
    "Q07": _quarantine, "Q08": _retry, "Q09": _cap, "Q11": _turns, "Q12": _scale, "Q13": _dependency, "Q14": _redis,
    "Q15": _evicted, "Q17": _retry_of_room, "Q18": _restart, "Q19": _merge, "Q20": _child,
}  # fmt: skip
