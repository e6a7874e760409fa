"""What can be done about a queue, proposed: resume, retry, restart, scale, with exact targets and what must hold.

Nothing here acts. Jobs that stalled are never moved by hand, BullMQ gives them back; nothing is ever obliterated; and
scripts of another version than the queue's lose jobs, so without a known version nothing is offered that writes.
Source: reference fault model, sections 2 and R9; contracts, section 10.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from runbook.diagnosis.queues.jobs import Jobs, moment
from runbook.diagnosis.readings import number
from runbook.result import Action, Precondition, Reading

PROCESSES = "worker_processes"
STOPPED = ("T", "D")
"""States of a process that does nothing for anybody."""
MAX_RETRIES = 50
MAX_TARGETS = 10
WRITES = "write access to the queue's Redis"


def action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
           targets: Sequence[dict[str, Any]] = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    """One proposal for ``cause``."""
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def with_library(state: Mapping[str, Any]) -> str:
    """How a Node shell opens this queue with the application's own BullMQ."""
    queue, prefix = json.dumps(str(state.get("queue"))), json.dumps(str(state.get("prefix")))
    return (
        f"// in a Node shell, with the application's own bullmq: version {state.get('major') or 'unknown'}\n"
        "const { Queue, Job } = require('bullmq')\n"
        f"const queue = new Queue({queue}, {{ connection, prefix: {prefix} }})\n"
    )


def version_known(state: Mapping[str, Any]) -> Precondition:
    """Its scripts differ by version, and the wrong ones lose jobs."""
    known = isinstance(state.get("major"), int)
    return Precondition(label="the version of BullMQ is known", holds=known, value=state.get("version"))


def retry(cause: str, jobs: Sequence[dict[str, Any]], state: Mapping[str, Any]) -> list[Action]:
    """Retry jobs that failed for good, once their cause is gone; nothing when the queue's version is unknown."""
    major = state.get("major")
    if not jobs or not isinstance(major, int):
        return []
    chosen = list(jobs)[:MAX_RETRIES]
    ids = json.dumps([str(job["id"]) for job in chosen])
    return [
        action(
            cause, "queue.retry", f"Retry {len(chosen)} failed jobs, the oldest first, once the cause is gone",
            f"{with_library(state)}for (const id of {ids}) {{ const job = await Job.fromId(queue, id); "
            "if (job && await job.isFailed()) await job.retry('failed') }",
            undo="irreversible: a job that is retried runs again; its id, reason and attempts are listed here",
            needs=WRITES, targets=chosen,
            preconditions=(
                Precondition(label=f"{cause} is gone (run this runbook again)", holds=None),
                Precondition(label="the version of BullMQ is known", holds=True, value=state.get("version") or major),
                Precondition(label="the queue is not paused", holds=not state.get("paused")),
                Precondition(label=f"at most {MAX_RETRIES} jobs a run", holds=True,
                             value=f"{len(chosen)} of {len(jobs)}"),
            ),
        )
    ]  # fmt: skip


def resume(cause: str, state: Mapping[str, Any], not_before: str | None = None) -> Action:
    """Resume a paused queue, unless somebody paused it on purpose: that is for a person to say."""
    return action(
        cause, "queue.resume", f"Resume queue {state.get('queue')}", f"{with_library(state)}await queue.resume()",
        undo="await queue.pause()", needs=WRITES,
        targets=[{"queue": state.get("queue"), "prefix": state.get("prefix"), "waiting": state.get("waiting")}],
        preconditions=(
            Precondition(label="nobody paused it on purpose within the hour (Redis does not keep who, or when: ask)",
                         holds=None, value=f"paused after {not_before}" if not_before else None),
            version_known(state),
        ),
    )  # fmt: skip


def pause(cause: str, title: str, state: Mapping[str, Any]) -> Action:
    """Pause a queue, so that no worker takes another job; of a queue that was not looked at nothing is known."""
    known = {key: state[key] for key in ("queue", "prefix", "waiting") if state.get(key) is not None}
    return action(
        cause, "queue.pause", title,
        "// in a Node shell of the worker, with the application's own bullmq\nawait queue.pause()",
        undo="await queue.resume()", needs=WRITES, targets=[known] if known else [],
        preconditions=(version_known(state),) if known else (),
    )  # fmt: skip


def restart(cause: str, jobs: Jobs, *, after: Sequence[Precondition] = ()) -> Action:
    """Restart the worker, what runs well let finish first; ``workers.restart`` says how."""
    argv = [str(row.get("word")) for row in jobs.readings.rows("worker_restart") or []]
    return action(
        cause, "worker.restart", "Restart the worker; BullMQ gives its stalled jobs back by itself",
        shlex.join(argv) if argv else "# workers.restart is not set: e.g. systemctl restart the worker's unit",
        undo="irreversible: a job that was running begins again",
        needs="shell on the worker's host", targets=workers(jobs),
        preconditions=(
            Precondition(label="jobs that run well are let finish first (SIGTERM, not SIGKILL)", holds=None),
            Precondition(label="never move stalled jobs by hand", holds=None),
            *after,
        ),
    )  # fmt: skip


def workers(jobs: Jobs) -> list[dict[str, Any]]:
    """The workers' processes, with the jobs that hang; those stopped or waiting for a disk first, then the oldest.

    Of a worker whose process is gone, where it ran: the host, where there is but one. Else only the jobs are told.
    """
    held = [job.get("id") for job in (jobs.unlocked or jobs.hung or [])[:MAX_TARGETS]]
    reading = jobs.readings.last(PROCESSES)
    if reading is None or not reading.known:
        return [{"job_id": job} for job in held]
    there = [row for row in reading.rows if row.get("pid") and not str(row.get("state")).startswith("Z")]
    there.sort(key=lambda row: (str(row.get("state"))[:1] not in STOPPED, -number(row, "age_seconds"), str(row["pid"])))
    if not there:
        hosts = [host for host in reading.target.split(", ") if host and " " not in host]
        return [{"host": hosts[0], "pid": None, "job_ids": held}] if len(hosts) == 1 else [{"job_id": j} for j in held]
    return [
        {"host": row.get("host"), "pid": int(row["pid"]), "started_at": _began(reading, row),
         "command": str(row.get("command"))[:200], "job_ids": held}
        for row in there[:MAX_TARGETS]
    ]  # fmt: skip


def _began(reading: Reading, row: Mapping[str, Any]) -> str | None:
    """When a process began, by its age at the moment of the look."""
    at = moment(reading.measured_at)
    if at is None or row.get("age_seconds") is None:
        return None
    return (at - timedelta(seconds=number(row, "age_seconds"))).isoformat(timespec="seconds")


def scale(cause: str, about: str = "") -> Action:
    """One more worker; what the jobs call must take more, too."""
    return action(
        cause, "aws.scale", "Start another worker", f"# one more of what workers.restart restarts{about}",
        undo="stop it again, by SIGTERM",
        preconditions=(Precondition(label="provider, bucket and database take more", holds=None),),
    )  # fmt: skip
