"""Learns why a PostgreSQL server refuses a connection, from the raw start-up conversation.

libpq gives no SQLSTATE for a failed connection, and its text varies by version and language; the server's own error
message carries the code in field C. *No slot left at all* (53300) arrives before authentication, so a start-up message
without a password is enough and occupies no slot; *only reserved slots left* arrives after it, so the conversation goes
on through authentication where a password is at hand. Nothing is ever queried here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runbook.connectors.base import Failure
from runbook.result import ReadingState

if TYPE_CHECKING:
    from scramp import ScramClient

PROTOCOL = 196608  # 3.0
SSL_REQUEST = 80877103
MAX_MESSAGE = 65536
NOT_OURS = "the answer is not PostgreSQL's protocol"

Stage = Literal["network", "before_authentication", "after_authentication", "accepted"]


@dataclass(frozen=True, kw_only=True)
class Startup:
    """How far a start-up conversation came."""

    stage: Stage
    #: SQLSTATE of the refusal; an errno name for a network failure; empty when accepted.
    code: str = ""
    message: str = ""

    @property
    def refused_for_slots(self) -> bool:
        """``too_many_connections``, wherever it was said."""
        return self.code == "53300"


_STATES: dict[str, ReadingState] = {
    "53300": "unreachable",
    "57P03": "unreachable",
    "57P01": "unreachable",
    "3D000": "unreachable",
    "28P01": "auth_failed",
    "28000": "auth_failed",
    "42501": "permission_denied",
    "ETIMEDOUT": "timeout",
}


def failure(startup: Startup) -> Failure:
    """The reading state of a refused start-up."""
    state = _STATES.get(startup.code, "auth_failed" if startup.code.startswith("28") else "unreachable")
    said = f"{startup.message} (SQLSTATE {startup.code})" if startup.stage != "network" else startup.message
    return Failure(state=state, reason=said, code=startup.code)


def attempt(conninfo: Mapping[str, str], *, seconds: float = 3.0, replication: bool = False) -> Startup:
    """Hold one start-up conversation and say how it ended.

    Parameters
    ----------
    conninfo
        ``host``, ``port``, ``user``, ``dbname``, optionally ``password``, ``sslmode``, ``sslrootcert``.
    replication
        Ask for a replication connection instead; then only the answer before authentication is waited for, so that no
        walsender slot is held.
    """
    try:
        with contextlib.ExitStack() as held:
            stream = _connected(conninfo, seconds, held)
            return _converse(_Wire(stream, time.monotonic() + seconds), conninfo, replication)
    except TimeoutError:
        return Startup(stage="network", code="ETIMEDOUT", message=f"no answer within {seconds:g} s")
    except socket.gaierror as error:
        return Startup(stage="network", code="EAI", message=f"the host name does not resolve ({error.strerror})")
    except ssl.SSLError as error:
        return Startup(stage="network", code="TLS", message=f"TLS failed ({_why(error)})")
    except (UnicodeError, ValueError, OverflowError):
        return Startup(stage="network", code="EINVAL", message="the host name or port is none")
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        return Startup(stage="network", code=name, message=error.strerror or "the server closed the connection")


def _why(error: ssl.SSLError) -> str:
    return getattr(error, "reason", None) or str(error.args[-1] if error.args else "protocol error")


def _connected(conninfo: Mapping[str, str], seconds: float, held: contextlib.ExitStack) -> socket.socket:
    host = conninfo.get("host") or conninfo.get("hostaddr") or "/var/run/postgresql"
    port = int(conninfo.get("port") or 5432)
    if host.startswith(("/", "@")):
        stream = held.enter_context(socket.socket(socket.AF_UNIX))
        stream.settimeout(seconds)
        path = f"{host}/.s.PGSQL.{port}"
        stream.connect("\0" + path[1:] if path[0] == "@" else path)
        return stream
    address = (conninfo.get("hostaddr") or host, port)
    stream = held.enter_context(socket.create_connection(address, timeout=seconds))
    mode = conninfo.get("sslmode") or "prefer"
    if mode in ("disable", "allow"):
        return stream
    stream.sendall(struct.pack("!ii", 8, SSL_REQUEST))
    if stream.recv(1) == b"S":
        context = ssl.create_default_context(cafile=conninfo.get("sslrootcert") or None)
        context.check_hostname = mode == "verify-full"
        if mode not in ("verify-ca", "verify-full"):
            context.verify_mode = ssl.CERT_NONE
        return held.enter_context(context.wrap_socket(stream, server_hostname=host))
    if mode != "prefer":
        raise ssl.SSLError(1, "the server does not speak TLS")
    return stream


class _Wire:
    """A socket with one deadline for the whole conversation, however slowly the other side drips."""

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def send(self, data: bytes) -> None:
        self._stream.settimeout(self._left())
        self._stream.sendall(data)

    def exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            self._stream.settimeout(self._left())
            chunk = self._stream.recv(count - len(parts))
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection without a word")
            parts += chunk
        return bytes(parts)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _converse(stream: _Wire, conninfo: Mapping[str, str], replication: bool) -> Startup:
    options = {"user": conninfo.get("user") or "", "database": conninfo.get("dbname") or conninfo.get("user") or ""}
    options |= {"application_name": "runbook:startup"} | ({"replication": "true"} if replication else {})
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in options.items()) + b"\0"
    stream.send(struct.pack("!ii", len(body) + 8, PROTOCOL) + body)
    login = _Login(stream, conninfo)
    for kind, payload in _messages(stream):
        if kind == b"E":
            fields = _fields(payload)
            stage: Stage = "after_authentication" if login.accepted else "before_authentication"
            code = fields.get("C", "")
            if not re.fullmatch(r"[0-9A-Z]{5}", code):
                raise OSError(None, NOT_OURS)
            return Startup(stage=stage, code=code, message=fields.get("M", "")[:1000])
        if kind == b"R":
            if replication or not login.answer(payload):
                break
        elif kind == b"Z":
            stream.send(b"X" + struct.pack("!i", 4))
            break
    return Startup(stage="accepted")


class _Login:
    """Answers the server's authentication requests, as far as a password is at hand."""

    def __init__(self, stream: _Wire, conninfo: Mapping[str, str]) -> None:
        self._stream = stream
        self._user = conninfo.get("user") or ""
        # Where the DSN is particular about how the password may travel, it stays here: those rules are libpq's.
        particular = conninfo.get("require_auth") or conninfo.get("channel_binding") == "require"
        self._password = None if particular else conninfo.get("password")
        self._scram: ScramClient | None = None
        self.accepted = False

    def answer(self, payload: bytes) -> bool:
        """Whether the conversation can go on after this request."""
        if len(payload) < 4:
            raise OSError(None, NOT_OURS)
        method, rest = struct.unpack("!i", payload[:4])[0], payload[4:]
        if method == 0:
            self.accepted = True
            return True
        if self._password is None:
            return False
        if method == 3:
            _send(self._stream, self._password.encode() + b"\0")
        elif method == 5:
            _send(self._stream, _md5_answer(self._user, self._password, rest[:4]))
        elif method in (10, 11, 12):
            return self._sasl(method, rest)
        else:
            return False
        return True

    def _sasl(self, step: int, rest: bytes) -> bool:
        from scramp import ScramClient, ScramException

        try:
            if step == 10:
                offered = [m for m in rest.decode().split("\0") if m == "SCRAM-SHA-256"]
                if not offered:
                    return False
                self._scram = ScramClient(offered, self._user, self._password)
                first = self._scram.get_client_first().encode()
                _send(self._stream, offered[0].encode() + b"\0" + struct.pack("!i", len(first)) + first)
            elif self._scram is None:
                return False
            elif step == 11:
                self._scram.set_server_first(rest.decode())
                _send(self._stream, self._scram.get_client_final().encode())
            else:
                self._scram.set_server_final(rest.decode())
        except (ScramException, LookupError, ValueError):  # scramp takes the server's word for well-formed
            return False
        return True


def _md5_answer(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return f"md5{outer}\0".encode()


def _send(stream: _Wire, payload: bytes) -> None:
    stream.send(b"p" + struct.pack("!i", len(payload) + 4) + payload)


def _messages(stream: _Wire) -> Iterator[tuple[bytes, bytes]]:
    while True:
        head = stream.exactly(5)
        length = struct.unpack("!i", head[1:])[0] - 4
        if not 0 <= length <= MAX_MESSAGE:
            raise OSError(None, NOT_OURS)
        yield head[:1], stream.exactly(length)


def _fields(payload: bytes) -> dict[str, str]:
    parts = payload.split(b"\0")
    return {part[:1].decode("ascii", "replace"): part[1:].decode("utf-8", "replace") for part in parts if part}
