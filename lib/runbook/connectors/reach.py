"""Whether the hosts that the application calls can be reached from here: name, connection, certificate, an answer.

Without any credential: a host that answers nobody is down or cut off, one that answers us and refuses the
application refuses its credential. Nothing but the root, or the probe URL of the settings, is asked for, by HEAD.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import certifi
from cryptography import x509

from runbook.connectors.base import Connector, Context, Failure, Fetched
from runbook.connectors.http import connection_error
from runbook.result import Reading

LIMIT_SECONDS = 8.0
STEP_SECONDS = 3.0
"""For the connection, the handshake and the answer, each."""
AT_ONCE = 16
MAX_ADDRESSES = 4
MAX_HEAD_BYTES = 16_384


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A host as the application knows it, and where it is asked."""

    host: str
    url: str

    @classmethod
    def parsed(cls, entry: str) -> Probe:
        """``HOST``, asked at its root over TLS, or ``HOST=URL``."""
        host, equals, url = entry.partition("=")
        return cls(host=host.strip(), url=url.strip() if equals else f"https://{host.strip()}/")


class Reach(Connector):
    """The hosts of ``traffic.upstream_hosts``."""

    source = "reach"
    failures = (OSError,)

    def __init__(self, context: Context, upstream_hosts: list[str]) -> None:
        self._probes = [Probe.parsed(entry) for entry in dict.fromkeys(upstream_hosts)]
        super().__init__(context, ", ".join(probe.host for probe in self._probes) or "upstream hosts")

    def all(self) -> Reading:
        """Rows of ``dependency_hosts``, one for each host, all asked at once."""
        query = "name, connection, certificate, HEAD without credential"
        if not self._probes:
            failure = Failure(state="not_configured", reason="traffic.upstream_hosts is not set")
            return self.missing("dependency_hosts", query, failure)
        return self.read("dependency_hosts", query, self._asked, limit_seconds=LIMIT_SECONDS)

    def failure(self, error: Exception) -> Failure:
        code, reason = connection_error(error)
        return Failure(state="unreachable", reason=reason, code=code)

    def _asked(self) -> Fetched:
        with ThreadPoolExecutor(min(AT_ONCE, len(self._probes)), thread_name_prefix="reach") as pool:
            return Fetched(value=list(pool.map(lambda probe: reached(probe, self.context.now), self._probes)))


