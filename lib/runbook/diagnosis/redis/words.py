"""What lines of an application's log say about its Redis: a text belongs to the first kind that fits.

Clients word the same error differently: ioredis and node-redis pass on what the server said, redis-py takes the first
word away. A code of the network alone (``ECONNREFUSED``) speaks of Redis only where the line names it.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal[
    "maxclients", "auth", "noperm", "oom", "misconf", "readonly", "loading", "busy", "noreplicas", "clusterdown",
    "moved", "protected", "tls", "refused", "dns", "timeout", "closed", "other",
]  # fmt: skip

_OWN: tuple[tuple[Kind, str], ...] = (
    ("maxclients", r"max number of clients reached"),
    ("auth", r"\bNOAUTH\b|\bWRONGPASS\b|invalid username-password pair|AUTH <password> called without|"
             r"Client sent AUTH, but no password|redis[^\n]{0,80}(?:Authentication required|invalid password)"),
    ("noperm", r"\bNOPERM\b|has no permissions to (?:run|access)|no permissions to access one of the keys|"
               r"NoPermissionError"),
    ("oom", r"OOM command not allowed|command not allowed when used memory|OutOfMemoryError: command"),
    ("misconf", r"\bMISCONF\b|unable to persist (?:to )?(?:on )?disk|configured to save RDB snapshots"),
    ("readonly", r"\bREADONLY\b|write against a read.?only replica|\bMASTERDOWN\b"),
    ("loading", r"\bLOADING Redis|is loading the dataset in memory"),
    ("busy", r"\bBUSY (?:Redis|Valkey)|is busy running a script|UNKILLABLE"),
    ("noreplicas", r"\bNOREPLICAS\b|Not enough good replicas"),
    ("clusterdown", r"\bCLUSTERDOWN\b|cluster is down"),
    ("moved", r"\bMOVED \d+ |\bCROSSSLOT\b|MovedError"),
    ("protected", r"running in protected mode"),
)  # fmt: skip
"""Words that only a Redis uses."""

_NAMED = re.compile(r"(?i)redis|valkey|\bbull(?:mq)?\b|:6379\b|\bcache\b")
_NETWORK: tuple[tuple[Kind, str], ...] = (
    ("tls", r"wrong version number|SSL_ERROR|\bERR_SSL|CERT_|[Cc]ertificate|SSLError|packet length too long"),
    ("refused", r"ECONNREFUSED|[Cc]onnection refused|Err(?:or|no) 111|Connect call failed"),
    ("dns", r"ENOTFOUND|EAI_AGAIN|getaddrinfo|Name or service not known|[Nn]ame resolution"),
    ("timeout", r"ETIMEDOUT|[Tt]imed? ?out|TimeoutError|EHOSTUNREACH|ENETUNREACH"),
    ("closed", r"MaxRetriesPerRequest|max retries|[Cc]onnection is closed|[Cc]onnection (?:reset|closed|lost)|"
               r"ECONNRESET|EPIPE|Broken pipe|[Ss]ocket closed|SocketClosed|[Rr]econnect|ClientClosed|"
               r"Stream isn't writeable|Connection aborted"),
    ("other", r"other error|ERROR|[Ee]rror:|FATAL|failed|without cache"),
)  # fmt: skip
_OWN_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _OWN)
_NETWORK_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _NETWORK)


def kind(text: str) -> Kind | None:
    """What a line says of Redis; ``None`` when it speaks of something else."""
    found = next((name for name, pattern in _OWN_PATTERNS if pattern.search(text)), None)
    if found is not None:
        return found
    if not _NAMED.search(text):
        return None
    return next((name for name, pattern in _NETWORK_PATTERNS if pattern.search(text)), None)
