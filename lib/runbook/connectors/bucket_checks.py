"""The ordered diagnosis of one bucket: what these credentials may do with it, and how it is set up.

Each check answers *yes*, *no* or *cannot tell*: a check that is itself denied tells nothing, and *there is none* is an
answer although S3 calls it an error. Nothing is written but the canary, where that is allowed; what it wrote is taken
away again, and a canary left behind is said loudly.
"""

from __future__ import annotations

import fnmatch
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from runbook.connectors import aws_session

Answer = Literal["yes", "no", "cannot tell"]

STEPS = (
    "identity", "head", "location", "list", "public_access", "policy_status", "cors", "lifecycle", "encryption",
    "multipart", "canary_put", "canary_head", "canary_delete",
)  # fmt: skip
"""The checks in the order in which they are shown; the question of each stands at its function."""
NOT_IN_R2 = ("identity", "public_access", "policy_status")
"""What R2 does not implement, and is not asked. Source: Cloudflare's table of S3 compatibility."""
CANARY_FOLDER = ".runbook-canary"
CANARY_BODY = b"ok"
AT_ONCE = 4

ABSENT: Mapping[str, tuple[Answer, str]] = {
    "NoSuchPublicAccessBlockConfiguration": ("no", "nothing blocks public access"),
    "NoSuchBucketPolicy": ("yes", "there is no bucket policy"),
    "NoSuchCORSConfiguration": ("no", "there are no CORS rules: no browser can upload"),
    "NoSuchLifecycleConfiguration": ("no", "there are no lifecycle rules"),
    "ServerSideEncryptionConfigurationNotFoundError": ("no", "no default encryption"),
}
"""*There is none* is an error to S3 and an answer to us."""
WRONG_PLACE = frozenset(
    {"NoSuchBucket", "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName", "301",
     "IllegalLocationConstraintException", "AllAccessDisabled"}
)  # fmt: skip
"""Codes that say that the bucket is not there, not here, or not in this region, whatever was asked."""

