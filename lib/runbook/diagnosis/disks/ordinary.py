"""Causes of ordinary files that are too many: logs, temporary uploads, images and the like (D01, D09, D10).

Each file belongs to one kind and is counted once, so that a log below a directory of images is a log and nothing else.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from runbook.diagnosis.disks.facts import BULK, Claim, Facts
from runbook.diagnosis.disks.files import File
from runbook.diagnosis.disks.filesystems import Key, number
from runbook.diagnosis.disks.gates import OF_HALF, claim_gate, where
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

LOGS = ("written_files", "log_files", "large_files", "places")
RECENT = timedelta(hours=1)


def logs(facts: Facts) -> Cause:
    """D01: logs fill a filesystem; the file that grows and the process that writes it are named.

    Gate: log files grow so fast that they alone fill their filesystem within the critical time, or would fill any; or
    they are a large part of one that is short. Clause: one of them grows while we look, or was written within the
    hour. Source: R5, D01.
    """
    bench = Bench("D01", facts.readings)
    claim = facts.best((_logs_on(facts, key) for key in facts.keys), abnormal=False)
    files = facts.files
    known = files.writers_known is True and not files.lost("log_files")
    of_it = _told_files(facts, claim, "log")
    return Cause(
        id="D01",
        name="logs grow",
        gate=claim_gate(facts, bench, "share of the growth, or of what is too much, that is logs", claim,
                        abnormal=False, known=known, rests_on=LOGS),
        clauses=(
            bench.fact("written", "a log grows while we look, or was written within the hour",
                       _is_written(facts, of_it) if of_it or known else None,
                       value=of_it[0].path if of_it else None, rests_on=LOGS[:2]),
        ),
        hints=(
            bench.fact("bulk", "logs are at least half of it",
                       facts.share(claim, abnormal=False) >= BULK if claim else False, rests_on=LOGS, weight=WEAK),
        ),
        share=facts.share(claim, abnormal=False) if claim else 0.0,
        details=_log_details(facts, claim, of_it),
    )  # fmt: skip


def _logs_on(facts: Facts, key: Key) -> Claim:
    """Bytes of logs on a filesystem: of the files that were seen, or of the directories that are theirs."""
    seen = facts.files_claim(key, "log")
    listed = sum(number(row.get("bytes")) or 0.0 for row in _apart(facts.places(key, "log")))
    runaway = facts.limits.runaway_bytes_per_second
    return Claim(key=key, bytes=max(seen.bytes, listed), pace=seen.pace, runaway=runaway)


def _apart(rows: list[Any]) -> list[Any]:
    """Places of which none lies in another one."""
    paths = [str(row["path"]).rstrip("/") + "/" for row in rows]
    return [row for row, path in zip(rows, paths, strict=True)
            if not any(path != other and path.startswith(other) for other in paths)]  # fmt: skip


def _told_files(facts: Facts, claim: Claim | None, *kinds: Any) -> list[File]:
    """The files of a claim, those that grow first, then by size."""
    if claim is None or claim.key is None:
        return []
    growing = facts.files.growing(claim.key, *kinds)
    return [*growing, *(f for f in facts.files.on(claim.key, *kinds) if f.pace <= 0)]


def _is_written(facts: Facts, files: list[File]) -> bool:
    return any(f.pace > 0 for f in files) or any(_recent(facts, f) for f in files[:20])


def _recent(facts: Facts, file: File) -> bool:
    try:
        age = datetime.fromisoformat(facts.readings.measured_at(LOGS)) - datetime.fromisoformat(file.modified_at)
    except (ValueError, TypeError):
        return False
    return age <= RECENT


def _log_details(facts: Facts, claim: Claim | None, files: list[File]) -> dict[str, Any]:
    if claim is None or not files:
        return where(facts, claim) if claim and claim.bytes else {}
    first = files[0]
    told: dict[str, Any] = {"path": first.path, "writer_pid": first.pid, "writer_command": first.command or None}
    if first.pid is None:
        told["writer"] = "not seen: it opens the file for each line, has ended, or is hidden from us"
    return told | where(facts, claim) | {"files": [f.told() for f in files[:5]]}


def temporary_files(facts: Facts) -> Cause:
    """D09: what workers left in their temporary directories: old, nobody has it open, and its job has ended.

    Gate: such files explain enough of a filesystem that is short. Clauses: no process has them open; no job that is
    active began before they were last written. Source: R5, D09.
    """
    bench = Bench("D09", facts.readings)
    left = [f for f in facts.files.all if _is_left(facts, f)]
    claims = [Claim(key=key, bytes=sum(f.bytes for f in left if f.key == key)) for key in facts.keys]
    claim = facts.best(claims, abnormal=True)
    mine = sorted((f for f in left if claim and f.key == claim.key), key=lambda f: (-f.bytes, f.path))
    reading = facts.readings.last("old_files")
    blind = any(_is_old(facts, f) and f.open is None for f in facts.files.all)
    clauses = [
        bench.fact("closed", "nobody has them open", bool(mine) if reading is not None and reading.known else None,
                   value=len(mine), rests_on=("old_files",)),
    ]  # fmt: skip
    ended = _jobs_ended(facts, mine)
    if ended is not None:
        clauses.append(bench.fact("ended", "no active job is as old as they are", ended, rests_on=("queue_active",)))
    oldest = max((f.age_hours or 0.0 for f in mine), default=None)
    return Cause(
        id="D09",
        name="temporary files left over",
        gate=claim_gate(facts, bench, "share of what is too much that is left over in temporary directories", claim,
                        abnormal=True, known=not facts.files.lost("old_files") and not blind, rests_on=("old_files",),
                        reason="whether others have them open is hidden from us" if blind else ""),
        clauses=tuple(clauses),
        share=facts.share(claim, abnormal=True) if claim else 0.0,
        details=where(facts, claim) | {"files": len(mine), "oldest_hours": oldest, "path": mine[0].path,
                 "paths": [f.path for f in mine[:10]]} if claim and mine else {},
    )  # fmt: skip


def _is_left(facts: Facts, file: File) -> bool:
    return _is_old(facts, file) and file.open is False


def _is_old(facts: Facts, file: File) -> bool:
    old = file.age_hours is not None and file.age_hours >= facts.limits.temp_age_hours
    return old and file.kind in ("tmp", "other") and file.pace <= 0


def _jobs_ended(facts: Facts, files: list[File]) -> bool | None:
    """Whether no active job began before the youngest of them was written; ``None`` where no queue is known."""
    jobs = facts.readings.rows("queue_active")
    measured = facts.readings.measured_at(("old_files",))
    if jobs is None or not files:
        return None
    youngest = min(f.age_hours or 0.0 for f in files)
    for job in jobs:
        try:
            begun = datetime.fromisoformat(str(job.get("processed_at")))
            hours = (datetime.fromisoformat(measured) - begun) / timedelta(hours=1)
        except (ValueError, TypeError):
            return False
        if hours >= youngest:
            return False
    return True


def images(facts: Facts) -> Cause:
    """D10: container images, the journal or core dumps take the space.

    Gate: they are a large part of a filesystem that is short. Clause: nothing else that was found there takes as much,
    for they lie on every machine. Source: R5, D10.
    """
    bench = Bench("D10", facts.readings)
    claim = facts.best((_images_on(facts, key) for key in facts.keys), abnormal=False)
    places = facts.readings.rows("places") or []
    whole = facts.readings.known("places") and all(row.get("complete") == "yes" for row in places if _is_image(row))
    others = _others(facts, claim.key) if claim and claim.key else 0.0
    found = list(facts.places(claim.key, "journal", "image", "core")) if claim and claim.key else []
    return Cause(
        id="D10",
        name="images, journal or core dumps",
        gate=claim_gate(facts, bench, f"{OF_HALF} that is images, journal and core dumps", claim, abnormal=False,
                        known=whole, rests_on=("places", "large_files")),
        clauses=(
            bench.fact("largest", "nothing else that was found there takes as much, or fills it",
                       claim is not None and claim.bytes > others, value=int(claim.bytes) if claim else None,
                       rests_on=("places", "written_files"), otherwise="refutes"),
        ),
        share=facts.share(claim, abnormal=False) if claim else 0.0,
        details=where(facts, claim) | {"places": [{"kind": row.get("kind"), "path": row["path"],
                 "bytes": row.get("bytes")} for row in found]} if claim and claim.bytes else {},
    )  # fmt: skip


def _is_image(row: Any) -> bool:
    return row.get("kind") in ("journal", "image", "core")


def _images_on(facts: Facts, key: Key) -> Claim:
    listed = sum(number(row.get("bytes")) or 0.0 for row in facts.places(key, "journal", "image", "core"))
    seen = facts.files_claim(key, "journal", "image", "core")
    return Claim(key=key, bytes=max(listed, seen.bytes))


def _others(facts: Facts, key: Key) -> float:
    """The most that anything else of a known kind takes there; without end where something fills it."""
    one = facts.of(key)
    if one is not None and (facts.hours_to_full(one) or 1e9) < facts.limits.critical_hours:
        return float("inf")
    kinds = ("log", "wal", "spill", "redis_temp", "tmp")
    claims = [facts.files_claim(key, kind).bytes for kind in kinds]  # type: ignore[arg-type]
    claims.append(_logs_on(facts, key).bytes)
    claims.append(sum(number(r.get("bytes")) or 0.0 for r in facts.readings.rows("deleted_files") or []
                      if facts.at(r) == key))  # fmt: skip
    database = facts.database
    if database.place("wal") == key and database.wal is not None:
        claims.append(number(database.wal.get("wal_bytes")) or 0.0)
    return max(claims)
