"""Files as this run saw them, each once: how large, of what kind, where, how fast it grows, and who writes it.

A file grows when each look of the run found it larger than the one before. Where the open files of others are hidden
from us, what was not seen is not taken for absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runbook.diagnosis.disks import words
from runbook.diagnosis.disks.filesystems import Key, moment, number, paces_of
from runbook.diagnosis.readings import Readings

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of one host."""

    host: str
    path: str
    kind: words.Kind
    mount: str
    bytes: float
    #: Bytes a second, when every look found it larger; else 0.
    pace: float = 0.0
    pid: int | None = None
    command: str = ""
    modified_at: str = ""
    #: Hours since it was changed, and whether a process has it open, of what lies in temporary directories.
    age_hours: float | None = None
    open: bool | None = None

    @property
    def key(self) -> Key:
        return self.host, self.mount

    def told(self) -> dict[str, Any]:
        """It as a verdict names it."""
        return {"host": self.host, "path": self.path, "bytes": int(self.bytes), "writer_pid": self.pid,
                "writer_command": self.command or None,
                "hourly_growth_bytes": int(self.pace * 3600) or None}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Configured:
    """Where the application says that its logs and temporary files lie; each host's own directories beside them."""

    logs: tuple[str, ...] = ()
    tmp: tuple[str, ...] = ()

    @staticmethod
    def of(readings: Readings) -> Configured:
        rows = readings.rows("places") or []
        by_kind: dict[str, list[str]] = {}
        for row in rows:
            if row.get("path"):
                by_kind.setdefault(str(row.get("kind")), []).append(str(row["path"]))
        return Configured(logs=tuple(by_kind.get("log", ())), tmp=tuple(by_kind.get("tmp", ())))


class Files:
    """The files of a run.

    Parameters
    ----------
    mounts
        Mount points by host, so that each file lies on one of them.
    aliases
        The mount that stands for the filesystem of each.
    """

    def __init__(self, readings: Readings, mounts: Mapping[str, Sequence[str]], aliases: Mapping[Key, Key]) -> None:
        self._aliases = aliases
        self._readings = readings
        self._mounts = mounts
        self.configured = Configured.of(readings)
        self.all = list(self._gathered().values())

    def on(self, key: Key, *kinds: words.Kind) -> list[File]:
        """Files of these kinds on that filesystem, the largest first."""
        found = [f for f in self.all if f.key == key and (not kinds or f.kind in kinds)]
        return sorted(found, key=lambda f: (-f.bytes, f.path))

    def growing(self, key: Key, *kinds: words.Kind) -> list[File]:
        """Those that grow, the fastest first."""
        return sorted((f for f in self.on(key, *kinds) if f.pace > 0), key=lambda f: (-f.pace, f.path))

    @property
    def writers_known(self) -> bool | None:
        """Whether the files that are written now were seen: ``None`` when those of others are hidden."""
        reading = self._readings.last("written_files")
        if reading is None or not reading.known:
            return False
        return True if reading.state == "ok" else None

    def lost(self, name: str) -> bool:
        """Whether that reading of files is not whole."""
        reading = self._readings.last(name)
        return reading is None or reading.state != "ok"

    # ----------------------------------------------------------------------------------------------------------------

    def _gathered(self) -> dict[tuple[str, str], File]:
        found: dict[tuple[str, str], File] = {}
        for row in self._rows("large_files", "log_files", "written_files"):
            found[_id(row)] = self._file(row, found.get(_id(row)))
        for identity, (pid, command) in self._writers().items():
            if identity in found and found[identity].pid is None:
                found[identity] = replace(found[identity], pid=pid, command=command)
        for row in self._rows("old_files"):
            one = self._file(row, found.get(_id(row)))
            found[_id(row)] = replace(one, age_hours=number(row.get("age_hours")), open=row.get("open"))
        for name, size in (("log_files", "bytes"), ("written_files", "bytes")):
            for key, pace in self._paces(name, size).items():
                if key in found:
                    found[key] = replace(found[key], pace=max(found[key].pace, pace))
        return found

    def _writers(self) -> dict[tuple[str, str], tuple[int, str]]:
        """Who was seen writing a file at any look: it may have ended since."""
        looks = [*self._readings.series("log_files"), *self._readings.series("written_files")]
        found = {}
        for row in (row for look in looks if look.known for row in look.rows if row.get("path")):
            pid, command = row.get("writer_pid", row.get("pid")), row.get("writer_command", row.get("command"))
            if isinstance(pid, int | float):
                found[_id(row)] = (int(pid), str(command or ""))
        return found

    def _rows(self, *names: str) -> Iterable[Row]:
        for name in names:
            yield from (row for row in self._readings.rows(name) or [] if row.get("path"))

    def _file(self, row: Row, before: File | None) -> File:
        path, host = str(row["path"]), str(row.get("host") or "local")
        held = number(row.get("allocated_bytes", row.get("bytes"))) or 0.0
        pid = row.get("writer_pid", row.get("pid"))
        command = row.get("writer_command", row.get("command"))
        mount = mount_of(path, self._mounts.get(host, ()))
        one = before or File(
            host=host, path=path, bytes=held, mount=self._aliases.get((host, mount), (host, mount))[1],
            kind=words.kind(path, logs=self._own_logs, tmp=self.configured.tmp),
        )  # fmt: skip
        return replace(
            one, bytes=max(one.bytes, held), modified_at=str(row.get("modified_at") or "") or one.modified_at,
            pid=int(pid) if isinstance(pid, int | float) else one.pid, command=str(command or "") or one.command,
        )  # fmt: skip

    @property
    def _own_logs(self) -> tuple[str, ...]:
        return self.configured.logs

    def _paces(self, name: str, size: str) -> dict[tuple[str, str], float]:
        looks = [reading for reading in self._readings.series(name) if reading.known]
        return paces_of(
            (moment(look.measured_at), {_id(row): number(row.get(size)) for row in look.rows if row.get("path")})
            for look in looks
        )


def _id(row: Row) -> tuple[str, str]:
    return str(row.get("host") or "local"), str(row["path"])


def mount_of(path: str, mounts: Iterable[str]) -> str:
    """The mount point that a path lies below; ``/`` where none is nearer."""
    return max((m for m in mounts if m == "/" or words.beneath(path, m)), key=len, default="/")
