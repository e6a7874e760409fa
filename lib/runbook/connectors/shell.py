"""Commands on a host: argv lists, a scrubbed environment, a time limit, output that is capped.

The text of a ``%%sh`` cell is the author's; its parameters arrive as positional arguments and are data there. Nothing
is ever interpolated into a command.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.result import Reading

LIMIT_SECONDS = 10.0
MAX_OUTPUT_BYTES = 1_000_000
MAX_LINES = 5000
POLL_SECONDS = 0.1
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that a command sees of our environment."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command printed and how it ended, wherever it ran."""

    out: bytes
    err: bytes
    #: Exit status; −n when signal n ended it.
    status: int
    #: Whether ``out`` was cut at its cap.
    cut: bool = False


class Shell(Connector):
    """Commands on this host."""

    source = "shell"
    statements = None
    failures = (OSError, subprocess.SubprocessError)

    def __init__(self, context: Context, target: str = "localhost") -> None:
        super().__init__(context, target)
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, name: str, argv: Sequence[str], *, limit_seconds: float = LIMIT_SECONDS, query: str = "") -> Reading:
        """The output of one command, a row a line; tab-separated output under a tab-separated head becomes columns.

        A command that exits other than 0 gives a ``partial`` reading with what it printed. ``query`` is what the
        report shows of it; default: all of it.
        """
        return self.read(name, query or shlex.join(argv), lambda: self._fetch(list(argv), limit_seconds),
                         limit_seconds=limit_seconds + 1)  # fmt: skip

    def script(self, name: str, text: str, arguments: Sequence[str] = ()) -> Reading:
        """A ``%%sh`` cell: ``/bin/sh`` runs its text, the arguments are ``$1``, ``$2`` …

        The text may call the functions of ``connectors/sh``.
        """
        shown = shlex.join(script_argv(name, text, arguments))
        return self.run(name, script_argv(name, with_functions(text), arguments), query=shown)

    def elsewhere(self, name: str, text: str, reason: str) -> Reading:
        """A command that would have to run on a host that we have no shell on."""
        return self.missing(name, text, Failure(state="not_configured", reason=reason))

    def _fetch(self, argv: list[str], limit_seconds: float) -> Fetched:
        return interpreted(execute(argv, limit_seconds=limit_seconds, started=self._began))

    def _began(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def abort(self) -> None:
        """End the command with everything that it started."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def failure(self, error: Exception) -> Failure:
        return not_started(error)


def script_argv(name: str, text: str, arguments: Sequence[str] = ()) -> list[str]:
    """A ``%%sh`` cell as a command: its text is the author's, what is in ``arguments`` is data."""
    return ["/bin/sh", "-u", "-c", text, name, *arguments]


def with_functions(text: str) -> str:
    """A text with those of the library's functions before it that it calls by name."""
    return "".join(body for name, body in _functions().items() if name in text) + text


@cache
def _functions() -> dict[str, str]:
    files = sorted((Path(__file__).parent / "sh").glob("*.sh"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def not_started(error: Exception) -> Failure:
    """Why a command could not be started on this host."""
    if isinstance(error, FileNotFoundError):
        return Failure(state="not_configured", reason=f"{error.filename} is not installed", code="ENOENT")
    if isinstance(error, PermissionError):
        return Failure(state="permission_denied", reason=str(error.strerror), code="EACCES")
    return Failure(state="partial", reason=str(error))


def execute(
    argv: Sequence[str], *, limit_seconds: float, started: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> Output:
    """What ``argv`` printed on this host; with everything that it started it has ended when this returns.

    Raises
    ------
    Unavailable
        It was not done in time, or an argument cannot be one.
    OSError
        It could not be started.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except ValueError as error:  # an argument with a NUL in it, or that is no text
        raise Unavailable(Failure(state="partial", reason=f"not run: {error}")) from None
    if started is not None:
        started(process)
    try:
        out, err, ended = _collected(process, time.monotonic() + limit_seconds)
    finally:
        _end(process)
    if ended == "late":
        raise Unavailable(Failure(state="timeout", reason=f"not done within {limit_seconds:g} s"))
    return Output(out=out, err=err, status=process.returncode, cut=ended == "full")


def _collected(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, str]:
    """What the command printed on both streams, and how that ended: ``done``, ``late``, or ``full`` at the cap.

    Read as it comes and no further than the cap, so that a command that prints for ever costs no memory. A child that
    was left in the background and holds the pipes open is not waited for.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = kept.values()
    with selectors.DefaultSelector() as selector:
        for descriptor in kept:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return bytes(out), bytes(err), "late"
            ready = selector.select(min(left, POLL_SECONDS))
            if not ready and _exited(process):
                ready = selector.select(0)  # what it wrote after we looked and before it ended
                if not ready:
                    break
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fd)
                    continue
                kept[key.fd] += chunk[: MAX_OUTPUT_BYTES + 1 - len(kept[key.fd])]
                if len(out) > MAX_OUTPUT_BYTES:
                    return bytes(out[:MAX_OUTPUT_BYTES]), bytes(err), "full"
    while not _exited(process):  # it closed its output and goes on
        if time.monotonic() > deadline:
            return bytes(out), bytes(err), "late"
        time.sleep(0.01)
    return bytes(out), bytes(err), "done"


def _exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended. Left unreaped: as long as it is, its number, the group's too, is not given away."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group, then reap its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def interpreted(output: Output) -> Fetched:
    """The rows of what a command printed; an exit status other than 0 makes them partial.

    Raises
    ------
    Unavailable
        The command is not installed.
    """
    text = output.out.decode("utf-8", "replace").replace("\x00", "")
    if output.cut:  # the last line is half a line, and half a secret is not recognised as one
        text = text.rpartition("\n")[0]
    rows, more = parse_lines(text)
    said = output.err[:4096].decode("utf-8", "replace").strip().split("\n")[0]
    if output.cut:
        return Fetched(value=rows, partial=f"only the first {MAX_OUTPUT_BYTES:,} bytes")
    status = output.status
    if status == 127 and not rows:
        raise Unavailable(Failure(state="not_configured", reason=said or "command not found", code="127"))
    partial = f"only the first {MAX_LINES} lines" if more else ""
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
        partial = how + (f": {said}" if said else "")
    return Fetched(value=rows, partial=partial, code=str(status) if status else "")


def parse_lines(text: str) -> tuple[list[dict[str, Any]], bool]:
    """Output as rows, and whether there were more than :data:`MAX_LINES` lines."""
    # Not splitlines(): a form feed or a line separator of Unicode in a process title ends no line.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    more = len(lines) > MAX_LINES
    lines = lines[:MAX_LINES]
    if lines and "\t" in lines[0]:
        head = [column.strip() or f"column_{i}" for i, column in enumerate(lines[0].split("\t"), 1)]
        rows: list[dict[str, Any]] = []
        for line in lines[1:]:
            cells = line.split("\t", len(head) - 1)
            rows.append({name: None if cell is None else _number(cell) for name, cell in zip_longest(head, cells)})
        return rows, more
    return [{"line": line} for line in lines], more


def _number(cell: str) -> Any:
    cell = cell.strip()
    if cell.isascii() and cell.removeprefix("-").isdigit() and len(cell) <= 18:
        return int(cell)
    return cell
