"""What could be done, proposed: exact targets, what must hold, what to copy, how to undo it.

Nothing here acts, and nothing here deletes what a user uploaded. Jobs are retried only for reasons whose cause is gone,
and only on a BullMQ whose version is known: its scripts differ, and the wrong ones lose jobs. Source: reference fault
model, sections 2 and R3; contracts, section 10.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runbook.diagnosis.queues import remedies
from runbook.diagnosis.queues.remedies import action
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.verdict import found
from runbook.diagnosis.words import Kind
from runbook.result import Action, Precondition, Verdict

MAX_ROWS = 10
RETRY_OF: dict[str, tuple[Kind, ...]] = {
    "V01": ("denied",), "V02": ("credential",), "V03": ("skew",), "V04": ("bucket",), "V09": ("provider",),
    "V11": ("disk",), "V12": ("other",), "V13": ("memory", "stalled"), "V14": ("database",), "V16": ("throttle",),
    "V18": ("storage_down",),
}  # fmt: skip
"""Reasons of failed jobs that go away with a cause. A file that a provider refuses stays refused."""


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    actions: list[Action] = []
    for verdict in verdicts:
        if found(verdict.tier) and verdict.role != "consequence":
            for proposer in PROPOSERS.get(verdict.cause, ()):
                actions += proposer(verdict, facts)
            actions += _retry(verdict, facts)
    return actions


def _retry(verdict: Verdict, facts: Facts) -> list[Action]:
    """Retry the jobs that failed for this cause, once it is gone; refused when the queue's version is unknown."""
    kinds = RETRY_OF.get(verdict.cause, ())
    jobs = facts.jobs.targets(*kinds) if kinds else []
    return remedies.retry(verdict.cause, jobs, facts.jobs.state or {})


