from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.uploads import diagnose, funnel
from runbook.result import TIERS, Action, Findings, Reading, Verdict
from tests.unit.diagnosis.pipeline import DATA_PATH, STEPS, Pipeline, ago
from tests.unit.diagnosis.server import reading

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
HOUR = 3600.0


def healthy() -> Pipeline:
    pipeline = Pipeline()
    done = pipeline.upload(36)
    pipeline.upload(1, status="FAILED")
    pipeline.upload(2, status="PROCESSING", age=40)
    for identity in done:
        pipeline.video(identity)
        pipeline.completed.append({"id": identity, "job": "transcode", "finished_at": ago(200)})
    return pipeline


def missing(pipeline: Pipeline, count: int = 9) -> Pipeline:
    """Uploads whose file never arrived."""
    pipeline.upload(count, status="UPLOADING", age=1.5 * HOUR)
    return pipeline


def denied() -> Pipeline:
    pipeline = missing(healthy())
    pipeline.bucket = {"canary_put": ("no", "AccessDenied", 403)}
    return pipeline


def refused_by(code: str, status: int | None = 403) -> Callable[[], Pipeline]:
    """Every check that is signed is refused with one code; a HEAD has no body to say so."""

    def make() -> Pipeline:
        pipeline = missing(healthy())
        pipeline.bucket = dict.fromkeys(DATA_PATH if status else STEPS, ("no", code, status))
        if status is not None:
            pipeline.bucket["head"] = ("no", str(status), status)
        return pipeline

    return make


def skewed() -> Pipeline:
    pipeline = refused_by("RequestTimeTooSkewed")()
    pipeline.skew = -1260.0
    return pipeline


def cors() -> Pipeline:
    pipeline = missing(healthy())
    pipeline.preflight = {"allowed": False, "http_status": 403, "allow_origin": None, "reason": "no rule for it"}
    return pipeline


def expired() -> Pipeline:
    pipeline = missing(healthy())
    pipeline.log = {"request has expired": 9}
    return pipeline


def too_large() -> Pipeline:
    pipeline = healthy()
    pipeline.splits = [
        {"by": "status", "value": "413", "requests": 11, "errors": 0},
        {"by": "route", "value": "/api/uploads", "requests": 60, "errors": 0},
    ]
    return pipeline


def quota() -> Pipeline:
    pipeline = healthy()
    pipeline.fail_jobs(8, "Stream: storage capacity exceeded, over quota")
    return pipeline


def outage(reason: str = "Error: request to api.mux.com failed with status code 503") -> Pipeline:
    pipeline = healthy()
    pipeline.fail_jobs(9, reason)
    return pipeline


def bad_files() -> Pipeline:
    pipeline = healthy()
    for identity in pipeline.upload(9, status="FAILED"):
        pipeline.video(identity, "errored", provider="stream", error_code="ERR_MALFORMED_VIDEO")
    return pipeline


def webhook_lost() -> Pipeline:
    pipeline = healthy()
    for identity in pipeline.upload(7, status="PROCESSING", age=1.2 * HOUR):
        pipeline.video(identity)
        pipeline.completed.append({"id": str(len(pipeline.completed)), "job": "transcode", "finished_at": ago(4000)})
    return pipeline


def full_disk() -> Pipeline:
    pipeline = healthy()
    pipeline.fail_jobs(8, "ENOSPC: no space left on device, write")
    return pipeline


def no_worker() -> Pipeline:
    pipeline = healthy()
    pipeline.upload(5, status="UPLOADING", age=120)
    pipeline.state = {"workers": 0, "waiting": 5, "in_wait_list": 5, "oldest_waiting_seconds": 118.0}
    pipeline.processes = 0
    return pipeline


def killed() -> Pipeline:
    pipeline = healthy()
    pipeline.fail_jobs(8, "ffmpeg exited with code 137")
    return pipeline


def row_not_written() -> Pipeline:
    pipeline = healthy()
    for identity in pipeline.upload(6, status="PROCESSING", age=1.3 * HOUR):
        pipeline.completed.append({"id": identity, "job": "transcode", "finished_at": ago(4000)})
    return pipeline


def one_creator() -> Pipeline:
    pipeline = healthy()
    for identity in pipeline.upload(9, status="FAILED", creator="creator-with-slides"):
        pipeline.video(identity, "errored", error_code="ERR_NON_VIDEO", provider="stream")
    return pipeline


def throttled() -> Pipeline:
    pipeline = missing(healthy())
    pipeline.bucket = {"canary_put": ("no", "SlowDown", 503)}
    pipeline.log = {"SlowDown": 30}
    return pipeline


