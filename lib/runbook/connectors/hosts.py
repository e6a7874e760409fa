"""Commands on several hosts at once: the workers', here or over SSH; one table of what came, each row with its host.

A host that cannot be asked is named with the reason and never left out; the others are not held up by it.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook.connectors import shell, ssh
from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.result import Reading, ReadingState

if TYPE_CHECKING:
    from runbook.settings import Workers

AT_ONCE = 20
"""Hosts that are asked at the same time."""
LIMIT_SECONDS = 15.0
"""For all hosts together."""
LOCAL = "local"
_WORST_FIRST: tuple[ReadingState, ...] = (
    "auth_failed", "permission_denied", "unreachable", "timeout", "rate_limited", "partial", "not_configured"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one host gave: its rows, or the failure."""

    host: str
    outcome: Fetched | Failure

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows with the host in front; a failed host has one that says why."""
        if isinstance(self.outcome, Failure):
            return [{"host": self.host, "state": self.outcome.state, "reason": self.outcome.reason}]
        return [{"host": self.host} | {k: v for k, v in row.items() if k != "host"} for row in self.outcome.value]

    @property
    def lacks(self) -> str:
        """What is missing from this host's answer; empty = nothing."""
        if isinstance(self.outcome, Failure):
            return f"{self.host}: {self.outcome.state.replace('_', ' ')}: {self.outcome.reason}"
        return f"{self.host}: {self.outcome.partial}" if self.outcome.partial else ""


class Hosts(Connector):
    """Commands on the hosts of ``workers.hosts``: ``local``, or ``user@host[:port]`` over SSH."""

    source = "shell"
    statements = None
    failures = (OSError,)

    def __init__(self, context: Context, section: Workers) -> None:
        self.hosts = list(dict.fromkeys(section.hosts))
        super().__init__(context, ", ".join(self.hosts) if len(self.hosts) <= 5 else f"{len(self.hosts)} hosts")

    def run(self, name: str, argv: Sequence[str], *, limit_seconds: float = LIMIT_SECONDS, query: str = "") -> Reading:
        """One command on every host. Rows are those of :meth:`Shell.run`, with ``host`` in front.

        The reading is ``partial`` when a host failed or its command did, and has the worst state when all failed.
        """
        query = query or shlex.join(argv)
        if not self.hosts:
            return self.missing(name, query, Failure(state="not_configured", reason="workers.hosts is not set"))
        return self.read(
            name, query, lambda: _joined(self._asked(list(argv), limit_seconds)), limit_seconds=limit_seconds + 1
        )

    def script(
        self, name: str, text: str, arguments: Sequence[str] = (), *, limit_seconds: float = LIMIT_SECONDS
    ) -> Reading:
        """A ``%%sh`` cell on every host: ``/bin/sh`` runs its text, the arguments are ``$1``, ``$2`` …"""
        shown = shlex.join(shell.script_argv(name, text, arguments))
        argv = shell.script_argv(name, shell.with_functions(text), arguments)
        return self.run(name, argv, limit_seconds=limit_seconds, query=shown)

    def failure(self, error: Exception) -> Failure:
        return shell.not_started(error)

    def _asked(self, argv: list[str], limit_seconds: float) -> list[Answer]:
        """The answers of all hosts, in the order of the settings."""
        return ssh.run(self._fan_out(argv, limit_seconds))

    async def _fan_out(self, argv: list[str], limit_seconds: float) -> list[Answer]:
        turns = asyncio.Semaphore(AT_ONCE)
        deadline = time.monotonic() + limit_seconds
        with self.context.progress.counting("hosts", len(self.hosts), "answered") as count:

            async def ask(host: str) -> Answer:
                async with turns:
                    answer = Answer(host=host, outcome=await _outcome(host, argv, deadline - time.monotonic()))
                count.advance()
                return answer

            return await asyncio.gather(*map(ask, self.hosts))


async def _outcome(host: str, argv: list[str], limit_seconds: float) -> Fetched | Failure:
    if limit_seconds <= 0:
        return Failure(state="timeout", reason="its turn did not come within the limit for all hosts")
    try:
        if host == LOCAL:
            output = await asyncio.to_thread(shell.execute, argv, limit_seconds=limit_seconds)
        else:
            output = await ssh.execute(ssh.Address.parsed(host), argv, limit_seconds=limit_seconds)
        return shell.interpreted(output)
    except Unavailable as unavailable:
        return unavailable.failure
    except OSError as error:
        return shell.not_started(error)


def _joined(answers: list[Answer]) -> Fetched:
    """All rows in one table.

    Raises
    ------
    Unavailable
        No host answered; with the worst of their states.
    """
    failed = [a.outcome for a in answers if isinstance(a.outcome, Failure)]
    lacking = "; ".join(a.lacks for a in answers if a.lacks)
    if len(failed) == len(answers):
        worst = min(failed, key=lambda failure: _WORST_FIRST.index(failure.state))
        raise Unavailable(Failure(state=worst.state, reason=lacking, code=worst.code))
    codes = [a.outcome.code for a in answers if a.outcome.code]
    return Fetched(value=[row for a in answers for row in a.rows], partial=lacking, code=codes[0] if codes else "")
