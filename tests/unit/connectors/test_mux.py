"""What is made of Mux's answers."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from runbook import settings
from runbook.connectors.mux import Mux
from tests.vendor_stub import SECRET, Asked, Stub, context, row, rows, serving

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
ASSETS, UPLOADS = "/video/v1/assets", "/video/v1/uploads"


def mux(stub: Stub) -> Mux:
    section = settings.Mux(base_url=stub.url, token_id="id", token_secret=SecretStr(SECRET))
    return Mux(context(now=lambda: NOW), section)


def asset(number: int, minutes: int, **fields: Any) -> dict[str, Any]:
    created = str(int((NOW - timedelta(minutes=minutes)).timestamp()))
    return {"id": f"a{number}", "status": "preparing", "created_at": created, "passthrough": f"video:{number}",
            "upload_id": f"u{number}", **fields}  # fmt: skip


def test_an_asset_has_its_age_and_what_went_wrong() -> None:
    errors = {"type": "invalid_input", "messages": ["not a video", "of ann@mail.example.org"]}
    body = [
        asset(1, 30, progress={"state": "transcoding", "progress": 40.5}),
        asset(2, 5, status="errored", errors=errors, progress={"state": "errored", "progress": -1}),
        asset(3, 1, status="melting"),
    ]
    with serving({ASSETS: {"data": body}}) as stub:
        found = {item["id"]: item for item in rows(mux(stub).assets(NOW - timedelta(hours=1)))}
    assert [found[i]["status"] for i in ("a1", "a2", "a3")] == ["processing", "errored", "unknown"]
    assert (found["a1"]["age_seconds"], found["a1"]["progress_percent"], found["a1"]["reference"]) == (
        1800,
        40.5,
        "video:1",
    )
    assert (found["a2"]["error_code"], found["a2"]["error_message"]) == ("invalid_input", "not a video; of [e-mail]")
    assert found["a2"]["progress_percent"] is None
    assert found["a3"]["raw_status"] == "melting"


def test_pages_are_read_to_the_edge_of_the_window_and_no_further() -> None:
    def assets(asked: Asked) -> Any:
        page = int(asked.first("page") or 1)
        return {"data": [asset(n, n) for n in range((page - 1) * 100, page * 100)]}

    with serving({ASSETS: assets}) as stub:
        found = rows(mux(stub).assets(NOW - timedelta(minutes=150)))
    assert len(found) == 151
    assert [asked.first("page") for asked in stub.asked] == ["1", "2"]


def test_pages_out_of_order_are_read_to_the_cap_and_the_cap_is_said() -> None:
    with serving({ASSETS: {"data": [asset(n, 500 if n == 0 else 1) for n in range(100)]}}) as stub:
        reading = mux(stub).assets(NOW - timedelta(minutes=60))
    assert len(rows(reading, "partial")) == 99
    assert len(stub.asked) == 10
    assert "there are more" in reading.reason


def test_an_asset_without_a_time_is_kept_with_an_unknown_age() -> None:
    with serving({ASSETS: {"data": [asset(1, 1, created_at=None)]}}) as stub:
        found = row(mux(stub).assets(NOW - timedelta(hours=1)))
    assert (found["created_at"], found["age_seconds"]) == (None, None)


def test_uploads_say_what_became_of_them() -> None:
    body = [{"id": "u1", "status": "timed_out", "timeout": 3600, "cors_origin": "https://app.example",
             "url": "https://storage.example/put?signature=abc"},
            {"id": "u2", "status": "errored", "error": {"type": "t", "message": "m"}}]  # fmt: skip
    with serving({UPLOADS: {"data": body}}) as stub:
        reading = mux(stub).uploads()
    found = rows(reading)
    assert (found[0]["status"], found[0]["timeout_seconds"], found[0]["asset_id"]) == ("timed_out", 3600, None)
    assert (found[1]["error_type"], found[1]["error_message"]) == ("t", "m")
    assert "storage.example" not in str(reading.as_dict()), "where a client may write is a secret"


def test_the_token_goes_as_basic_authentication() -> None:
    with serving({UPLOADS: {"data": []}}) as stub:
        mux(stub).uploads()
    assert stub.asked[0].headers["authorization"] == "Basic " + base64.b64encode(f"id:{SECRET}".encode()).decode()


def test_without_settings_nothing_is_asked_and_the_setting_is_named() -> None:
    assert Mux(context(), settings.Mux(token_id="id")).uploads().reason == "mux.token_secret is not set"
    reading = Mux(context(), settings.Mux(token_secret=SecretStr(SECRET))).assets(NOW)
    assert (reading.state, reading.reason) == ("not_configured", "mux.token_id is not set")
