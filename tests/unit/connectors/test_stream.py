"""What is made of Cloudflare Stream's answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from runbook import settings
from runbook.connectors.stream import Stream
from tests.vendor_stub import SECRET, Asked, Stub, context, row, rows, serving

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
VIDEOS = "/accounts/acc/stream"


def stream(stub: Stub) -> Stream:
    section = settings.Cloudflare(base_url=stub.url, account_id="acc", token=SecretStr(SECRET))
    return Stream(context(now=lambda: NOW), section)


def envelope(result: Any, **fields: Any) -> dict[str, Any]:
    return {"success": True, "errors": [], "messages": [], "result": result, **fields}


def video(number: int, minutes: float, **status: Any) -> dict[str, Any]:
    created = (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    return {"uid": f"v{number}", "created": created, "creator": "user-1", "meta": {"name": f"video:{number}"},
            "playback": {"hls": "https://x"}, "status": status}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("pendingupload", "waiting"),
        ("downloading", "processing"),
        ("queued", "processing"),
        ("inprogress", "processing"),
        ("ready", "ready"),
        ("error", "errored"),
        ("live-inprogress", "unknown"),
        ("new-one", "unknown"),
    ],
)
def test_every_state_of_a_video_has_one_name(state: str, status: str) -> None:
    with serving({VIDEOS: envelope([video(1, 10, state=state, pctComplete="39.0")])}) as stub:
        found = row(stream(stub).videos(NOW - timedelta(hours=1)))
    assert (found["status"], found["raw_status"], found["progress_percent"]) == (status, state, 39.0)
    assert (found["age_seconds"], found["reference"], found["creator"]) == (600, "video:1", "user-1")


@pytest.mark.parametrize("key", ["errorReason", "errReason"])
def test_both_spellings_of_an_error_are_read(key: str) -> None:
    body = video(1, 10, state="error", **{f"{key}Code": "ERR_NON_VIDEO", f"{key}Text": "no video"})
    with serving({VIDEOS: envelope([body])}) as stub:
        found = row(stream(stub).videos(NOW - timedelta(hours=1)))
    assert (found["error_code"], found["error_message"]) == ("ERR_NON_VIDEO", "no video")


def test_a_full_page_is_followed_by_the_one_before_its_oldest_video() -> None:
    def videos(asked: Asked) -> Any:
        if asked.first("end"):
            return envelope([video(999, 49.95), video(1000, 55)])
        return envelope([video(n, n / 20) for n in range(1000)])

    with serving({VIDEOS: videos}) as stub:
        found = rows(stream(stub).videos(NOW - timedelta(hours=1)))
    assert len(found) == 1001, "the one on the edge is counted once"
    assert [asked.first("start") for asked in stub.asked] == ["2026-11-20T09:00:00Z"] * 2


def test_the_state_of_the_token() -> None:
    result = {"id": "t", "status": "expired", "expires_on": "2026-11-19T00:00:00Z"}
    with serving({"/user/tokens/verify": envelope(result)}) as stub:
        assert row(stream(stub).token()) == {"status": "expired", "expires_on": "2026-11-19T00:00:00.000+00:00"}


REFUSED = (401, {"success": False, "errors": [{"code": 1000, "message": "Invalid API Token"}], "result": None}, {})


def test_a_token_of_the_account_is_verified_at_the_account() -> None:
    routes = {"/user/tokens/verify": REFUSED, "/accounts/acc/tokens/verify": envelope({"status": "active"})}
    with serving(routes) as stub:
        assert row(stream(stub).token()) == {"status": "active", "expires_on": None}


def test_a_token_that_nobody_knows_is_refused() -> None:
    with serving({"/user/tokens/verify": REFUSED}) as stub:
        reading = stream(stub).token()
    assert (reading.state, reading.code, reading.reason) == ("auth_failed", "401", "answered 401: Invalid API Token")


def test_minutes_stored_and_their_limit() -> None:
    usage = {"totalStorageMinutes": 990, "totalStorageMinutesLimit": 1000, "videoCount": 12}
    with serving({f"{VIDEOS}/storage-usage": envelope(usage)}) as stub:
        assert row(stream(stub).storage()) == {"used_minutes": 990, "limit_minutes": 1000}


@pytest.mark.parametrize(("code", "state"), [(10000, "auth_failed"), (10005, "partial")])
def test_an_envelope_that_says_no_is_no_empty_list(code: int, state: str) -> None:
    body = {"success": False, "errors": [{"code": code, "message": "not now"}], "messages": [], "result": None}
    with serving({VIDEOS: body}) as stub:
        reading = stream(stub).videos(NOW)
    assert (reading.state, reading.code, reading.reason, reading.known) == (state, str(code), "not now", False)


def test_without_settings_nothing_is_asked_and_the_setting_is_named() -> None:
    assert Stream(context(), settings.Cloudflare(account_id="a")).token().reason == "cloudflare.token is not set"
    reading = Stream(context(), settings.Cloudflare(token=SecretStr(SECRET))).videos(NOW)
    assert (reading.state, reading.reason) == ("not_configured", "cloudflare.account_id is not set")
