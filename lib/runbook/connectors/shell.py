"""Commands on a host: argv lists, a scrubbed environment, a time limit, output that is capped.

The text of a ``%%sh`` cell is the author's; its parameters arrive as positional arguments and are data there. Nothing
is ever interpolated into a command.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.result import Reading

LIMIT_SECONDS = 10.0
MAX_OUTPUT_BYTES = 1_000_000
MAX_LINES = 5000
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that a command sees of our environment."""


class Shell(Connector):
    """Commands on this host."""

    source = "shell"
    failures = (OSError, subprocess.SubprocessError)

    def __init__(self, context: Context, target: str = "localhost") -> None:
        super().__init__(context, target)
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, name: str, argv: Sequence[str], *, limit_seconds: float = LIMIT_SECONDS) -> Reading:
        """The output of one command, a row a line; tab-separated output under a tab-separated head becomes columns.

        A command that exits other than 0 gives a ``partial`` reading with what it printed.
        """
        return self.read(name, shlex.join(argv), lambda: self._fetch(list(argv)), limit_seconds=limit_seconds + 1)

    def script(self, name: str, text: str, arguments: Sequence[str] = ()) -> Reading:
        """A ``%%sh`` cell: ``/bin/sh`` runs its text, the arguments are ``$1``, ``$2`` …"""
        return self.run(name, ["/bin/sh", "-u", "-c", text, name, *arguments])

    def elsewhere(self, name: str, text: str, reason: str) -> Reading:
        """A command that would have to run on a host that we have no shell on."""
        return self.missing(name, text, Failure(state="not_configured", reason=reason))

    def _fetch(self, argv: list[str]) -> Fetched:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        ) as process:
            self._process = process
            try:
                out, err = process.communicate(timeout=LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.abort()
                process.communicate()
                raise Unavailable(Failure(state="timeout", reason=f"not done within {LIMIT_SECONDS:g} s")) from None
        rows, more = parse_lines(out[:MAX_OUTPUT_BYTES].decode("utf-8", "replace"))
        said = err.decode("utf-8", "replace").strip().split("\n")[0][:200]
        partial = f"only the first {MAX_LINES} lines" if more or len(out) > MAX_OUTPUT_BYTES else ""
        if process.returncode == 127 and not rows:
            raise Unavailable(Failure(state="not_configured", reason=said or "command not found", code="127"))
        if process.returncode != 0:
            partial = f"exit status {process.returncode}" + (f": {said}" if said else "")
        return Fetched(value=rows, partial=partial, code=str(process.returncode) if process.returncode else "")

    def abort(self) -> None:
        """End the command with everything that it started."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def failure(self, error: Exception) -> Failure:
        if isinstance(error, FileNotFoundError):
            return Failure(state="not_configured", reason=f"{error.filename} is not installed", code="ENOENT")
        if isinstance(error, PermissionError):
            return Failure(state="permission_denied", reason=str(error.strerror), code="EACCES")
        return Failure(state="partial", reason=str(error))


def parse_lines(text: str) -> tuple[list[dict[str, Any]], bool]:
    """Output as rows, and whether there were more than :data:`MAX_LINES` lines."""
    lines = text.splitlines()
    more = len(lines) > MAX_LINES
    lines = lines[:MAX_LINES]
    if lines and "\t" in lines[0]:
        head = [column.strip() or f"column_{i}" for i, column in enumerate(lines[0].split("\t"), 1)]
        rows: list[dict[str, Any]] = []
        for line in lines[1:]:
            cells = line.split("\t", len(head) - 1)
            rows.append({name: _number(cell) for name, cell in zip(head, cells, strict=False)})
        return rows, more
    return [{"line": line} for line in lines], more


def _number(cell: str) -> Any:
    cell = cell.strip()
    if cell.isascii() and cell.lstrip("-").isdigit() and len(cell) <= 18:
        return int(cell)
    return cell
