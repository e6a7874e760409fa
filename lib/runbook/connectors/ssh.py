"""One command on one other host over SSH: the user's own OpenSSH configuration, keys and agent, host keys verified.

A command is quoted for the one string that SSH carries and in no other way, runs in a scrubbed environment, and is
ended at its time limit. A host whose key is not known is never talked to, whatever the configuration says.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import signal
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runbook.connectors.base import Failure, Unavailable
from runbook.connectors.http import connection_error
from runbook.connectors.shell import ENVIRONMENT, MAX_OUTPUT_BYTES, Output
from runbook.result import ReadingState

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")

CONNECT_SECONDS = 5.0
MAX_ERROR_BYTES = 4096
_CHUNK = 65536
_ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s:/]+)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.-]*)(?::(?P<port>\d{1,5}))?"
)
_LOG_PLACE = re.compile(
    r"(?P<host>(?:[^@\s:/]+@)?(?:\[[^\]\s]+\]|[^@\s:/\[\]]+)(?::\d{1,5})?):(?P<path>/.+)", re.DOTALL
)
_CONFIGURATION = ("~/.ssh/config", "/etc/ssh/ssh_config")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
# A command outlives its connection, and sshd passes no signal on to what root started.
_ENDED_WHEN_LATE = """cd / && unset OLDPWD
if command -v timeout >/dev/null; then exec timeout -s KILL "$0" "$@"; else exec "$@"; fi"""
_SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to connect to. What is empty or 0 is left to the user's OpenSSH configuration."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parsed(cls, text: str) -> Address:
        """``user@host[:port]``; the host may be a name of the OpenSSH configuration, or ``[address]`` of IPv6.

        Raises
        ------
        Unavailable
            It is something else.
        """
        match = _ADDRESS.fullmatch(text)
        port = int(match["port"] or 0) if match else 0
        if match is None or port > 65535:
            reason = f"{text[:100]!r} is no host: user@host or user@host:port is expected"
            raise Unavailable(Failure(state="not_configured", reason=reason))
        return cls(host=match["host"].strip("[]"), user=match["user"] or "", port=port)


def remote_file(text: str) -> tuple[str, str] | None:
    """Host and path of ``user@host[:port]:/path``; ``None`` for anything else, such as the path of a local file."""
    match = _LOG_PLACE.fullmatch(text)
    return (match["host"], match["path"]) if match else None


def command_line(argv: Sequence[str], *, limit_seconds: float) -> str:
    """``argv`` as the one string that SSH carries to the login shell of the other host, to be ended there when late.

    Raises
    ------
    Unavailable
        An argument has a NUL in it or is no text.
    """
    for argument in argv:
        if "\x00" in argument or not _encodable(argument):
            raise Unavailable(Failure(state="partial", reason="not run: an argument has a NUL in it or is no text"))
    scrubbed = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items())]
    return shlex.join([*scrubbed, "/bin/sh", "-c", _ENDED_WHEN_LATE, str(math.ceil(limit_seconds) + 1), *argv])


async def execute(
    address: Address, argv: Sequence[str], *, limit_seconds: float, most_bytes: int = MAX_OUTPUT_BYTES
) -> Output:
    """What ``argv`` printed on the host at ``address``.

    Raises
    ------
    Unavailable
        No connection, no login, no trust in the host's key, not done in time; carries the state.
    """
    import asyncssh

    line = command_line(argv, limit_seconds=limit_seconds)
    try:
        return await asyncio.wait_for(_executed(address, line, limit_seconds, most_bytes), limit_seconds)
    except TimeoutError:
        raise Unavailable(Failure(state="timeout", reason=f"not done within {limit_seconds:g} s")) from None
    except (asyncssh.Error, OSError, ValueError) as error:  # ValueError: a host name that cannot be one
        raise Unavailable(_failure(error)) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in an event loop of its own, which does not wait for a resolver that hangs, as asyncio's would."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(_end_others())
        loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _executed(address: Address, line: str, limit_seconds: float, most_bytes: int) -> Output:
    import asyncssh

    try:
        options = await asyncio.to_thread(_options, address, limit_seconds)
    except (OSError, ValueError) as error:  # a key or a configuration that cannot be read
        raise Unavailable(Failure(state="not_configured", reason=f"OpenSSH configuration: {error}")) from None
    connection = await asyncssh.connect(options=options, config=_configuration(), **_place(address))
    try:
        return await _output(connection, line, most_bytes)
    finally:
        connection.abort()  # to close in good order would be to wait for a command that may hang


def _place(address: Address) -> dict[str, Any]:
    place: dict[str, Any] = {"host": address.host}
    if address.user:
        place["username"] = address.user
    if address.port:
        place["port"] = address.port
    return place


def _configuration() -> list[Path]:
    return [path for name in _CONFIGURATION if os.access(path := Path(name).expanduser(), os.R_OK)]


def _options(address: Address, limit_seconds: float) -> asyncssh.SSHClientConnectionOptions:
    """The user's OpenSSH configuration for this host, less what a command that nobody watches must not use."""
    import asyncssh

    place = _place(address)
    files = _configuration()
    configured = asyncssh.SSHClientConnectionOptions(config=files, **place)
    return asyncssh.SSHClientConnectionOptions(
        configured,
        known_hosts=_known_hosts(configured),
        connect_timeout=min(CONNECT_SECONDS, limit_seconds),
        login_timeout=limit_seconds,
        agent_forwarding=False,
        x11_forwarding=False,
        request_pty=False,
        env=(),
        send_env=(),
        config=files,
        **place,
    )


