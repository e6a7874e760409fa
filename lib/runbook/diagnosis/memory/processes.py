"""Processes as several samples saw them: what each holds by itself, whether it grows, and whose it is.

Resident memory counts what is shared once for each process that maps it, so that a PostgreSQL with twenty sessions
seems to hold its buffers twenty times. The proportional share counts each page once; where it may not be read, the
anonymous part is taken, which leaves out what is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from runbook.result import Reading

Row = Mapping[str, Any]
MIN_SAMPLES = 3
RELATIVE_GROWTH = 0.01
INTERPRETERS = ("python", "node", "nodejs", "ruby", "perl", "php", "java", "bash", "sh", "dash", "bun", "deno", "tsx")
LASTED = (0.25, 4.0)
"""Pace times age over size: within these, the process grew like this for all of its life."""
CHURN = 10.0
"""Beyond this it cannot have grown like this for long."""


def number(row: Row | None, key: str) -> float | None:
    """The number that stands there, or ``None``."""
    value = None if row is None else row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process over the samples in which it was seen."""

    host: str
    pid: int
    command: str
    cgroup: str
    age_seconds: float | None
    #: What it holds by itself in each sample, bytes; ``None`` where it could not be told.
    sizes: tuple[float | None, ...]
    #: What that is: ``proportional share``, ``anonymous``, ``resident``.
    measure: str
    anonymous: float | None
    #: Between the first sample and the last, seconds.
    span_seconds: float

    @property
    def size(self) -> float:
        """What it holds now; 0 only for what holds nothing that we could see."""
        return next((size for size in reversed(self.sizes) if size is not None), 0.0)

    @property
    def growth(self) -> float:
        """Bytes that it grew by over the samples; 0 when it did not grow in every one of them."""
        known = [size for size in self.sizes if size is not None]
        if len(known) < MIN_SAMPLES or len(known) != len(self.sizes):
            return 0.0
        if any(later <= earlier for earlier, later in pairwise(known)):
            return 0.0
        return known[-1] - known[0]

    @property
    def pace(self) -> float:
        """Bytes a second that it grows by."""
        return self.growth / self.span_seconds if self.span_seconds > 0 else 0.0

    @property
    def lasted(self) -> float | None:
        """Pace times age over size: about 1 for what grew like this for all of its life."""
        return self.pace * self.age_seconds / self.size if self.age_seconds is not None and self.size else None

    @property
    def has_lasted(self) -> bool:
        """Whether it has grown like this for all of its life."""
        low, high = LASTED
        return self.lasted is not None and low <= self.lasted <= high

    def grows(self, *, at_least: float) -> bool:
        """Whether it grew in every sample, by that many bytes and by a hundredth of its size."""
        return self.growth >= max(at_least, RELATIVE_GROWTH * self.size)

    @property
    def program(self) -> str:
        """What runs: the program, and of an interpreter the script or module."""
        words = self.command.split()
        if not words:
            return ""
        name = words[0].rpartition("/")[2].rstrip(":")
        if name.rstrip("0123456789.") not in INTERPRETERS:
            return name
        rest = iter(words[1:])
        for word in rest:
            if word in ("-m", "-jar"):
                return f"{name} {next(rest, '')}"
            if word in ("-c", "-e"):
                return f"{name} {word}"
            if not word.startswith("-"):
                return f"{name} {word.rpartition('/')[2]}"
        return name

    def facts(self) -> dict[str, Any]:
        """It as the details of a verdict name it."""
        found: dict[str, Any] = {"pid": self.pid, "command": self.command[:120], "mb": megabytes(self.size)}
        if self.growth:
            found |= {"grew_mb": megabytes(self.growth), "mb_per_minute": round(60 * self.pace / 2**20, 1)}
        if self.cgroup not in ("", "/"):
            found["cgroup"] = self.cgroup
        return found | {"measured_as": self.measure}


def megabytes(size: float | None) -> float | None:
    """Bytes as MB (2^20), for people."""
    return None if size is None else round(size / 2**20, 1)


def total(processes: Iterable[Process]) -> float:
    """What they hold together, bytes."""
    return sum(process.size for process in processes)


def is_postgres(process: Process) -> bool:
    """A server process of PostgreSQL: by its title, or as the postmaster was started."""
    first = process.command.split(" ", 1)[0]
    return first == "postgres:" or first.rpartition("/")[2] in ("postgres", "postmaster")


def is_redis(process: Process) -> bool:
    """A Redis server, or one that speaks its protocol."""
    first = process.command.split(" ", 1)[0].rpartition("/")[2]
    return first.startswith(("redis-server", "valkey-server", "keydb-server", "dragonfly", "redis-rdb-bgsave"))


def transcodes(process: Process, names: str) -> bool:
    """Whether its program is one of ``names``, which has ``|`` between them."""
    first = process.command.split(" ", 1)[0].rpartition("/")[2].lower()
    return any(first.startswith(name.lower()) for name in names.split("|") if name)


def seen(samples: Sequence[Reading], host: str) -> tuple[list[Process], int]:
    """The processes of a host that the last sample shows, and in how many samples that host's were seen."""
    series = [(r, [row for row in r.rows if row.get("host") == host and row.get("pid") is not None])
              for r in samples if r.known]  # fmt: skip
    series = [(r, rows) for r, rows in series if rows]
    if not series:
        return [], 0
    by_sample = [{(row["pid"], row.get("command")): row for row in rows} for _, rows in series]
    span = _seconds(series[0][0], series[-1][0])
    return [
        _process(host, [sample[key] for sample in by_sample if key in sample], span) for key in by_sample[-1]
    ], len(series)  # fmt: skip


def _process(host: str, rows: Sequence[Row], span: float) -> Process:
    last = rows[-1]
    columns = {"proportional share": "pss_bytes", "anonymous": "anonymous_bytes", "resident": "rss_bytes"}
    measure = next((m for m, c in columns.items() if all(number(row, c) is not None for row in rows)), "hidden")
    column = columns.get(measure, "pss_bytes")
    return Process(
        host=host,
        pid=int(last["pid"]),
        command=str(last.get("command") or ""),
        cgroup=str(last.get("cgroup") or ""),
        age_seconds=number(last, "age_seconds"),
        sizes=tuple(number(row, column) for row in rows),
        measure=measure,
        anonymous=number(last, "anonymous_bytes"),
        span_seconds=span,
    )


def _seconds(first: Reading, last: Reading) -> float:
    try:
        return (datetime.fromisoformat(last.measured_at) - datetime.fromisoformat(first.measured_at)).total_seconds()
    except ValueError:
        return 0.0
