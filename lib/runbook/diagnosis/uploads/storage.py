"""Causes at the bucket: permission, credentials, clock, address, browser rules, throttling, reach (V01–V05, V16, V18).

Only a write proves that one can write: HEAD and LIST answer well under a policy that denies PUT alone.
"""

from __future__ import annotations

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.uploads.bucket import CHECKS, WRITE, Bucket, codes
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.verdict import Cause
from runbook.diagnosis.words import Kind
from runbook.result import DECISIVE, WEAK, Evidence

WRITES = (*CHECKS, "app_errors", "queue_failed")
NO_CANARY = "no test upload was made (s3.canary is off), and reading proves nothing about writing"


def _applies(facts: Facts) -> bool:
    return facts.bucket.configured or facts.asked("app_errors")


def _tried(facts: Facts) -> bool:
    """Whether writing was tried: by our test upload, or by uploads that came through with none bad."""
    through = facts.content.bad == 0 and (facts.content.finished or 0) >= facts.limits.min_uploads
    return facts.bucket.writes is not None or through


def _refused(facts: Facts, kind: Kind) -> int | None:
    """Refusals of this kind that our checks, the log and the jobs saw; ``None`` when writing was not tried."""
    seen = len(facts.bucket.refusals(kind)) + (facts.said(kind) or 0)
    return seen if seen or _tried(facts) else None


def _why(facts: Facts) -> str:
    return NO_CANARY if facts.bucket.rows is not None and facts.bucket.writes is None else ""


def _details(facts: Facts, *kinds: Kind) -> dict[str, object]:
    rows = facts.bucket.refusals(*kinds)
    first = rows[0] if rows else {}
    return {
        "codes": codes(rows),
        "steps": [row.get("step") for row in rows],
        "http_status": first.get("http_status"),
        "bucket": facts.bucket.name or None,
        "logged": facts.said(*kinds),
    }


def _found(details: dict[str, object], seen: int | None) -> dict[str, object]:
    return {key: value for key, value in details.items() if value not in (None, [])} if seen else {}


def denied(facts: Facts) -> Cause:
    """V01: bucket policy, IAM or KMS denies the write.

    Gate: our test upload, the application's log or a failed job met a refusal for want of permission. Clause: the key
    was known and the bucket there, so that it is a permission and nothing else. Source: R3, V01.
    """
    bench, bucket = Bench("V01", facts.readings), facts.bucket
    # A HEAD is refused without a body: 403 there may as well be the key.
    at_write = [row for row in bucket.refusals("denied") if row.get("step") == WRITE]
    seen: int | None = len(at_write) + (facts.said("denied") or 0)
    if not seen and not _tried(facts):
        seen = None
    key_known = bucket.reads or any(row.get("code") not in ("403", "Forbidden") for row in at_write)
    return Cause(
        id="V01",
        name="bucket, IAM or KMS denies the upload",
        applicable=_applies(facts),
        gate=bench.gate("denied", "writes refused with AccessDenied (test upload, log, jobs)", seen, at_least=1,
                        rests_on=WRITES, reason=_why(facts)),
        clauses=(
            bench.fact("key_known", "the key is known and the bucket is there",
                       None if bucket.rows is None else (key_known and not bucket.refusals("credential", "bucket")),
                       value=", ".join(codes(at_write)) or None, rests_on=CHECKS),
        ),
        share=facts.share_at_bucket() if seen else 0.0,
        details=_found(_details(facts, "denied") | {"reads": bucket.reads}, seen),
    )  # fmt: skip


def credentials(facts: Facts) -> Cause:
    """V02: the key is unknown, wrong, revoked or expired.

    Gate: a code that says so (R2: 401 Unauthorized). Clause: nothing that needs the key works. Source: R3, V02.
    """
    return _by_code(
        facts, "V02", "storage key invalid or expired", "requests refused for their key", "credential",
        "nothing that needs the key works",
    )  # fmt: skip


def address(facts: Facts) -> Cause:
    """V04: the bucket, the region or the endpoint is another one.

    Gate: NoSuchBucket, a redirect to another region, AuthorizationHeaderMalformed, a HEAD answered 404. Clause: nothing
    in this bucket works. Source: R3, V04.
    """
    return _by_code(
        facts, "V04", "wrong bucket, region or endpoint", "requests answered that the bucket is not there", "bucket",
        "nothing in this bucket works",
    )  # fmt: skip


def _by_code(facts: Facts, cause: str, name: str, label: str, kind: Kind, nothing: str) -> Cause:
    bench, bucket = Bench(cause, facts.readings), facts.bucket
    seen = _refused(facts, kind)
    if seen is None and (bucket.reads or bucket.write_denied or bucket.connect_error):
        seen = 0
    works = bucket.reads if bucket.rows is not None else None
    return Cause(
        id=cause,
        name=name,
        applicable=_applies(facts),
        gate=bench.gate("code", label, seen, at_least=1, rests_on=WRITES, reason=_why(facts)),
        clauses=(
            bench.fact("nothing", nothing, None if works is None else not works, rests_on=CHECKS),
        ),
        share=facts.share_at_bucket() if seen else 0.0,
        details=_found(_details(facts, kind), seen),
    )  # fmt: skip


