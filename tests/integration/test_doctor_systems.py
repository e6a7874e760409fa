"""What the doctor says of every system but the database: on the sandbox, on nothing, and on one that refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook.doctor import Check, examine
from runbook.sandbox import Sandbox
from runbook.settings import from_plain
from tests.support import wait_until

SYSTEMS = ("traffic", "app", "redis", "queue", "s3", "workers", "sentry", "github", "status_pages", "mux", "cloudflare",
           "pagerduty")  # fmt: skip


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("doctor") / "sandbox", owned=True) as up:
        wait_until(lambda: checks(up.settings())["queue"].ok, seconds=30, what="the first job in the queue")
        yield up


def checks(settings: dict[str, object]) -> dict[str, Check]:
    return {c.system: c for c in examine(from_plain(settings)) if c.check == "readable"}


def test_every_system_of_the_sandbox_can_be_read(sandbox: Sandbox) -> None:
    found = checks(sandbox.settings())
    assert {name: found[name].seen for name in SYSTEMS if not found[name].ok} == {}


def acting(settings: dict[str, object]) -> dict[str, Check]:
    return {c.system: c for c in examine(from_plain(settings)) if c.system.rpartition(".")[2].startswith("action_")}


def test_what_acts_gets_in_by_the_way_that_acts(sandbox: Sandbox) -> None:
    found = acting(sandbox.settings())
    assert {name: (check.ok, check.seen) for name, check in found.items() if check.ok is False} == {}
    assert ("gets in" in found["redis.action_url"].seen, found["redis.action_url"].ok) == (True, True)


@pytest.mark.parametrize(
    ("section", "changed", "says"),
    [
        ("redis", {"action_url": "redis://127.0.0.1:1/0"}, "another server than redis.url"),
        ("github", {"action_token": "revoked"}, "401"),
        ("github", {"rollback_workflow": "nowhere.yml"}, "has no workflow nowhere.yml"),
    ],
)
def test_what_cannot_act_is_told_with_the_reason(
    sandbox: Sandbox, section: str, changed: dict[str, str], says: str
) -> None:
    settings = sandbox.settings()
    settings["github"]["action_token"] = settings["github"]["token"]
    settings[section] |= changed
    (name,) = (f"{section}.{key}" for key in ("action_url", "action_token") if key in settings[section])
    check = acting(settings)[name]
    assert (check.ok, says in check.seen) == (False, True), check.seen


def test_what_is_not_configured_is_no_failure(sandbox: Sandbox) -> None:
    found = checks({})
    assert {c.ok for c in found.values()} == {None}
    assert "sentry.token" in found["sentry"].seen or "sentry.organization" in found["sentry"].seen


def test_a_refused_token_is_told_with_its_remedy(sandbox: Sandbox) -> None:
    settings = sandbox.settings()
    settings["sentry"]["token"] = "revoked"
    check = checks(settings)["sentry"]
    assert (check.ok, check.remedy.startswith("The token needs")) == (False, True)
    assert "auth failed" in check.seen


def test_a_service_is_examined_where_it_differs_and_nowhere_else(sandbox: Sandbox) -> None:
    settings = sandbox.settings()
    settings["services"] = {"billing": {"github": {"token": "revoked"}}}
    found = checks(settings)
    assert found["services.billing.github"].ok is False
    assert "services.billing.sentry" not in found


@pytest.mark.parametrize(
    ("section", "changed", "says"),
    [
        ("s3", {"access_key_id": "AKIANOBODYKNOWSTHIS0"}, "InvalidAccessKeyId"),
        ("s3", {"bucket": "nobodys-bucket"}, "404"),
        ("queue", {"name": "misspelt"}, "video-transcoding"),
    ],
)
def test_a_system_that_answers_and_refuses_is_no_healthy_one(
    sandbox: Sandbox, section: str, changed: dict[str, str], says: str
) -> None:
    settings = sandbox.settings()
    settings[section] |= changed
    check = checks(settings)[section]
    assert check.ok is False
    assert says in check.seen


def test_the_doctor_writes_nothing_into_the_bucket(sandbox: Sandbox) -> None:
    keys = {item["Key"] for item in sandbox.storage("s3").list_objects_v2(Bucket=sandbox.bucket).get("Contents", [])}
    checks(sandbox.settings())
    after = {item["Key"] for item in sandbox.storage("s3").list_objects_v2(Bucket=sandbox.bucket).get("Contents", [])}
    assert not {key for key in after - keys if "canary" in key}
