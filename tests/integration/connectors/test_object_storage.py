"""The ordered diagnosis of a bucket, on an S3 that enforces IAM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from runbook.connectors.base import Context
from runbook.connectors.bucket_checks import STEPS
from runbook.connectors.object_storage import ObjectStorage
from runbook.settings import S3
from tests.integration.connectors import moto_server
from tests.integration.connectors.buckets import BUCKET, ORIGIN, SECRET, amazon, answers, rows, storage
from tests.integration.connectors.moto_server import Moto


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
    abort: dict[str, Any] = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}}
    abort["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 7}
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


def test_without_any_key_the_chain_of_the_sdk_is_asked_and_may_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = answers(ObjectStorage(Context(), S3(bucket="b", region="eu-west-1")).checks())
    assert found["head"] == ("no", "NoCredentials")
