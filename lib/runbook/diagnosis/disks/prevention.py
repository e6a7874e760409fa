"""Prevention, checked: which guards the disks have. Source: reference fault model, runbook R5 (Prevent)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from runbook.diagnosis.disks.facts import Facts
from runbook.diagnosis.disks.files import File
from runbook.diagnosis.disks.limits import MIB, Limits
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

LARGE_LOG_BYTES = 10 * MIB
"""A log smaller than this needs no rotation yet."""


def prevention(readings: Sequence[Reading], parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    facts = Facts(Readings(readings), Limits.of(parameters or {}))
    wal = facts.database.wal
    return [
        _limit("a slot may keep only so much WAL", wal, "max_slot_wal_keep_size",
               "without a limit a replica that is gone fills the disk of the primary"),
        _limit("a query may spill only so much", wal, "temp_file_limit",
               "one bad sort should fail by itself, and not the server with it"),
        _archiving(facts),
        _rotation(facts),
        _warned(facts),
        _inodes(facts),
        _apart(facts),
        _alerts(facts),
    ]  # fmt: skip


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": value, "why": why}


def _limit(check: str, wal: Mapping[str, Any] | None, setting: str, why: str) -> dict[str, Any]:
    value = None if wal is None else str(wal.get(setting))
    holds = None if value is None else value != "-1"
    return _row(check, holds, "not read" if value is None else f"{setting} = {value}", why)


def _archiving(facts: Facts) -> dict[str, Any]:
    wal, why = facts.database.wal, "segments that cannot be archived stay, and one day they are all there is"
    if wal is None:
        return _row("the archiver keeps up", None, "not read", why)
    if wal.get("archive_mode") == "off":
        return _row("the archiver keeps up", None, "archive_mode is off", why)
    told = f"{wal.get('wal_ready')} segments wait"
    return _row("the archiver keeps up", wal.get("archiver_failing") is not True, told, why)


def _rotation(facts: Facts) -> dict[str, Any]:
    """Whether each large log is one that logrotate knows; by the patterns of its configuration."""
    check, why = "large logs are rotated", "a log that nobody rotates only grows"
    rows = facts.readings.rows("log_rotation")
    logs = [f for f in facts.files.all if f.kind == "log" and f.bytes >= LARGE_LOG_BYTES]
    if rows is None or facts.files.lost("log_files"):
        return _row(check, None, "not read", why)
    if not logs:
        return _row(check, None, "no log is large", why)
    patterns = [(str(r.get("host") or "local"), str(r.get("pattern") or "")) for r in rows if r.get("pattern")]
    missed = [f.path for f in logs if not _rotated(f, patterns)]
    return _row(check, not missed, f"not by logrotate: {', '.join(missed[:3])}" if missed else "all by logrotate", why)


def _rotated(log: File, patterns: Sequence[tuple[str, str]]) -> bool:
    return any(host == log.host and (fnmatchcase(log.path, p) or log.path.startswith(f"{p}.")) for host, p in patterns)


def _warned(facts: Facts) -> dict[str, Any]:
    known = [f for f in facts.judged or [] if f.used_percent is not None]
    warn = facts.limits.warn_percent
    above = [f"{f.name} {f.used_percent:g} %" for f in known if (f.used_percent or 0.0) >= warn]
    holds = None if not known else False if above else None if facts.lost else True
    return _row(f"filesystems below {warn:g} %", holds, "; ".join(above) or ("none above" if known else "not read"),
                "between the warning and the alert there must be time to act")  # fmt: skip


def _inodes(facts: Facts) -> dict[str, Any]:
    known = [f.inodes_percent for f in facts.judged or [] if f.inodes_percent is not None]
    most = max(known, default=None)
    return _row("inodes are left", None if most is None else most < facts.limits.warn_percent,
                "not read" if most is None else f"at most {most:g} % are taken",
                "a filesystem without inodes is full, whatever df says of bytes")  # fmt: skip


def _apart(facts: Facts) -> dict[str, Any]:
    """Whether WAL and logs lie apart: a log that fills the disk of the WAL takes the server down."""
    wal = facts.database.place("wal")
    logs = {f.key for f in facts.files.all if f.kind == "log" and f.bytes >= LARGE_LOG_BYTES}
    holds = None if wal is None or facts.files.lost("log_files") else wal not in logs
    return _row("WAL and large logs lie apart", holds, "not known" if wal is None else f"WAL on {wal[1]}",
                "on a disk without room for WAL the server stops, and does not start again")  # fmt: skip


def _alerts(facts: Facts) -> dict[str, Any]:
    rows = facts.readings.rows("disk_alerts")
    names = sorted({str(r.get("name")) for r in rows or []})
    return _row("an alert on filling filesystems", None if rows is None else bool(names),
                "not read" if rows is None else ", ".join(names[:4]) or "no rule looks at filesystems",
                "warn at 80 %, page at 85 %, or when it is full within hours")  # fmt: skip
