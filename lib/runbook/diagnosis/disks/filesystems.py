"""Filesystems as this run saw them: how full, and how fast they fill. Each is judged on its own.

``used_percent`` is df's: used of what ordinary users could use. A pace comes from the looks of this run when every
look shows growth, or from the metrics server's last hour; which, is said. ``None`` anywhere means *unknown*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]
Key = tuple[str, str]
"""Host and mount point."""
Look = tuple[float, Mapping[Any, float | None]]
APART_SECONDS = 0.4

FULL_BY_NATURE = frozenset({
    "squashfs", "iso9660", "udf", "cramfs", "erofs", "romfs", "fuse.snapfuse", "fuse.squashfuse"
})  # fmt: skip
"""Images: as large as what is in them, hence always 100 % full."""


@dataclass(frozen=True, kw_only=True)
class Filesystem:
    """One filesystem of one host."""

    host: str
    mount: str
    device: str
    type: str
    size: float | None
    used: float | None
    available: float | None
    inodes: float | None
    inodes_used: float | None
    read_only: bool
    pseudo: bool
    options: str
    #: Growth of what is used, bytes a second: of the looks of this run, when each shows some; of the last hour.
    run_pace: float | None = None
    hour_pace: float | None = None
    #: Least that was available within the last hour.
    least_available: float | None = None

    @property
    def key(self) -> Key:
        return self.host, self.mount

    @property
    def name(self) -> str:
        return self.mount if self.host == "local" else f"{self.mount} on {self.host}"

    @property
    def used_percent(self) -> float | None:
        """Percent in use, by df's formula used/(used + available)."""
        return _percent(self.used, self.available)

    @property
    def peak_percent(self) -> float | None:
        """Most of the last hour, where a metrics server kept it."""
        if self.least_available is None or self.used is None or self.available is None:
            return self.used_percent
        return _percent(self.used + self.available - self.least_available, self.least_available)

    @property
    def inodes_percent(self) -> float | None:
        if not self.inodes or self.inodes_used is None:
            return None
        return round(100.0 * self.inodes_used / self.inodes, 2)

    @property
    def image(self) -> bool:
        """Whether it is full by construction: an image, or something that nobody can write to."""
        return self.type in FULL_BY_NATURE or self.read_only or (self.pseudo and self.type == "overlay")

    @property
    def made_so(self) -> bool:
        """Whether it is an image or a layer, of which nobody expects that it can be written to."""
        return self.type in FULL_BY_NATURE or self.type == "overlay"

    @property
    def reserved(self) -> float | None:
        """Bytes that only root may use."""
        if self.size is None or self.used is None or self.available is None:
            return None
        return max(0.0, self.size - self.used - self.available)

    def excess(self, warn_percent: float) -> float:
        """Bytes beyond ``warn_percent``: what has to go before all is well."""
        if self.used is None or self.available is None:
            return 0.0
        return max(0.0, self.used - warn_percent / 100.0 * (self.used + self.available))

    def hours_to_full(self, pace: float | None) -> float | None:
        """At ``pace`` bytes a second; ``None`` when it does not fill, or nobody knows."""
        if pace is None or pace <= 0 or self.available is None:
            return None
        return self.available / pace / 3600.0


def _percent(used: float | None, available: float | None) -> float | None:
    if used is None or available is None or used + available <= 0:
        return None
    return round(100.0 * used / (used + available), 2)


def seen(readings: Readings) -> dict[Key, Filesystem] | None:
    """The filesystems of the hosts; ``None`` when no host could be asked."""
    looks = [reading for reading in readings.series("disk") if reading.known]
    if not looks:
        return None
    paces = paces_of(
        (moment(look.measured_at), {_key(row): number(row.get("used_bytes")) for row in look.rows if row.get("mount")})
        for look in looks
    )
    return {_key(row): _filesystem(row, paces.get(_key(row))) for row in looks[-1].rows if row.get("mount")}


def one_each(found: Mapping[Key, Filesystem]) -> dict[Key, Key]:
    """Every key, and the one that stands for its filesystem: of several mounts of one device, the shortest.

    Only where there is a device by name, and the sizes agree: two in memory are two.
    """
    first: dict[tuple[str, str, float | None], Key] = {}
    result = {}
    for key in sorted(found, key=lambda k: (len(k[1]), k)):
        one = found[key]
        named = one.device.startswith("/") or ":/" in one.device
        result[key] = first.setdefault((one.host, one.device, one.size), key) if named else key
    return result


