"""The ordered diagnosis of a bucket, on an S3 that enforces IAM, and on answers that only Amazon's own S3 gives."""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from runbook.connectors import aws_session
from runbook.connectors.base import Context
from runbook.connectors.bucket_checks import STEPS, BucketChecks
from runbook.connectors.object_storage import ObjectStorage
from runbook.redaction import Redactor
from runbook.result import Reading
from runbook.settings import S3
from tests.integration.connectors import moto_server
from tests.integration.connectors.moto_server import Moto
from tests.support import free_port

ORIGIN = "https://app.example.com"
SECRET = "Canary-5e4d3c2b1a"
BUCKET = "media"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server.running() as server:
        yield server


@pytest.fixture(autouse=True)
def bucket(request: pytest.FixtureRequest) -> Iterator[None]:
    """An empty bucket, and nothing enforced; made anew for each test that has to do with moto."""
    if "moto" not in request.fixturenames:
        yield
        return
    server: Moto = request.getfixturevalue("moto")
    server.enforce(on=False)
    server.client("s3").create_bucket(Bucket=BUCKET)
    yield
    server.enforce(on=False)
    s3 = server.client("s3")
    for version in s3.list_object_versions(Bucket=BUCKET).get("Versions", []):
        s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    for marker in s3.list_object_versions(Bucket=BUCKET).get("DeleteMarkers", []):
        s3.delete_object(Bucket=BUCKET, Key=marker["Key"], VersionId=marker["VersionId"])
    for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    s3.delete_bucket(Bucket=BUCKET)


def storage(url: str, key: tuple[str, str] = ("AKIAEXAMPLE", SECRET), **changed: Any) -> ObjectStorage:
    settings: dict[str, Any] = {
        "endpoint_url": url,
        "region": moto_server.REGION,
        "bucket": BUCKET,
        "prefix": "uploads",
    }
    section = S3(**{**settings, "access_key_id": key[0], "secret_access_key": key[1], "canary": True, **changed})
    return ObjectStorage(Context(redactor=Redactor([key[1]])), section, ORIGIN)


def rows(reading: Reading) -> dict[str, dict[str, Any]]:
    assert reading.state == "ok", reading.reason
    assert tuple(row["step"] for row in reading.value) == STEPS
    return {row["step"]: row for row in reading.value}


def answers(reading: Reading) -> dict[str, tuple[str, str]]:
    return {step: (row["answer"], row["code"]) for step, row in rows(reading).items()}


# -- on moto ----------------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_well_says_yes_to_everything_that_uploads_need(moto: Moto) -> None:
    found = rows(storage(moto.url).checks())
    needed = ("head", "location", "list", "multipart", "canary_put", "canary_head", "canary_delete")
    assert {found[step]["answer"] for step in needed} == {"yes"}
    assert found["head"]["http_status"] == 200
    assert all(row["duration_ms"] > 0 for step, row in found.items() if step != "identity")


def test_what_is_absent_is_an_answer_and_no_error(moto: Moto) -> None:
    found = answers(storage(moto.url).checks())
    assert found["public_access"] == ("no", "NoSuchPublicAccessBlockConfiguration")
    assert found["policy_status"] == ("yes", "NoSuchBucketPolicy")
    assert found["cors"] == ("no", "NoSuchCORSConfiguration")
    assert found["lifecycle"] == ("no", "NoSuchLifecycleConfiguration")
    assert found["encryption"][0] == "no"


def test_the_canary_leaves_nothing_behind(moto: Moto) -> None:
    moto.client("s3").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert answers(storage(moto.url).checks())["canary_delete"] == ("yes", "")
    left = moto.client("s3").list_object_versions(Bucket=BUCKET)
    assert left.get("Versions", []) == left.get("DeleteMarkers", []) == []


def test_without_leave_for_a_canary_nothing_is_written(moto: Moto) -> None:
    moto.client("s3").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    found = rows(storage(moto.url, canary=False).checks())
    assert {found[step]["answer"] for step in STEPS[-3:]} == {"cannot tell"}
    assert "s3.canary" in found["canary_put"]["detail"]
    left = moto.client("s3").list_object_versions(Bucket=BUCKET)
    assert left.get("Versions", []) == left.get("DeleteMarkers", []) == []


