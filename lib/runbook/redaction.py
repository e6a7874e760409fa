"""Secrets and personal data out of everything that leaves.

Three layers: secrets that we know (every configured one, and environment variables named like one) are replaced
wherever they occur; what has the shape of a secret is replaced by pattern; literals in SQL texts are normalised away,
since they carry people's data. It happens before anyone sees a reading, the diagnosis included.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

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
    r"(?i)(?:(?<![a-z])pass(?![a-z])|passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|apikey|access[_-]?key"
    r"|private[_-]?key|credential|auth(?!or(?!iz))"
    r"|cookie|session[_-]?id|signature|dsn|webhook|routing[_-]?key)"
)
_ENV_NAME = re.compile(
    r"(?i)(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL|DSN|WEBHOOK|_AUTH\b)"
)

_QUOTED = r"""
      (?P<open>"{3}).*?(?:"{3}|\Z)
    | (?P<escaped>\\+["']).*?(?:(?P=escaped)|\Z)
    | (?P<double>")(?:[^"\\]|\\.|\\\Z)*(?:"|\Z)
    | (?P<single>')(?:[^'\\]|\\.|\\\Z|'')*(?:'|\Z)
"""
_PAIR = re.compile(
    rf"""
    (?P<keep>
      (?:password|passwd|pwd|passphrase|secret(?:[_-]?key(?:[_-]?base)?)?|api[_-]?key|access[_-]?key(?:[_-]?id)?
        |private[_-]?key|(?<![a-z0-9])token|x-amz-(?:signature|credential|security-token))
      (?:\\*["'])?[ \t]*(?:=>|={{1,2}}|:=?|%3d)[ \t]*
    )
    (?:{_QUOTED}
    | (?!(?:\$\d+|\?|%s|%\(\w{{1,63}}\)s|null|none|true|false)(?![^\s,;)}}\]]))   # a placeholder is no secret
      (?:[^\s&"<>\\'({{]|\\(?!["']))(?:[^\s&"<>\\]|\\(?!["']))*
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_SQL_PASSWORD = re.compile(r"(?i)(?P<keep>\bpassword\s{1,9}e?')(?:[^'\\]|\\.|\\\Z|'')*(?P<end>'|\Z)", re.DOTALL)
_URL = re.compile(r"://(?P<rest>[^\s'\"<>]*)")
_PORT = re.compile(r"\d{1,5}(?:[/?#,]|\Z)")

# Each is matched in time linear in the text: no repetition can begin anew within what another start has scanned.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
            re.DOTALL,
        ),
        REDACTED,
    ),
    (re.compile(r"(?i)(?P<keep>/api/(?:v\d+/)?webhooks/\d+/)[\w-]+"), rf"\g<keep>{REDACTED}"),
    (re.compile(r"(?i)(?P<keep>hooks\.slack\.com/services/)[\w/]+"), rf"\g<keep>{REDACTED}"),
    (
        re.compile(
            r"(?i)(?P<keep>\b(?:(?:proxy-)?authorization|(?:set-)?cookie)\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?"
            r"(?:(?:bearer|basic|digest|token|negotiate|geniekey)[ \t]+)?)[^\s\"'\\][^\r\n\"'\\]*"
        ),
        rf"\g<keep>{REDACTED}",
    ),
    (
        # Prose says "token expired": a credential has a digit, a sign or a capital inside.
        re.compile(
            r"(?i)(?P<keep>\b(?:bearer|basic|token|genie\s?key)[ \t]+)(?=[\w.~+/=-]*(?:[\d+=]|(?-i:[a-z][A-Z])))"
            r"[\w.~+/=-]{8,}"
        ),
        rf"\g<keep>{REDACTED}",
    ),
    (
        re.compile(
            r"(?<![\w-])(?:(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{12,}|sk-(?=[\w-]*\d)[\w-]{20,}"
            r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}\b|AIza[\w-]{30,}|sntrys_[\w=+/-]{20,}|sntryu_[0-9a-f]{40,}|npm_[A-Za-z0-9]{30,}"
            r"|pypi-[\w-]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}|shp(?:at|ss|ca)_[0-9a-f]{32}|dop_v1_[0-9a-f]{40,}"
            r"|hf_[A-Za-z0-9]{30,}|ya29\.[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
            r"|SCRAM-SHA-256\$\d+:[\w+/=]+\$[\w+/=]+:[\w+/=]+|md5[0-9a-f]{32}\b)"
        ),
        REDACTED,
    ),
)

