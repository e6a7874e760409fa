"""Facts of the workers' hosts: disk, memory, cgroups, pressure, processes, sockets: tables with the host in front.

Works here and over SSH alike and needs nothing on a host but a POSIX shell with its usual tools; the roots of ``/proc``
and of the cgroups are parameters. It only reads, and a host that cannot be asked is named with the reason. What a
kernel does not say, or hides from us, is ``None``, never 0.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from runbook.connectors import shell
from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.hosts import LIMIT_SECONDS, Answer, Hosts
from runbook.result import Reading
from runbook.settings import Workers

Row = dict[str, Any]

PROC = "/proc"
CGROUPS = "/sys/fs/cgroup"
NAME_AT = 4
"""Where :func:`shell.script_argv` puts the name of the reading."""
PSEUDO_TYPES = frozenset({
    "squashfs", "iso9660", "udf", "cramfs", "erofs", "romfs", "fuse.snapfuse", "fuse.squashfuse", "devtmpfs", "proc",
    "sysfs", "cgroup", "cgroup2", "ramfs", "efivarfs", "autofs", "nsfs", "tracefs", "debugfs", "securityfs",
    "pstore", "configfs", "bpf", "mqueue", "hugetlbfs"
})  # fmt: skip
"""Filesystems that are full by construction or hold no data of anyone's."""
TEXT_COLUMNS = frozenset({
    "filesystem", "mount", "type", "options", "path", "command", "writer_command", "state", "resource", "scope",
    "local", "kind", "name", "cgroup", "constraint"
})  # fmt: skip
"""Cells that stay what they are, even where they look like a number."""


