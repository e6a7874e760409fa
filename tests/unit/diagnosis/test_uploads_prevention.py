from __future__ import annotations

from typing import Any

from runbook.diagnosis.uploads import prevention
from tests.unit.diagnosis.pipeline import Pipeline, ago
from tests.unit.diagnosis.server import reading


def checks(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in prevention(pipeline.readings())}


def test_a_bucket_without_a_test_upload_is_said_to_have_none() -> None:
    assert checks(Pipeline())["test upload"]["holds"] is True
    assert checks(Pipeline(canary=False))["test upload"]["holds"] is False


def test_a_public_bucket_is_said_to_be_public() -> None:
    open_to_all = Pipeline(bucket={"public_access": ("no", "", 200)})
    assert checks(Pipeline())["public access blocked"]["holds"] is True
    assert checks(open_to_all)["public access blocked"]["holds"] is False


def test_rows_that_nobody_reconciled_are_counted() -> None:
    pipeline = Pipeline()
    pipeline.upload(3, status="PROCESSING", age=30 * 86_400)
    row = checks(pipeline)["rows are reconciled with the provider"]
    assert row["holds"] is False
    assert row["value"].startswith("3 rows")


def test_jobs_that_get_one_try_are_said_to_be_not_retried() -> None:
    pipeline = Pipeline(failed=[{"id": "1", "reason": "…", "failed_at": ago(60), "attempts": 1}])
    assert checks(pipeline)["jobs are retried"]["holds"] is False


def test_what_could_not_be_read_is_unknown() -> None:
    assert {row["holds"] for row in prevention([])} == {None}
    pipeline = Pipeline()
    pipeline.instead["worker_disk"] = reading("worker_disk", None, source="shell", state="unreachable", reason="…")
    assert checks(pipeline)["workers' disks below 80 %"]["holds"] is None