def broken_connections() -> Pipeline:
    pipeline = missing(healthy())
    pipeline.multipart = [{"key_suffix": f"{n}.mp4", "upload_id": str(n), "age_seconds": 900} for n in range(9)]
    pipeline.requests = {"closed_by_client": 12}
    return pipeline


def unreachable() -> Pipeline:
    return refused_by("connect:ECONNREFUSED", None)()


PIPELINES: dict[str, Callable[[], Pipeline]] = {
    "V01": denied, "V02": refused_by("InvalidAccessKeyId"), "V03": skewed, "V04": refused_by("NoSuchBucket", 404),
    "V05": cors, "V06": expired, "V07": too_large, "V08": quota, "V09": outage, "V10": webhook_lost, "V11": full_disk,
    "V12": no_worker, "V13": killed, "V14": row_not_written, "V15": one_creator, "V16": throttled,
    "V17": broken_connections, "V18": unreachable,
}  # fmt: skip


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"]


def verdict(findings: Findings, cause: str) -> Verdict:
    return next(v for v in findings.verdict if v.cause == cause)


def run(pipeline: Pipeline, **parameters: Any) -> Findings:
    return diagnose(pipeline.readings(), parameters)


def action(findings: Findings, kind: str) -> Action | None:
    return next((a for a in findings.actions if a.kind == kind), None)


# -- every cause ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", PIPELINES)
def test_each_cause_is_found_first_and_alone(cause: str) -> None:
    findings = run(PIPELINES[cause]())
    assert found(findings) == [cause]
    assert findings.outcome == "diagnosed"
    assert findings.verdict[0].tier == "confirmed"


def test_uploads_that_fail_as_usual_are_healthy() -> None:
    findings = run(healthy())
    assert found(findings) == ["V00"]
    assert findings.outcome == "healthy"
    assert findings.symptom.breached is False


def test_nothing_read_at_all_is_undetermined() -> None:
    findings = diagnose([], {})
    assert findings.outcome == "undetermined"
    assert {v.tier for v in findings.verdict} == {"undetermined"}
    assert len(findings.verdict) == 19


def test_nothing_configured_is_undetermined_and_every_source_is_listed() -> None:
    cut = [replace(r, state="not_configured", reason="… is not set", value=None) for r in healthy().readings()]
    findings = diagnose(cut, {})
    assert findings.outcome == "undetermined"
    assert found(findings) == []
    assert {"postgresql", "bullmq", "object_storage", "mux"} <= {n.source for n in findings.not_checked}


@pytest.mark.parametrize("state", FAILED)
def test_rows_that_cannot_be_read_are_never_called_healthy(state: str) -> None:
    pipeline = healthy()
    for name in ("content_overview", "content_by_creator", "content_history", "stuck_rows"):
        pipeline.instead[name] = reading(name, None, state=state, reason="…")
    assert run(pipeline).outcome == "undetermined"


def test_half_an_hour_ago_is_no_current_fault() -> None:
    pipeline = healthy()
    pipeline.upload(60)
    onset = [{"begun": ago(2400), "total": 6, "failed": 4}, {"begun": ago(300), "total": 8, "failed": 0}]
    findings = diagnose([*pipeline.readings(), reading("content_onset", onset)], {})
    assert findings.outcome == "no_current_fault"
    assert findings.symptom.peak == 66.7


@pytest.mark.parametrize("make", [full_disk, outage, killed])
def test_failures_that_are_over_are_no_current_fault(make: Callable[[], Pipeline]) -> None:
    pipeline = make()
    onset = [
        {"begun": ago(2400), "total": 12, "failed": 9, "in_progress": 0},
        {"begun": ago(1500), "total": 10, "failed": 0, "in_progress": 0},
        {"begun": ago(300), "total": 8, "failed": 0, "in_progress": 1},
    ]
    findings = diagnose([*pipeline.readings(), reading("content_onset", onset)], {})
    assert findings.outcome == "no_current_fault"
    assert found(findings) in ([], ["V00"])


def test_a_few_uploads_that_came_through_by_luck_do_not_end_an_incident() -> None:
    onset = [{"begun": ago(600), "total": 40, "failed": 9}, {"begun": ago(200), "total": 4, "failed": 0}]
    findings = diagnose([*full_disk().readings(), reading("content_onset", onset)], {})
    assert found(findings) == ["V11"]


def test_lines_of_the_log_that_stopped_long_ago_are_over() -> None:
    pipeline = healthy()
    row = {"log": "app.log", "pattern": "payload too large", "count": 90, "last": ago(2700), "sample": ""}
    pipeline.instead["app_errors"] = reading("app_errors", [row], source="shell")
    assert run(pipeline).outcome == "healthy"


