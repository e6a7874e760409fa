"""Causes behind the bucket: provider, webhook, worker, row (V08–V11, V13, V14). The queue stands apart.

A reason that a failed job left, or an error that a provider gave a video, is a trace of that very upload; a page that
says *operational* is none.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import number
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.uploads.traffic import provider_of
from runbook.diagnosis.uploads.videos import PROVIDER_NAMES, VIDEOS
from runbook.diagnosis.verdict import Cause
from runbook.result import DECISIVE, WEAK, Evidence

PROVIDER = (*VIDEOS, "queue_failed")


def going_on(facts: Facts, bench: Bench) -> tuple[Evidence, ...]:
    """Refutes a cause whose traces are of the past: too many uploads came through since for it to be there still."""
    if not facts.content.recovered:
        return ()
    return (bench.fact("over", "uploads fail still", False, rests_on=("content_onset",), otherwise="refutes"),)


def quota(facts: Facts) -> Cause:
    """V08: a quota of the provider is used up, or its bill is not paid.

    Gate: stored minutes at their limit, or errors that speak of a quota. Source: R3, V08.
    """
    bench, storage = Bench("V08", facts.readings), facts.readings.row("stream_storage")
    used, limit = number(storage, "used_minutes"), number(storage, "limit_minutes")
    share = round(used / limit, 4) if storage and limit else None
    said, errored = facts.said("quota"), facts.videos.over_quota
    seen = (said or 0) + len(errored)
    full = share is not None and share >= 1.0
    known = share is not None or said is not None or facts.videos.rows is not None
    claim = facts.untraced if full else 0
    return Cause(
        id="V08",
        name="provider quota or billing",
        applicable=bool(facts.videos.configured) or facts.jobs.configured,
        gate=bench.fact("used_up", "quota used up, or errors that say so", True if full or seen else False if known
                        else None, value=round(100 * share, 1) if full and share is not None else seen or None,
                        unit="%" if full else "", rests_on=("stream_storage", *PROVIDER), otherwise="refutes"),
        clauses=(
            bench.fact("more", "uploads are refused for it", seen >= facts.limits.min_bad if known else None,
                       value=seen, rests_on=PROVIDER),
        ),
        share=max(facts.share("V08"), min(1.0, claim / facts.total) if facts.total else 0.0),
        details={"used_minutes": used or None, "limit_minutes": limit or None, "refused": seen} if full or seen else {},
    )  # fmt: skip


def provider(facts: Facts, *, breached: bool | None) -> Cause:
    """V09: the provider fails (outage), or refuses what it was given (input).

    Gate: videos errored at the provider, or jobs that failed at it. Outage: 5xx, time-outs and errors without a reason
    in the file, across creators; its status page is weak evidence and lags. Input: error codes that speak of our files.
    Clause: it is more than the usual share of odd files. Source: R3, V09.
    """
    bench, videos, jobs = Bench("V09", facts.readings), facts.videos, facts.jobs
    calls = facts.traffic.provider_errors or 0
    outage = max(len(videos.provider_fault) + (jobs.failures("provider") or 0), calls if calls >= 2 else 0)
    bad_files = max(len(videos.bad_input), jobs.failures("input") or 0)
    kind = "outage" if outage > bad_files else "input"
    seen = outage + bad_files
    known = videos.rows is not None or jobs.failed is not None
    details: dict[str, Any] = {}
    if seen:
        details = {"kind": kind, "provider": _named(facts, kind), "errors": seen,
                   "codes": videos.codes(videos.provider_fault if kind == "outage" else videos.bad_input),
                   "reasons": jobs.reasons("provider" if kind == "outage" else "input"),
                   "creators": facts.content.creators_hit}  # fmt: skip
    return Cause(
        id="V09",
        name="provider outage" if kind == "outage" and seen else
        "provider refuses the files" if seen else "provider outage or bad input",
        applicable=bool(videos.configured) or jobs.configured,
        gate=bench.gate("errors", "uploads that failed at the provider", seen if seen or known else None, at_least=1,
                        rests_on=(*PROVIDER, "upstreams")),
        clauses=(
            *_provider_clauses(facts, bench, kind if seen else "", outage, breached),
            *going_on(facts, bench),
        ),
        hints=_status_page(facts, bench, kind),
        share=min(1.0, max(facts.claims["V09"], min(calls, facts.bad)) / facts.total) if seen and facts.total else 0.0,
        details=details,
    )  # fmt: skip


def _provider_clauses(
    facts: Facts, bench: Bench, kind: str, outage: int, breached: bool | None
) -> tuple[Evidence, ...]:
    rests_on = ("content_overview",)
    more = bench.fact("more", "more uploads fail than usual", breached, rests_on=rests_on)
    if kind != "outage":
        return (more,)
    hit, one = facts.content.creators_hit, facts.content.worst_share
    across = None if hit is None or one is None else hit >= 2 and one < facts.limits.creator_share
    if across is False and facts.content.others_bad_share is None:
        across = None  # with one creator in the window, it cannot be told
    return (
        bench.weigh("server_errors", "5xx, time-outs and errors without a reason in the file", outage,
                    at_least=facts.limits.min_bad, rests_on=(*PROVIDER, "upstreams")),
        bench.fact("across", "across creators", across if facts.content.bad else True, value=hit,
                   rests_on=("content_by_creator",)),
    )  # fmt: skip


def _named(facts: Facts, kind: str) -> list[str]:
    """The provider that it is about: by its videos, our calls, or because there is only one."""
    rows = facts.videos.provider_fault if kind == "outage" else facts.videos.bad_input
    names = facts.videos.providers(rows)
    if names:
        return names
    called = {
        PROVIDER_NAMES[provider_of(str(row.get("host")))]
        for row in facts.traffic.provider_calls or []
        if number(row, "upstream_errors") > 0
    }
    said = " ".join(facts.jobs.reasons("provider", "input")).lower()
    called |= {name for key, name in PROVIDER_NAMES.items() if key in said}
    if called:
        return sorted(called)
    configured = [PROVIDER_NAMES["mux" if name == "mux_assets" else "stream"] for name in facts.videos.configured]
    return configured if len(configured) == 1 else []


def _status_page(facts: Facts, bench: Bench, kind: str) -> tuple[Evidence, ...]:
    if kind != "outage":
        return ()
    rows = [
        row
        for row in facts.readings.rows("vendor_status") or []
        if str(row.get("vendor")).lower() in ("mux", "cloudflare", "stream")
        and row.get("indicator") in ("minor", "major", "critical")
    ]
    return tuple(
        bench.fact(f"status_{row['vendor']}", f"status page of {row['vendor']} admits it", True,
                   value=row.get("indicator"), rests_on=("vendor_status",), weight=WEAK)
        for row in sorted(rows, key=lambda r: str(r["vendor"]))
    )  # fmt: skip


def webhook_lost(facts: Facts, *, breached: bool | None) -> Cause:
    """V10: the provider is done, and its webhook never reached the row.

    Gate: stuck rows whose video the provider says is ready, without an active job. Clauses: more than an odd one; the
    database takes writes. The access log shows whether webhooks arrive at all. Source: R3, V10.
    """
    bench, rows = Bench("V10", facts.readings), facts.stuck_ready
    hooks = facts.traffic.webhooks
    writes = facts.said("database")
    untraceable = "the provider's videos carry nothing that a row could be recognised by"
    reason = untraceable if rows is None and facts.videos.rows and not facts.videos.traceable else ""
    silent = None if hooks is None else hooks["requests"] == 0 or 2 * hooks["errors"] >= hooks["requests"]
    return Cause(
        id="V10",
        name="webhook lost",
        applicable=bool(facts.videos.configured),
        gate=bench.gate("ready", "stuck uploads that the provider says are ready", None if rows is None else len(rows),
                        at_least=1, rests_on=("stuck_rows", *VIDEOS), reason=reason),
        clauses=(
            bench.fact("more", "more uploads are stuck than usual", breached, rests_on=("content_overview",)),
        ),
        hints=(
            *((bench.fact("silent", "no webhook in the access log, or most of them fail", True,
                          value=hooks["requests"] if hooks else None, rests_on=("splits",), weight=WEAK),)
              if silent else ()),
            *((bench.weigh("writes", "database errors in the log", writes, below=1, otherwise="refutes",
                           rests_on=("app_errors", "queue_failed"), weight=WEAK),) if writes else ()),
        ),
        share=facts.share("V10"),
        details={"rows": len(rows), "ids": [row.get("id") for row in rows[:10]],
                 "provider": facts.videos.providers([v for r in rows if (v := facts.videos.of(r))]),
                 "webhook_requests": hooks["requests"] if hooks else None} if rows else {},
    )  # fmt: skip


def worker_disk(facts: Facts) -> Cause:
    """V11: a worker has no room to transcode in.

    Gate: jobs or the log say ENOSPC (decisive by itself), or a worker's file system is full of bytes or inodes.
    Refers to the runbook of disks. Source: R3, V11; R5.
    """
    bench, limits = Bench("V11", facts.readings), facts.limits
    failed = facts.said("disk")
    disks = facts.readings.rows("worker_disk")
    full = [
        row
        for row in disks or []
        if max(number(row, "used_percent"), number(row, "inodes_percent")) >= limits.disk_percent
    ]
    fullest = max((number(row, "used_percent") for row in disks or []), default=None) if disks else None
    known = failed is not None or disks is not None
    gate = True if failed or full else False if known else None
    top = max(full, key=lambda r: (number(r, "used_percent"), str(r.get("host"))), default={})
    return Cause(
        id="V11",
        name="no space on a worker",
        applicable=facts.jobs.configured or facts.asked("app_errors") or facts.asked("worker_disk"),
        gate=bench.fact("no_space", "jobs failed with ENOSPC, or a worker's disk is full", gate,
                        value=failed or fullest, unit="" if failed or fullest is None else "%", otherwise="refutes",
                        rests_on=("queue_failed", "app_errors", "worker_disk"), weight=DECISIVE if failed else 3),
        hints=(
            bench.weigh("fullest", "fullest file system of the workers", fullest, at_least=limits.disk_percent,
                        unit="%", rests_on=("worker_disk",), weight=WEAK),
        ) if facts.asked("worker_disk") and not facts.content.recovered else going_on(facts, bench),
        share=max(facts.share("V11"), min(1.0, (failed or 0) / facts.total) if facts.total else 0.0,
                  facts.share("V12") if full and not failed else 0.0),
        details={"failed_jobs": facts.jobs.failures("disk"), "logged": facts.logged("disk"), "host": top.get("host"),
                 "mount": top.get("mount"), "used_percent": top.get("used_percent"),
                 "reasons": facts.jobs.reasons("disk"), "refers_to": "high_disk_usage"} if gate else {},
    )  # fmt: skip


def transcoder_killed(facts: Facts) -> Cause:
    """V13: the transcoder is killed for its memory, or dies over what it is given.

    Gate: jobs end with exit status 137, out of memory, or stalled more often than allowed. Clause: the reason names it,
    or more than one job stalled for good: a worker died over each of them twice. Refers to the runbook of memory.
    Source: R3, V13; R6.
    """
    bench = Bench("V13", facts.readings)
    killed, stalled = facts.said("memory"), facts.jobs.failures("stalled")
    seen = None if killed is None and stalled is None else (killed or 0) + (stalled or 0)
    rows = facts.readings.rows("worker_memory")
    # Counted since the host started: it fits the picture, and proves nothing about this window.
    kills = None if rows is None else int(sum(number(row, "oom_kills") for row in rows))
    return Cause(
        id="V13",
        name="transcoder killed (out of memory)",
        applicable=facts.jobs.configured or facts.asked("app_errors"),
        gate=bench.gate("killed", "jobs whose transcoder was killed or stalled for good", seen, at_least=1,
                        rests_on=("queue_failed", "app_errors")),
        clauses=(
            bench.fact("again", "memory or exit status 137 is named, or jobs stalled for good again and again",
                       None if seen is None else bool(killed) or (stalled or 0) >= facts.limits.min_bad,
                       value=killed or stalled, rests_on=("queue_failed", "app_errors")),
        ),
        hints=(
            *((bench.fact("kernel", "the kernel killed for memory since the host started", True, value=kills,
                          rests_on=("worker_memory",), weight=WEAK),) if kills else ()),
            *going_on(facts, bench),
        ),
        share=max(facts.share("V13"), min(1.0, (seen or 0) / facts.total) if facts.total else 0.0),
        details={"killed": killed, "stalled": stalled, "oom_kills": kills,
                 "reasons": facts.jobs.reasons("memory", "stalled"), "refers_to": "high_memory_usage"} if seen else {},
    )  # fmt: skip


def row_not_written(facts: Facts, *, breached: bool | None) -> Cause:
    """V14: the work was done, and the row was not written.

    Gate: stuck rows whose job completed and that no provider is busy with, or writes of jobs that the database refused.
    Clause: more than an odd one. Source: R3, V14.
    """
    bench, rows = Bench("V14", facts.readings), facts.stuck_done
    refused = facts.jobs.failures("database")
    seen = None if rows is None and not refused else max(len(rows or []), refused or 0)
    return Cause(
        id="V14",
        name="row not written after the job",
        applicable=facts.jobs.configured,
        gate=bench.gate("old", "uploads whose job ended and whose row is old", seen, at_least=1,
                        rests_on=("stuck_rows", "queue_completed", *VIDEOS)),
        clauses=(
            bench.fact("more", "more uploads are stuck than usual", breached, rests_on=("content_overview",)),
        ),
        share=facts.share("V14"),
        details={"rows": len(rows or []), "ids": [row.get("id") for row in (rows or [])[:10]],
                 "completed_jobs": len(facts.jobs.completed or []), "refused_writes": refused,
                 "reasons": facts.jobs.reasons("database")} if seen else {},
    )  # fmt: skip


def one_creator(facts: Facts, *, breached: bool | None) -> Cause:
    """V15: one creator, or one creator's files, while everybody else's uploads succeed.

    Gate: one creator has ``creator_share`` of what is bad. Clauses: others upload, and theirs come through (refutes
    otherwise: somebody who uploads most of everything has most of what is bad, too). Source: R3, V15.
    """
    bench, content, limits = Bench("V15", facts.readings), facts.content, facts.limits
    share, others = content.worst_share, content.others_bad_share
    worst = content.worst or {}
    bad = int(number(worst, "failed") + number(worst, "stuck"))
    return Cause(
        id="V15",
        name="one creator's uploads",
        applicable=facts.asked("content_by_creator"),
        gate=bench.gate("share", "share of the bad uploads that one creator has",
                        None if share is None else share if bad >= limits.min_bad else 0.0,
                        at_least=limits.creator_share, share=True, rests_on=("content_by_creator", "content_overview")),
        clauses=(
            bench.weigh("others", "share of everybody else's uploads that is bad", others,
                        below=max(limits.threshold_percent / 100, 0.01), otherwise="refutes", share=True,
                        rests_on=("content_by_creator", "content_overview"),
                        reason="nobody else uploaded in the window" if content.worst is not None else ""),
            bench.fact("more", "more uploads fail than usual", breached, rests_on=("content_overview",)),
        ),
        share=min(1.0, bad / facts.total) if facts.total else 0.0,
        details={"creator_id": worst.get("creator_id"), "bad": bad, "uploads": int(number(worst, "total")),
                 "share_of_bad": round(100 * (share or 0), 1)} if bad else {},
    )  # fmt: skip
