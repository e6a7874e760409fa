"""Prevention, checked: which guards uploads have. Source: reference fault model, runbook R3 (Prevent)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.uploads.bucket import Bucket
from runbook.result import Reading

DISK_WARNING_PERCENT = 80.0


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    taken = Readings(readings)
    bucket = Bucket(taken)
    return [
        _row("test upload", bucket.step("canary_put") is not None and bucket.answer("canary_put") is not None
             if bucket.rows is not None else None, "made by this run" if bucket.writes else "s3.canary",
             "a policy that denies PUT alone looks healthy to everything that only reads"),
        _row("public access blocked", bucket.answer("public_access"), _said(bucket, "public_access"),
             "uploads before review are nobody else's business"),
        _row("a lifecycle rule removes what is half uploaded", _aborts(bucket), _said(bucket, "lifecycle"),
             "parts of uploads that broke are paid for until somebody removes them"),
        _row("encryption at rest", bucket.answer("encryption"), _said(bucket, "encryption"), "asked for by audits"),
        _queue_row(taken),
        _disk_row(taken),
        _litter_row(taken),
    ]  # fmt: skip


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": value, "why": why}


def _aborts(bucket: Bucket) -> bool | None:
    answer = bucket.answer("lifecycle")
    return answer and "are aborted" in _said(bucket, "lifecycle")


def _said(bucket: Bucket, step: str) -> str:
    row = bucket.step(step)
    return "not read" if row is None else str(row.get("detail") or row.get("code") or row.get("answer"))


def _queue_row(taken: Readings) -> dict[str, Any]:
    rows: list[Mapping[str, Any]] | None = (
        list(taken.rows("queue_failed") or []) if taken.known("queue_failed") else None
    )
    retried = None if rows is None else [row for row in rows if number(row, "attempts") > 1]
    holds = None if not rows else bool(retried)
    value = "no failed job in the window" if rows is not None and not rows else "not read"
    if rows:
        value = f"{len(retried or [])} of {len(rows)} failed jobs were tried more than once"
    return _row("jobs are retried", holds, value, "a provider's odd 503 should not cost a user's upload")


def _disk_row(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("worker_disk")
    fullest = max((number(row, "used_percent") for row in rows or []), default=None) if rows else None
    return _row(
        f"workers' disks below {DISK_WARNING_PERCENT:g} %", None if fullest is None else fullest < DISK_WARNING_PERCENT,
        "not read" if fullest is None else f"fullest {fullest:g} %", "transcoding takes several times the file's size",
    )  # fmt: skip


def _litter_row(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("stuck_rows")
    old = None if rows is None else sum(1 for row in rows if row.get("in_window") is False)
    return _row(
        "rows are reconciled with the provider", None if old is None else old == 0,
        "not read" if old is None else f"{old} rows stuck since before the window",
        "a webhook that was lost is found by asking the provider once an hour",
    )  # fmt: skip
