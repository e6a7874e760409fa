"""What every AWS client here shares: whose credentials, which time limits, and what an error means.

A credential of the settings is used alone: nothing of the machine's own AWS configuration is read beside it. Only where
none is configured does the usual chain of the SDK decide (environment, profile, container or instance role). Nothing
here changes anything.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from xml.etree.ElementTree import ParseError

from runbook.connectors.base import Failure
from runbook.connectors.http import Malformed, connection_error
from runbook.result import ReadingState

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
METADATA_SECONDS = 1
"""How long an instance's metadata service may take to hand out its role, where it is asked at all."""

BAD_CREDENTIAL = frozenset(
    {
        "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
        "InvalidSignatureException", "IncompleteSignature", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
        "TokenRefreshRequired", "AuthFailure", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
        "Unauthorized", "RequestExpired",
    }
)  # fmt: skip
"""Codes that speak of the credential itself, whatever was asked for with it."""
CLOCK = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "NotAuthorized", "403"}
)
THROTTLED = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException",
     "RequestThrottled", "BandwidthLimitExceeded", "429"}
)  # fmt: skip
NOT_THERE = frozenset({"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "XNotImplemented", "501", "405"})

_CREATING = threading.Lock()


def client(
    service: str,
    *,
    region: str,
    endpoint_url: str = "",
    access_key_id: str = "",
    secret_access_key: str = "",
    attempts: int = 2,
    path_style: bool = False,
) -> Any:
    """A client of one service.

    Parameters
    ----------
    access_key_id, secret_access_key
        Both or neither; neither means the SDK's own chain.
    attempts
        How often a request is sent at most, the first time included.
    path_style
        The bucket's name in the path and not in the host's name, as other servers than Amazon's want it.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    named = bool(access_key_id)
    nowhere = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None),
               "credentials_file": (None, None, os.devnull, None)}  # fmt: skip
    short = {"metadata_service_timeout": (None, None, METADATA_SECONDS, int),
             "metadata_service_num_attempts": (None, None, 1, int)}  # fmt: skip
    # Making clients is not thread-safe in botocore, using them is.
    with _CREATING:
        below = botocore.session.Session(session_vars=nowhere | short if named else short)
        below.register_component("data_loader", _service_models())
        session = boto3.session.Session(
            aws_access_key_id=access_key_id or None,
            aws_secret_access_key=secret_access_key or None,
            region_name=region,
            botocore_session=below,
        )
        return session.client(
            service,
            endpoint_url=endpoint_url or None,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": attempts, "mode": "standard"},
                signature_version="s3v4" if service == "s3" else None,
                s3={"addressing_style": "path" if path_style else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                ignore_configured_endpoint_urls=named,
                user_agent_extra="runbook",
            ),
        )


@cache
def _service_models() -> Any:
    """The descriptions of the services, which take long to read, once for this process."""
    from botocore.loaders import Loader

    return Loader()


def errors() -> tuple[type[Exception], ...]:
    """What the SDK raises when the system, and not we, are at fault."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.parsers import ResponseParserError

    return (BotoCoreError, ClientError, HTTPClientError, ResponseParserError, ParseError, Malformed, OSError)


def part(answer: Mapping[str, Any], name: str) -> Any:
    """What an answer carries under ``name``; :class:`~runbook.connectors.http.Malformed` where that is missing."""
    if not answer.get(name):
        raise Malformed(f"no {name} in it")
    return answer[name]


def asked(operation: Callable[..., Mapping[str, Any]], **arguments: Any) -> Mapping[str, Any]:
    """The answer to an operation of an XML service; the SDK's parser has a ``KeyError`` for XML of another form."""
    try:
        return operation(**arguments)
    except KeyError as error:
        raise Malformed(f"no {error} in it") from None


def code_and_status(error: Exception) -> tuple[str, int | None, str]:
    """Code, HTTP status and message of an error; for one without an answer the code is ``connect:…``, no status.

    ``connect:ECONNREFUSED``, ``connect:DNS``, ``connect:TLS``, ``connect:TIMEOUT`` (no connection, or no answer over
    it), ``connect:ECONNRESET`` …; ``NoCredentials`` without one at hand, ``Malformed`` for what is no answer of AWS.
    """
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    if isinstance(error, exceptions.ClientError):
        said = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return str(said.get("Code") or status or "Unknown"), status, str(said.get("Message") or "")
    if isinstance(error, exceptions.ConnectTimeoutError):
        return "connect:TIMEOUT", None, f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, exceptions.ReadTimeoutError):
        return "connect:TIMEOUT", None, f"connected, and no answer within {READ_SECONDS:g} s"
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | OSError):
        code, reason = connection_error(error)
        return f"connect:{'TLS' if code.startswith('TLS') else code or 'BROKEN'}", None, reason
    if isinstance(error, ResponseParserError | ParseError | Malformed):
        return "Malformed", None, "the answer is not of the documented form"
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "NoCredentials", None, str(error)
    return type(error).__name__, None, str(error)


def failure(error: Exception) -> Failure:
    """The state of a reading that failed with ``error``."""
    code, status, said = code_and_status(error)
    reason = f"{code}: {said}" if said else code
    return Failure(state=_state(code, status), reason=reason, code=code.removeprefix("connect:"))


def _state(code: str, status: int | None) -> ReadingState:
    if code == "connect:TIMEOUT":
        return "timeout"
    if code in BAD_CREDENTIAL or code in CLOCK or code == "NoCredentials" or status == 401:
        return "auth_failed"
    if code in DENIED or code.startswith("AccessDenied") or status == 403:
        return "permission_denied"
    if code in THROTTLED or re.match(r"Throttl", code) or status == 429:
        return "rate_limited"
    if code.startswith("connect:") or (status is not None and status >= 500):
        return "unreachable"
    return "partial"
