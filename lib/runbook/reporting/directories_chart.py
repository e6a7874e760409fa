"""The largest directories, drawn: a bar each, in the alarm's colour the part that was changed within the hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runbook.reporting.charts import ALARM, INK, MUTED, Chart
from runbook.reporting.disk_chart import FLOW, WIDTH, drawn, label, rectangle, shortened

_PITCH, _HEIGHT, _TOP, _LEFT = 29, 11, 20, 6
_INDENT, _DEEPEST = 9, 5
_PATH_GLYPHS = 72


class Directory(Protocol):
    """What a directory has to tell; see ``runbook.diagnosis.disks.directories``."""

    @property
    def path(self) -> str: ...
    @property
    def bytes(self) -> float: ...
    @property
    def changed_bytes(self) -> float: ...
    @property
    def depth(self) -> int: ...


def directories_chart(directories: Sequence[Directory]) -> Chart | None:
    """The directories in the given order, those inside others indented; nothing where none was listed."""
    if not directories:
        return None
    most = max(directory.bytes for directory in directories) or 1.0
    height = _TOP + _PITCH * len(directories) + 2
    heading = label(_LEFT, 12, "size of each with all below it; red: files changed within the last hour", MUTED)
    rows = (_row(directory, _TOP + _PITCH * number, most) for number, directory in enumerate(directories))
    return drawn(heading + "".join(rows), height, _in_words(directories))


def _row(directory: Directory, y: float, most: float) -> str:
    left = _LEFT + _INDENT * min(directory.depth, _DEEPEST)
    width = max(1.0, (WIDTH - _LEFT - left) * directory.bytes / most)
    changed = width * min(1.0, directory.changed_bytes / directory.bytes) if directory.bytes else 0.0
    return "".join(
        (
            label(left, y + 8, shortened(directory.path, _PATH_GLYPHS), INK),
            label(WIDTH - _LEFT, y + 8, size(directory.bytes), INK, anchor="end"),
            rectangle(left, y + 12, width - changed, _HEIGHT, fill=FLOW),
            rectangle(left + width - changed, y + 12, changed, _HEIGHT, fill=ALARM),
        )
    )


def _in_words(directories: Sequence[Directory]) -> str:
    told = "; ".join(
        f"{one.path} {size(one.bytes)}" + (f", {size(one.changed_bytes)} of it changed" if one.changed_bytes else "")
        for one in directories
    )
    return f"The largest directories: {told}."


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
