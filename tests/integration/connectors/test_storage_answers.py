"""The bucket's diagnosis on answers that only Amazon's own S3, or nobody's, gives."""

from __future__ import annotations

import email.utils
import http.server
import socket
import time
from urllib.parse import urlsplit

import pytest

from runbook.connectors import aws_session
from tests.integration.connectors.buckets import ORIGIN, Handler, amazon, answers, rows, says, service, storage
from tests.support import free_port


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ExpiredToken"),
        (403, "RequestTimeTooSkewed"),
        (400, "AuthorizationHeaderMalformed"),
        (401, "Unauthorized"),
    ],
)
def test_what_speaks_of_key_clock_or_place_is_a_no_to_every_check(status: int, code: str) -> None:
    with service(says(status, code, "no")) as url:
        found = answers(storage(url).checks())
    assert {found[step] for step in ("location", "list", "cors", "multipart", "canary_put")} == {("no", code)}


def test_a_service_that_throttles_is_heard_and_not_retried_away() -> None:
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(f"{request.command} {urlsplit(request.path).query}")
        says(503, "SlowDown", "Please reduce your request rate.")(request)

    with service(answer) as url:
        found = answers(storage(url).checks())
    assert found["head"] == ("no", "503")
    assert found["list"] == ("no", "SlowDown")
    assert found["canary_put"] == ("no", "SlowDown")
    assert found["cors"] == ("cannot tell", "SlowDown")
    assert asked.count("GET cors") == 1


def test_kms_that_denies_the_write_is_a_no_with_its_code() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        denied = request.command == "PUT"
        (says(400, "KMS.DisabledException", "the key is disabled") if denied else says(200))(request)

    with service(answer) as url:
        found = answers(storage(url).checks())
    assert found["canary_put"] == ("no", "KMS.DisabledException")


def test_a_write_left_in_doubt_is_looked_for_and_taken_away() -> None:
    written: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.command == "PUT":
            written.append(request.path)
            says(500, "InternalError", "after it was written")(request)
        elif request.command == "DELETE":
            written.remove(urlsplit(request.path).path)
            says(204)(request)
        else:
            says(200, Content_Type="application/xml")(request)

    with service(answer) as url:
        found = answers(storage(url).checks())
    assert found["canary_put"] == ("no", "InternalError")
    assert found["canary_delete"] == ("yes", "")
    assert written == []