def test_a_deny_of_put_alone_is_seen_by_the_canary_alone(moto: Moto) -> None:
    key = moto.user("no-put", {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"})
    moto.enforce()
    found = rows(storage(moto.url, key).checks())
    assert (found["head"]["answer"], found["list"]["answer"]) == ("yes", "yes")
    put = found["canary_put"]
    assert (put["answer"], put["code"], put["http_status"]) == ("no", "AccessDenied", 403)
    assert found["canary_delete"]["detail"] == "not asked: nothing was written"


def test_a_check_that_is_denied_tells_nothing(moto: Moto) -> None:
    denied = [
        "s3:GetBucketCORS",
        "s3:GetBucketLocation",
        "s3:GetLifecycleConfiguration",
        "s3:ListBucketMultipartUploads",
    ]
    key = moto.user("blind", {"Effect": "Deny", "Action": [*denied, "s3:ListBucket", "s3:HeadBucket"], "Resource": "*"})
    moto.enforce()
    found = answers(storage(moto.url, key).checks())
    for step in ("location", "cors", "multipart", "list"):
        assert found[step] == ("cannot tell", "AccessDenied"), step
    assert found["head"] == ("cannot tell", "403")
    assert found["canary_put"] == ("yes", "")


def test_a_canary_that_cannot_be_taken_away_says_so_loudly(moto: Moto) -> None:
    key = moto.user("no-delete", {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"})
    moto.enforce()
    row = rows(storage(moto.url, key).checks())["canary_delete"]
    assert (row["answer"], row["code"]) == ("no", "AccessDenied")
    assert row["detail"].startswith(f"LEFT BEHIND in {BUCKET}, delete it by hand: uploads/.runbook-canary/")


@pytest.mark.parametrize(
    ("key", "code"), [(None, "SignatureDoesNotMatch"), ("AKIAUNKNOWN000000000", "InvalidAccessKeyId")]
)
def test_a_key_that_is_wrong_is_told_by_its_code(moto: Moto, key: str | None, code: str) -> None:
    made = moto.user(f"wrong-{code}")
    moto.enforce()
    found = answers(storage(moto.url, (key or made[0], "not-the-secret-1")).checks())
    assert found["list"] == ("no", code)
    assert found["canary_put"] == ("no", code)
    assert found["head"][0] == "cannot tell"


def test_a_bucket_that_is_not_there_is_a_no(moto: Moto) -> None:
    found = answers(storage(moto.url, bucket="media-staging").checks())
    assert found["head"] == ("no", "404")
    assert found["list"] == ("no", "NoSuchBucket")
    assert found["canary_put"] == ("no", "NoSuchBucket")
    assert found["canary_delete"] == ("cannot tell", "")


@pytest.mark.parametrize(
    ("origins", "methods", "answer"),
    [
        ([ORIGIN], ["PUT"], "yes"),
        (["https://*.example.com"], ["GET", "POST"], "yes"),
        (["*"], ["PUT"], "yes"),
        (["https://app.example.org"], ["PUT"], "no"),
        ([ORIGIN], ["GET"], "no"),
    ],
)
def test_cors_rules_are_held_against_our_origin(
    moto: Moto, origins: list[str], methods: list[str], answer: str
) -> None:
    rule = {"AllowedMethods": methods, "AllowedOrigins": origins, "AllowedHeaders": ["*"]}
    moto.client("s3").put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})
    row = rows(storage(moto.url).checks())["cors"]
    assert row["answer"] == answer
    assert origins[0] in row["detail"]


def test_the_settings_of_the_bucket_are_told(moto: Moto) -> None:
    s3 = moto.client("s3")
    block = dict.fromkeys(["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"], True)
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=block | {"BlockPublicPolicy": False})
    abort = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}}
    abort["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 7}  # type: ignore[assignment]
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [abort]})
    sse = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/media"}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": sse}]}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rules)
    found = rows(storage(moto.url).checks())
    assert (found["public_access"]["answer"], found["public_access"]["detail"]) == ("no", "off: BlockPublicPolicy")
    assert (found["lifecycle"]["answer"], found["lifecycle"]["detail"]) == (
        "yes",
        "1 rules, unfinished uploads are aborted after 7 d",
    )
    assert (found["encryption"]["answer"], found["encryption"]["detail"]) == ("yes", "aws:kms alias/media")


def test_unfinished_uploads_are_listed_under_the_prefix_by_their_last_name(moto: Moto) -> None:
    s3 = moto.client("s3")
    begun = s3.create_multipart_upload(Bucket=BUCKET, Key="uploads/7/film.mp4")["UploadId"]
    s3.create_multipart_upload(Bucket=BUCKET, Key="elsewhere/other.mp4")
    reading = storage(moto.url).multipart()
    (row,) = reading.value
    assert (row["key_suffix"], row["upload_id"]) == ("film.mp4", begun)
    assert row["age_seconds"] > 0
    assert rows(storage(moto.url).checks())["multipart"]["detail"] == "1 unfinished"


