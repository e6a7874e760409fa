"""The way to a Redis, step by step and by hand: name, TCP, TLS, what is said before a login, login, PING, INFO, write.

A client library turns half of what is told here into one "connection error". So this is a raw conversation: a first
``PING`` without a login tells a server that wants a password from one that turns everybody away; a byte that is no
Redis tells TLS where none is expected; an error that is answered at once while commands wait tells a pause from a
server that hangs. Nothing is written: whether a write would be taken is told as far as the server's own word goes.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import certifi

from runbook.connectors.http import connection_error
from runbook.connectors.reach import resolved

CONNECT_SECONDS = 3.0
TLS_SECONDS = 3.0
MAX_REPLY_BYTES = 262_144
MAX_ADDRESSES = 3
PROBE_KEY = "runbook:would-a-write-be-taken"
"""Named to ``ACL DRYRUN``, which asks about a command and runs none."""
STEPS = ("name", "tcp", "tls", "greeting", "auth", "ping", "database", "info", "write")
_TLS_RECORD = re.compile(rb"^[\x14-\x17]\x03[\x00-\x04]")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a URL leads, and how one gets in there."""

    host: str = ""
    port: int = 6379
    #: Of a Unix socket; empty = TCP.
    path: str = ""
    #: What the URL says of TLS; ``None`` = it wants none.
    tls: Mapping[str, Any] | None = None
    username: str = ""
    password: str = ""
    database: int = 0

    @classmethod
    def of(cls, url: str) -> Place:
        """The place that the client library would go to with this URL."""
        import redis

        pool = redis.ConnectionPool.from_url(url)
        known: Mapping[str, Any] = pool.connection_kwargs
        secure = issubclass(pool.connection_class, redis.SSLConnection)
        return cls(
            host=str(known.get("host") or "localhost"),
            port=int(known.get("port") or 6379),
            path=str(known.get("path") or ""),
            tls=known if secure else None,
            username=str(known.get("username") or ""),
            password=str(known.get("password") or ""),
            database=int(known.get("db") or 0),
        )


def _trusting(known: Mapping[str, Any]) -> ssl.SSLContext:
    """As the URL says: whom to trust, our own certificate, ``ssl_cert_reqs=none`` for a client that trusts anybody.

    Without an authority of its own it trusts what this host trusts, and what browsers do.
    """
    context = ssl.create_default_context(cafile=known.get("ssl_ca_certs"))
    if not known.get("ssl_ca_certs"):
        context.load_verify_locations(certifi.where())
    if known.get("ssl_certfile"):
        context.load_cert_chain(known["ssl_certfile"], known.get("ssl_keyfile"), known.get("ssl_password"))
    if str(known.get("ssl_check_hostname", True)).lower() in ("false", "no", "0"):
        context.check_hostname = False
    if str(known.get("ssl_cert_reqs", "required")).lower() == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class _Ended(Exception):
    """The way ends at a step; its row is there already."""


