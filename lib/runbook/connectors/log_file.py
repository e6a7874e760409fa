"""A stretch of a log file, by time, bounded in bytes: on this host or, over SSH, on another.

Only regular files are read: a pipe would be emptied, and would hang. A log of any length costs a few reads to find
the place where the wanted time begins.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runbook.connectors.access_log import Parsed, Parser
from runbook.connectors.base import Failure, Unavailable

MAX_BYTES = 64 * 1024 * 1024
"""More of a log's end than this is not read."""
FIRST_REMOTE_BYTES = 8 * 1024 * 1024
"""What is fetched from another host at first; all of :data:`MAX_BYTES` only when that does not reach back."""
OLD_BYTES = 8 * 1024 * 1024
"""Of an older stretch no more than this is read."""
SLACK_SECONDS = 60.0
"""Lines may be out of order by this much: a request is logged when it ends."""
_NEAR_BYTES, _PEEK_BYTES = 65_536, 262_144

TimeOf = Callable[[bytes], float | None]

_REMOTE_TAIL = """
if [ ! -e "$1" ]; then exit 44; fi
if [ ! -f "$1" ]; then exit 45; fi
if [ ! -r "$1" ]; then exit 46; fi
exec tail -c "$2" -- "$1"
"""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The requests of a stretch of a log."""

    parsed: Parsed
    #: Whether the log surely holds lines from before the time that was asked for.
    reaches_back: bool
    #: Whether there was nothing at all.
    empty: bool = False
    #: Whether it was cut at its end for want of room.
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What was read of a local log, and how far."""

    begin: float
    file: tuple[int, int]
    end: int
    stretch: Stretch

    def goes_on(self, log: _Local, begin: float) -> bool:
        """Whether ``log`` is the same file, only longer, and what was read of it is enough."""
        return self.file == log.file and self.begin <= begin and 0 <= log.size - self.end < MAX_BYTES


class Log:
    """A log that is looked at again and again: what was read of it on this host is not read a second time.

    Parameters
    ----------
    path
        An absolute path.
    host
        ``user@host[:port]``; empty = this host.
    """

    def __init__(self, path: str, host: str, parser: Parser) -> None:
        self._path, self._host, self._parser = path, host, parser
        self._kept: _Kept | None = None
        self._lock = threading.Lock()

    def since(self, begin: float, *, limit_seconds: float) -> Stretch:
        """The end of the log, from ``begin`` (seconds since 1970) on, or from earlier.

        Raises
        ------
        Unavailable
            It cannot be read; carries the state.
        """
        if self._host:
            from runbook.connectors import ssh

            return ssh.run(_remote(self._host, self._path, begin, self._parser, limit_seconds))
        with self._lock, _Local(self._path) as log:
            kept = self._kept
            if kept is not None and kept.goes_on(log, begin):
                data = log.bytes(kept.end, log.size)
                new = self._parser.parse(data, since=kept.begin, from_line_start=True)
                parsed = kept.stretch.parsed.continued(new, since=kept.begin)
                stretch = replace(kept.stretch, parsed=parsed, empty=kept.stretch.empty and not data.strip())
                begin, end = kept.begin, kept.end + data.rfind(b"\n") + 1
            else:
                start = log.offset_of(begin - SLACK_SECONDS, self._parser.time)
                cut = max(start, log.size - MAX_BYTES)
                data = log.bytes(cut, log.size)
                parsed = self._parser.parse(data, since=begin, from_line_start=cut == 0)
                stretch = Stretch(parsed=parsed, reaches_back=0 < start == cut, empty=not data.strip())
                end = cut + data.rfind(b"\n") + 1
            self._kept = _Kept(begin=begin, file=log.file, end=end, stretch=stretch)
            return stretch

    def around(self, begin: float) -> Stretch | None:
        """An older stretch that begins at ``begin``; ``None`` where that would mean to fetch the whole log."""
        if self._host:
            return None
        with _Local(self._path) as log:
            start = log.offset_of(begin, self._parser.time)
            data = log.bytes(start, min(log.size, start + OLD_BYTES))
            parsed = self._parser.parse(data, since=begin, from_line_start=start == 0)
            return Stretch(parsed=parsed, reaches_back=start > 0, cut=start + len(data) < log.size)