class Host(Hosts):
    """Facts of the hosts of ``workers.hosts``.

    Parameters
    ----------
    proc, cgroups
        Where ``/proc`` and the cgroups are mounted on the hosts.
    """

    source = "host"

    def __init__(self, context: Context, section: Workers, *, proc: str = PROC, cgroups: str = CGROUPS) -> None:
        super().__init__(context, section)
        self.proc, self.cgroups = proc, cgroups
        self._pattern = section.process_pattern

    # -- disk -------------------------------------------------------------------------------------------------------

    def disk(self, mount: str = "") -> Reading:
        """Size and inodes of every filesystem; ``used_percent`` is df's, ``holds`` tells the one of the path ``mount``.

        One of another host (NFS and the like) is only asked for its size when it holds the path ``mount``: a server
        that does not answer would hold up all the others.
        """
        return self._facts("disk", "host_disk", [self.proc, *([mount] if mount else [])])

    def directories(self, paths: Sequence[str], limit: int = 20) -> Reading:
        """The largest directories under ``paths``: bytes, and bytes of their files changed in the last hour."""
        return self._facts("disk_directories", "host_directories", [str(limit), *_absolute(paths)])

    def deleted_files(self) -> Reading:
        """Files without a name that a process holds open; partial when open files of others are hidden."""
        return self._facts("deleted_files", 'host_open_files "$1" | host_deleted_files', [self.proc])

    def log_files(self, paths: Sequence[str]) -> Reading:
        """The largest files under ``paths`` and who writes them."""
        return self._facts("log_files", 'host_open_files "$1" | host_log_files', [self.proc, *_absolute(paths)])

    def old_files(self, paths: Sequence[str], hours: int = 24) -> Reading:
        """Files under ``paths`` that were not changed for ``hours``, and whether a process has them open."""
        text = 'proc=$1; shift; host_open_files "$proc" | host_old_files'
        return self._facts("old_files", text, [self.proc, str(max(0, int(hours))), *_absolute(paths)])

    def written_files(self) -> Reading:
        """Regular files that a process has open for writing, the ones changed last; taken twice, they show what grows.

        Partial when the open files of others are hidden.
        """
        return self._facts("written_files", 'host_open_files "$1" | host_written_files', [self.proc])

    def places(self, logs: Sequence[str], tmp: Sequence[str]) -> Reading:
        """Bytes in each place of a kind: the application's ``logs``, its ``tmp`` directories, and the host's own."""
        logs, tmp = _absolute(logs), _absolute(tmp)
        return self._facts("places", "host_places", [self.proc, str(len(logs)), str(len(tmp)), *logs, *tmp])

    def large_files(self, paths: Sequence[str]) -> Reading:
        """The largest files under ``paths``, each path on its own filesystem alone."""
        return self._facts("large_files", "host_large_files", _absolute(paths))

    def many_files(self, paths: Sequence[str]) -> Reading:
        """The directories under ``paths`` with the most files."""
        return self._facts("many_files", "host_many_files", _absolute(paths))

    def hidden_files(self, paths: Sequence[str]) -> Reading:
        """What lies below other filesystems' mount points on the filesystems mounted at ``paths``.

        ``bytes`` is ``None`` where it cannot be looked at: that takes root, in a mount namespace of its own.
        """
        return self._facts("hidden_files", "host_hidden_files", [self.proc, *_absolute(paths)])

    def volumes(self) -> Reading:
        """Thin pools and snapshots of LVM, and how full they are; no row where there is no LVM."""
        return self._facts("volumes", "host_volumes", [])

    # -- memory and processors ----------------------------------------------------------------------------------------

    def memory(self) -> Reading:
        """Memory, swap and huge pages in bytes; ``used_percent`` is 1 − available/total."""
        return self._facts("memory", "host_memory", [self.proc])

    def cgroup(self, path: str = "") -> Reading:
        """One cgroup, or all that have a limit of memory or processor time or were short of memory; the working set is
        without page cache that can go (usage − inactive file)."""
        return self._facts("cgroup", "host_cgroup", [self.cgroups, *([path] if path else [])])

    def pressure(self) -> Reading:
        """Pressure stall information: averages in percent of the time."""
        return self._facts("pressure", "host_pressure", [self.proc])

    def load(self) -> Reading:
        """Processors, load, seconds since boot, and the processors' time since then, all of it and idle, in ticks."""
        return self._facts("load", "host_load", [self.proc])

    def processes(self, pattern: str = "") -> Reading:
        """Processes whose command line matches the extended regular expression ``pattern``; empty = all."""
        return self._facts("processes", "host_processes", [self.proc, *([pattern] if pattern else [])])

    def worker_processes(self) -> Reading:
        """``worker_processes``: those that match ``workers.process_pattern``."""
        if not self._pattern:
            lacking = Failure(state="not_configured", reason="workers.process_pattern is not set")
            return self.missing("worker_processes", "host_processes", lacking)
        return self._facts("worker_processes", "host_processes", [self.proc, self._pattern])

    def oom_kills(self, log: str = "") -> Reading:
        """Processes that the kernel killed for want of memory, dated, from its log; partial when that does not reach
        back to the boot. ``log`` is a file that holds one."""
        return self._facts("oom_kills", "host_oom", [self.proc, *([log] if log else [])])

    def among(self, hosts: Sequence[str]) -> Host:
        """Some of these hosts alone, for what is too much to ask of two hundred."""
        section = Workers(hosts=[host for host in self.hosts if host in hosts])
        return Host(self.context, section, proc=self.proc, cgroups=self.cgroups)

    def sockets(self) -> Reading:
        """Listening TCP sockets: connections that wait to be accepted, drops of full queues since boot, who listens."""
        return self._facts("sockets_listening", "host_sockets", [self.proc])

    # ----------------------------------------------------------------------------------------------------------------

    def _facts(self, name: str, command: str, arguments: Sequence[str]) -> Reading:
        shown = shlex.join([command.rpartition("| ")[2], *arguments])
        argv = shell.script_argv(name, shell.with_functions(command + ' "$@"'), arguments)
        return self.run(name, argv, limit_seconds=LIMIT_SECONDS, query=shown)

    def _asked(self, argv: list[str], limit_seconds: float) -> list[Answer]:
        return [_shaped(answer, argv[NAME_AT], self.context) for answer in super()._asked(argv, limit_seconds)]


def _absolute(paths: Iterable[str]) -> list[str]:
    """Only what cannot be taken for an option by any command."""
    return [path for path in paths if path.startswith("/")]


def _shaped(answer: Answer, name: str, context: Context) -> Answer:
    """An answer with its cells as numbers, the unknown as ``None``, and what follows from them."""
    if not isinstance(answer.outcome, Fetched):
        return answer
    if name in _NEVER_EMPTY and not answer.outcome.value:
        return replace(answer, outcome=Failure(state="partial", reason=answer.outcome.partial or "it told nothing"))
    finish = _FINISH.get(name, _as_it_is)
    now = context.now()
    rows = [finish({column: _cell(column, cell) for column, cell in row.items()}, now) for row in answer.outcome.value]
    return replace(answer, outcome=replace(answer.outcome, value=rows))


def _cell(column: str, cell: Any) -> Any:
    if column in TEXT_COLUMNS or not isinstance(cell, str):
        return str(cell) if column in TEXT_COLUMNS and cell is not None else cell
    if cell in ("", "-"):
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def _as_it_is(row: Row, now: datetime) -> Row:
    return row