@dataclass
class Walk:
    """One walk. ``answer_seconds``: a step that has no answer by then is silent; ``patience_seconds``: how much longer
    one is waited for, to tell *late* from *never*.
    """

    place: Place
    name: str
    answer_seconds: float = 2.0
    patience_seconds: float = 6.0
    rows: list[Row] = field(default_factory=list)
    #: Of the connection that the walk is on.
    _sock: socket.socket | None = None
    _rest: bytes = b""

    def steps(self) -> list[Row]:
        """Every step, in order; those behind the one where the way ends are *not reached*."""
        try:
            self._go()
        except _Ended:
            pass
        finally:
            self._close()
        reached = {row["step"] for row in self.rows}
        self.rows += [_row(step, "not reached") for step in STEPS if step not in reached]
        return self.rows

    def _go(self) -> None:
        addresses = self._name()
        self._connect(addresses)
        self._tls(addresses)
        wants_login = self._greeting(addresses)
        self._auth(addresses, wants_login=wants_login)
        self._command("ping", ("PING",), addresses)
        if self.place.database:
            self._command("database", ("SELECT", str(self.place.database)), addresses)
        else:
            self._say("database", "not needed")
        self._write(self._info(addresses))

    # -- name and connection ------------------------------------------------------------------------------------------

    def _name(self) -> list[str]:
        place = self.place
        if place.path or re.fullmatch(r"[\d.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", place.host):
            self._say("name", "not needed", detail=place.path or place.host)
            return [place.host]
        began = time.perf_counter()
        addresses, why = resolved(place.host, place.port)
        if not addresses:
            self._end("name", "DNS", why, began)
        self._say("name", "yes", detail=", ".join(addresses[:4]), began=began)
        return addresses

    def _connect(self, addresses: list[str]) -> None:
        began = time.perf_counter()
        try:
            self._sock = self._opened(addresses)
        except TimeoutError:
            self._end("tcp", "ETIMEDOUT", f"no connection within {CONNECT_SECONDS:g} s", began)
        except OSError as error:
            code, reason = connection_error(error)
            self._end("tcp", code or "CONNECTION", reason, began)
        self._say("tcp", "yes", began=began)

    def _opened(self, addresses: list[str]) -> socket.socket:
        if self.place.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(self.place.path)
            return sock
        failed: OSError | None = None
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return socket.create_connection((address, self.place.port), CONNECT_SECONDS)
            except OSError as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def _tls(self, addresses: list[str]) -> None:
        if self.place.tls is None:
            self._say("tls", "not needed")
            return
        assert self._sock is not None
        began = time.perf_counter()
        try:
            self._sock.settimeout(TLS_SECONDS)
            self._sock = _trusting(self.place.tls).wrap_socket(self._sock, server_hostname=self.place.host)
        except (OSError, ValueError) as error:
            self._close()
            if _is_redis(self._first_bytes(addresses, b"PING\r\n")):
                self._end("tls", "PLAIN", "the server speaks Redis without TLS, the URL wants TLS", began)
            code, reason = connection_error(error)
            if isinstance(error, TimeoutError):
                code, reason = "ETIMEDOUT", f"no TLS handshake within {TLS_SECONDS:g} s"
            if isinstance(error, FileNotFoundError):
                code, reason = "TLSFILES", "a file that the URL names for TLS is not on this host"
            self._end("tls", code or "TLS", reason, began)
        self._say("tls", "yes", detail=self._sock.version() or "", began=began)

    # -- what is said -------------------------------------------------------------------------------------------------

    def _greeting(self, addresses: list[str]) -> bool:
        """PING before any login; whether one is wanted."""
        began = time.perf_counter()
        answer = self._ask("greeting", b"PING\r\n", addresses, began)
        if isinstance(answer, bytes):
            if self.place.tls is None and (_TLS_RECORD.match(answer) or self._speaks_tls(addresses)):
                self._end("greeting", "TLS", "the server speaks TLS, the URL does not", began)
            what = "closed the connection without a word" if not answer else "what answers there is no Redis"
            self._end("greeting", "CLOSED" if not answer else "GARBAGE", what, began)
        if answer.startswith("-NOAUTH"):
            self._say("greeting", "yes", "NOAUTH", "wants a login", began=began)
            return True
        if answer.startswith("-"):
            code, said = _error(answer)
            # A server that turns everybody away does so at the door; what it says of commands is heard behind it too.
            if code in ("MAXCLIENTS", "DENIED"):
                self._end("greeting", code, said, began)
            self._say("greeting", "yes", code, said, began=began)
            return False
        self._say("greeting", "yes", detail="answers without a login", began=began)
        return False

    def _auth(self, addresses: list[str], *, wants_login: bool) -> None:
        place = self.place
        if not place.password:
            if wants_login:
                self._end("auth", "NOAUTH", "the server wants a login and the URL has none", None)
            self._say("auth", "not needed")
            return
        login = (place.username, place.password) if place.username else (place.password,)
        began = time.perf_counter()
        answer = self._ask("auth", _packed("AUTH", *login), addresses, began)
        text = answer if isinstance(answer, str) else ""
        if not text.startswith("+"):
            code, said = _error(text)
            if "without any password configured" in said or "no password is set" in said:
                code = "NOPASSWORD"
            self._end("auth", code, said or "closed the connection", began)
        self._say("auth", "yes", began=began)
        self._raw(_packed("CLIENT", "SETNAME", self.name))

    def _command(self, step: str, command: tuple[str, ...], addresses: list[str]) -> str:
        began = time.perf_counter()
        answer = self._ask(step, _packed(*command), addresses, began)
        if isinstance(answer, bytes):
            self._end(step, "CLOSED", "closed the connection", began)
        if answer.startswith("-"):
            self._end(step, *_error(answer), began)
        self._say(step, "yes", began=began)
        return answer

    def _info(self, addresses: list[str]) -> dict[str, str]:
        began = time.perf_counter()
        answer = self._ask("info", _packed("INFO"), addresses, began)
        if isinstance(answer, bytes) or answer.startswith("-"):
            code, said = _error(answer if isinstance(answer, str) else "")
            self._say("info", "no", code, said or "closed the connection", began=began)
            return {}
        self._say("info", "yes", began=began)
        return dict(line.split(":", 1) for line in answer.splitlines() if ":" in line and not line.startswith("#"))

    def _write(self, info: Mapping[str, str]) -> None:
        """Whether a write would be taken, by the server's own figures and by ``ACL DRYRUN``; none is tried."""
        used, most = _number(info.get("used_memory")), _number(info.get("maxmemory"))
        if info.get("role") == "slave":
            self._say("write", "no", "READONLY", "it is a replica")
        elif used and most and used >= most and info.get("maxmemory_policy") == "noeviction":
            self._say("write", "no", "OOM", "its memory is used up and nothing may be evicted")
        elif (denied := self._dry_run(info)) is None:
            self._say("write", "cannot tell", detail="nothing is written to find out")
        elif denied:
            self._say("write", "no", "NOPERM", denied)
        else:
            self._say("write", "cannot tell", detail="the user may write; whether it works is not tried")

    def _dry_run(self, info: Mapping[str, str]) -> str | None:
        """Why our user may not write, empty when it may; ``None`` where the server cannot be asked (before 7.0)."""
        if _number(info.get("redis_version", "").split(".", 1)[0]) < 7:
            return None
        who = self._raw(_packed("ACL", "WHOAMI"))
        if not isinstance(who, str) or who.startswith("-"):
            return None
        said = self._raw(_packed("ACL", "DRYRUN", who.strip(), "SET", PROBE_KEY, "1"))
        if not isinstance(said, str) or said.startswith("-"):
            return None
        return "" if said.lstrip("+") == "OK" else said

    # -- conversation -------------------------------------------------------------------------------------------------

    def _ask(self, step: str, said: bytes, addresses: list[str], began: float) -> str | bytes:
        """The answer: text of a reply, or bytes that are none (none at all: closed). Silence ends the walk."""
        answer = self._raw(said)
        if answer is not None:
            return answer
        waits = step != "greeting" or self._answers_errors(addresses)
        late = self._reply(self.patience_seconds)
        if late is None:
            what = "commands wait, although errors are answered at once" if waits else "accepts, and says nothing"
            waited = self.answer_seconds + self.patience_seconds
            self._end(step, "PAUSED" if waits else "SILENT", f"{what}, for {waited:g} s", began)
        if isinstance(late, str):
            code = "PAUSED" if waits else "LATE"
            after = round(time.perf_counter() - began, 1)
            self._say("late", "yes", code, f"{step} was answered after {after:g} s", began=began)
        return late if late is not None else b""

    def _raw(self, said: bytes) -> str | bytes | None:
        """One exchange on this connection; ``None`` = silence."""
        assert self._sock is not None
        try:
            self._sock.settimeout(self.answer_seconds)
            self._sock.sendall(said)
        except OSError:
            # What was said before the connection broke may still lie there.
            pass
        return self._reply(self.answer_seconds)

    def _reply(self, seconds: float) -> str | bytes | None:
        assert self._sock is not None
        deadline = time.monotonic() + seconds
        while True:
            found = _parsed(self._rest)
            if found is not None:
                text, self._rest = found
                return text
            if self._rest and not _is_redis(self._rest):
                return self._rest
            if len(self._rest) > MAX_REPLY_BYTES:
                return self._rest
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                self._sock.settimeout(left)
                part = self._sock.recv(65_536)
            except TimeoutError:
                return None
            except OSError:
                return self._rest
            if not part:
                return self._rest
            self._rest += part

    def _answers_errors(self, addresses: list[str]) -> bool:
        """Whether a command that cannot be right is refused at once: then the server lives, and lets commands wait."""
        return _is_redis(self._first_bytes(addresses, b"ECHO\r\n"))

    def _first_bytes(self, addresses: list[str], said: bytes) -> bytes:
        """What a new connection hears first after saying that; nothing when it hears nothing in time."""
        try:
            with self._opened(addresses) as sock:
                sock.settimeout(self.answer_seconds)
                sock.sendall(said)
                return sock.recv(64)
        except OSError:
            return b""

    def _speaks_tls(self, addresses: list[str]) -> bool:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing).do_handshake()
        return _TLS_RECORD.match(self._first_bytes(addresses, outgoing.read())) is not None

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _say(self, step: str, answer: str, code: str = "", detail: str = "", *, began: float | None = None) -> None:
        self.rows.append(_row(step, answer, code, detail, began))

    def _end(self, step: str, code: str, detail: str, began: float | None) -> NoReturn:
        self.rows.append(_row(step, "no", code, detail, began))
        raise _Ended


