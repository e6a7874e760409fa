"""The bucket that uploads go to, on S3 or R2: an ordered diagnosis, its clock, its unfinished uploads, its CORS answer.

Each check ends in *yes*, *no* or *cannot tell*; a check that is itself denied tells nothing. All of it reads, but for
the canary, which only runs where the settings allow it: reading succeeds under a policy that denies nothing but PUT, so
only a PUT can tell. What the canary wrote it takes away again, and says so loudly when it could not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from runbook.connectors import aws_session
from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.connectors.bucket_checks import CANARY_FOLDER, STEPS, BucketChecks
from runbook.connectors.http import connection_error
from runbook.result import Reading
from runbook.settings import S3

LIMIT_SECONDS = 40.0
"""For all checks; each has its own, shorter limit."""
PLAIN_LIMIT_SECONDS = 10.0
MAX_UPLOADS = 1000

MAX_TEXT_BYTES = 4096
"""Of an answer to a request without a credential no more is read: enough for what an error says."""

_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")


@dataclass(frozen=True, kw_only=True)
class Plain:
    """An answer to a request without a credential."""

    status: int
    headers: httpx.Headers
    #: How its body begins.
    text: str


class ObjectStorage(Connector):
    """One bucket with one credential.

    Parameters
    ----------
    origin
        Scheme, host and port of the page that uploads from the browser; empty when it is not configured.
    """

    source = "object_storage"

    def __init__(self, context: Context, section: S3, origin: str = "") -> None:
        self.failures = (*aws_session.errors(), httpx.HTTPError)
        self._section = section
        self._origin = origin
        self._prefix = section.prefix.strip("/")
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        host = urlsplit(section.endpoint_url).netloc.rpartition("@")[2] or f"s3 {section.region}".rstrip()
        super().__init__(context, f"{host}/{section.bucket}")

    def failure(self, error: Exception) -> Failure:
        if isinstance(error, httpx.TimeoutException):
            return Failure(state="timeout", reason="no answer in time", code="TIMEOUT")
        if isinstance(error, httpx.HTTPError):
            code, reason = connection_error(error)
            return Failure(state="unreachable", reason=reason, code=code)
        return aws_session.failure(error)

    # -- readings -----------------------------------------------------------------------------------------------------

    def checks(self) -> Reading:
        """``bucket_checks``: one row a check, in the order of :data:`STEPS`.

        ``{step, answer, code, http_status, detail, duration_ms}``. The code is the service's own; ``connect:DNS`` and
        the like where no answer came at all, and then nothing more is asked.
        """
        return self._ask("bucket_checks", f"{', '.join(STEPS)} of {self._section.bucket}", self._checks, LIMIT_SECONDS)

    def multipart(self) -> Reading:
        """``multipart_uploads``: uploads begun and neither completed nor aborted, the oldest first."""
        query = f"ListMultipartUploads prefix={self._prefix}"
        return self._ask("multipart_uploads", query, self._multipart, LIMIT_SECONDS / 2)

    def clock(self) -> Reading:
        """``storage_clock``: the service's clock less ours in seconds, to the second, from the header ``Date``."""
        return self._ask("storage_clock", "HEAD, header Date", self._clock, PLAIN_LIMIT_SECONDS)

    def preflight(self) -> Reading:
        """``cors_preflight``: what a browser at the origin is told before a PUT, and before a POST where there is one.

        A form's POST is sent without asking first, so a refused POST alone breaks no upload. ``allowed`` is ``None``
        where the answer speaks of something else than CORS.
        """
        if not self._origin:
            reason = "app.public_url is not set"
            return self.missing("cors_preflight", "OPTIONS", Failure(state="not_configured", reason=reason))
        return self._ask("cors_preflight", f"OPTIONS, Origin: {self._origin}", self._preflight, PLAIN_LIMIT_SECONDS)

    def _ask(self, name: str, query: str, fetch: Callable[[], Fetched], limit_seconds: float) -> Reading:
        lacking = self._lacking()
        if lacking:
            return self.missing(name, query, Failure(state="not_configured", reason=f"{lacking} is not set"))
        return self.read(name, query, fetch, limit_seconds=limit_seconds)

    def _lacking(self) -> str:
        """The setting without which nothing can be asked; with neither key Amazon's own chain is asked for one."""
        section = self._section
        if not section.bucket:
            return "s3.bucket"
        if section.flavour == "r2" and not section.endpoint_url:
            return "s3.endpoint_url"
        elsewhere = bool(section.endpoint_url) or section.flavour == "r2"
        if not section.access_key_id and (elsewhere or section.secret_access_key is not None):
            return "s3.access_key_id"
        if section.access_key_id and section.secret_access_key is None:
            return "s3.secret_access_key"
        return ""

    def _client(self, service: str = "s3") -> Any:
        section = self._section
        with self._lock:
            if service not in self._clients:
                secret = section.secret_access_key
                self._clients[service] = aws_session.client(
                    service,
                    region=section.region or ("auto" if section.flavour == "r2" else "us-east-1"),
                    endpoint_url=section.endpoint_url,
                    access_key_id=section.access_key_id,
                    secret_access_key=secret.get_secret_value() if secret is not None else "",
                    attempts=1,  # a throttled or failing answer is what is looked for, not to be hidden by a retry
                    path_style=bool(section.endpoint_url),
                )
            return self._clients[service]

    # -- how they are taken -------------------------------------------------------------------------------------------

    def _checks(self) -> Fetched:
        section = self._section
        amazon = section.flavour == "aws" and not section.endpoint_url
        checks = BucketChecks(
            client=self._client(),
            # Another server's S3 address knows no STS: what it answered there would say nothing of the key.
            identities=self._client("sts") if amazon else None,
            r2=section.flavour == "r2",
            bucket=section.bucket,
            prefix=self._prefix,
            region=section.region if amazon else "",
            origin=self._origin,
            canary=section.canary,
        )
        return Fetched(value=checks.run())

    def _multipart(self) -> Fetched:
        now = self.context.now()
        pages = self._client().get_paginator("list_multipart_uploads")
        found: list[Mapping[str, Any]] = []
        for page in pages.paginate(Bucket=self._section.bucket, Prefix=self._prefix):
            found += page.get("Uploads", ())
            if len(found) >= MAX_UPLOADS:
                break
        rows = [_unfinished(upload, now) for upload in found]
        rows.sort(key=lambda row: -(row["age_seconds"] or 0))
        more = f"there are more than {MAX_UPLOADS}" if len(rows) >= MAX_UPLOADS else ""
        return Fetched(value=rows[:MAX_UPLOADS], partial=more)

    def _url(self, operation: str, **parameters: str) -> str:
        """Where a request of the SDK would go: path-style or not, in the right region; without the signature."""
        signed = self._client().generate_presigned_url(
            operation, Params={"Bucket": self._section.bucket, **parameters}, ExpiresIn=60
        )
        return str(signed).partition("?")[0]

    def _clock(self) -> Fetched:
        before = self.context.now()
        answer = self._plain("HEAD", self._url("head_bucket"))
        after = self.context.now()
        try:
            theirs = parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            raise Unavailable(Failure(state="partial", reason="the answer carries no date")) from None
        # It is cut to the second, and was read off somewhere between our two times.
        skew = (theirs - before).total_seconds() + 0.5 - (after - before).total_seconds() / 2
        return Fetched(value={"skew_seconds": round(skew), "at": after.isoformat(timespec="seconds")})

    def _preflight(self) -> Fetched:
        folder = f"{self._prefix}/" if self._prefix else ""
        url = self._url("put_object", Key=f"{folder}{CANARY_FOLDER}/preflight")
        methods = ("PUT",) if self._section.flavour == "r2" else ("PUT", "POST")
        return Fetched(value=[self._asked_before(method, url) for method in methods])

    def _asked_before(self, method: str, url: str) -> dict[str, Any]:
        headers = {
            "Origin": self._origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type",
        }
        answer = self._plain("OPTIONS", url, headers)
        origin = answer.headers.get("access-control-allow-origin")
        methods = answer.headers.get("access-control-allow-methods")
        allowed, reason = _allowed(answer, self._origin, method, origin, methods)
        return {
            "origin": self._origin,
            "method": method,
            "http_status": answer.status,
            "allowed": allowed,
            "allow_origin": origin,
            "allow_methods": methods,
            "reason": reason,
        }

    @staticmethod
    def _plain(method: str, url: str, headers: Mapping[str, str] | None = None) -> Plain:
        """A request without any credential, as a browser's preflight is one."""
        timeout = httpx.Timeout(aws_session.READ_SECONDS, connect=aws_session.CONNECT_SECONDS)
        with httpx.stream(method, url, headers=headers, timeout=timeout, follow_redirects=False) as answer:
            begin = next(answer.iter_bytes(MAX_TEXT_BYTES), b"")
            return Plain(status=answer.status_code, headers=answer.headers, text=begin.decode("utf-8", "replace"))


def _unfinished(upload: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    begun = upload.get("Initiated")
    return {
        "key_suffix": str(upload.get("Key") or "").rpartition("/")[2],
        "upload_id": upload.get("UploadId"),
        "initiated": begun.astimezone(UTC).isoformat(timespec="seconds") if begun else None,
        "age_seconds": round((now - begun).total_seconds()) if begun else None,
    }


def _allowed(
    answer: Plain, wanted: str, method: str, origin: str | None, methods: str | None
) -> tuple[bool | None, str]:
    """Whether a browser would go on to send its request, and what speaks against it."""
    status = answer.status
    if status in (403, 405):
        return False, f"answered {status}" + (f": {said[1]}" if (said := _MESSAGE.search(answer.text)) else "")
    if not 200 <= status < 300:
        return None, f"answered {status}, which says nothing of CORS"
    if origin not in ("*", wanted):
        return False, "another origin is allowed" if origin else "no origin is allowed"
    # GET, HEAD and POST need not be named.
    named = {name.strip() for name in (methods or "").upper().split(",")}
    if method != "POST" and not named & {method, "*"}:
        return False, f"{method} is not among the allowed methods"
    return True, ""