def test_few_uploads_are_insufficient_data() -> None:
    pipeline = Pipeline()
    pipeline.upload(2)
    pipeline.upload(1, status="FAILED")
    assert run(pipeline).outcome == "insufficient_data"


# -- the bucket -------------------------------------------------------------------------------------------------------


def test_a_write_that_is_denied_is_no_endpoint_that_is_down() -> None:
    """Drill S12: PutObject is denied, HEAD and LIST answer well."""
    findings = run(denied())
    assert verdict(findings, "V01").tier == "confirmed"
    assert verdict(findings, "V18").tier == "excluded"
    assert verdict(findings, "V02").tier == "excluded"
    assert verdict(findings, "V01").details["codes"] == ["AccessDenied"]
    assert verdict(findings, "V01").details["http_status"] == 403


def test_a_denied_write_is_found_before_any_row_is_stuck() -> None:
    pipeline = healthy()
    pipeline.upload(3, status="UPLOADING", age=20)
    pipeline.bucket = {"canary_put": ("no", "AccessDenied", 403)}
    findings = run(pipeline)
    assert found(findings) == ["V01"]


def test_a_write_that_only_ours_is_refused_is_no_finding_while_uploads_come_through() -> None:
    pipeline = Pipeline()
    pipeline.upload(30)
    pipeline.bucket = {"canary_put": ("no", "AccessDenied", 403)}
    assert verdict(run(pipeline), "V01").tier == "possible"


def test_without_a_canary_nobody_says_that_the_bucket_may_be_written() -> None:
    pipeline = missing(healthy())
    pipeline.canary = False
    findings = run(pipeline)
    assert verdict(findings, "V01").tier == "undetermined"
    assert findings.outcome == "undetermined"
    assert any("s3.canary" in n.reason and "V01" in n.blocks for n in findings.not_checked)


def test_without_a_canary_uploads_that_come_through_prove_the_write() -> None:
    pipeline = healthy()
    pipeline.rows = [row for row in pipeline.rows if row["status"] != "FAILED"]
    pipeline.canary = False
    findings = run(pipeline)
    assert verdict(findings, "V01").tier == "excluded"
    assert findings.outcome == "healthy"


def test_without_a_canary_the_applications_log_names_the_denial() -> None:
    pipeline = missing(healthy())
    pipeline.canary = False
    pipeline.log = {"AccessDenied": 9}
    assert found(run(pipeline)) == ["V01"]


def test_a_head_without_a_body_is_no_denied_write() -> None:
    pipeline = missing(healthy())
    pipeline.canary = False
    pipeline.bucket = {"head": ("no", "403", 403)}
    assert verdict(run(pipeline), "V01").tier == "undetermined"


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"])
def test_other_codes_of_a_bad_key_are_the_key(code: str) -> None:
    assert found(run(refused_by(code)())) == ["V02"]


def test_a_token_that_r2_does_not_know_is_the_key() -> None:
    pipeline = refused_by("Unauthorized", 401)()
    for step in ("public_access", "policy_status"):
        pipeline.bucket[step] = ("cannot tell", "NotImplemented", None)
    assert found(run(pipeline)) == ["V02"]


@pytest.mark.parametrize(("code", "status"), [("PermanentRedirect", 301), ("AuthorizationHeaderMalformed", 400)])
def test_a_bucket_of_another_region_is_the_address(code: str, status: int) -> None:
    assert found(run(refused_by(code, status)())) == ["V04"]


def test_r2_that_has_no_policy_calls_is_healthy_all_the_same() -> None:
    pipeline = healthy()
    pipeline.bucket = dict.fromkeys(
        ("public_access", "policy_status", "identity"), ("cannot tell", "NotImplemented", None)
    )
    assert run(pipeline).outcome == "healthy"


@pytest.mark.parametrize("seconds", [-899.0, 0.0, 899.0])
def test_clocks_within_a_quarter_of_an_hour_are_no_skew(seconds: float) -> None:
    pipeline = healthy()
    pipeline.skew = seconds
    assert verdict(run(pipeline), "V03").tier == "excluded"


def test_a_clock_that_is_off_is_found_from_the_date_alone() -> None:
    pipeline = missing(healthy())
    pipeline.skew = 3605.0
    pipeline.canary = False
    findings = run(pipeline)
    assert found(findings) == ["V03"]
    assert verdict(findings, "V03").details["skew_seconds"] == 3605.0