NEVER_SENT = ("connect:ECONNREFUSED", "connect:DNS", "connect:TLS", "NoCredentials")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one check found."""

    answer: Answer
    detail: str = ""
    code: str = ""
    http_status: int | None = None

    def row(self, step: str, duration_ms: float | None) -> dict[str, Any]:
        return {
            "step": step,
            "answer": self.answer,
            "code": self.code,
            "http_status": self.http_status,
            "detail": self.detail,
            "duration_ms": duration_ms,
        }


@dataclass(frozen=True, kw_only=True)
class BucketChecks:
    """The checks of one bucket with one credential."""

    #: An S3 client, and an STS client where the service is Amazon's.
    client: Any
    identities: Any | None
    #: Whether it is R2, which lacks some calls.
    r2: bool
    bucket: str
    #: Without slashes at its ends.
    prefix: str
    #: Where the settings say that the bucket is; empty when they do not, or when regions mean nothing there.
    region: str
    #: Where a browser would upload from; empty when it is not known.
    origin: str
    #: Whether the canary may be written.
    canary: bool

    def run(self) -> list[dict[str, Any]]:
        """One row a check, in the order of :data:`STEPS`. Nothing more is asked when the first does not get through."""
        head = self._asked("head", self._head)
        if head["code"].startswith("connect:"):
            return [head if step == "head" else _unasked(step, "not asked: no connection") for step in STEPS]
        reads = {
            "identity": self._identity, "location": self._location, "list": self._list,
            "public_access": self._public_access, "policy_status": self._policy_status, "cors": self._cors,
            "lifecycle": self._lifecycle, "encryption": self._encryption, "multipart": self._multipart,
        }  # fmt: skip
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket") as pool:
            canary = pool.submit(self._canary)
            rows = list(pool.map(lambda step: self._asked(step, reads[step]), reads))
            by_step = {row["step"]: row for row in [head, *rows, *canary.result()]}
        return [by_step[step] for step in STEPS]

    def _asked(self, step: str, check: Callable[[], Found]) -> dict[str, Any]:
        if self.r2 and step in NOT_IN_R2:
            return _unasked(step, "R2 does not implement this call", code="NotImplemented")
        began = time.perf_counter()
        found = _answered(step, check)
        return found.row(step, round((time.perf_counter() - began) * 1000, 1))

    # -- one check each -----------------------------------------------------------------------------------------------

    def _identity(self) -> Found:
        """Does the credential belong to somebody?"""
        if self.identities is None:
            return Found(answer="cannot tell", detail="not asked: only Amazon's storage has such a service")
        return Found(
            answer="yes", detail=aws_session.part(aws_session.asked(self.identities.get_caller_identity), "Arn")
        )

    def _head(self) -> Found:
        """Is the bucket there, and where the settings say? An answer of 403 tells nothing, it has no body."""
        answer = self.client.head_bucket(Bucket=self.bucket)
        return self._in_region(answer.get("BucketRegion") or "")

    def _location(self) -> Found:
        """Which region is the bucket in, and is that the one of the settings?"""
        constraint = self.client.get_bucket_location(Bucket=self.bucket).get("LocationConstraint")
        return self._in_region("eu-west-1" if constraint == "EU" else constraint or "us-east-1")

    def _in_region(self, found: str) -> Found:
        # The SDK follows the redirect of a wrong region; the application's may not.
        if self.region and found and found != self.region:
            return Found(answer="no", code="301", detail=f"the bucket is in {found}, s3.region says {self.region}")
        return Found(answer="yes", detail=f"region {found}" if found else "")

    def _list(self) -> Found:
        """May objects be listed?"""
        answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        return Found(answer="yes", detail="objects are there" if answer.get("KeyCount") else "no object is there")

    def _public_access(self) -> Found:
        """Is public access blocked in all four ways?"""
        block = aws_session.part(
            self.client.get_public_access_block(Bucket=self.bucket), "PublicAccessBlockConfiguration"
        )
        off = sorted(name for name, on in block.items() if not on)
        return Found(answer="no" if off else "yes", detail=f"off: {', '.join(off)}" if off else "")

    def _policy_status(self) -> Found:
        """Does the bucket policy keep it from the public?"""
        public = aws_session.part(self.client.get_bucket_policy_status(Bucket=self.bucket), "PolicyStatus").get(
            "IsPublic"
        )
        return Found(answer="no" if public else "yes", detail="the bucket policy makes it public" if public else "")

    def _cors(self) -> Found:
        """Do the CORS rules let a page of the origin PUT or POST? Without an origin: is there any rule for that?"""
        rules = self.client.get_bucket_cors(Bucket=self.bucket).get("CORSRules", ())
        letting = any(_lets(rule, self.origin) for rule in rules)
        shown = "; ".join(f"{'/'.join(r['AllowedMethods'])} from {', '.join(r['AllowedOrigins'])}" for r in rules)
        return Found(answer="yes" if letting else "no", detail=shown)

    def _lifecycle(self) -> Found:
        """Are there lifecycle rules? The detail says whether one takes unfinished uploads away."""
        rules = self.client.get_bucket_lifecycle_configuration(Bucket=self.bucket).get("Rules", ())
        days = [rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation") for rule in rules
                if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule]  # fmt: skip
        cleaning = f"unfinished uploads are aborted after {days[0]} d" if days else "no rule aborts unfinished uploads"
        return Found(answer="yes" if rules else "no", detail=f"{len(rules)} rules, {cleaning}")

    def _encryption(self) -> Found:
        """Is there a default encryption? The detail names its key, which may be what denies a PUT."""
        answer = self.client.get_bucket_encryption(Bucket=self.bucket)
        rules = aws_session.part(answer, "ServerSideEncryptionConfiguration").get("Rules", ())
        used = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
        shown = [" ".join(filter(None, (one.get("SSEAlgorithm"), one.get("KMSMasterKeyID")))) for one in used]
        return Found(answer="yes" if used else "no", detail=", ".join(shown))

    def _multipart(self) -> Found:
        """May unfinished uploads be listed?"""
        answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        count = len(answer.get("Uploads", ()))
        return Found(answer="yes", detail=f"{'more than ' if answer.get('IsTruncated') else ''}{count} unfinished")

    # -- the canary ---------------------------------------------------------------------------------------------------

    def _canary(self) -> list[dict[str, Any]]:
        """May an object be written, seen and deleted? Two bytes under a name of their own."""
        if not self.canary:
            return [_unasked(step, "not asked: s3.canary is not set") for step in STEPS[-3:]]
        key = "/".join(filter(None, (self.prefix, CANARY_FOLDER, str(uuid.uuid4()))))
        versions: list[str] = []
        rows: dict[str, dict[str, Any]] = {}
        try:
            rows["canary_put"] = self._asked("canary_put", lambda: self._put(key, versions))
            if not _nothing_written(rows):
                rows["canary_head"] = self._asked("canary_head", lambda: self._seen(key, versions))
        finally:
            if not _nothing_written(rows):
                rows["canary_delete"] = self._asked("canary_delete", lambda: self._delete(key, versions))
        delete = rows.get("canary_delete", {})
        if delete.get("answer") == "no":
            left = "LEFT BEHIND" if rows["canary_put"]["answer"] == "yes" else "PERHAPS LEFT BEHIND"
            delete["detail"] = f"{left} in {self.bucket}, delete it by hand: {key} ({delete['detail']})"
        return [rows.get(step) or _unasked(step, "not asked: nothing was written") for step in STEPS[-3:]]

    def _put(self, key: str, versions: list[str]) -> Found:
        """May an object be written?"""
        answer = self.client.put_object(Bucket=self.bucket, Key=key, Body=CANARY_BODY, ContentType="text/plain")
        versions += filter(None, [answer.get("VersionId")])
        return Found(answer="yes", detail=f"{len(CANARY_BODY)} bytes as {key}")

    def _seen(self, key: str, versions: list[str]) -> Found:
        """Is what was written there?"""
        answer = self.client.head_object(Bucket=self.bucket, Key=key)
        versions += [] if versions else filter(None, [answer.get("VersionId")])
        return Found(answer="yes" if answer.get("ContentLength") == len(CANARY_BODY) else "no")

    def _delete(self, key: str, versions: list[str]) -> Found:
        """Is it gone again? With its version, or a versioned bucket would keep it under a delete marker."""
        version = {"VersionId": versions[0]} if versions else {}
        self.client.delete_object(Bucket=self.bucket, Key=key, **version)
        return Found(answer="yes", http_status=204)


def _nothing_written(rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the canary certainly left nothing: its PUT was refused, or was left in doubt and no object is there."""
    put, head = rows.get("canary_put"), rows.get("canary_head")
    if put is None or put["answer"] == "yes":
        return False
    refused = 400 <= (put["http_status"] or 0) < 500 or put["code"] in NEVER_SENT
    return refused or (head is not None and head["http_status"] == 404)