def skew(facts: Facts) -> Cause:
    """V03: a clock is off by more than the quarter of an hour that signatures allow.

    Gate: RequestTimeTooSkewed, or the storage's Date header that far from our clock. Clause: a request was refused for
    it. The clock measured is this host's; the application's may be the wrong one. Source: R3, V03.
    """
    bench, bucket, limits = Bench("V03", facts.readings), facts.bucket, facts.limits
    refused = len(bucket.refusals("skew")) + (facts.said("skew") or 0)
    off = abs(bucket.skew_seconds) if bucket.skew_seconds is not None else None
    far = None if off is None else off >= limits.skew_seconds
    gate = True if refused or far else far
    if gate is None and _refused(facts, "skew") is not None:
        gate = False
    hint = bench.fact("failing", "uploads fail", facts.bad >= limits.min_bad or None, rests_on=("content_overview",),
                      weight=WEAK)  # fmt: skip
    return Cause(
        id="V03",
        name="clock skew",
        applicable=_applies(facts),
        gate=bench.fact("skew", f"clocks {limits.skew_seconds:g} s apart, or RequestTimeTooSkewed", gate, value=off,
                        unit="s" if off is not None else "", rests_on=("storage_clock", *CHECKS), otherwise="refutes"),
        clauses=(
            bench.weigh("refused", "requests refused with RequestTimeTooSkewed",
                        refused if bucket.rows is not None or refused else None, at_least=1, rests_on=WRITES),
        ),
        hints=(hint,) if hint.reading == "supports" else (),
        share=facts.share_at_bucket() if gate else 0.0,
        details={"skew_seconds": bucket.skew_seconds, "refused": refused} if gate else {},
    )  # fmt: skip


def cors(facts: Facts) -> Cause:
    """V05: the bucket refuses the browser, not the server.

    Gate: a preflight from the application's origin is refused. Clause: the server's own test upload works. A bucket
    that only servers write to has no CORS rules by design, so uploads must be missing without a trace. Source: R3, V05.
    """
    bench, bucket = Bench("V05", facts.readings), facts.bucket
    reading, row = facts.readings.last("cors_preflight"), facts.bucket.preflight or {}
    allowed = bucket.preflight_allowed
    refused = None if allowed is None else not allowed
    return Cause(
        id="V05",
        name="CORS refuses the browser",
        applicable=reading is not None and reading.state != "not_configured",
        gate=bench.fact("preflight", "preflight from the application's origin refused", refused,
                        value=row.get("http_status"), rests_on=("cors_preflight",), otherwise="refutes",
                        reason=str(row.get("reason") or "")),
        clauses=(
            bench.fact("server", "the server's own upload works", bucket.writes, rests_on=CHECKS, reason=_why(facts)),
        ),
        share=facts.share_on_the_way() if refused else 0.0,
        details={"origin": row.get("origin"), "method": row.get("method"), "http_status": row.get("http_status"),
                 "allow_origin": row.get("allow_origin")} if refused else {},
    )  # fmt: skip


def throttled(facts: Facts) -> Cause:
    """V16: the storage throttles us (503 SlowDown).

    Gate: SlowDown in our checks, the log or failed jobs. Clause: more than once, or our own write met it.
    Source: R3, V16.
    """
    bench, bucket = Bench("V16", facts.readings), facts.bucket
    seen = _refused(facts, "throttle")
    if seen is None and facts.said("throttle") is not None:
        seen = 0
    return Cause(
        id="V16",
        name="object storage throttles",
        applicable=_applies(facts),
        gate=bench.gate("slow_down", "requests answered SlowDown", seen, at_least=1, rests_on=WRITES,
                        reason=_why(facts)),
        clauses=(
            bench.fact("again", "again and again, or our own write too",
                       bool(seen and (seen >= facts.limits.min_bad or bucket.writes is False)), rests_on=WRITES),
        ),
        share=facts.share_at_bucket() if seen else 0.0,
        details=_found(_details(facts, "throttle"), seen),
    )  # fmt: skip


def unreachable(facts: Facts) -> Cause:
    """V18: the storage's endpoint does not answer at all: name, certificate, connection.

    Gate: a connect error before any HTTP status; any code, a refusal too, excludes it. Source: R3, V18.
    """
    bench, bucket = Bench("V18", facts.readings), facts.bucket
    error = bucket.connect_error
    answered = any(isinstance(row.get("http_status"), int) for row in bucket.rows or [])
    logged = facts.said("storage_down") or 0
    gate = True if error or (logged and not bucket.reads) else False if answered or bucket.reads else None
    if gate is None and _tried(facts):
        gate = False
    return Cause(
        id="V18",
        name="storage endpoint unreachable",
        applicable=_applies(facts),
        gate=bench.fact("connect", "no connection to the storage", gate, value=error or None, rests_on=WRITES,
                        otherwise="refutes", weight=DECISIVE),
        hints=_vendor_hint(facts, bench),
        share=facts.share_at_bucket() if gate else 0.0,
        details={"code": error, "detail": _detail(bucket), "logged": logged} if gate else {},
    )  # fmt: skip


def _detail(bucket: Bucket) -> object:
    return next((row.get("detail") for row in bucket.refusals("storage_down")), None)


def _vendor_hint(facts: Facts, bench: Bench) -> tuple[Evidence, ...]:
    """What the storage vendor's status page admits: weak, and only when it admits something."""
    rows = facts.readings.rows("vendor_status") or []
    for row in rows:
        if str(row.get("vendor")).lower() in ("aws", "s3", "r2", "cloudflare") and row.get("indicator") in (
            "major", "critical",
        ):  # fmt: skip
            return (
                bench.fact("status_page", f"status page of {row.get('vendor')}", True, value=row.get("indicator"),
                           rests_on=("vendor_status",), weight=WEAK),
            )  # fmt: skip
    return ()