def test_a_bucket_that_only_servers_write_to_needs_no_cors() -> None:
    pipeline = full_disk()
    pipeline.preflight = {"allowed": False, "http_status": 403}
    assert found(run(pipeline)) == ["V11"]
    pipeline = healthy()
    pipeline.preflight = {"allowed": False, "http_status": 403}
    assert run(pipeline).outcome == "healthy"


def test_a_form_that_may_not_be_posted_breaks_no_upload_by_put() -> None:
    pipeline = missing(healthy())
    rows = [{"method": "PUT", "allowed": True}, {"method": "POST", "allowed": False, "http_status": 403}]
    pipeline.instead["cors_preflight"] = reading("cors_preflight", rows, source="object_storage")
    assert verdict(run(pipeline), "V05").tier == "excluded"


def test_a_preflight_that_nobody_answered_is_unknown() -> None:
    pipeline = cors()
    pipeline.preflight = {"allowed": None, "http_status": None, "reason": "no answer"}
    assert verdict(run(pipeline), "V05").tier == "undetermined"


@pytest.mark.parametrize("code", ["connect:DNS", "connect:TLS", "connect:TIMEOUT", "connect:ECONNREFUSED"])
def test_an_endpoint_that_cannot_be_reached_is_named_with_its_error(code: str) -> None:
    findings = run(refused_by(code, None)())
    assert found(findings) == ["V18"]
    assert verdict(findings, "V18").details["code"] == code


# -- size -------------------------------------------------------------------------------------------------------------


def test_the_lowest_limit_of_the_layers_is_reported() -> None:
    findings = run(too_large(), proxy_limit_mb=100, edge_limit_mb=250)
    details = verdict(findings, "V07").details
    assert details["refused"] == 11
    assert details["limit_mb"] == 100
    assert details["limits_mb"]["Cloudflare Stream basic POST"] == 200


def test_the_limit_that_nginx_states_counts_as_the_edges() -> None:
    readings = [*too_large().readings(), reading("edge_limits", [{"file": "a", "limit_mb": 20.0}], source="shell")]
    details = verdict(diagnose(readings, {}), "V07").details
    assert (details["layer"], details["limit_mb"]) == ("edge (client_max_body_size)", 20)


def test_a_limit_that_the_application_states_when_it_refuses_is_reported() -> None:
    pipeline = too_large()
    sample = "2026-03-01T02:59:00Z ERROR PayloadTooLarge: file of 94371840 bytes exceeds the limit of 52428800 bytes"
    row = {"log": "app.log", "pattern": "payload too large", "count": 11, "last": ago(60), "sample": sample}
    pipeline.instead["app_errors"] = reading("app_errors", [row], source="shell")
    details = verdict(run(pipeline), "V07").details
    assert details["limit_mb"] == 50
    assert details["layer"] == "as refused"


def test_refusals_that_only_the_applications_log_counts_are_found_too() -> None:
    pipeline = healthy()
    pipeline.log = {"payload too large": 40}
    pipeline.instead["splits"] = reading("splits", None, source="traffic", state="timeout", reason="…")
    assert found(run(pipeline)) == ["V07"]


def test_a_log_that_cannot_be_read_does_not_say_that_nothing_was_too_large() -> None:
    pipeline = healthy()
    pipeline.instead["splits"] = reading("splits", None, source="traffic", state="unreachable", reason="…")
    findings = run(pipeline)
    assert verdict(findings, "V07").tier == "undetermined"
    assert findings.outcome == "undetermined"


def test_a_webhook_below_the_word_upload_is_no_upload() -> None:
    pipeline = healthy()
    pipeline.splits = [{"by": "route", "value": "/webhooks/uploads", "requests": 20, "errors": 20}]
    assert run(pipeline).symptom.breached is False


# -- providers --------------------------------------------------------------------------------------------------------


def test_an_outage_names_the_provider_and_is_no_matter_of_files() -> None:
    findings = run(outage())
    details = verdict(findings, "V09").details
    assert details["kind"] == "outage"
    assert details["provider"] == ["Mux"]
    assert "503" in details["reasons"][0]
    assert verdict(findings, "V09").name == "provider outage"


@pytest.mark.parametrize(
    "reason", ["Error: ETIMEDOUT video.example did not answer", "502 Bad Gateway", "socket hang up"]
)
def test_an_outage_shows_in_other_words_too(reason: str) -> None:
    findings = run(outage(reason))
    assert found(findings) == ["V09"]
    assert verdict(findings, "V09").details["kind"] == "outage"


def test_a_green_status_page_does_not_clear_the_provider_and_a_red_one_does_not_convict_it() -> None:
    red = healthy()
    red.status_pages = {"mux": "major"}
    assert run(red).outcome == "healthy"
    assert found(run(outage())) == ["V09"]


