"""The way to a health endpoint, layer by layer: name, connection, TLS, HTTP, body; from outside, and at each instance.

One row a URL and look: how far it got, how long each layer took, where it failed first. What answers is only read: GET,
no redirect is followed, no credential but the one in the URL itself is sent. A certificate that is not accepted is read
once more without a check, for its dates, and the walk goes on behind it, so that a second fault is seen as well.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from runbook.connectors.base import Connector, Context, Failure, Fetched
from runbook.connectors.certificates import facts_of, unverifying
from runbook.connectors.health import Endpoint, endpoints
from runbook.connectors.http import connection_error
from runbook.connectors.reach import resolved, verifying
from runbook.connectors.walk_answer import shown, told
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.settings import App

Row = dict[str, Any]
Vantage = Literal["outside", "inside", "elsewhere"]
MAX_INSTANCES = 40
MAX_ADDRESSES = 4
MAX_BYTES = 262_144
GRACE_SECONDS = 0.5
"""How long a walk that is past its time is waited for before it is left behind."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One URL to walk to."""

    vantage: Vantage
    #: ``check``: what the checker asks; ``live``, ``ready``, ``health``: the others; ``public``: the same path where
    #: users come in; ``root``: the public address itself, of which nobody said that it is a health endpoint.
    endpoint: str
    url: str
    #: Host and port, as the settings name it.
    instance: str
    #: Nobody said that TLS is spoken there: an instance behind what ends the TLS seldom does.
    or_plain: bool = False

    @property
    def checked(self) -> bool:
        """Whether its certificate is looked at as a client does; a balancer does not, at the instances."""
        return self.vantage == "outside"


class Walk(Connector):
    """The endpoints of the application, from outside and inside."""

    source = "walk"
    failures = (OSError,)

    def __init__(self, context: Context, section: App) -> None:
        self._section = section
        super().__init__(context, "application")

    def look(self, url: str = "", instance: str = "", *, seconds: float) -> Reading:
        """Rows of ``walk``: every endpoint once, all at the same time, each within ``seconds``.

        Parameters
        ----------
        url
            What the checker asks; empty = ``app.ready_url``, else ``health_url``, else ``live_url``, else the public
            address itself.
        instance
            One to look at first, of a host that the settings know; empty = those of the settings.
        """
        stops = list(stops_of(self._section, url, instance))
        query = " · ".join(dict.fromkeys(f"GET {shown(stop.url)}" for stop in stops))[:500] or "GET"
        if not stops:
            reason = "app.ready_url is not set, nor health_url, live_url, public_url, instances, or the parameter url"
            return self.missing("walk", query, Failure(state="not_configured", reason=reason))
        return self.read("walk", query, lambda: self._walked(stops, seconds), limit_seconds=seconds + 2)

    def elsewhere(self, urls: Sequence[str], *, seconds: float) -> Reading:
        """Rows of ``walk_elsewhere``: the same question at addresses where the application was found to listen."""
        stops = [Stop(vantage="elsewhere", endpoint="check", url=url, instance=host_and_port(url)) for url in urls[:10]]
        query = " · ".join(f"GET {shown(url)}" for url in urls)[:500]
        return self.read("walk_elsewhere", query, lambda: self._walked(stops, seconds), limit_seconds=seconds + 2)

    def failure(self, error: Exception) -> Failure:
        code, reason = connection_error(error)
        return Failure(state="unreachable", reason=reason, code=code)

    def _walked(self, stops: Sequence[Stop], seconds: float) -> Fetched:
        return Fetched(value=all_walked(stops, seconds, self.context.now))


# -- what to walk to ------------------------------------------------------------------------------------------------


def stops_of(section: App, url: str = "", instance: str = "") -> Iterator[Stop]:
    """Where to look: outside the checked URL, the other endpoints and the public address; inside each instance."""
    kinds = {"ready": section.ready_url, "health": section.health_url, "live": section.live_url}
    checked = url or next((found for found in kinds.values() if found), "")
    outside: dict[str, Stop] = {}
    if checked:
        outside[checked] = Stop(vantage="outside", endpoint="check", url=checked, instance=host_and_port(checked))
    elif section.public_url:
        outside[""] = Stop(vantage="outside", endpoint="root", url=section.public_url,
                           instance=host_and_port(section.public_url))  # fmt: skip
    for kind, other in kinds.items():
        if other and other not in outside:
            outside[other] = Stop(vantage="outside", endpoint=kind, url=other, instance=host_and_port(other))
    if checked and (public := _at_public(checked, section.public_url)):
        outside[public] = Stop(vantage="outside", endpoint="public", url=public, instance=host_and_port(public))
    yield from outside.values()
    yield from _inside(section, checked, instance)