_SUSPECT = re.compile(
    r"://|pass|pwd|secret|token|key|x-amz|-----begin|whsec_|webhooks/|hooks\.slack|authorization|cookie|bearer|basic|[srp]k_|sk-"
    r"|gh[pousr]_|github_pat|glpat|xox|akia|asia|aiza|sntry|npm_|pypi-|sg\.|shp(?:at|ss|ca)_|dop_v1|hf_|ya29|eyj|scram|md5"
)
"""Something of this, in lower case, is in every text that a pattern can match; most texts have nothing of it."""

_SQL_START = re.compile(
    r"(?is)\A(?>[\s(]+|--[^\n]*\n)*+(?:/\*|(?:select|insert|update|delete|merge|with|values|call|execute|prepare|copy"
    r"|declare|fetch|do|set|alter|create|drop|grant|revoke|lock|truncate|comment|explain|begin|start|commit|rollback"
    # What follows the word tells a statement from an application that is called fetch-worker-2.
    r"|savepoint|release|vacuum|analyze|refresh|listen|notify|table)(?=[\s(*;\"'$]|/\*|--|\Z))"
)
_SQL_TOKEN = re.compile(
    r"""
      (?P<comment>/\*|--[^\n]*)
    | (?P<identifier>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>\$\$.*?(?:\$\$|\Z)|\$(?P<tag>[A-Za-z_][A-Za-z0-9_]*)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|\\\Z|'')*(?:'|\Z))
    | (?P<string>(?:\b(?:[uU]&|[bBxXnN]))?'(?:[^']|'')*(?:'|\Z))
    | (?P<placeholder>\$\d+)
    | (?P<word>[A-Za-z_\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*)
    | (?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\w*)
    | (?P<space>[ \t\r\n\f\v]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def looks_like_sql(text: str) -> bool:
    """Whether a text begins as an SQL statement does."""
    return _SQL_START.match(text) is not None


def normalise_query(text: str) -> str:
    """An SQL text without its literals and comments, white space folded.

    A text that the server cut short (``track_activity_query_size``) may end within a literal or comment: that is
    dropped to the end. Runs of placeholders (``IN (?, ?, ?)``) fold into one, as pg_stat_statements folds them.
    """
    parts: list[str] = []
    at = 0
    while token := _SQL_TOKEN.search(text, at):
        parts.append(text[at : token.start()])
        at = token.end()
        if token.lastgroup in ("identifier", "placeholder", "word"):
            parts.append(token.group())
        elif token.lastgroup in ("comment", "space"):
            parts.append(" ")
            at = _comment_end(text, at) if token.group() == "/*" else at
        else:
            parts.append("?")
    normal = re.sub(r"\?(?: *, *\?)+", "?", re.sub(r"[ \t\r\n\f\v]+", " ", "".join([*parts, text[at:]])))
    return normal.strip(" ")


def _comment_end(text: str, at: int) -> int:
    """Where the comment ends whose beginning ends at ``at``; in PostgreSQL comments nest."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, at):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def is_secret_name(name: str) -> bool:
    """Whether a label, header or key of that name is likely to carry a secret."""
    return _SECRET_NAME.search(name) is not None


def environment_secrets(environ: Mapping[str, str]) -> list[str]:
    """Values of environment variables that are named like secrets."""
    return [value for name, value in environ.items() if value and _ENV_NAME.search(name)]


def _expanded(secret: str) -> Iterable[str]:
    """A secret, what is secret inside it (a DSN's password, a webhook's token), each in its usual encodings."""
    inner, plain_words = _url_parts(secret) if "://" in secret else _pair_parts(secret) if "=" in secret else ([], [])
    harmless = _COMMON_WORDS | {word.lower() for word in plain_words}
    for part in (secret, *inner, *map(unquote, inner)):
        if len(part) >= MIN_SECRET_LENGTH and part.lower() not in harmless and part not in REDACTED:
            encoded = quote(part.encode("utf-8", "surrogateescape"), safe="")
            lowered = re.sub(r"%[0-9A-F]{2}", lambda code: code.group().lower(), encoded)
            yield from (part, encoded, lowered, json.dumps(part)[1:-1], html.escape(part))


def _url_parts(url: str) -> tuple[list[str], list[str]]:
    """What is secret in a URL, and the names in it that are not. An unusable URL is taken apart all the same."""
    rest, _, query = url.partition("://")[2].partition("?")
    login, _, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    hosts, _, path = place.partition("/")
    options = parse_qsl(query)
    inner = [password or user, *(value for key, value in options if _is_secret_key(key) or key == "sslpassword")]
    inner += [part for part in path.split("/") if len(part) >= 24]
    names = [user if password else "", path, *(host.partition(":")[0] for host in hosts.split(","))]
    return inner, [*names, *(value for key, value in options if key in ("user", "dbname", "host"))]


def _pair_parts(conninfo: str) -> tuple[list[str], list[str]]:
    """The same of a connection string of the form ``key=value``."""
    pairs = {
        key: re.sub(r"\\(.)", r"\1", value[1:-1] if value[:1] == "'" else value)
        for key, value in re.findall(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)", conninfo)
    }
    return [pairs.get("password", ""), pairs.get("sslpassword", "")], [
        pairs.get(key, "") for key in ("user", "dbname", "host")
    ]


def by_pattern(text: str) -> str:
    """``text`` without what has the shape of a secret."""
    text = _SQL_PASSWORD.sub(rf"\g<keep>{REDACTED}\g<end>", _PAIR.sub(_hidden_pair, text))
    text = _URL.sub(_hidden_login, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class Redactor:
    """Takes secrets out of texts and JSON values; keeps no state but the secrets that it knows.

    Parameters
    ----------
    secrets
        Secrets in clear: configured DSNs, tokens, URLs. A DSN's password is known from it.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {variant for secret in secrets for variant in _expanded(secret)}
        self._known = tuple(sorted(known, key=lambda s: (-len(s), s)))  # the longest first: it may contain others

    def with_secrets(self, secrets: Iterable[str]) -> Redactor:
        """A redactor that knows these as well."""
        return Redactor([*self._known, *secrets])

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        text = self._without_known(text)
        return by_pattern(text) if _SUSPECT.search(text.casefold()) else text

    def _without_known(self, text: str) -> str:
        present = [secret for secret in self._known if secret in text]
        return re.sub("|".join(map(re.escape, present)), REDACTED, text) if present else text

    def value(self, value: Any) -> Any:
        """A JSON value without secrets: strings anywhere in it, and whatever stands under a secret's name."""
        return self._walked(value, self.text)

    def row(self, row: Mapping[str, Any], *, statements: Collection[str] | None = None) -> dict[str, Any]:
        """One row of a result: SQL texts normalised, then secrets out.

        Parameters
        ----------
        statements
            Columns that may hold SQL; ``None`` = any. Elsewhere ``release/2.4.0`` is a name and no statement.
        """
        walked: dict[str, Any] = {}
        for column, value in row.items():
            may_be_sql = statements is None or column in statements
            walked |= self._walked({column: value}, self._cell if may_be_sql else self.text)
        return walked

    def _walked(self, value: Any, clean: Callable[[str], str]) -> Any:
        if isinstance(value, str):
            return clean(value)
        if isinstance(value, Mapping):
            return {
                (self.text(key) if isinstance(key, str) else key): (
                    REDACTED if _hides(key, item) else self._walked(item, clean)
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._walked(item, clean) for item in value]
        return value

    def _cell(self, text: str) -> str:
        # What is known goes first: normalising could break it in two.
        text = self._without_known(text)
        return self.text(normalise_query(text) if looks_like_sql(text) else text)


def _hidden_pair(match: re.Match[str]) -> str:
    quote_ = match["open"] or match["escaped"] or match["double"] or match["single"] or ""
    return f"{match['keep']}{quote_}{REDACTED}{quote_}"


def _hidden_login(match: re.Match[str]) -> str:
    """``scheme://user:password@host`` without the password; a URL may hold several (``a://…,b://…``)."""
    return "://" + "://".join(map(_without_login, match["rest"].split("://")))


def _without_login(part: str) -> str:
    user, colon, rest = part.partition(":")
    if not colon or set("/?#@[") & set(user) or _PORT.match(rest):
        return part
    end = len(re.split(r"[/?#]", rest, maxsplit=1)[0])
    at = rest.rfind("@", 0, end)
    at = at if at >= 0 else rest.find("@")  # a slash in a password is not legal, and there all the same
    return f"{user}:{REDACTED}{rest[at:]}" if at > 0 else part


def _hides(key: Any, item: Any) -> bool:
    """Whether ``item`` is a secret for what it is called."""
    return (
        isinstance(key, str)
        and isinstance(item, str | int | float)
        and bool(item)
        and item is not True
        and _is_secret_key(key)
    )


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