def test_files_of_several_creators_that_the_provider_refuses_are_input() -> None:
    findings = run(bad_files())
    assert found(findings) == ["V09"]
    details = verdict(findings, "V09").details
    assert (details["kind"], details["codes"]) == ("input", ["ERR_MALFORMED_VIDEO"])
    assert details["provider"] == ["Cloudflare Stream"]
    assert action(findings, "provider.wait") is None


def test_one_creators_files_are_no_outage() -> None:
    """Drill S13: one creator, ERR_NON_VIDEO."""
    findings = run(one_creator())
    assert findings.verdict[0].cause == "V15"
    assert findings.verdict[0].details["creator_id"] == "creator-with-slides"
    assert verdict(findings, "V09").role == "consequence"
    assert verdict(findings, "V09").details["kind"] == "input"


def test_somebody_who_uploads_most_of_everything_is_not_the_matter() -> None:
    pipeline = healthy()
    pipeline.upload(120, creator="studio")
    for identity in pipeline.upload(20, status="FAILED", creator="studio"):
        pipeline.failed.append({"id": identity, "reason": "HTTP 503", "failed_at": ago(60)})
    for identity in pipeline.upload(4, status="FAILED"):
        pipeline.failed.append({"id": identity, "reason": "HTTP 503", "failed_at": ago(60)})
    assert "V15" not in found(run(pipeline))


def test_an_odd_bad_file_is_what_usually_fails() -> None:
    pipeline = healthy()
    pipeline.video(pipeline.upload(1, status="FAILED")[0], "errored", error_code="ERR_NON_VIDEO")
    pipeline.upload(20)
    assert run(pipeline, threshold_percent=5).outcome == "healthy"


def test_a_provider_that_is_not_configured_blocks_nothing() -> None:
    pipeline = healthy()
    for name in ("stream_videos", "stream_storage"):
        missed = reading(
            name, None, source="cloudflare_stream", state="not_configured", reason="cloudflare.token is not set"
        )
        pipeline.instead[name] = missed
    assert run(pipeline).outcome == "healthy"


def test_a_provider_that_refuses_our_token_is_unknown_not_fine() -> None:
    pipeline = healthy()
    pipeline.instead["mux_assets"] = reading("mux_assets", None, source="mux", state="auth_failed", reason="401")
    findings = run(pipeline)
    assert findings.outcome == "undetermined"
    assert any(n.source == "mux" for n in findings.not_checked)


def test_stored_minutes_at_their_limit_are_the_quota() -> None:
    pipeline = missing(healthy())
    usage = {"used_minutes": 1000, "limit_minutes": 1000}
    pipeline.instead["stream_storage"] = reading("stream_storage", usage, source="cloudflare_stream")
    pipeline.log = {"quota exceeded": 9}
    assert found(run(pipeline)) == ["V08"]


# -- webhook and row --------------------------------------------------------------------------------------------------


def test_rows_whose_video_is_ready_are_named_for_a_lost_webhook() -> None:
    pipeline = webhook_lost()
    findings = run(pipeline)
    details = verdict(findings, "V10").details
    assert details["rows"] == 7
    assert details["provider"] == ["Mux"]
    resync = action(findings, "content.resync")
    assert resync is not None
    assert len(resync.targets) == 7
    assert "status = 'READY'" in resync.by_hand
    first = resync.targets[0]
    assert (first["status"], first["to"], first["provider"]) == ("PROCESSING", "READY", "mux")
    video = next(v for v in pipeline.videos if v["id"] == first["video_id"])
    assert video["created_at"] == first["video_created_at"]


def test_a_row_that_no_video_speaks_for_names_none() -> None:
    """Its job is done, and that is all: nobody can look again whether it is."""
    resync = action(run(row_not_written()), "content.resync")
    assert resync is not None
    assert not any("video_id" in target for target in resync.targets)


def test_a_job_that_is_still_busy_has_lost_no_webhook() -> None:
    pipeline = webhook_lost()
    stuck = [row["id"] for row in pipeline.rows if row["age"] > HOUR]
    pipeline.active = [{"id": i, "running_seconds": 5, "has_lock": True} for i in stuck]
    assert verdict(run(pipeline), "V10").tier == "excluded"