def test_no_unfinished_upload_is_an_empty_list(moto: Moto) -> None:
    reading = storage(moto.url).multipart()
    assert (reading.state, reading.value) == ("ok", [])


def test_a_listing_that_is_denied_is_permission_denied(moto: Moto) -> None:
    key = moto.user("no-list", {"Effect": "Deny", "Action": "s3:ListBucketMultipartUploads", "Resource": "*"})
    moto.enforce()
    reading = storage(moto.url, key).multipart()
    assert (reading.state, reading.code, reading.value) == ("permission_denied", "AccessDenied", None)


def test_a_secret_is_in_no_reading(moto: Moto) -> None:
    asked = storage(moto.url, ("AKIAUNKNOWN000000000", SECRET))
    moto.enforce()
    for method in (asked.checks, asked.multipart, asked.clock, asked.preflight):
        method()
    assert SECRET not in repr(asked.context.recorder.readings)


def test_the_clock_of_the_service_is_ours(moto: Moto) -> None:
    reading = storage(moto.url).clock()
    assert reading.state == "ok"
    assert abs(reading.value["skew_seconds"]) <= 2


# -- answers that moto does not give ----------------------------------------------------------------------------------

Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def service(answer: Handler) -> Iterator[str]:
    """A service that answers every request by ``answer``; its URL."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def __getattr__(self, name: str) -> Callable[[], None]:
            if not name.startswith("do_"):
                raise AttributeError(name)
            return self.handled

        def handled(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def says(status: int, code: str = "", message: str = "", **headers: str) -> Handler:
    """An error in S3's form."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode() if code else b""
        body = b"" if request.command == "HEAD" else body
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


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


def amazon(url: str, key: tuple[str, str] = ("AKIAEXAMPLE", SECRET), region: str = "") -> BucketChecks:
    """Checks as they are made where no other address than Amazon's own is configured."""
    named = {"region": moto_server.REGION, "endpoint_url": url, "access_key_id": key[0], "secret_access_key": key[1]}
    return BucketChecks(
        client=aws_session.client("s3", path_style=True, attempts=1, **named),  # type: ignore[arg-type]
        identities=aws_session.client("sts", attempts=1, **named),  # type: ignore[arg-type]
        r2=False, bucket=BUCKET, prefix="", region=region, origin="", canary=False,
    )  # fmt: skip


def test_amazon_says_whose_the_key_is(moto: Moto) -> None:
    key = moto.user("uploader")
    moto.enforce()
    row = amazon(moto.url, key).run()[0]
    assert (row["step"], row["answer"]) == ("identity", "yes")
    assert row["detail"].endswith(":user/uploader")


def test_amazon_says_that_a_key_is_nobodys(moto: Moto) -> None:
    moto.enforce()
    row = amazon(moto.url, ("AKIAUNKNOWN000000000", "not-the-secret-1")).run()[0]
    assert (row["answer"], row["code"]) == ("no", "InvalidClientTokenId")


def test_another_storage_is_not_asked_whose_the_key_is(moto: Moto) -> None:
    row = rows(storage(moto.url).checks())["identity"]
    assert (row["answer"], row["code"], row["http_status"]) == ("cannot tell", "", None)


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


# -- what is configured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({}, "s3.bucket is not set"),
        ({"bucket": "b", "access_key_id": "k"}, "s3.secret_access_key is not set"),
        ({"bucket": "b", "secret_access_key": "s"}, "s3.access_key_id is not set"),
        ({"bucket": "b", "endpoint_url": "http://127.0.0.1:1"}, "s3.access_key_id is not set"),
        ({"bucket": "b", "flavour": "r2"}, "s3.endpoint_url is not set"),
    ],
)
def test_what_is_not_configured_says_which_setting(section: dict[str, Any], reason: str) -> None:
    reading = ObjectStorage(Context(), S3(**section), ORIGIN).checks()
    assert (reading.state, reading.reason) == ("not_configured", reason)


def test_without_an_origin_no_preflight_is_sent() -> None:
    reading = ObjectStorage(Context(), S3(bucket="b"), "").preflight()
    assert (reading.state, reading.reason) == ("not_configured", "app.public_url is not set")


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


def test_without_any_key_the_chain_of_the_sdk_is_asked_and_may_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = answers(ObjectStorage(Context(), S3(bucket="b", region="eu-west-1")).checks())
    assert found["head"] == ("no", "NoCredentials")
