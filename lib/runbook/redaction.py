"""Secrets and personal data out of everything that leaves.

Three layers: secrets that we know (every configured one, and environment variables named like one) are replaced
wherever they occur; what has the shape of a secret is replaced by pattern; literals in SQL texts are normalised away,
since they carry people's data. It happens before anyone sees a reading, the diagnosis included.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

REDACTED = "[redacted]"
WITHHELD = "[withheld]"

MIN_SECRET_LENGTH = 6
"""A shorter known secret is left to the patterns: replacing it everywhere would only destroy the text."""

_COMMON_WORDS = frozenset(
    {
        "postgres",
        "postgresql",
        "password",
        "secret",
        "runbook",
        "monitor",
        "public",
        "default",
        "localhost",
        "pgbouncer",
    }
)

_SECRET_NAME = re.compile(
    r"(?i)(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|private[_-]?key|credential|auth"
    r"|cookie|session[_-]?id|signature|dsn|webhook|routing[_-]?key)"
)
_ENV_NAME = re.compile(
    r"(?i)(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL|DSN|WEBHOOK|_AUTH\b)"
)

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        REDACTED,
    ),
    # scheme://user:password@host, the password only
    (re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"<>]*):[^\s@'\"<>]+@"), rf"\g<keep>:{REDACTED}@"),
    (re.compile(r"(?i)(?P<keep>https?://[^/\s]*/api/(?:v\d+/)?webhooks/\d+/)[\w-]+"), rf"\g<keep>{REDACTED}"),
    (re.compile(r"(?i)(?P<keep>hooks\.slack\.com/services/)[\w/]+"), rf"\g<keep>{REDACTED}"),
    (re.compile(r"(?i)(?P<keep>\b(?:bearer|basic|token|genie\s?key)\s+)[\w.~+/=-]{8,}"), rf"\g<keep>{REDACTED}"),
    (
        re.compile(
            r"(?i)(?P<keep>[\"']?\b[\w-]*(?:password|passwd|pwd|passphrase|secret|api[_-]?key|apikey|access[_-]?key|"
            r"private[_-]?key|auth[_-]?token|access[_-]?token|refresh[_-]?token|client[_-]?secret|x-amz-signature|"
            r"x-amz-credential|(?<![\w-])token|sslpassword)[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|(?!\[redacted\])[^\s,;&\"'}]+)"
        ),
        rf"\g<keep>{REDACTED}",
    ),
    (
        re.compile(
            r"\b(?:sk|rk|pk|whsec)_(?:live|test)?_?[A-Za-z0-9]{12,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
            r"|\bglpat-[\w-]{16,}|\bxox[abeoprs]-[\w-]{10,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
            r"|\bsntrys_[\w=+/-]{20,}|\bsntryu_[0-9a-f]{40,}|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[\w-]{30,}"
            r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
        ),
        REDACTED,
    ),
)

_SQL_START = re.compile(
    r"(?is)\A\s*(?:/\*.*?\*/\s*|--[^\n]*\n\s*)*(?:select|insert|update|delete|merge|with|values|call|execute|prepare|copy"
    r"|declare|fetch|do|set|alter|create|drop|grant|revoke|lock|truncate|comment|explain|begin|start|commit|rollback"
    r"|savepoint|release|vacuum|analyze|refresh|listen|notify|table)\b"
)
_SQL_TOKEN = re.compile(
    r"""
      (?P<comment>/\*.*?(?:\*/|\Z)|--[^\n]*)
    | (?P<identifier>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>\$\$.*?(?:\$\$|\Z)|\$(?P<tag>[A-Za-z_][A-Za-z0-9_]*)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<string>(?:\b(?:[uU]&|[bBxXnN]))?'(?:[^']|'')*(?:'|\Z))
    | (?P<placeholder>\$\d+)
    | (?P<word>[A-Za-z_\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*)
    | (?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\w*)
    | (?P<space>\s+)
    """,
    re.VERBOSE | re.DOTALL,
)


def looks_like_sql(text: str) -> bool:
    """Whether a text begins as an SQL statement does."""
    return _SQL_START.match(text) is not None


def normalise_query(text: str) -> str:
    """An SQL text without its literals and comments, white space folded.

    A text that the server cut short (``track_activity_query_size``) may end within a literal: that literal is
    dropped to the end. Runs of placeholders (``IN (?, ?, ?)``) fold into one, as pg_stat_statements folds them.
    """

    def replace(match: re.Match[str]) -> str:
        kind = match.lastgroup
        if kind in ("identifier", "placeholder", "word"):
            return match.group()
        return " " if kind in ("comment", "space") else "?"

    normal = _SQL_TOKEN.sub(replace, text)
    normal = re.sub(r"\?(?:\s*,\s*\?)+", "?", normal)
    return re.sub(r"\s+", " ", normal).strip()


def is_secret_name(name: str) -> bool:
    """Whether a label, header or key of that name is likely to carry a secret."""
    return _SECRET_NAME.search(name) is not None


def environment_secrets(environ: Mapping[str, str]) -> list[str]:
    """Values of environment variables that are named like secrets."""
    return [value for name, value in environ.items() if value and _ENV_NAME.search(name)]


def _expanded(secret: str) -> Iterable[str]:
    """A secret, what is secret inside it (a DSN's password, a webhook's token), each in its usual encodings."""
    parts = [secret]
    harmless = set(_COMMON_WORDS)
    if "://" in secret:
        try:
            url = urlsplit(secret)
            user, password, host = url.username or "", url.password or "", url.hostname or ""
        except ValueError:
            user = password = host = ""
            url = urlsplit("")
        harmless |= {user.lower(), host.lower(), url.path.strip("/").lower()}
        parts += [password, unquote(password)]
        parts += [p for p in url.path.split("/") if len(p) >= 24]
    elif "=" in secret:
        pairs = dict(re.findall(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)", secret))
        harmless |= {pairs.get(key, "").strip("'").lower() for key in ("user", "dbname", "host")}
        parts.append(re.sub(r"\\(.)", r"\1", pairs.get("password", "").strip("'")))
    for part in parts:
        if len(part) >= MIN_SECRET_LENGTH and part.lower() not in harmless:
            yield from (part, quote(part, safe=""), json.dumps(part)[1:-1], html.escape(part))


class Redactor:
    """Takes secrets out of texts and JSON values; keeps no state but the secrets that it knows.

    Parameters
    ----------
    secrets
        Secrets in clear: configured DSNs, tokens, URLs. A DSN's password is known from it.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {variant for secret in secrets for variant in _expanded(secret)}
        self._secrets = frozenset(known)
        longest_first = sorted(known, key=lambda s: (-len(s), s))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def with_secrets(self, secrets: Iterable[str]) -> Redactor:
        """A redactor that knows these as well."""
        return Redactor([*self._secrets, *secrets])

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value without secrets: strings anywhere in it, and whatever stands under a secret's name."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                (self.text(key) if isinstance(key, str) else key): (
                    REDACTED
                    if isinstance(key, str) and isinstance(item, str) and item and _is_secret_key(key)
                    else self.value(item)
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row of a result: SQL texts normalised, then secrets out."""
        return {key: self._cell(value) for key, value in row.items()}

    def _cell(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(normalise_query(value) if looks_like_sql(value) else value)
        if isinstance(value, list):
            return [self._cell(item) for item in value]
        return self.value(value)


_SECRET_KEY = re.compile(
    r"(?i)\A(?:.*[_-])?(?:password|passwd|pwd|passphrase|secret|token|api[_-]?key|apikey|access[_-]?key|private[_-]?key"
    r"|credentials?|authorization|cookie|dsn|routing[_-]?key|webhook[_-]?url)\Z"
)


def _is_secret_key(key: str) -> bool:
    return _SECRET_KEY.match(key) is not None


KEPT_LABELS = frozenset(
    {
        "alertname", "severity", "priority", "service", "app", "application", "component", "team", "owner", "env",
        "environment", "stage", "region", "zone", "cluster", "namespace", "pod", "container", "deployment", "job",
        "instance", "node", "host", "hostname", "mount", "mountpoint", "device", "fstype", "database", "datname", "db",
        "server", "queue", "endpoint", "route", "method", "status", "code", "release", "version", "state", "role",
        "runbook", "runbook_url", "runbookUrl", "source", "monitor", "prometheus", "url",
    }
)  # fmt: skip
"""Labels whose values are kept; they name things. The value of any other label is withheld unless it is asked for."""


def kept_labels(labels: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """Labels as they may be shown: values of well-known names and of those in ``also``, the others withheld.

    Anybody who can write an alerting rule can put anything in a label; a name that nobody asked for is not worth
    the risk of printing a secret.
    """
    wanted = KEPT_LABELS | set(also)
    return {name: value if name in wanted and not _is_secret_key(name) else WITHHELD for name, value in labels.items()}


def secrets_in_labels(labels: Mapping[str, str], *, also: Iterable[str] = ()) -> list[str]:
    """Withheld values that look like secrets (a secret's name, or a long mix of letters and digits)."""
    shown = kept_labels(labels, also=also)
    return [
        value
        for name, value in labels.items()
        if shown[name] == WITHHELD
        and (is_secret_name(name) or (len(value) >= 8 and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)))
    ]