def _policy(verdict: Verdict, facts: Facts) -> list[Action]:
    bucket = facts.bucket.name
    statement = {
        "Sid": "UploadsMayBeWritten", "Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }  # fmt: skip
    return [
        action(
            "V01", "storage.allow_write", "Its owner decides: let the application write to the bucket again",
            "# what denies: an explicit Deny in the bucket's policy stands above every Allow\n"
            f"aws s3api get-bucket-policy --bucket {shlex.quote(bucket)} --output text\n"
            "# what the application's role needs (with kms:GenerateDataKey where the bucket is encrypted with KMS)\n"
            f"{json.dumps(statement, indent=1)}\n"
            "# R2 has no bucket policies: the token needs Object Read & Write on this bucket",
            undo="put the previous policy back: keep what get-bucket-policy printed",
            needs="owner of the bucket; never automatic", targets=[{"bucket": bucket}],
            preconditions=(Precondition(label="nobody closed it on purpose", holds=None),),
        )
    ]  # fmt: skip


def _key(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action(
            "V02", "storage.renew_key", "Give the application a key that is valid",
            "aws sts get-caller-identity   # with the application's key, where it runs\n"
            "# then a new key in the secret store, and a rolling restart; keep the old one, disabled, for a day",
            undo="put the previous key back", needs="owner of the credentials",
        )
    ]  # fmt: skip


def _clock(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action(
            "V03", "host.set_clock", "Let the clock be right on every host that signs",
            "timedatectl show -p NTPSynchronized -p TimeUSec   # on the application's hosts and on this one\n"
            "chronyc makestep",
            undo="irreversible, and harmless", needs="root on the host whose clock is off",
        )
    ]  # fmt: skip


def _address(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action(
            "V04", "app.correct_bucket", "Correct bucket, region or endpoint in the application's configuration",
            "# what changed last? bucket, region and endpoint belong together: a 301 names the right region in\n"
            "# x-amz-bucket-region; R2 wants region auto and the endpoint of the account",
            undo="put the previous configuration back", targets=[{"codes": verdict.details.get("codes")}],
        )
    ]  # fmt: skip


def _cors(verdict: Verdict, facts: Facts) -> list[Action]:
    details, bucket = verdict.details, shlex.quote(facts.bucket.name)
    rules = {
        "CORSRules": [
            {"AllowedOrigins": [details.get("origin")], "AllowedMethods": ["GET", "PUT", "POST"],
             "AllowedHeaders": ["*"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 3000}
        ]
    }  # fmt: skip
    return [
        action(
            "V05", "storage.allow_origin", f"Let browsers at {details.get('origin')} upload to the bucket",
            f"aws s3api get-bucket-cors --bucket {bucket}   # keep what it prints\n"
            "# this replaces every rule: put those that are to stay beside it\n"
            f"aws s3api put-bucket-cors --bucket {bucket} --cors-configuration {shlex.quote(json.dumps(rules))}",
            undo="aws s3api put-bucket-cors with the rules kept, or delete-bucket-cors where there were none",
            needs="owner of the bucket", targets=[{"origin": details.get("origin")}],
        )
    ]  # fmt: skip


def _longer(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action(
            "V06", "app.longer_address", "Sign addresses to upload to for longer, or upload in parts",
            "# as long as the largest file takes on a slow line (500 MB at 2 Mbit/s: 34 minutes); at most 7 days;\n"
            "# an address signed with a role's session ends with that session",
            undo="put the previous duration back",
        )
    ]  # fmt: skip


def _size(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    return [
        action(
            "V07", "edge.size_limit",
            f"Decide the limit: the lowest on the way is {details.get('limit_mb')} MB ({details.get('layer')})",
            "# larger files: raise that layer alone where it was lowered by mistake, e.g. nginx client_max_body_size;\n"
            "# above 100 MB behind a proxying CDN upload straight to the bucket, above 200 MB to Stream by tus\n"
            "# otherwise: say the limit in the form, before the upload begins",
            undo="put the previous limit back",
            targets=[{"layer": layer, "limit_mb": value} for layer, value in details.get("limits_mb", {}).items()],
        )
    ]  # fmt: skip


def _quota(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action("V08", "provider.raise_quota", "Raise the quota or settle the bill; delete nothing that is a user's",
                "# the provider's dashboard: stored minutes, plan, payment", undo="lower it again",
                needs="owner of the account")
    ]  # fmt: skip


def _wait(verdict: Verdict, facts: Facts) -> list[Action]:
    if verdict.details.get("kind") != "outage":
        return []
    name = ", ".join(verdict.details.get("provider") or []) or "the provider"
    return [
        action("V09", "provider.wait", f"Wait for {name}: keep uploads, tell users, retry when it is back",
                "# accept uploads into the bucket and leave their jobs delayed; do not create videos again by hand",
                undo="nothing is changed")
    ]  # fmt: skip


def _resync(verdict: Verdict, facts: Facts) -> list[Action]:
    """Write the row that a lost webhook, or a lost write, should have written."""
    rows = (facts.stuck_ready if verdict.cause == "V10" else facts.stuck_done) or []
    chosen = [row for row in rows if row.get("updated_at") and row.get("status")][:MAX_ROWS]
    if not chosen:
        return []
    values = ",\n    ".join(f"({literal(r['id'])}, {literal(r['updated_at'])}::timestamp)" for r in chosen)
    return [
        action(
            verdict.cause, "content.resync", f"Bring {len(chosen)} rows to where their videos are",
            "-- first choice: send the webhook again from the provider's dashboard\n"
            "-- a row that has moved on since is left alone by the statement itself\n"
            f"UPDATE content c SET status = {literal(facts.content.finished_state)}, "
            "\"updatedAt\" = now() AT TIME ZONE 'UTC'\n"
            f"FROM (VALUES\n    {values}\n  ) AS t (id, moved)\n"
            "WHERE c.id::text = t.id AND c.\"updatedAt\" = t.moved;",
            undo="UPDATE content SET status = the previous status, by id: "
            + ", ".join(f"{r['id']} {r['status']}" for r in chosen),
            needs="a role that may write content; the application's owner says which columns go with it",
            targets=[_row(r, facts) for r in chosen],
            preconditions=(
                Precondition(label="the provider still says ready", holds=None),
                Precondition(label="still the same row, checked in the statement", holds=None),
                Precondition(label=f"at most {MAX_ROWS} rows a run", holds=True, value=f"{len(chosen)} of {len(rows)}"),
            ),
        )
    ]  # fmt: skip


def _row(row: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """A row as it is, the status it should have, and the video that says so, where one does."""
    target = {"id": row["id"], "status": row["status"], "updated_at": row["updated_at"],
              "to": facts.content.finished_state}  # fmt: skip
    video = facts.videos.of(row)
    if video is None or video.get("status") != "ready":
        return target
    return target | {"provider": video.get("provider"), "video_id": video.get("id"),
                     "video_created_at": video.get("created_at")}  # fmt: skip


def literal(value: Any) -> str:
    """A value as an SQL text literal, for a statement that a person copies."""
    text = str(value).replace("\x00", "")
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def _room(verdict: Verdict, facts: Facts) -> list[Action]:
    place = {key: verdict.details[key] for key in ("host", "mount") if verdict.details.get(key)}
    where = " ".join(map(str, place.values()))
    return [
        action(
            "V11", "worker.make_room", f"Make room on the worker{f' ({where})' if where else ''}",
            "df -h; df -i; du -xh --max-depth=2 /tmp | sort -h | tail\n"
            "# left-over working files of jobs that are no longer active; never the uploads themselves",
            undo="irreversible: list what is removed",
            needs="shell on the worker", targets=[place] if place else [],
            preconditions=(Precondition(label="the job that a file belongs to is not active", holds=None),),
        ),
        remedies.pause("V11", "Pause the queue until there is room, so that no more jobs use up their attempts",
                       facts.jobs.state or {}),
    ]  # fmt: skip


def _queue(verdict: Verdict, facts: Facts) -> list[Action]:
    signature = verdict.details.get("refers_to")
    if signature == "Q02":
        return [remedies.resume("V12", facts.jobs.state or {})]
    if signature in ("Q01", "Q04", "Q05", "Q06", "Q18"):
        return [remedies.restart("V12", facts.jobs)]
    return [remedies.scale("V12")] if signature == "Q03" else []


def _memory(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action("V13", "worker.lower_concurrency", "Lower the worker's concurrency, or give it memory",
                "# concurrency × the largest job's memory must fit; a file that kills it every time goes to quarantine",
                undo="put the previous concurrency back")
    ]  # fmt: skip


def _creator(verdict: Verdict, facts: Facts) -> list[Action]:
    creator = verdict.details.get("creator_id")
    return [
        action("V15", "app.tell_creator", "Tell this creator what their files are refused for; nobody else is hit",
                "# run this runbook again with user_id set to this creator: log lines, rows, error codes",
                undo="nothing is changed", targets=[{"creator_id": creator}])
    ]  # fmt: skip


def _slower(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action("V16", "app.slow_down", "Send fewer requests a second to one prefix, with back-off and jitter",
                "# lower the worker's concurrency; spread keys over prefixes", undo="raise it again")
    ]  # fmt: skip


def _parts(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action("V17", "app.smaller_parts", "Upload in parts that are retried one by one",
                "# part size 5–16 MB, each part retried; which networks? split the closed requests by client",
                undo="put the previous part size back")
    ]  # fmt: skip


def _endpoint(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        action("V18", "network.reach_storage", "Find where the way to the storage ends: name, route, certificate",
                "getent hosts ENDPOINT; curl -sSI --max-time 5 https://ENDPOINT/   # from the application's host too",
                undo="nothing is changed", targets=[{"code": verdict.details.get("code")}])
    ]  # fmt: skip


PROPOSERS: dict[str, tuple[Callable[[Verdict, Facts], list[Action]], ...]] = {
    "V01": (_policy,), "V02": (_key,), "V03": (_clock,), "V04": (_address,), "V05": (_cors,), "V06": (_longer,),
    "V07": (_size,), "V08": (_quota,), "V09": (_wait,), "V10": (_resync,), "V11": (_room,), "V12": (_queue,),
    "V13": (_memory,), "V14": (_resync,), "V15": (_creator,), "V16": (_slower,), "V17": (_parts,), "V18": (_endpoint,),
}  # fmt: skip