def _answered(step: str, check: Callable[[], Found]) -> Found:
    try:
        found = check()
    except aws_session.errors() as error:
        code, status, said = aws_session.code_and_status(error)
        if code in ABSENT:
            answer, said = ABSENT[code]
        else:
            answer = _meaning(step, code, status)
        return Found(answer=answer, detail=said, code=code, http_status=status)
    return found if found.http_status or found.answer == "cannot tell" else replace(found, http_status=200)


def _meaning(step: str, code: str, status: int | None) -> Answer:
    """What an error says of the question of ``step``: *no*, or nothing.

    A bad credential, a wrong clock, a bucket that is not there are a *no* to everything. To be refused is a *no* where
    that was the question (the canary), and tells nothing elsewhere: the application may need no such permission. HEAD
    says neither why 403 nor why 400.
    """
    if code in aws_session.BAD_CREDENTIAL | aws_session.CLOCK | WRONG_PLACE | {"NoCredentials"}:
        return "no"
    if code in aws_session.NOT_THERE:
        return "cannot tell"
    if step in STEPS[-3:]:
        return "no"
    failing = code.startswith("connect:") or code in aws_session.THROTTLED or (status or 0) >= 500
    return "no" if (failing and step in ("head", "list")) or (step, code) == ("head", "404") else "cannot tell"


def _unasked(step: str, why: str, *, code: str = "") -> dict[str, Any]:
    return Found(answer="cannot tell", detail=why, code=code).row(step, None)


def _lets(rule: Mapping[str, Any], origin: str) -> bool:
    """Whether a CORS rule lets a page of ``origin`` upload; one star may stand for anything in a rule's origin."""
    if not {"PUT", "POST"} & set(rule.get("AllowedMethods", ())):
        return False
    patterns = [pattern.replace("[", "[[]").replace("?", "[?]") for pattern in rule.get("AllowedOrigins", ())]
    return not origin or any(fnmatch.fnmatchcase(origin, pattern) for pattern in patterns)