def _row(step: str, answer: str, code: str = "", detail: str = "", began: float | None = None) -> Row:
    taken = None if began is None else round((time.perf_counter() - began) * 1000, 1)
    return {"step": step, "answer": answer, "code": code, "detail": detail[:300], "milliseconds": taken}


def _packed(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _is_redis(said: bytes) -> bool:
    return said[:1] in (b"+", b"-", b":", b"$", b"*") and said[:1] != b""


def _parsed(data: bytes) -> tuple[str, bytes] | None:
    """One simple, error or bulk reply as text and what is left; ``None`` while it is not whole, or is no such reply."""
    if data[:1] in (b"+", b"-", b":"):
        line, end, rest = data.partition(b"\r\n")
        return (line.decode("utf-8", "replace"), rest) if end else None
    if data[:1] == b"$":
        head, end, rest = data.partition(b"\r\n")
        if not end or not head[1:].isdigit() or len(rest) < int(head[1:]) + 2:
            return None
        size = int(head[1:])
        return rest[:size].decode("utf-8", "replace"), rest[size + 2 :]
    return None


def _error(answer: str) -> tuple[str, str]:
    """Code and text of an error reply."""
    said = answer.removeprefix("-").strip()
    if "max number of clients" in said:
        return "MAXCLIENTS", said
    first = said.split(" ", 1)[0]
    return (first if first.isupper() and first.isalpha() else "ERR"), said


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
