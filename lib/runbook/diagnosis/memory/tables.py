"""Readings as a tired person wants to see them: the worst first, in MB, the dead named before the rest is folded.

A table shows its first rows and counts the others, so what matters has to stand there. No row is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runbook.diagnosis.memory.limits import Limits
from runbook.diagnosis.memory.processes import megabytes, number, seen
from runbook.diagnosis.readings import Readings
from runbook.result import Reading

Row = Mapping[str, Any]
FULLEST = 20
"""Rows of hosts that stand before those of hosts that did not answer."""
BYTES = "_bytes"
_BESIDE_THE_POINT = ("parent", "cpu_seconds", "threads", "open_files", "open_files_limit")
_LAST = ("path", "filesystem", "command", "query", "state", "reason")


def fullest_first(reading: Reading | None) -> Reading | None:
    """Hosts or cgroups by what is in use, and those that could not be read."""
    if reading is None or not reading.known:
        return reading
    return replace(reading, value=_folded(reading.rows, ("working_set_percent", "used_percent")))


def largest_first(reading: Reading | None) -> Reading | None:
    """Processes by what they hold by themselves."""
    if reading is None or not reading.known:
        return reading
    rows = [{name: cell for name, cell in row.items() if name not in _BESIDE_THE_POINT} for row in reading.rows]
    return replace(reading, value=_folded(rows, ("pss_bytes", "anonymous_bytes", "rss_bytes")))


def in_memory(reading: Reading | None) -> Reading | None:
    """Filesystems that lie in memory, the fullest first; one that is mounted twice stands there once."""
    if reading is None or not reading.known:
        return reading
    kept: dict[tuple[Any, ...], Row] = {}
    for row in reading.rows:
        if row.get("type") in ("tmpfs", "ramfs") or row.get("reason"):
            kept[row.get("host"), row.get("mount")] = row
    return replace(reading, value=_folded(list(kept.values()), ("used_bytes",)))


def kills_by_place(reading: Reading | None) -> Reading | None:
    """Kills of the kernel's log: what was killed where, how often, the latest first."""
    if reading is None or not reading.known:
        return reading
    groups: dict[tuple[str, ...], list[Row]] = {}
    unread = []
    for row in reading.rows:
        if row.get("reason"):
            unread.append(dict(row))
        else:
            key = tuple(str(row.get(k) or "") for k in ("host", "cgroup", "constraint", "command"))
            groups.setdefault(key, []).append(row)
    rows = []
    for (host, cgroup, constraint, command), killed in groups.items():
        latest = min(killed, key=lambda row: number(row, "age_seconds") or 0.0)
        age = number(latest, "age_seconds")
        rows.append({
            "host": host, "kills": len(killed), "latest_minutes_ago": None if age is None else round(age / 60, 1),
            "latest_pid": latest.get("pid"), "latest_mb": megabytes(number(latest, "rss_bytes")), "cgroup": cgroup,
            "constraint": constraint, "command": command,
        })  # fmt: skip
    rows.sort(key=lambda row: (row["latest_minutes_ago"] is None, row["latest_minutes_ago"], row["host"]))
    return replace(reading, value=[*rows, *unread])


def growing(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Reading | None:
    """Processes that grew in every sample, the fastest first; nothing when there were too few samples."""
    taken, limits = Readings(readings), Limits.of(parameters)
    last, series = taken.last("processes"), taken.series("processes")
    if last is None or not last.known:
        return last
    rows: list[dict[str, Any]] = []
    for host in dict.fromkeys(str(row.get("host")) for row in last.rows):
        for process in seen(series, host)[0]:
            if process.growth <= 0:
                continue
            settled = (process.age_seconds or 0.0) >= limits.settled_seconds
            rows.append({
                "host": host, "pid": process.pid, "grew_mb": megabytes(process.growth),
                "mb": megabytes(process.size), "mb_per_minute": round(60 * process.pace / 2**20, 1),
                "pace_x_age_over_size": None if process.lasted is None else round(process.lasted, 2),
                "settled": settled, "measured_as": process.measure, "command": process.command[:120],
            })  # fmt: skip
    rows.sort(key=lambda row: (-float(row["grew_mb"] or 0.0), row["pid"]))
    return replace(last, value=rows)


def _folded(rows: Sequence[Row], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The fullest, then what could not be read, then the rest; bytes as MB."""

    def size(row: Row) -> float:
        return next((n for column in columns if (n := number(row, column)) is not None), -1.0)

    known = sorted((row for row in rows if size(row) >= 0), key=lambda row: -size(row))
    unread = [row for row in rows if size(row) < 0]
    ordered = [*known[:FULLEST], *unread, *known[FULLEST:]]
    return [_shown(row, columns) for row in ordered]


def _shown(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """``host`` and what it is ordered by in front, texts at the end."""
    front = ["host", "pid", "path", "mount", *columns]
    names = [name for name in front if name in row]
    names += [name for name in row if name not in names and name not in _LAST]
    names += [name for name in _LAST if name in row and name not in names]
    return {
        name.replace(BYTES, "_mb"): megabytes(number(row, name)) if name.endswith(BYTES) else row[name]
        for name in names
    }
