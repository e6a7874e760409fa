"""A server's certificate as facts: whom it is for, who signed it, from when until when."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import datetime
from functools import cache
from typing import Any

from cryptography import x509

MAX_NAMES = 20


@cache
def unverifying() -> ssl.SSLContext:
    """Takes any certificate: to look at one that is not accepted, never to send anything secret."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def facts_of(der: bytes | None, host: str, now: datetime) -> dict[str, Any] | None:
    """``{names, issuer, self_signed, not_before, not_after, days_left, expired, not_yet_valid, names_host}``."""
    if not der:
        return None
    try:
        found = x509.load_der_x509_certificate(der)
        names = _names(found)
    except ValueError:
        return None
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return {
        "names": names[:MAX_NAMES],
        "issuer": _common_name(found.issuer),
        "self_signed": found.issuer == found.subject,
        "not_before": begins.isoformat(timespec="seconds"),
        "not_after": ends.isoformat(timespec="seconds"),
        "days_left": round((ends - now).total_seconds() / 86_400, 1),
        "expired": ends <= now,
        "not_yet_valid": begins > now,
        "names_host": any(_covers(name, host) for name in names),
    }


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*extension.get_values_for_type(x509.DNSName),
            *(str(address) for address in extension.get_values_for_type(x509.IPAddress))]  # fmt: skip


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _covers(name: str, host: str) -> bool:
    """Whether a name of a certificate is the host's; ``*.`` stands for one label."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        pass
    name, host = name.lower().rstrip("."), host.lower().rstrip(".")
    if not name.startswith("*."):
        return name == host
    first, _, rest = host.partition(".")
    return bool(first) and rest == name[2:]