def _inside(section: App, checked: str, instance: str) -> Iterator[Stop]:
    own = [instance] if _is_ours(section, instance) else []
    instances = list(dict.fromkeys([*own, *section.instances]))[:MAX_INSTANCES]
    if not instances:
        return
    asked = {"check": checked} if checked else {}
    if section.live_url and section.live_url != checked:
        asked["live"] = section.live_url
    found: Iterable[Endpoint] = endpoints(asked, instances)
    for one in found:
        kind = one.kind if asked else "check"
        plain = one.url.startswith("https:") and not any(i.startswith("https:") for i in instances)
        yield Stop(vantage="inside", endpoint=kind, url=one.url, instance=one.instance, or_plain=plain)


def _is_ours(section: App, instance: str) -> bool:
    """Whether the settings know the host of an instance; one that they do not know may come from anybody's alert."""
    known = [section.ready_url, section.health_url, section.live_url, section.public_url, *section.instances]
    return "://" not in instance and _host(instance) in {_host(one) for one in known if one} - {""}


def _host(address: str) -> str:
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:
        return ""


def _at_public(checked: str, public: str) -> str:
    """The checked path at the public address, where that is another one."""
    try:
        there, here = urlsplit(public), urlsplit(checked)
        if not there.hostname or (there.hostname, there.port) == (here.hostname, here.port):
            return ""
    except ValueError:
        return ""
    return urlunsplit((there.scheme, there.netloc, here.path, here.query, ""))


