"""Causes that no listing of files shows: deleted but open, inodes, the reserve, what a mount hides, read-only,
snapshots and quotas, Redis' own temporary files (D07, D08, D11–D15).
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.disks import words
from runbook.diagnosis.disks.facts import Claim, Facts
from runbook.diagnosis.disks.filesystems import Filesystem, Key, number
from runbook.diagnosis.disks.gates import claim_gate, nothing_is_short, where
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

BUILT_IN = frozenset({"/var/log"})
"""Places that are looked at everywhere, whether anything writes there or not."""
NO_ROOM_PERCENT = 99.5


def deleted_files(facts: Facts) -> Cause:
    """D07: files that were deleted and that a process still holds open keep their blocks.

    Gate: they explain enough of a filesystem that is short; unknown while open files of others are hidden and what is
    seen does not suffice. Clause: the process that holds the largest is known. Source: R5, D07.
    """
    bench = Bench("D07", facts.readings)
    rows = [row for row in facts.readings.rows("deleted_files") or [] if row.get("path")]

    def held(key: Key) -> list[dict[str, Any]]:
        found = [r for r in rows if facts.at(r) == key]
        return sorted(found, key=lambda r: (-(number(r.get("bytes")) or 0.0), str(r["path"])))

    claims = [Claim(key=key, bytes=sum(number(r.get("bytes")) or 0.0 for r in held(key))) for key in facts.keys]
    claim = facts.best(claims, abnormal=True)
    mine = held(claim.key) if claim and claim.key else []
    files = [{k: r.get(k) for k in ("host", "pid", "command", "path", "bytes")} for r in mine[:10]]
    return Cause(
        id="D07",
        name="deleted files that are still open",
        gate=claim_gate(facts, bench, "share of what is too much that deleted files hold", claim, abnormal=True,
                        known=not facts.files.lost("deleted_files"), rests_on=("deleted_files",),
                        reason="" if facts.readings.last("deleted_files") is None
                        else (facts.readings.last("deleted_files").reason or "")),  # type: ignore[union-attr]
        clauses=(
            bench.fact("holder", "the process that holds them is known", bool(mine) if rows or mine else False,
                       value=mine[0].get("pid") if mine else None, rests_on=("deleted_files",)),
        ),
        share=facts.share(claim, abnormal=True) if claim else 0.0,
        details=({k: files[0][k] for k in ("pid", "command", "path")} | where(facts, claim) | {"files": files})
        if files else {},
    )  # fmt: skip


def inodes(facts: Facts) -> Cause:
    """D08: a filesystem has no inodes left, while bytes are free.

    Gate: ``inode_percent`` of them are taken. Clause: there is room in bytes. Source: R5, D08.
    """
    bench = Bench("D08", facts.readings)
    known = [f for f in facts.judged or [] if f.inodes_percent is not None]
    worst = max(known, key=lambda f: (f.inodes_percent or 0.0, f.key), default=None)
    value = worst.inodes_percent if worst else None if facts.judged is None or facts.lost else 0.0
    if value is not None and value < facts.limits.inode_percent and facts.lost:
        value = None
    taken = worst is not None and facts.is_short_of_inodes(worst)
    many = [row for row in facts.readings.rows("many_files") or [] if row.get("path")]
    mine = [r for r in many if worst and words.beneath(str(r["path"]), worst.mount)
            and str(r.get("host") or "local") == worst.host]  # fmt: skip
    return Cause(
        id="D08",
        name="inodes used up",
        gate=bench.gate("inodes", "inodes in use", value, at_least=facts.limits.inode_percent, unit="%",
                        rests_on=("disk",)),
        clauses=(
            bench.fact("bytes_left", "there is room in bytes", facts.is_short(worst) is False if worst else None,
                       value=worst.used_percent if worst else None, unit="%", rests_on=("disk",)),
        ),
        share=1.0 if taken else 0.0,
        details={"host": worst.host, "mount": worst.mount, "inodes": worst.inodes, "inodes_used": worst.inodes_used,
                 "inodes_percent": worst.inodes_percent, "used_percent": worst.used_percent,
                 "directories": [{"path": r["path"], "files": r.get("files")} for r in mine[:5]]}
        if worst and taken else {},
    )  # fmt: skip


def reserved(facts: Facts) -> Cause:
    """D11: ordinary users have no room left while root still has: the reserve of the filesystem.

    Gate: nothing is available to users. Clause: blocks are reserved. It adds to what filled the disk, and explains as
    much of it as the reserve is of what is too much. Source: R5, D11.
    """
    bench = Bench("D11", facts.readings)
    full = [f for f in facts.short if (f.used_percent or 0.0) >= NO_ROOM_PERCENT]
    worst = max(full, key=lambda f: (f.reserved or 0.0, f.key), default=None)
    none = False if facts.none_short is not None else None
    kept = worst.reserved if worst else None
    notable = kept is not None and worst is not None and bool(worst.size) and kept >= 0.01 * (worst.size or 0.0)
    excess = worst.excess(facts.limits.warn_percent) if worst else 0.0
    return Cause(
        id="D11",
        name="the rest is reserved for root",
        gate=bench.fact("none_left", "nothing is left for ordinary users", True if worst else none,
                        value=worst.used_percent if worst else None, unit="%", rests_on=("disk",), otherwise="refutes"),
        clauses=(
            bench.fact("reserve", "and root still has room", notable if worst else None if none is None else False,
                       value=int(kept) if kept is not None else None, unit="bytes", rests_on=("disk",),
                       otherwise="refutes"),
        ),
        share=min(1.0, kept / excess) if notable and kept and excess else 0.0,
        details={"host": worst.host, "mount": worst.mount, "device": worst.device, "type": worst.type,
                 "reserved_bytes": int(kept or 0), "used_percent": worst.used_percent} if worst and notable else {},
    )  # fmt: skip


def hidden(facts: Facts) -> Cause:
    """D12: files lie below the mount point of another filesystem, where no listing finds them.

    Gate: they explain enough of a filesystem that is short. It takes root to look, in a mount namespace of its own;
    otherwise it is unknown. Source: R5, D12.
    """
    bench = Bench("D12", facts.readings)
    rows = [row for row in facts.readings.rows("hidden_files") or [] if row.get("path")]
    claims = []
    for key in facts.keys:
        mine = [r for r in rows if facts.at(r) == key]
        claims.append(Claim(key=key, bytes=sum(number(r.get("bytes")) or 0.0 for r in mine)))
    claim = facts.best(claims, abnormal=True)
    of_it = [r for r in rows if claim and facts.at(r) == claim.key]
    short = {f.key for f in facts.short}
    blind = any(r.get("bytes") is None for r in rows if facts.at(r) in short)
    below = max(of_it, key=lambda r: number(r.get("bytes")) or 0.0, default=None)
    return Cause(
        id="D12",
        name="files hidden below a mount",
        gate=claim_gate(facts, bench, "share of what is too much that lies below other mounts", claim, abnormal=True,
                        known=not facts.files.lost("hidden_files") and not blind, rests_on=("hidden_files",),
                        reason="it takes root to look below a mount" if blind else ""),
        clauses=(
            bench.fact("below", "the mount point that hides them is known",
                       bool(below and number(below.get("bytes"))), value=below["path"] if below else None,
                       rests_on=("hidden_files",)),
        ),
        share=facts.share(claim, abnormal=True) if claim else 0.0,
        details=where(facts, claim) | {"path": below["path"]} if claim and below and claim.bytes else {},
    )  # fmt: skip


def read_only(facts: Facts) -> Cause:
    """D13: a filesystem that has to be written to is mounted read-only.

    Gate: the application's logs or temporary files, or the server's data, lie on one that is mounted so, or the kernel
    made it so. Hint: the log says EROFS. A read-only filesystem that nobody writes to is none. Source: R5, D13.
    """
    bench = Bench("D13", facts.readings)
    flagged = [f for f in facts.asked or [] if f.read_only and not f.pseudo]
    found = [(f, reason) for f in flagged if (reason := _must_be_written(facts, f))]
    errors = facts.logged("EROFS")
    # One that the alert itself names, and that is no image, may have to be; nobody told us.
    named = [f for f in flagged if facts.limits.mount and not f.made_so] if not found else []
    worst, reason = found[0] if found else (named[0], "the log says EROFS" if errors else "") if named else (None, "")
    known = facts.asked is not None and not facts.lost
    return Cause(
        id="D13",
        name="mounted read-only",
        gate=bench.fact("read_only", "a filesystem is mounted read-only", True if worst else False if known else None,
                        value=worst.mount if worst else None, rests_on=("disk",), otherwise="refutes"),
        clauses=(
            bench.fact("written", "and it has to be written to", True if reason else None if named or not known else
                       False, value=reason or None, rests_on=("places", "disk"),
                       reason="what writes to it is not configured" if named else ""),
        ),
        hints=(
            bench.fact("erofs", "the log says EROFS", None if errors is None else errors > 0, value=errors,
                       rests_on=("disk_errors",), weight=WEAK),
        ),
        share=1.0 if worst else 0.0,
        details={"host": worst.host, "mount": worst.mount, "device": worst.device, "type": worst.type,
                 "options": worst.options, "written_by": reason} if worst else {},
    )  # fmt: skip


def _must_be_written(facts: Facts, one: Filesystem) -> str:
    """Why something has to write there; empty when nothing is known to."""
    if "emergency_ro" in one.options.split(","):
        return "the kernel made it read-only after an error"
    for row in facts.places(one.key, "log", "tmp"):
        if row["path"] not in BUILT_IN:
            return str(row["path"])
    for role in ("data", "wal"):
        if facts.database.place(role) == one.key:
            return f"PostgreSQL ({role})"
    return ""


def snapshots(facts: Facts) -> Cause:
    """D14: a snapshot, a thin pool or a quota stops the writing, whatever df says.

    Gate: the log says EDQUOT, or a volume is ``volume_percent`` full. Source: R5, D14.
    """
    bench = Bench("D14", facts.readings)
    rows = facts.readings.rows("volumes")
    full = [r for r in rows or [] if (number(r.get("data_percent")) or 0.0) >= facts.limits.volume_percent]
    blind = any(r.get("kind") and r.get("data_percent") is None for r in rows or [])
    quota = facts.logged("EDQUOT")
    seen = bool(full) or bool(quota)
    known = rows is not None and not blind
    return Cause(
        id="D14",
        name="snapshot, thin pool or quota",
        gate=bench.fact("full", "a volume is full, or a quota refuses",
                        True if seen else False if known or nothing_is_short(facts) else None,
                        value=full[0].get("data_percent") if full else quota or None, unit="%" if full else "",
                        rests_on=("volumes", "disk_errors"), otherwise="refutes",
                        reason="lvs may not be asked" if blind else ""),
        clauses=(
            bench.fact("named", "the volume or the quota is known", seen, rests_on=("volumes", "disk_errors")),
        ),
        share=1.0 if seen else 0.0,
        details={"volume": full[0].get("name") if full else None, "kind": full[0].get("kind") if full else "quota",
                 "data_percent": full[0].get("data_percent") if full else None, "refusals": quota} if seen else {},
    )  # fmt: skip


def redis_files(facts: Facts) -> Cause:
    """D15: Redis writes a snapshot or rewrites its log, which takes the space of the data once more.

    Gate: its temporary files explain enough of a filesystem that is short, or fill one. Clause: Redis says that it is
    at it, or its process writes them; files of a save that died long ago have no writer and are named as such.
    Source: R5, D15.
    """
    bench = Bench("D15", facts.readings)
    claim = facts.best((facts.files_claim(key, "redis_temp") for key in facts.keys), abnormal=True)
    files = facts.files.on(claim.key, "redis_temp") if claim and claim.key else []
    info = facts.readings.row("redis_info")
    saving = None if info is None else any(
        info.get(k) in (1, "1", True) for k in ("rdb_bgsave_in_progress", "aof_rewrite_in_progress"))  # fmt: skip
    written = next((f for f in files if f.pid is not None), None)
    first = files[0] if files else None
    return Cause(
        id="D15",
        name="Redis writes a snapshot",
        gate=claim_gate(facts, bench, "share of the growth, or of what is too much, that Redis' temporary files are",
                        claim, abnormal=True,
                        known=facts.files.writers_known is True and not facts.files.lost("large_files"),
                        rests_on=("written_files", "large_files")),
        clauses=(
            bench.fact("saving", "Redis is at it, or it left them behind", bool(files) or bool(saving),
                       value=first.path if first else None, rests_on=("written_files", "redis_info")),
        ),
        hints=(bench.fact("in_progress", "a save or a rewrite is in progress", saving, rests_on=("redis_info",),
                          weight=WEAK),),
        share=facts.share(claim, abnormal=True) if claim else 0.0,
        details={"path": first.path, "writer_pid": written.pid if written else None, "in_progress": saving,
                 "left_over": written is None and not saving} | where(facts, claim) if first and claim else {},
    )  # fmt: skip