def test_rows_are_matched_by_what_they_hold_of_the_provider() -> None:
    pipeline = healthy()
    ids = pipeline.upload(7, status="PROCESSING", age=1.2 * HOUR)
    for number, identity in enumerate(ids):
        pipeline.video(identity, reference=None, id=f"asset00{number}", upload_id=f"up{number}")
    rows = [
        row | {"provider_ids": [f"https://stream.mux.com/asset00{n}.m3u8"]} for n, row in enumerate(pipeline._stuck())
    ]
    pipeline.instead["stuck_rows"] = reading("stuck_rows", rows)
    assert found(run(pipeline)) == ["V10"]


def test_videos_that_cannot_be_traced_to_rows_leave_the_webhook_unknown() -> None:
    pipeline = healthy()
    pipeline.videos = []
    for identity in pipeline.upload(7, status="PROCESSING", age=1.2 * HOUR):
        pipeline.video(identity, reference=None)
    assert verdict(run(pipeline), "V10").tier == "undetermined"


def test_rows_stuck_since_last_month_are_not_this_incident() -> None:
    pipeline = healthy()
    for identity in pipeline.upload(40, status="PROCESSING", age=30 * 24 * HOUR):
        pipeline.video(identity)
    assert run(pipeline).outcome == "healthy"


def test_a_row_that_its_own_job_never_touched_has_not_lost_a_webhook() -> None:
    pipeline = healthy()
    for identity in pipeline.upload(7, status="UPLOADING", age=1.2 * HOUR):
        pipeline.video(identity)
    assert found(run(pipeline)) == ["V14"]
    pipeline.states = ("UPLOADING", "READY", "FAILED")
    assert found(run(pipeline)) == ["V10"]


def test_more_jobs_completed_than_uploads_came_through_is_a_row_not_written() -> None:
    pipeline = healthy()
    pipeline.upload(6, status="PROCESSING", age=1.3 * HOUR)
    pipeline.completed += [{"id": str(n), "job": "transcode", "finished_at": ago(4000)} for n in range(6)]
    assert found(run(pipeline)) == ["V14"]


# -- workers and queue ------------------------------------------------------------------------------------------------


def test_rows_that_wait_for_a_worker_are_no_denied_bucket() -> None:
    """Drill S14: no worker, rows uploading."""
    findings = run(no_worker())
    details = verdict(findings, "V12").details
    assert (details["refers_to"], details["waiting"], details["workers"]) == ("Q01", 5, 0)
    assert verdict(findings, "V01").tier == "excluded"
    restart = action(findings, "worker.restart")
    assert restart is not None
    assert restart.by_hand == "systemctl restart worker"
    assert [target["pid"] for target in restart.targets] == [None]


def test_a_paused_queue_is_resumed_and_not_restarted() -> None:
    pipeline = healthy()
    pipeline.state = {
        "paused": True,
        "waiting": 40,
        "oldest_waiting_seconds": 900.0,
        "major": 6,
        "version": "bullmq:6.7.0",
    }
    findings = run(pipeline)
    assert verdict(findings, "V12").details["refers_to"] == "Q02"
    assert [a.kind for a in findings.actions] == ["queue.resume"]


def test_a_paused_queue_without_workers_is_paused() -> None:
    pipeline = no_worker()
    pipeline.state |= {"paused": True}
    assert verdict(run(pipeline), "V12").details["refers_to"] == "Q02"


@pytest.mark.parametrize(
    ("state", "active", "signature"),
    [
        ({"workers": 1}, [{"id": "7", "has_lock": False, "running_seconds": 70}], "Q05"),
        ({"workers": 0}, [{"id": "7", "has_lock": False, "running_seconds": 70}], "Q06"),
        ({"workers": 1}, [{"id": "7", "has_lock": True, "running_seconds": 3000}], "Q04"),
        ({"workers": 2, "waiting": 90, "oldest_waiting_seconds": 1500.0}, [], "Q03"),
        ({"workers": 1, "waiting": 9, "limiter_ms": 9000, "oldest_waiting_seconds": 30.0}, [], "Q09"),
        ({"workers": 1, "major": 6, "in_paused_list": 12, "waiting": 12}, [], "Q19"),
    ],
)  # fmt: skip
def test_each_signature_of_a_queue_that_stands_still_is_told(
    state: dict[str, Any], active: list[dict[str, Any]], signature: str
) -> None:
    pipeline = healthy()
    pipeline.state, pipeline.active = state | {"active": len(active)}, active
    findings = run(pipeline)
    assert found(findings) == ["V12"]
    assert verdict(findings, "V12").details["refers_to"] == signature