def test_what_a_service_lacks_it_cannot_tell() -> None:
    with service(
        says(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
    ) as url:
        found = answers(storage(url).checks())
    assert found["public_access"] == ("cannot tell", "NotImplemented")


def test_r2_is_not_asked_for_what_it_lacks() -> None:
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(urlsplit(request.path).query)
        says(200)(request)

    with service(answer) as url:
        found = answers(storage(url, flavour="r2", region="").checks())
    for step in ("public_access", "policy_status"):
        assert found[step] == ("cannot tell", "NotImplemented")
    assert "publicAccessBlock" not in asked
    assert "policyStatus" not in asked
    assert found["canary_put"] == ("yes", "")


def test_an_identity_of_another_form_is_none() -> None:
    with service(says(200, "Odd")) as url:
        row = amazon(url).run()[0]
    assert (row["answer"], row["code"]) == ("cannot tell", "Malformed")


@pytest.mark.parametrize("body", [b"<html><body>Log in to the network</body></html>", b"not markup at all", b""])
def test_a_page_of_somebody_else_is_no_answer(body: bytes) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(b"" if request.command == "HEAD" else body)

    with service(answer) as url:
        asked = storage(url)
        found = answers(asked.checks())
        asked.multipart()
    for step in ("public_access", "policy_status", "encryption"):
        assert found[step][0] == "cannot tell", step
    assert found["canary_head"][0] == "no"


@pytest.mark.parametrize(("configured", "answer"), [("us-east-1", "no"), ("eu-west-1", "yes"), ("", "yes")])
def test_a_bucket_in_another_region_than_configured_is_a_no_although_the_sdk_finds_it(
    configured: str, answer: str
) -> None:
    with service(says(200, x_amz_bucket_region="eu-west-1")) as url:
        head = {row["step"]: row for row in amazon(url, region=configured).run()}["head"]
    assert (head["step"], head["answer"], head["code"]) == ("head", answer, "301" if answer == "no" else "")


def test_none_that_listens_is_a_no_and_nothing_more_is_asked() -> None:
    found = rows(storage(f"http://127.0.0.1:{free_port()}").checks())
    assert (found["head"]["answer"], found["head"]["code"]) == ("no", "connect:ECONNREFUSED")
    assert {row["answer"] for step, row in found.items() if step != "head"} == {"cannot tell"}


def test_a_name_that_does_not_resolve_is_a_no() -> None:
    found = rows(storage("http://storage.invalid").checks())
    assert found["head"]["code"] == "connect:DNS"


def test_a_service_without_tls_where_tls_is_wanted_is_a_no() -> None:
    with service(says(200)) as url:
        found = rows(storage(url.replace("http:", "https:")).checks())
    assert found["head"]["code"] == "connect:TLS", found["head"]


def test_a_service_that_never_answers_is_a_no_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_session, "READ_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = rows(storage(url).checks())
        assert found["head"]["code"] == "connect:TIMEOUT"
        assert storage(url).multipart().state == "timeout"
        assert storage(url).preflight().state == "timeout"
        assert storage(url).clock().state == "timeout"


def test_a_clock_that_is_off_is_measured() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response_only(403)
        request.send_header("Date", email.utils.formatdate(time.time() - 1200, usegmt=True))
        request.send_header("Content-Length", "0")
        request.end_headers()

    with service(answer) as url:
        reading = storage(url).clock()
    assert reading.value["skew_seconds"] == pytest.approx(-1200, abs=3)


def test_an_answer_without_a_date_leaves_the_clock_unknown() -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response_only(403)
        request.send_header("Content-Length", "0")
        request.end_headers()

    with service(answer) as url:
        reading = storage(url).clock()
    assert (reading.state, reading.known) == ("partial", False)


ALLOW = {"Access_Control_Allow_Origin": ORIGIN, "Access_Control_Allow_Methods": "PUT, GET"}


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (says(200, **ALLOW), True),
        (says(204, **{**ALLOW, "Access_Control_Allow_Origin": "*"}), True),
        (says(200, **{**ALLOW, "Access_Control_Allow_Methods": "*"}), True),
        (says(403, "AccessForbidden", "CORSResponse: This CORS request is not allowed."), False),
        (says(200, **{**ALLOW, "Access_Control_Allow_Origin": "https://app.example.org"}), False),
        (says(200, **{**ALLOW, "Access_Control_Allow_Methods": "GET"}), False),
        (says(200), False),
        (says(404, "NoSuchBucket", "The specified bucket does not exist"), None),
        (says(503, "SlowDown", "Please reduce your request rate."), None),
    ],
)
def test_a_preflight_is_read_as_a_browser_reads_it(answer: Handler, allowed: bool | None) -> None:
    with service(answer) as url:
        put = storage(url).preflight().value[0]
    assert (put["method"], put["allowed"], put["origin"]) == ("PUT", allowed, ORIGIN)
    assert bool(put["reason"]) == (allowed is not True)


def test_a_preflight_carries_no_credential_and_asks_for_an_object() -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        says(200, **ALLOW)(request)

    with service(answer) as url:
        storage(url).preflight()
    path, headers = asked[0]
    assert path == "/media/uploads/.runbook-canary/preflight"
    assert headers["origin"] == ORIGIN
    assert headers["access-control-request-method"] == "PUT"
    assert "authorization" not in headers


def test_keys_of_the_settings_are_used_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-does-not-exist")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-the-machine")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    seen: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(str(request.headers))
        says(200)(request)

    with service(answer) as url:
        assert storage(url, ("AKIAOURS", "ours-and-only-ours")).checks().state == "ok"
    assert all("AKIAOURS" in headers and "a-token-of-the-machine" not in headers for headers in seen)
