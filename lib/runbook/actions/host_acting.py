"""One call of the shell library on one of the workers' hosts, here or over SSH; its arguments are data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runbook.actions.plan import Refused
from runbook.connectors import shell, ssh
from runbook.connectors.base import Unavailable
from runbook.connectors.hosts import LOCAL

if TYPE_CHECKING:
    from runbook.settings import Settings

LIMIT_SECONDS = 20.0


def known_host(settings: Settings, host: Any) -> str:
    """The host, if it is one of those that the settings name.

    Raises
    ------
    Refused
        It is none of them.
    """
    if host not in settings.workers.hosts:
        raise Refused(f"{host or 'no host'} is none of workers.hosts", remedy="Name it there, or do it by hand")
    return str(host)


def on_host(host: str, text: str, arguments: Sequence[str], *, limit_seconds: float = LIMIT_SECONDS) -> shell.Output:
    """What ``text``, a call of functions of ``connectors/sh``, printed there.

    Raises
    ------
    Refused
        The host cannot be asked, or was not done in time.
    """
    argv = shell.script_argv("act", shell.with_functions(text), arguments)
    try:
        if host == LOCAL:
            return shell.execute(argv, limit_seconds=limit_seconds)
        return ssh.run(ssh.execute(ssh.Address.parsed(host), argv, limit_seconds=limit_seconds))
    except Unavailable as error:
        raise Refused(f"{host}: {error.failure.reason}", remedy="See runbook doctor") from None
    except OSError as error:
        raise Refused(f"{host}: {shell.not_started(error).reason}") from None


def rows_of(host: str, output: shell.Output) -> list[dict[str, Any]]:
    """The table that was printed.

    Raises
    ------
    Refused
        The command failed.
    """
    if output.status != 0:
        raise Refused(f"{host}: exit status {output.status}: {first_line(output.err)}")
    return shell.parse_lines(output.out.decode("utf-8", "replace"))[0]


def first_line(said: bytes) -> str:
    """The first line of what a command said."""
    return said[:2000].decode("utf-8", "replace").strip().split("\n")[0] or "it said nothing"
