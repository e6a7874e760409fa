"""The application of the sandbox on a healthy day: real requests, real uploads, what it tells about itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.application.stage import Control
from runbook.sandbox.sandbox import DATABASE
from tests.support import wait_until

FIELDS = {
    "time", "method", "path", "status", "duration_ms", "bytes", "client", "user", "release", "instance", "upstream",
    "upstream_status", "upstream_connect_time", "upstream_response_time",
}  # fmt: skip


def lines(sandbox: Sandbox, *, since: int = 0) -> list[dict[str, Any]]:
    text = sandbox.access_log.read_bytes()[since:].decode()
    return [json.loads(line) for line in text.splitlines()]


def fresh(sandbox: Sandbox, count: int) -> list[dict[str, Any]]:
    """That many requests and more, all of them from now on."""
    mark = sandbox.access_log.stat().st_size
    wait_until(lambda: len(lines(sandbox, since=mark)) >= count)
    return lines(sandbox, since=mark)


def count(sandbox: Sandbox, query: str) -> int:
    with sandbox.superuser() as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def s3(sandbox: Sandbox, **other: str) -> Any:
    """A client with the diagnosing key."""
    import boto3
    from botocore.config import Config

    settings = {**sandbox.settings()["s3"], **other}
    return boto3.client(
        "s3",
        endpoint_url=settings["endpoint_url"],
        region_name=settings["region"],
        aws_access_key_id=settings["access_key_id"],
        aws_secret_access_key=settings["secret_access_key"],
        config=Config(signature_version="s3v4"),
    )


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# -- traffic ----------------------------------------------------------------------------------------------------------


def test_every_line_has_every_field_and_instances_share_the_work(application: Sandbox) -> None:
    found = fresh(application, 100)
    assert all(set(line) == FIELDS for line in found)
    assert {line["instance"] for line in found} == {"web-1", "web-2", "web-3", "web-4"}
    assert {line["release"] for line in found} == {"api@1.41.0"}
    assert not [line for line in found if line["status"] >= 500]


def test_calls_to_the_vendor_are_told_with_its_host_and_answer(application: Sandbox) -> None:
    calls = [line for line in fresh(application, 150) if line["path"] == "/api/checkout"]
    assert calls
    assert {(c["upstream"], c["upstream_status"], c["status"]) for c in calls} == {("api.stripe.com", 200, 201)}
    assert all(c["upstream_connect_time"] is not None for c in calls)
    assert all(0 < 1000 * c["upstream_response_time"] < c["duration_ms"] for c in calls)


def test_the_log_has_a_past_as_busy_as_the_present(application: Sandbox) -> None:
    now = datetime.now(UTC)
    moments = [datetime.fromisoformat(line["time"]) for line in lines(application)]
    past = [at for at in moments if timedelta(minutes=15) > now - at > timedelta(minutes=10)]
    assert now - moments[0] > timedelta(minutes=15)
    assert 45 * 300 < len(past) < 55 * 300
    assert moments[: len(past)] == sorted(moments[: len(past)])


def test_the_stage_changes_what_the_application_does_and_reset_takes_it_back(application: Sandbox) -> None:
    control = application.application
    control.change(failures=[{"instance": "web-2", "share": 1.0}])
    try:
        wait_until(lambda: control.state()["lately"]["errors"])
        failed = {line["instance"] for line in fresh(application, 60) if line["status"] == 500}
    finally:
        control.reset()
    assert failed == {"web-2"}
    wait_until(lambda: not control.state()["lately"]["errors"])


def test_a_slip_in_a_change_is_refused_and_changes_nothing(application: Sandbox) -> None:
    before = application.application.state()["stage"]
    with pytest.raises(SandboxError, match=r"refuses.*realeases"):
        application.application.change(realeases={})
    assert application.application.state()["stage"] == before


def test_the_control_answers_nobody_without_its_token(application: Sandbox) -> None:
    port = json.loads((application.directory / "state.json").read_text())["application"]["control"]
    with pytest.raises(SandboxError, match="refuses"):
        Control(port, "guessed").state()


def test_a_workflow_that_deploys_changes_what_the_instances_run(application: Sandbox) -> None:
    vendors, github = application.vendors, application.settings()["github"]
    facts = vendors.state("github")
    older, newer = facts["commits"][1]["sha"], facts["commits"][0]["sha"]
    tagged = {"sha": newer, "ref": "v1.42.0", "created_at": datetime.now(UTC)}
    vendors.change("github", deployments=[tagged, *facts["deployments"]])

    def deploys(sha: str) -> set[str]:
        answer = httpx.post(
            f"{github['base_url']}/repos/{github['repository']}/actions/workflows/rollback.yml/dispatches",
            json={"ref": "main", "inputs": {"ref": sha}}, headers={"Authorization": f"Bearer {github['token']}"},
        )  # fmt: skip
        assert answer.status_code == 204, answer.text
        return {line["release"] for line in fresh(application, 8)[4:] if line["release"]}

    try:
        assert deploys(newer) == {"api@1.42.0"}
        assert deploys(older) == {"api@1.41.0"}
        vendors.reset("github")
        assert vendors.state("github")["deploy_url"]
    finally:
        vendors.reset("github")
        application.application.reset()


def test_errors_are_reported_to_sentry_with_the_release(application: Sandbox) -> None:
    settings = application.settings()["sentry"]
    application.application.change(failures=[{"share": 0.2, "message": "RangeError: page 0"}])
    try:
        url = f"{settings['base_url']}/api/0/organizations/{settings['organization']}/issues/?statsPeriod=1h"
        headers = {"Authorization": f"Bearer {settings['token']}"}
        wait_until(lambda: "RangeError: page 0" in httpx.get(url, headers=headers).text)
    finally:
        application.application.reset()
        application.vendors.reset("sentry")


# -- what operators ask -----------------------------------------------------------------------------------------------


def test_health_names_the_dependency_that_fails(application: Sandbox) -> None:
    app = application.settings()["app"]
    assert httpx.get(app["health_url"]).json()["status"] == "ok"
    application.application.change(database_dsn="postgresql://web@127.0.0.1:1/app")
    try:
        ill = httpx.get(app["ready_url"])
        assert (ill.status_code, ill.json()["error"]["database"]["status"]) == (503, "down")
        assert httpx.get(app["live_url"]).status_code == 200
    finally:
        application.application.reset()
    assert httpx.get(app["ready_url"]).status_code == 200


def test_each_instance_answers_for_itself_and_counts_its_requests(application: Sandbox) -> None:
    instances = application.settings()["app"]["instances"]
    assert len(instances) == 4
    for url in instances:
        assert httpx.get(f"{url}/health/live").status_code == 200
        assert 'http_requests_total{method="GET"' in httpx.get(f"{url}/metrics").text


def test_redis_asks_for_its_password(application: Sandbox) -> None:
    import redis

    url = application.settings()["redis"]["url"]
    assert redis.Redis.from_url(url).ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(url.replace(url.split(":")[2].split("@")[0], "wrong")).ping()


# -- uploads ----------------------------------------------------------------------------------------------------------


def test_an_upload_becomes_a_row_that_is_ready(application: Sandbox) -> None:
    ready = "SELECT count(*) FROM content WHERE id LIKE 'upload-%' AND status = 'READY' AND \"mediaUrl\" LIKE '%.m3u8'"
    before = count(application, ready)
    wait_until(lambda: count(application, ready) > before)
    assert s3(application).list_objects_v2(Bucket=application.bucket, Prefix="uploads/")["KeyCount"] > 0


def test_a_webhook_that_mux_did_not_sign_changes_nothing(application: Sandbox) -> None:
    event = {"type": "video.asset.errored", "data": {"passthrough": "content-9"}}
    url = f"{application.origin}/api/webhooks/mux"
    answer = httpx.post(url, json=event, headers={"mux-signature": "t=1,v1=00"})
    assert answer.status_code == 401
    assert count(application, "SELECT count(*) FROM content WHERE id = 'content-9' AND status = 'READY'") == 1


# -- object storage -----------------------------------------------------------------------------------------------


def test_the_diagnosing_key_may_write_its_canary_and_not_change_the_bucket(application: Sandbox) -> None:
    client = s3(application)
    client.put_object(Bucket=application.bucket, Key="uploads/.runbook-canary/1", Body=b"ok")
    client.delete_object(Bucket=application.bucket, Key="uploads/.runbook-canary/1")
    with pytest.raises(ClientError) as refused:
        client.delete_bucket_cors(Bucket=application.bucket)
    assert code(refused) == "AccessDenied"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"access_key_id": "AKIAUNKNOWN000000000"}, "InvalidAccessKeyId"),
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
    ],
)
def test_a_wrong_key_is_told_as_s3_tells_it(application: Sandbox, wrong: dict[str, str], expected: str) -> None:
    with pytest.raises(ClientError) as refused:
        s3(application, **wrong).put_object(Bucket=application.bucket, Key="uploads/x", Body=b"x")
    assert code(refused) == expected


def presigned(application: Sandbox, seconds: int = 60) -> str:
    parameters = {"Bucket": application.bucket, "Key": "uploads/a b+c.mp4"}
    url: str = s3(application).generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
    return url


def test_a_presigned_url_works_once_signed_rightly_and_in_time(application: Sandbox) -> None:
    assert httpx.put(presigned(application), content=b"film").status_code == 200
    stored = s3(application).get_object(Bucket=application.bucket, Key="uploads/a b+c.mp4")
    assert stored["Body"].read() == b"film"
    forged = httpx.put(presigned(application).replace("a%20b", "z%20b"), content=b"film")
    assert (forged.status_code, "SignatureDoesNotMatch" in forged.text) == (403, True)
    brief = presigned(application, seconds=1)
    time.sleep(2.1)
    late = httpx.put(brief, content=b"film")
    assert (late.status_code, "Request has expired" in late.text) == (403, True)


@pytest.mark.parametrize(("ours", "status"), [(True, 200), (False, 403)])
def test_the_preflight_lets_only_our_own_origin_upload(application: Sandbox, ours: bool, status: int) -> None:
    origin = application.origin if ours else "https://elsewhere.example"
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    answer = httpx.options(presigned(application), headers=headers)
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (origin if ours else None)


# -- life -------------------------------------------------------------------------------------------------------------


def test_up_brings_back_what_died_and_whatever_knew_its_address(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s", owned=True) as sandbox:
        before = sandbox.status()
        os.kill(before["redis"]["pid"], signal.SIGKILL)
        os.waitpid(before["redis"]["pid"], 0)
        assert not sandbox.status()["up"]
        after = Sandbox(tmp_path / "s", owned=True).up().status()
        assert after["up"]
        assert after["storage"] == before["storage"]
        assert httpx.get(sandbox.settings()["app"]["health_url"]).json()["status"] == "ok"


def test_an_application_joins_a_database_that_runs_already(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s", systems=DATABASE, owned=True) as alone:
        assert not alone.has_application
        with pytest.raises(SandboxError, match="no application"):
            _ = alone.application
        both = Sandbox(tmp_path / "s", owned=True).up()
        assert both.status()["patient"] == alone.status()["patient"]
        assert both.application.state()["stage"]["releases"] == {}


# -- what restarts the worker ------------------------------------------------------------------------------------------

ENDS_WITH = """
import sys, time
from runbook.sandbox import processes
processes.end_with(int(sys.argv[1]))
processes.ready()
while True:
    time.sleep(1)
"""


def test_the_command_of_the_settings_restarts_the_worker_which_still_ends_with_the_sandbox(
    application: Sandbox,
) -> None:
    before = application.status()["worker"]
    restart = application.settings()["workers"]["restart"]
    subprocess.run(restart, check=True, env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL, timeout=60)
    after = application.status()["worker"]
    assert (after["name"], after["pid"] == before["pid"]) == (before["name"], False)
    watched = [path.read_text() for path in Path(f"/proc/{after['pid']}/fdinfo").iterdir()]
    assert any(f"Pid:\t{os.getpid()}\n" in said for said in watched), "it does not watch who owns the sandbox"


def test_what_ends_with_another_process_does_so_whatever_it_does() -> None:
    owner = subprocess.Popen(["sleep", "600"])
    child = subprocess.Popen([sys.executable, "-c", ENDS_WITH, str(owner.pid)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == {}
        owner.kill()
        owner.wait()
        assert child.wait(10) == -signal.SIGKILL
    finally:
        for process in (owner, child):
            process.kill()
            process.wait()