def reached(probe: Probe, now: Callable[[], datetime]) -> dict[str, Any]:
    """One row of ``dependency_hosts``: how far a client without any credential gets."""
    row: dict[str, Any] = {
        "host": probe.host, "url": probe.url, "dns": None, "dns_ms": None, "address": None, "tcp_ms": None,
        "tls": None, "tls_ms": None, "answer_ms": None,
        "verify_code": None, "days_left": None, "http_status": None, "answered": False, "code": "", "reason": "",
        "skew_seconds": None,
    }  # fmt: skip
    try:
        parts = urlsplit(probe.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        host, port = "", 0
    if not host or parts.scheme not in ("http", "https"):
        return row | {"code": "URL", "reason": "traffic.upstream_hosts: not a host, and not a URL that can be asked"}
    began = time.perf_counter()
    addresses, why = resolved(host, port)
    if not addresses:
        return row | {"dns": "failed", "code": "DNS", "reason": why}
    row |= {"dns": "ok", "dns_ms": _since(began), "address": addresses[0]}
    try:
        began = time.perf_counter()
        with _connected(addresses, port) as connection:
            row |= {"tcp_ms": _since(began), "address": connection.getpeername()[0]}
            if parts.scheme == "http":
                return row | _answer(connection, parts, now)
            trusted, began = verifying(), time.perf_counter()
            with trusted.wrap_socket(connection, server_hostname=host) as secure:
                row |= {"tls_ms": _since(began)}
                certificate = secure.getpeercert() or {}
                expires = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
                row |= {"tls": "ok", "verify_code": 0, "days_left": _days_left(expires, now())}
                return row | _answer(secure, parts, now)
    except ssl.SSLCertVerificationError as error:
        code, reason = connection_error(error)
        left = _days_left_unverified(addresses, port, host, now())
        return row | {
            "tls": "failed", "verify_code": error.verify_code, "days_left": left, "code": code, "reason": reason
        }  # fmt: skip
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one in a certificate
        return row | _broken(error, within_tls=parts.scheme == "https" and row["tcp_ms"] is not None, row=row)


def _broken(error: Exception, *, within_tls: bool, row: Mapping[str, Any]) -> dict[str, Any]:
    """A connection that did not come about, or that broke in the handshake or before the answer."""
    tls = "failed" if within_tls and row["tls"] is None else row["tls"]
    if isinstance(error, TimeoutError):
        step = "connection" if row["tcp_ms"] is None else "answer" if tls != "failed" else "TLS handshake"
        return {"tls": tls, "code": "TIMEOUT", "reason": f"no {step} within {STEP_SECONDS:g} s"}
    code, reason = connection_error(error)
    return {"tls": tls, "code": code or "CONNECTION", "reason": reason}


def resolved(host: str, port: int, seconds: float = STEP_SECONDS) -> tuple[list[str], str]:
    """Addresses of a name, or why there are none. A resolver that hangs is left behind."""
    box: list[Any] = []

    def ask() -> None:
        try:
            box.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long for a name
            box.append(error)

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        return [], f"its name did not resolve within {seconds:g} s"
    if isinstance(box[0], Exception):
        return [], connection_error(box[0])[1] or str(box[0])
    return list(dict.fromkeys(str(found[4][0]) for found in box[0])), ""


def _connected(addresses: list[str], port: int) -> socket.socket:
    """A connection to the first address that takes one, all within one limit.

    Raises
    ------
    OSError
        None does; that of the first.
    """
    deadline = time.monotonic() + STEP_SECONDS
    first: OSError | None = None
    for address in addresses[:MAX_ADDRESSES]:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            connection = socket.create_connection((address, port), timeout=left)
        except OSError as error:
            first = first or error
        else:
            connection.settimeout(STEP_SECONDS)
            return connection
    raise first or TimeoutError


def _answer(connection: socket.socket, parts: SplitResult, now: Callable[[], datetime]) -> dict[str, Any]:
    """What a HEAD brought: its status and how far the server's clock is from ours."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    asked = f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: runbook\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    began = time.perf_counter()
    connection.sendall(asked.encode("ascii", "replace"))
    head = _head(connection)
    status = re.match(rb"HTTP/\d(?:\.\d)? (\d{3})", head)
    if status is None:
        return {"code": "HTTP", "reason": "what answers does not speak HTTP" if head else "closed without an answer"}
    date = re.search(rb"(?im)^date:[ \t]*([^\r\n]+)", head)
    return {
        "http_status": int(status[1]),
        "answered": True,
        "answer_ms": _since(began),
        "skew_seconds": _skew(date[1].decode("latin-1"), now()) if date else None,
    }


def _head(connection: socket.socket) -> bytes:
    """The head of an answer, as much of it as comes in time.

    Raises
    ------
    TimeoutError
        Nothing came.
    """
    deadline = time.monotonic() + STEP_SECONDS
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES and (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            break
        head += part
    return bytes(head)


def _skew(date: str, now: datetime) -> float | None:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return round((at - now).total_seconds(), 1)


@cache
def verifying() -> ssl.SSLContext:
    """Trusts what this host trusts, and what browsers do: a slim image has no certificates of its own."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _days_left(expires: float, now: datetime) -> float:
    return round((expires - now.timestamp()) / 86_400, 1)


def _days_left_unverified(addresses: list[str], port: int, host: str, now: datetime) -> float | None:
    """Of a certificate that is not accepted; only looked at, nothing is sent to its holder."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(addresses, port) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
            found = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None
    return _days_left(found.not_valid_after_utc.timestamp(), now)


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