def test_a_lock_that_was_there_a_moment_ago_is_no_dead_worker() -> None:
    pipeline = healthy()
    pipeline.active = [{"id": "7", "has_lock": True, "running_seconds": 5}]
    readings = pipeline.readings()
    last = max(n for n, r in enumerate(readings) if r.name == "queue_active")
    readings[last] = replace(readings[last], value=[{"id": "7", "has_lock": False, "running_seconds": 6}])
    assert verdict(diagnose(readings, {}), "V12").tier == "excluded"


def test_jobs_that_fail_for_a_reason_of_their_own_are_shown_with_it() -> None:
    pipeline = healthy()
    pipeline.fail_jobs(8, "TypeError: codec is undefined")
    details = verdict(run(pipeline), "V12").details
    assert details["refers_to"] == "Q08"
    assert details["reasons"] == ["TypeError: codec is undefined"]


def test_jobs_that_stalled_for_good_are_a_transcoder_that_dies_over_them() -> None:
    pipeline = healthy()
    pipeline.fail_jobs(4, "job stalled more than allowable limit")
    findings = run(pipeline)
    assert found(findings) == ["V13"]
    assert verdict(findings, "V13").details["stalled"] == 4


def test_a_queue_that_is_not_there_by_its_name_is_unknown() -> None:
    pipeline = healthy()
    pipeline.state = {"exists": False, "waiting": None, "workers": None, "other_queues": ["video"]}
    findings = run(pipeline)
    assert verdict(findings, "V12").tier == "undetermined"
    assert any("video" in e.reason for e in findings.evidence if e.id.startswith("V12"))


def test_workers_whose_names_are_hidden_are_not_called_absent() -> None:
    pipeline = healthy()
    pipeline.state = {"workers": None, "waiting": 5, "oldest_waiting_seconds": 30.0}
    assert verdict(run(pipeline), "V12").tier == "undetermined"


def test_workers_without_a_name_that_empty_the_queue_are_not_called_absent() -> None:
    pipeline = no_worker()
    readings = pipeline.readings()
    looks = [n for n, r in enumerate(readings) if r.name == "queue_state"]
    last = dict(readings[looks[-1]].value[0])
    readings[looks[-1]] = replace(readings[looks[-1]], value=[last | {"completed": last["completed"] + 3}])
    assert "V12" not in found(diagnose(readings, {}))


def test_a_worker_without_a_name_that_renews_its_lock_is_not_called_absent() -> None:
    pipeline = no_worker()
    readings = pipeline.readings()
    looks = [n for n, r in enumerate(readings) if r.name == "queue_active"]
    for number, left in zip(looks, (20_000, 12_000, 29_000), strict=True):
        job = {"id": "7", "has_lock": True, "lock_ms": left, "running_seconds": 60}
        readings[number] = replace(readings[number], value=[job])
    assert verdict(diagnose(readings, {}), "V12").tier == "undetermined"


@pytest.mark.parametrize(
    ("code", "tier"),
    [
        *((code, "confirmed") for code in ("ECONNREFUSED", "MAXCLIENTS", "LOADING", "BUSY", "MISCONF", "CLUSTERDOWN")),
        *((code, "undetermined") for code in ("WRONGPASS", "NOPERM", "DNS", "SILENT", "ETIMEDOUT", "")),
    ],
)
def test_a_redis_that_refuses_everybody_stops_the_queue_and_one_that_refuses_us_is_unknown(
    code: str, tier: str
) -> None:
    pipeline = missing(healthy())
    state = "auth_failed" if code == "WRONGPASS" else "unreachable"
    refers = {"ECONNREFUSED": "K01", "MAXCLIENTS": "K05", "BUSY": "K11"}
    for name in ("redis_ping", "queue_failed", "queue_completed"):
        pipeline.instead[name] = reading(name, None, source="redis", state=state, code=code, reason="…")
    readings = [
        replace(r, value=None, state=state, code=code, reason="…") if r.name in ("queue_state", "queue_active") else r  # type: ignore[arg-type]
        for r in pipeline.readings()
    ]
    found = verdict(diagnose(readings, {}), "V12")
    assert found.tier == tier
    if code in refers:
        assert (found.details["refers_to"], found.details["redis"]) == ("Q14", refers[code])


def test_a_full_file_system_of_one_worker_is_named_with_its_host() -> None:
    pipeline = full_disk()
    pipeline.disks = [
        {"host": "worker-1", "mount": "/scratch", "used_percent": 40, "inodes_percent": 3},
        {"host": "worker-2", "mount": "/scratch", "used_percent": 100, "inodes_percent": 3},
    ]
    details = verdict(run(pipeline), "V11").details
    assert (details["host"], details["mount"], details["failed_jobs"]) == ("worker-2", "/scratch", 8)