class _Local:
    """An open log of this host."""

    def __init__(self, path: str) -> None:
        try:
            # Without O_NONBLOCK opening a pipe that nobody writes to would hang.
            self._descriptor = os.open(Path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise Unavailable(_unopened(error)) from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise Unavailable(_NO_FILE)
        self.size = status.st_size
        self.file = (status.st_dev, status.st_ino)

    def __enter__(self) -> _Local:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def bytes(self, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end``, fewer when the log was truncated meanwhile."""
        parts = []
        while start < end and (part := os.pread(self._descriptor, min(end - start, 16 * 1024 * 1024), start)):
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def offset_of(self, begin: float, time_of: TimeOf) -> int:
        """An offset before the first line of ``begin`` and near to it, by halving; 0 when all lines are younger.

        Where nothing can be read as a request the earlier half is taken, so that rather too much is read than too
        little.
        """
        low, high = 0, self.size
        while high - low > _NEAR_BYTES:
            middle = (low + high) // 2
            at = self._time_after(middle, time_of)
            if at is not None and at < begin:
                low = middle
            else:
                high = middle
        return low

    def _time_after(self, offset: int, time_of: TimeOf) -> float | None:
        lines = self.bytes(offset, offset + _PEEK_BYTES).split(b"\n")[1:-1]
        return next((at for line in lines if (at := time_of(line)) is not None), None)


async def _remote(host: str, path: str, begin: float, parser: Parser, limit_seconds: float) -> Stretch:
    from runbook.connectors import shell, ssh

    address = ssh.Address.parsed(host)
    deadline = time.monotonic() + limit_seconds
    data, most = b"", 0
    for wanted in (FIRST_REMOTE_BYTES, MAX_BYTES):
        argv = shell.script_argv("log", _REMOTE_TAIL, [path, str(wanted)])
        try:
            output = await ssh.execute(
                address, argv, limit_seconds=max(0.1, deadline - time.monotonic()), most_bytes=wanted + 1
            )
        except Unavailable:
            if not data:
                raise
            break  # the whole was too much to fetch in time; its end has been fetched
        if output.status != 0:
            raise Unavailable(_unread(output.status, output.err))
        data, most = output.out, wanted
        if len(data) < most or _begins_before(data, begin - SLACK_SECONDS, parser):
            break
    whole, reaches_back = len(data) < most, _begins_before(data, begin - SLACK_SECONDS, parser)
    parsed = parser.parse(data, since=begin, from_line_start=whole)
    return Stretch(parsed=parsed, reaches_back=reaches_back, empty=not data.strip())


def _begins_before(data: bytes, begin: float, parser: Parser) -> bool:
    lines = data[:_PEEK_BYTES].split(b"\n")[1:-1]
    oldest = next((at for line in lines if (at := parser.time(line)) is not None), None)
    return oldest is not None and oldest < begin


_NO_FILE = Failure(state="not_configured", reason="traffic.access_log is no regular file", code="EINVAL")


def _unopened(error: OSError | ValueError) -> Failure:
    if isinstance(error, PermissionError):
        return Failure(state="permission_denied", reason="the access log may not be read", code="EACCES")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Failure(state="unreachable", reason="the access log does not exist", code="ENOENT")
    if isinstance(error, OSError):
        return Failure(state="unreachable", reason=f"the access log cannot be opened: {error.strerror}")
    return Failure(state="not_configured", reason="traffic.access_log is no path")


def _unread(status: int, said: bytes) -> Failure:
    known = {44: _unopened(FileNotFoundError()), 45: _NO_FILE, 46: _unopened(PermissionError())}
    words = said.decode("utf-8", "replace").strip().split("\n")[0]
    return known.get(status) or Failure(
        state="unreachable", reason=f"tail: exit status {status}: {words}", code=str(status)
    )