def host_and_port(url: str) -> str:
    """Host and port of a URL, without a login; what is no URL as it is."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url
    except ValueError:
        return url


# -- walking --------------------------------------------------------------------------------------------------------


def all_walked(stops: Sequence[Stop], seconds: float, now: Callable[[], datetime]) -> list[Row]:
    """One row for each stop. One that does not come to its end in time is left behind where it stands."""
    rows = [_blank(stop) for stop in stops]
    walks = [
        threading.Thread(target=walked, args=(stop, row, seconds, now), name="walk", daemon=True)
        for stop, row in zip(stops, rows, strict=True)
    ]
    end = time.monotonic() + seconds + GRACE_SECONDS
    for walk in walks:
        walk.start()
    for walk in walks:
        walk.join(max(0.0, end - time.monotonic()))
    return [_told(_left_behind(dict(row), seconds) if walk.is_alive() else row)
            for walk, row in zip(walks, rows, strict=True)]  # fmt: skip


def _blank(stop: Stop) -> Row:
    return {
        "vantage": stop.vantage, "endpoint": stop.endpoint, "url": shown(stop.url), "instance": stop.instance,
        "layer": "", "code": "", "reason": "", "http_status": None, "status": "", "word": "", "checks": [],
        "dns": "", "address": None, "stale": [], "tcp": "", "tls": "", "dns_ms": None, "tcp_ms": None, "tls_ms": None,
        "first_byte_ms": None, "total_ms": None, "verify_code": None, "certificate": None, "location": None,
        "release": None, "uptime_seconds": None, "skew_seconds": None, "format": None,
    }  # fmt: skip


def _told(row: Row) -> Row:
    """A row without what it has nothing to say of."""
    return row | {name: row[name] or None for name in ("code", "reason", "tls", "word", "status")}


def _left_behind(row: Row, seconds: float) -> Row:
    layer = "dns" if not row["dns"] else "tcp" if not row["tcp"] else "http"
    return row | {"layer": layer, "code": "TIMEOUT", "reason": f"not done within {seconds:g} s"}


def walked(stop: Stop, row: Row, seconds: float, now: Callable[[], datetime]) -> None:
    """Fill ``row`` with how far a client gets; ``layer`` is the first that failed, empty when all is well."""
    began = time.monotonic()
    try:
        parts = urlsplit(stop.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        host, port, parts = "", 0, SplitResult("", "", "", "", "")
    if not host or parts.scheme not in ("http", "https"):
        row.update(layer="url", code="URL", reason="not a URL that can be asked")
        return
    deadline = began + seconds
    addresses, why = resolved(host, port, seconds)
    row["dns_ms"] = _since(began)
    if not addresses:
        row.update(dns="failed", layer="dns", code="DNS", reason=why)
        return
    row["dns"] = "ok"
    connection = _connected(addresses, port, deadline, row)
    if connection is None:
        return
    with connection:
        try:
            _over(connection, stop, parts, deadline, row, now, addresses)
        except ssl.SSLError as error:
            if stop.or_plain and not row["tls"] and not isinstance(error, ssl.SSLCertVerificationError | TimeoutError):
                plain = replace(stop, url="http" + stop.url.removeprefix("https"), or_plain=False)
                row.update(_blank(plain))
                walked(plain, row, max(0.01, deadline - time.monotonic()), now)
                return
            code, reason = connection_error(error)
            late = isinstance(error, TimeoutError)
            row.update(tls=row["tls"] or "failed", layer=row["layer"] or "tls", code="TIMEOUT" if late else code,
                       reason=reason)  # fmt: skip
        except TimeoutError:
            layer = "tls" if parts.scheme == "https" and not row["tls"] else "http"
            step = "TLS handshake" if layer == "tls" else "answer"
            row.update(layer=row["layer"] or layer, code="TIMEOUT", reason=f"no {step} within {seconds:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            layer = "tls" if parts.scheme == "https" and not row["tls"] else "http"
            code, reason = connection_error(error)
            row.update(layer=row["layer"] or layer, code=code or "HTTP", reason=reason or type(error).__name__)
            if layer == "tls":
                row["tls"] = "failed"
    row["total_ms"] = _since(began)


def _connected(addresses: Sequence[str], port: int, deadline: float, row: Row) -> socket.socket | None:
    """A connection to the first address that takes one; addresses before it that do not are ``stale``."""
    began = time.monotonic()
    tried = addresses[:MAX_ADDRESSES]
    for number, address in enumerate(tried):
        left = (deadline - time.monotonic()) / (len(tried) - number)
        row["address"] = address
        try:
            connection = socket.create_connection((address, port), timeout=max(0.01, left))
        except OSError as error:
            code = "TIMEOUT" if isinstance(error, TimeoutError) else connection_error(error)[0] or "CONNECTION"
            row["stale"].append({"address": address, "code": code})
            row.update(code=code, reason="no connection in time" if code == "TIMEOUT" else connection_error(error)[1])
            continue
        row.update(tcp="ok", tcp_ms=_since(began), code="", reason="")
        return connection
    first = row["stale"][0] if row["stale"] else {"code": "TIMEOUT"}
    row.update(tcp="failed", layer="tcp", tcp_ms=_since(began), address=first.get("address"), code=first["code"])
    return None


def _over(connection: socket.socket, stop: Stop, parts: SplitResult, deadline: float, row: Row,
          now: Callable[[], datetime], addresses: Sequence[str]) -> None:  # fmt: skip
    """TLS where the URL says so, then the question."""
    if parts.scheme == "http":
        _ask(connection, parts, deadline, row, now)
        return
    host = parts.hostname or ""
    began = time.monotonic()
    connection.settimeout(_left(deadline))
    try:
        secure = (verifying() if stop.checked else unverifying()).wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        code, reason = connection_error(error)
        row.update(tls="not accepted", tls_ms=_since(began), verify_code=error.verify_code, layer="tls", code=code,
                   reason=reason)  # fmt: skip
        with (
            socket.create_connection((row["address"], connection_port(parts)), timeout=_left(deadline)) as plain,
            unverifying().wrap_socket(plain, server_hostname=host) as anyway,
        ):
            row["certificate"] = facts_of(anyway.getpeercert(binary_form=True), host, now())
            _ask(anyway, parts, deadline, row, now)
        return
    with secure:
        row.update(tls="ok", tls_ms=_since(began), verify_code=0 if stop.checked else None)
        row["certificate"] = facts_of(secure.getpeercert(binary_form=True), host, now())
        _ask(secure, parts, deadline, row, now)


def connection_port(parts: SplitResult) -> int:
    """The port of a URL, its scheme's own where it names none."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def _ask(connection: socket.socket, parts: SplitResult, deadline: float, row: Row,
         now: Callable[[], datetime]) -> None:  # fmt: skip
    """GET, and what the answer says. A layer that failed before stays the first."""
    began = time.monotonic()
    client = http.client.HTTPConnection(parts.hostname or "", timeout=_left(deadline))
    client.sock = connection
    connection.settimeout(_left(deadline))
    client.putrequest("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), skip_host=True,
                      skip_accept_encoding=True)  # fmt: skip
    for name, value in _headers(parts).items():
        client.putheader(name, value)
    client.endheaders()
    response = client.getresponse()
    row.update(http_status=response.status, first_byte_ms=_since(began))
    body = bytearray()
    while len(body) < MAX_BYTES and (part := response.read1(16_384)):
        body += part
        connection.settimeout(_left(deadline))
    found = told(response, bytes(body), now())
    kept = ("layer", "code", "reason") if row["layer"] else ()
    row.update({name: value for name, value in found.items() if name not in kept})


def _headers(parts: SplitResult) -> Mapping[str, str]:
    login, at, host = parts.netloc.rpartition("@")
    headers = {"Host": host, "User-Agent": "runbook", "Connection": "close",
               "Accept": "application/health+json, application/json, */*"}  # fmt: skip
    if at:
        user, _, password = login.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