def test_a_disk_that_is_rather_full_breaks_nothing() -> None:
    pipeline = healthy()
    pipeline.disks = [{"host": "w", "mount": "/tmp", "used_percent": 91, "inodes_percent": 3}]
    assert run(pipeline).outcome == "healthy"


def test_a_full_disk_beside_a_pause_is_a_compound_of_both() -> None:
    pipeline = full_disk()
    pipeline.state = {"paused": True, "waiting": 9, "oldest_waiting_seconds": 900.0}
    findings = run(pipeline)
    assert {v.cause for v in findings.verdict if v.tier in ("confirmed", "probable")} == {"V11", "V12"}


# -- actions ----------------------------------------------------------------------------------------------------------


def test_failed_jobs_are_retried_by_reason_oldest_first_and_fifty_at_most() -> None:
    pipeline = full_disk()
    pipeline.fail_jobs(70, "ENOSPC: no space left on device, write")
    pipeline.failed[40]["failed_at"] = ago(3000)
    pipeline.fail_jobs(1, "ffmpeg exited with code 137")
    retry = action(run(pipeline), "queue.retry")
    assert retry is not None
    assert len(retry.targets) == 50
    assert retry.targets[0]["id"] == pipeline.failed[40]["id"]
    assert all("ENOSPC" in t["reason"] for t in retry.targets)
    assert retry.undo.startswith("irreversible")


def test_no_retry_is_offered_when_the_version_of_the_queue_is_unknown() -> None:
    pipeline = full_disk()
    pipeline.state = {"version": None, "major": None}
    assert action(run(pipeline), "queue.retry") is None


def test_files_that_a_provider_refuses_are_not_retried() -> None:
    pipeline = healthy()
    pipeline.fail_jobs(9, "invalid_input: not a video")
    assert action(run(pipeline), "queue.retry") is None


def test_a_hostile_name_stays_data_in_what_is_copied() -> None:
    pipeline = healthy()
    ids = pipeline.upload(7, status="PROCESSING", age=1.2 * HOUR)
    hostile = "'; drop table content; --"
    for identity in ids:
        pipeline.video(identity)
    for row, video in zip(pipeline.rows[-7:], pipeline.videos[-7:], strict=True):
        row["id"] = f"{hostile}{row['id']}"
        video["reference"] = row["id"]
    resync = action(run(pipeline), "content.resync")
    assert resync is not None
    assert "('''; drop table content; --upload" in resync.by_hand


# -- the funnel -------------------------------------------------------------------------------------------------------


def test_the_funnel_shows_where_uploads_stop_and_what_is_unknown() -> None:
    pipeline = denied()
    pipeline.instead["splits"] = reading("splits", None, source="traffic", state="not_configured", reason="…")
    readings = pipeline.readings()
    stages = {s.name: s for s in funnel(readings, {}, diagnose(readings, {}))}
    assert stages["bucket"].state == "stops"
    assert stages["bucket"].causes == ("V01",)
    assert stages["edge"].state == "unknown"
    assert stages["row"].state == "passes"


# -- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [*PIPELINES, "healthy"])
def test_the_same_readings_give_the_same_bytes(cause: str) -> None:
    make = (PIPELINES | {"healthy": healthy})[cause]
    once = json.dumps(diagnose(make().readings(), {}).as_dict())
    shuffled = make().readings()
    for taken in shuffled:
        if taken.name in ("content_overview", "splits", "mux_assets", "worker_disk", "app_errors"):
            random.Random(7).shuffle(taken.value)
    assert json.dumps(diagnose(shuffled, {}).as_dict()) == once


NAMES = sorted({r.name for make in (*PIPELINES.values(), healthy) for r in make().readings()})


@settings(max_examples=600, deadline=None)
@given(
    cause=st.sampled_from([*PIPELINES, "healthy"]),
    lost=st.sets(st.sampled_from(NAMES), min_size=1),
    state=st.sampled_from(FAILED),
)
@example(cause="V12", lost={"queue_state"}, state="unreachable")
def test_a_failed_reading_never_raises_a_cause(cause: str, lost: set[str], state: str) -> None:
    complete = (PIPELINES | {"healthy": healthy})[cause]().readings()
    cut: list[Reading] = [
        replace(r, state=state, reason="…", value=None) if r.name in lost else r  # type: ignore[arg-type]
        for r in complete
    ]
    before = {v.cause: v.tier for v in diagnose(complete, {}).verdict}
    for after in diagnose(cut, {}).verdict:
        if after.tier in ("confirmed", "probable"):
            assert TIERS.index(after.tier) >= TIERS.index(before[after.cause]), after
            assert before[after.cause] in ("confirmed", "probable"), after