def _percent(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(100 * part / whole, 2)


def _disk(row: Row, now: datetime) -> Row:
    used, free, size = row.get("used_bytes"), row.get("available_bytes"), row.get("size_bytes")
    whole = used + free if used is not None and free is not None else None
    kind, mount = row["type"], row["mount"]
    options = row["options"].split(",")
    columns = ("filesystem", "type", "mount", "size_bytes", "used_bytes", "available_bytes")
    return {column: row.get(column) for column in columns} | {
        "used_percent": _percent(used, whole),
        "raw_percent": _percent(used, size),
        "inodes": row.get("inodes") or None,
        "inodes_used": row.get("inodes_used") if row.get("inodes") else None,
        "inodes_percent": _percent(row.get("inodes_used"), row.get("inodes")),
        "read_only": "ro" in options,
        "options": row["options"],
        "holds": bool(row.get("holds")),
        # An overlay that is not the root shows the numbers of the filesystem below it once more.
        "pseudo": kind in PSEUDO_TYPES or (kind == "overlay" and mount != "/"),
    }


def _memory(row: Row, now: datetime) -> Row:
    total, available = row.get("total_bytes"), row.get("available_bytes")
    share = None if available is None else _percent(available, total)
    used = {"used_percent": None if share is None else round(100 - share, 2)}
    return {"total_bytes": total, "available_bytes": available} | used | row


def _cgroup(row: Row, now: datetime) -> Row:
    limit = None if row["limit_bytes"] == "none" else row["limit_bytes"]
    usage, inactive = row["usage_bytes"], row["inactive_file_bytes"]
    working = max(0, usage - inactive) if usage is not None and inactive is not None else None
    quota, period = row.pop("cpu_quota_us"), row.pop("cpu_period_us")
    limited = isinstance(quota, (int, float)) and isinstance(period, (int, float)) and period > 0
    pids, most = row.pop("pids"), row.pop("pids_limit")
    columns = ("version", "path", "usage_bytes")
    return {column: row[column] for column in columns} | {
        "limit_bytes": limit,
        "inactive_file_bytes": inactive,
        "working_set_bytes": working,
        "working_set_percent": _percent(working, limit),
        "max_events": row["max_events"],
        "oom_kills": row["oom_kills"],
        "cpu_periods": row["cpu_periods"],
        "cpu_throttled": row["cpu_throttled"],
        "cpu_quota_cores": quota / period if limited else None,
        "pids": pids,
        "pids_limit": None if most == "none" else most,
        "anonymous_bytes": row["anonymous_bytes"],
        "shmem_bytes": row["shmem_bytes"],
        "major_faults": row["major_faults"],
        "refaults": row["refaults"],
        "pressure_full_avg10": row["pressure_full_avg10"],
    }


def _aged(row: Row, now: datetime) -> Row:
    """The time of the last change as a time or an age, whichever the reading has."""
    seconds = row.pop("modified_at")
    if "open" in row:
        age = None if seconds is None else round((now.timestamp() - seconds) / 3600, 2)
        opened = {"yes": True, "no": False}.get(str(row.pop("open")))
        return row | {"age_hours": age, "open": opened}
    at = None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    if "writer_pid" not in row:
        return row | {"modified_at": at}
    writer = {"writer_pid": row.pop("writer_pid"), "writer_command": row.pop("writer_command") or None}
    return row | {"modified_at": at} | writer


def _socket(row: Row, now: datetime) -> Row:
    local, waiting = row["local"], row["waiting"]
    if isinstance(waiting, str) and waiting.startswith("hex:"):
        waiting = int(waiting.removeprefix("hex:"), 16)
    return row | {"local": _address(local.removeprefix("hex:")) if local.startswith("hex:") else local,
                  "waiting": waiting}  # fmt: skip


def _address(text: str) -> str:
    """``0100007F:1F90`` of ``/proc/net/tcp`` as ``127.0.0.1:8080``: words of 32 bits, the host's byte order."""
    digits, _, port = text.partition(":")
    packed = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    address = ipaddress.ip_address(packed)
    return f"[{address}]:{int(port, 16)}" if address.version == 6 else f"{address}:{int(port, 16)}"


_NEVER_EMPTY = frozenset({"disk", "memory", "load"})
"""What every host has: an answer without a row is one that broke off."""
_FINISH: dict[str, Callable[[Row, datetime], Row]] = {
    "disk": _disk,
    "memory": _memory,
    "cgroup": _cgroup,
    "log_files": _aged,
    "written_files": _aged,
    "large_files": _aged,
    "old_files": _aged,
    "sockets_listening": _socket,
}
