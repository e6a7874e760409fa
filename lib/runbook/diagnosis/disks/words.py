"""What a file is by its path, and how bytes and hours are said. A path belongs to the first kind that fits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["wal", "spill", "redis_temp", "journal", "core", "log", "image", "relation", "redis", "tmp", "other"]

_LOG_NAME = re.compile(r"(?i)\.(?:log|out|err)(?:[.-][\w-]+)*$|^(?:syslog|messages|kern\.log|daemon\.log)\b|-json\.log")
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("wal", re.compile(r"/pg_(?:wal|xlog)/")),
    ("spill", re.compile(r"/pgsql_tmp")),
    ("redis_temp", re.compile(r"/temp-[^/]*\.(?:rdb|aof)$|/temp-rewriteaof[^/]*$")),
    ("journal", re.compile(r"/log/journal/|\.journal~?$")),
    ("core", re.compile(r"/systemd/coredump/|/var/crash/|/core(?:\.\d+)?$|\.core$")),
)
_IMAGE = re.compile(
    r"/docker/(?:overlay2|aufs|devicemapper|image|volumes|containers)/|/containerd/|/containers/storage/"
)
_RELATION = re.compile(r"/base/\d+/\d+|/pg_tblspc/|/PG_\d+_\d+/|/global/\d+$")
_REDIS = re.compile(r"\.rdb$|/appendonly[^/]*\.aof")


def kind(path: str, *, logs: Sequence[str] = (), tmp: Sequence[str] = ()) -> Kind:
    """What a file is. ``logs`` and ``tmp`` are the application's logs and the workers' temporary directories."""
    for name, pattern in _KINDS:
        if pattern.search(path):
            return name
    if _LOG_NAME.search(path.rpartition("/")[2]) or any(beneath(path, log) for log in logs):
        return "log"
    for name, pattern in (("relation", _RELATION), ("redis", _REDIS), ("image", _IMAGE)):
        if pattern.search(path):
            return name
    if re.search(r"/logs?/", path):
        return "log"
    return "tmp" if any(beneath(path, place) for place in tmp) else "other"


def beneath(path: str, place: str) -> bool:
    """Whether ``path`` is ``place`` or lies below it."""
    place = place.rstrip("/")
    return path == place or path.startswith(f"{place}/")


def size(count: float | None) -> str:
    """Bytes as people say them: ``1.2 GB``."""
    if count is None:
        return "unknown"
    value, units = float(count), ("B", "kB", "MB", "GB", "TB", "PB")
    for unit in units:
        if abs(value) < 1000 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def duration(hours: float | None) -> str:
    """Hours as people say them: ``40 min``, ``3.5 h``, ``12 days``."""
    if hours is None:
        return "unknown"
    if hours < 1:
        return f"{max(0.0, 60 * hours):.0f} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.0f} days"