def lost_hosts(readings: Readings) -> list[str]:
    """Hosts that did not say how full their filesystems are."""
    reading = readings.last("disk")
    return [str(row.get("host")) for row in (reading.rows if reading else []) if row.get("reason")]


def paces_of(looks: Iterable[tuple[float | None, Mapping[Any, float | None]]]) -> dict[Any, float]:
    """Growth by key, bytes a second, of those that never shrank and grew between most looks; others are left out.

    Looks that follow each other at once are one: who writes once a second does not pause in between.
    """
    ordered = _apart([(at, sizes) for at, sizes in looks if at is not None])
    if len(ordered) < 2:
        return {}
    (began, first), (ended, last) = ordered[0], ordered[-1]
    found = {}
    for key, end in last.items():
        sizes = [size for _, look in ordered if (size := look.get(key)) is not None]
        start = first.get(key)
        if start is None or end is None or len(sizes) < len(ordered):
            continue
        steps = [after - before for before, after in pairwise(sizes)]
        if min(steps) >= 0 and 2 * sum(step > 0 for step in steps) > len(steps):
            found[key] = (end - start) / (ended - began)
    return found


def _apart(looks: list[Look]) -> list[Look]:
    """The looks that are far enough from each other, the first and the last one among them."""
    kept: list[Look] = []
    for look in looks:
        if not kept or look[0] - kept[-1][0] >= APART_SECONDS:
            kept.append(look)
    if kept and looks[-1] is not kept[-1] and looks[-1][0] - kept[-1][0] > 0 and len(kept) > 1:
        kept[-1] = looks[-1]
    return kept


def with_history(
    found: dict[Key, Filesystem] | None, rows: Sequence[Row] | None, instance: str
) -> dict[Key, Filesystem] | None:
    """The filesystems with what the metrics server knows of them, and those that only it knows.

    One of its filesystems is one of a host's when mount point and size are the same and no other one's are.
    """
    if rows is None:
        return found
    measured: dict[Key, dict[str, float | None]] = {}
    labels: dict[Key, Row] = {}
    for row in rows:
        key = (str(row.get("instance") or "metrics"), str(row.get("mountpoint") or ""))
        measured.setdefault(key, {})[str(row.get("measure"))] = number(row.get("value"))
        labels[key] = row
    result = dict(found or {})
    for key, values in measured.items():
        if instance and key[0] != instance and key[0].rpartition(":")[0] != instance:
            continue
        mine = [k for k, f in result.items() if k[1] == key[1] and f.size is not None and f.size == values.get("size")]
        if len(mine) == 1:
            result[mine[0]] = _dated(result[mine[0]], values)
        elif found is None or instance:
            result[key] = _dated(_measured(key, labels[key], values), values)
    return result or None


def _measured(key: Key, row: Row, values: Mapping[str, float | None]) -> Filesystem:
    size, free = values.get("size"), values.get("free")
    inodes, inodes_free = values.get("inodes"), values.get("inodes_free")
    kind = str(row.get("fstype") or "")
    return Filesystem(
        host=key[0], mount=key[1], device=str(row.get("device") or ""), type=kind, size=size,
        used=size - free if size is not None and free is not None else None, available=values.get("available"),
        inodes=inodes or None,
        inodes_used=inodes - inodes_free if inodes and inodes_free is not None else None,
        read_only=bool(values.get("read_only")), pseudo=kind in FULL_BY_NATURE, options="",
    )  # fmt: skip


def _dated(one: Filesystem, values: Mapping[str, float | None]) -> Filesystem:
    now, before = values.get("available"), values.get("available_before")
    pace = (before - now) / 3600.0 if now is not None and before is not None else None
    return replace(one, hour_pace=pace, least_available=values.get("least_available"))


def _key(row: Row) -> Key:
    return str(row.get("host") or "local"), str(row.get("mount") or "")


def _filesystem(row: Row, pace: float | None) -> Filesystem:
    host, mount = _key(row)
    return Filesystem(
        host=host, mount=mount, device=str(row.get("filesystem") or ""), type=str(row.get("type") or ""),
        size=number(row.get("size_bytes")), used=number(row.get("used_bytes")),
        available=number(row.get("available_bytes")), inodes=number(row.get("inodes")),
        inodes_used=number(row.get("inodes_used")), read_only=row.get("read_only") is True,
        pseudo=row.get("pseudo") is True, options=str(row.get("options") or ""), run_pace=pace,
    )  # fmt: skip


def number(value: Any) -> float | None:
    """A number, or ``None`` for what is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def moment(text: str) -> float | None:
    """A time of a reading as seconds."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
