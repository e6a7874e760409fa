"""What codes and error texts of storage, workers and providers mean. A text belongs to the first kind that fits.

Nothing here decides anything: a kind is where a text points, and the rules ask for more than that.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal[
    "disk", "memory", "stalled", "skew", "expired", "credential", "denied", "bucket", "throttle", "size", "quota",
    "input", "database", "storage_down", "provider", "other",
]  # fmt: skip

CREDENTIAL_CODES = frozenset(
    {
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
        "TokenRefreshRequired", "Unauthorized", "InvalidSecurity", "InvalidClientTokenId", "AuthFailure", "401",
        "UnrecognizedClientException", "NotSignedUp", "NoCredentials", "AccountProblem",
    }
)  # fmt: skip
DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden", "403"})
SKEW_CODES = frozenset({"RequestTimeTooSkewed"})
BUCKET_CODES = frozenset(
    {
        "NoSuchBucket", "404", "301", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
        "InvalidBucketName", "IllegalLocationConstraintException", "IncorrectEndpoint", "InvalidRegion",
    }
)  # fmt: skip
THROTTLE_CODES = frozenset({"SlowDown", "503", "ServiceUnavailable", "Throttling", "ThrottlingException",
                            "RequestLimitExceeded", "TooManyRequests", "429"})  # fmt: skip
CONNECT_PREFIX = "connect:"

INPUT_CODES = re.compile(
    r"(?i)ERR_(?:NON_VIDEO|MALFORMED_VIDEO|DURATION_\w+|FETCH_ORIGIN_ERROR)|invalid_input|unsupported|malformed|"
    r"not (?:a|an) (?:valid )?(?:video|media)|corrupt|no (?:video|media) (?:track|stream)"
)
"""Errors of a provider that speak of the file that it was given, not of the provider."""

_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))  # type: ignore[misc]
    for kind, pattern in (
        ("disk", r"\bENOSPC\b|no space left|disk quota exceeded|\bEDQUOT\b"),
        ("memory", r"\b(?:exit(?:ed)?|code|status)\b[^.;\n]{0,30}\b137\b|\bSIGKILL\b|out of memory|heap limit|"
                   r"\boom[ _-]?kill|\bENOMEM\b|cannot allocate memory"),
        ("stalled", r"stalled more than (?:the )?allowable"),
        ("skew", r"RequestTimeTooSkewed"),
        ("expired", r"request has expired|\b(?:presigned |signed |upload )?url (?:has |is )?expired|ExpiredRequest"),
        ("credential", r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidClientTokenId|InvalidToken\b"),
        ("denied", r"AccessDenied|access denied|not authorized to perform|\bKMS\.\w+Exception"),
        ("bucket", r"NoSuchBucket|PermanentRedirect|AuthorizationHeaderMalformed|bucket does not exist"),
        ("throttle", r"\bSlowDown\b|reduce your request rate"),
        ("size", r"payload ?too ?large|entity ?too ?large|file (?:is )?too (?:large|big)|"
                 r"body exceeded|maxFileSize|\b413\b"),
        ("quota", r"quota|payment required|\b402\b|storage (?:capacity|limit|minutes)|billing|plan limit|"
                  r"free plan"),
        ("input", INPUT_CODES.pattern + r"|invalid data found when processing|moov atom not found"),
        ("database", r"\b(?:25006|53100|53300|57P0[123]|28P01|40P01|42703|42P01|23\d{3})\b|\bP(?:10\d\d|20\d\d)\b|"
                     r"prisma|postgres|psycopg|read-only transaction|"
                     r"\b(?:update|write|insert|save)[^.;\n]{0,30}\b(?:row|record|content|database)\b|"
                     r"\brow\b[^\n]{0,60}\bnot (?:written|updated|saved)"),
        ("storage_down", r"(?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|certificate)[^\n]{0,120}"
                         r"(?:s3|r2\.|bucket|storage|minio|amazonaws)|EndpointConnectionError|"
                         r"could not connect to the endpoint"),
        ("provider", r"\b5\d\d\b|bad gateway|service unavailable|gateway time-?out|internal server error|"
                     r"\btime[d]?[ -]?out\b|ETIMEDOUT|ECONNRESET|ECONNREFUSED|socket hang up|unavailable"),
    )
)  # fmt: skip


def kind(text: str) -> Kind:
    """Where an error text points."""
    return next((name for name, pattern in _KINDS if pattern.search(text)), "other")


def code_kind(code: str, http_status: int | None = None) -> Kind:
    """Where a code of the object storage points."""
    if code.startswith(CONNECT_PREFIX):
        return "storage_down"
    for name, codes in _CODES:
        if code in codes:
            return name
    if code.startswith("KMS."):
        return "denied"
    by_status: dict[int | None, Kind] = {401: "credential", 403: "denied", 404: "bucket", 301: "bucket",
                                         307: "bucket", 429: "throttle", 503: "throttle"}  # fmt: skip
    return by_status.get(http_status, "other")


_CODES: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("skew", SKEW_CODES),
    ("credential", CREDENTIAL_CODES),
    ("bucket", BUCKET_CODES),
    ("throttle", THROTTLE_CODES),
    ("denied", DENIED_CODES),
)