def _known_hosts(configured: asyncssh.SSHClientConnectionOptions) -> list[str] | bytes:
    """Files of trusted host keys; nothing is trusted without one.

    ``UserKnownHostsFile none`` would make asyncssh trust every host; it means here what OpenSSH makes of it: no file.
    """
    named: Any = configured.known_hosts
    files = [*(_KNOWN_HOSTS if named == [] else named or ()), *_SYSTEM_KNOWN_HOSTS]
    readable = [str(path) for name in files if os.access(path := Path(str(name)).expanduser(), os.R_OK)]
    return [name for name in dict.fromkeys(readable) if Path(name).is_file()] or b""


async def _output(connection: asyncssh.SSHClientConnection, line: str, most_bytes: int) -> Output:
    import asyncssh

    process: asyncssh.SSHClientProcess[bytes]
    process = await connection.create_process(line, stdin=asyncssh.DEVNULL, encoding=None)
    errors = asyncio.create_task(_kept(process.stderr, MAX_ERROR_BYTES, go_on=True))
    try:
        out, cut = await _kept(process.stdout, most_bytes, go_on=False)
        if cut:
            return Output(out=out, err=b"", status=0, cut=True)
        err, _ = await errors
        await process.wait_closed()
        return Output(out=out, err=err, status=_status(process))
    finally:
        errors.cancel()
        if process.exit_status is None and process.exit_signal is None:
            process.kill()  # the server sends it to all that the command started, unless that is root's


async def _kept(stream: asyncssh.SSHReader[bytes], most: int, *, go_on: bool) -> tuple[bytes, bool]:
    """The first ``most`` bytes of a stream, and whether there were more; with ``go_on`` those are read and dropped."""
    kept = bytearray()
    while chunk := await stream.read(_CHUNK):
        kept += chunk[: most + 1 - len(kept)]
        if len(kept) > most and not go_on:
            break
    return bytes(kept[:most]), len(kept) > most


def _status(process: asyncssh.SSHClientProcess[bytes]) -> int:
    if process.exit_signal:
        number = getattr(signal, f"SIG{process.exit_signal[0]}", signal.SIGKILL)
        return -int(number)
    if process.exit_status is None or process.exit_status < 0:
        raise Unavailable(Failure(state="unreachable", reason="the connection broke before the command was done"))
    return process.exit_status


def _failure(error: Exception) -> Failure:
    import asyncssh

    state: ReadingState = "unreachable"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        reason = "its host key is not the known one: see known_hosts"
        return Failure(state="auth_failed", reason=f"{reason} ({error.reason})", code="HOST_KEY")
    if isinstance(error, asyncssh.PermissionDenied):
        return Failure(state="auth_failed", reason=f"login refused: {error.reason}", code="LOGIN")
    if isinstance(error, asyncssh.ChannelOpenError):
        return Failure(state="permission_denied", reason=f"no command may be run: {error.reason}", code="CHANNEL")
    if isinstance(error, asyncssh.Error):
        return Failure(state=state, reason=f"SSH: {error.reason}", code=type(error).__name__)
    if isinstance(error, OSError):
        code, reason = connection_error(error)
        return Failure(state=state, reason=reason, code=code)
    return Failure(state="not_configured", reason=f"SSH: {error}")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
