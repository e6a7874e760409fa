"""The read side of ECS and autoscaling, on a moto that enforces IAM where a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from runbook.connectors.aws import Aws
from runbook.connectors.base import Context
from runbook.settings import Aws as AwsSettings
from tests.integration.connectors import moto_server
from tests.integration.connectors.moto_server import REGION, Moto
from tests.support import free_port

CLUSTER, SERVICE, GROUP = "production", "api", "workers"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server.running() as server:
        _service(server)
        _group(server)
        yield server


def _service(server: Moto) -> None:
    ecs = server.client("ecs")
    ecs.create_cluster(clusterName=CLUSTER)
    container = {"name": "api", "image": "api:1", "memory": 128}
    ecs.register_task_definition(family="api", containerDefinitions=[container])
    ecs.create_service(cluster=CLUSTER, serviceName=SERVICE, taskDefinition="api", desiredCount=3)
    server.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="ecs",
        ResourceId=f"service/{CLUSTER}/{SERVICE}",
        ScalableDimension="ecs:service:DesiredCount",
        MinCapacity=2,
        MaxCapacity=8,
    )
    ecs.create_service(cluster=CLUSTER, serviceName="fixed", taskDefinition="api", desiredCount=1)


def _group(server: Moto) -> None:
    ec2 = server.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    scaling = server.client("autoscaling")
    scaling.create_launch_configuration(LaunchConfigurationName="l", ImageId=image, InstanceType="t2.micro")
    zones = {"AvailabilityZones": [f"{REGION}a"], "LaunchConfigurationName": "l"}
    scaling.create_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=1, MaxSize=5, DesiredCapacity=2, **zones)
    scaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Launch"])


@pytest.fixture
def aws(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``aws(key, **section)``: a connector; the credential comes from the environment, as on a host of Amazon's."""

    def make(key: tuple[str, str] = ("AKIAANYBODY", "anything-goes"), **changed: Any) -> Aws:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
        section = {"endpoint_url": moto.url, "region": REGION, "ecs_cluster": CLUSTER, "ecs_service": SERVICE}
        return Aws(Context(), AwsSettings(**{**section, "autoscaling_group": GROUP, **changed}))

    yield make
    moto.enforce(on=False)


def test_a_service_comes_with_counts_deployments_and_scaling_limits(aws: Any) -> None:
    reading = aws().ecs()
    assert reading.state == "ok", reading.reason
    (row,) = reading.value
    assert (row["cluster"], row["service"], row["desired"]) == (CLUSTER, SERVICE, 3)
    assert (row["scaling_minimum"], row["scaling_maximum"]) == (2, 8)
    assert isinstance(row["running"], int)
    assert row["deployments"][0]["status"] == "PRIMARY"
    assert row["deployments"][0]["task_definition"] == "api:1"
    assert row["rollout_state"] == row["deployments"][0]["rollout_state"]


def test_a_service_that_nothing_scales_has_no_limits_and_is_no_less_known(aws: Any) -> None:
    reading = aws(ecs_service="fixed").ecs()
    assert (reading.state, reading.value[0]["scaling_maximum"]) == ("ok", None)


def test_limits_that_may_not_be_read_make_it_partial(aws: Any, moto: Moto) -> None:
    key = moto.user("no-scaling", {"Effect": "Deny", "Action": "application-autoscaling:*", "Resource": "*"})
    moto.enforce()
    reading = aws(key).ecs()
    assert (reading.state, reading.value[0]["desired"], reading.value[0]["scaling_maximum"]) == ("partial", 3, None)
    assert "scaling limits not read" in reading.reason


def test_the_key_of_the_settings_is_taken_before_that_of_the_host(aws: Any, moto: Moto) -> None:
    number, secret = moto.user("looks")
    moto.enforce()
    nobody = ("AKIANOBODY", "nothing-goes")
    assert aws(nobody, access_key_id=number, secret_access_key=secret).ecs().state == "ok"
    assert not aws(nobody).ecs().known
    half = aws(nobody, access_key_id=number).ecs()
    assert (half.state, half.reason) == ("not_configured", "aws.secret_access_key is not set")


def test_a_group_comes_with_its_limits_and_what_is_suspended(aws: Any) -> None:
    (row,) = aws().autoscaling().value
    assert (row["name"], row["desired"], row["minimum"], row["maximum"]) == (GROUP, 2, 1, 5)
    assert (row["in_service"], row["unhealthy"], row["suspended"]) == (2, 0, ["Launch"])


@pytest.mark.parametrize("method", ["ecs", "autoscaling"])
def test_what_is_denied_is_permission_denied(aws: Any, moto: Moto, method: str) -> None:
    key = moto.user(f"no-{method}", {"Effect": "Deny", "Action": f"{method}:*", "Resource": "*"})
    moto.enforce()
    reading = getattr(aws(key), method)()
    assert (reading.state, reading.known) == ("permission_denied", False), reading.reason


def test_a_key_that_nobody_knows_is_auth_failed(aws: Any, moto: Moto) -> None:
    moto.enforce()
    reading = aws(("AKIAUNKNOWN000000000", "not-the-secret")).autoscaling()
    assert (reading.state, reading.known) == ("auth_failed", False), reading.reason
    assert "not-the-secret" not in repr(reading)


@pytest.mark.parametrize(
    ("changed", "method"),
    [
        ({"ecs_service": "apii"}, "ecs"),
        ({"ecs_cluster": "staging"}, "ecs"),
        ({"autoscaling_group": "w"}, "autoscaling"),
    ],
)
def test_what_is_not_there_is_unknown_and_named(aws: Any, changed: dict[str, str], method: str) -> None:
    reading = getattr(aws(**changed), method)()
    assert (reading.state, reading.value) == ("partial", None)
    assert reading.code in ("MISSING", "ClusterNotFoundException")


def test_none_that_listens_is_unreachable(aws: Any) -> None:
    reading = aws(endpoint_url=f"http://127.0.0.1:{free_port()}").ecs()
    assert (reading.state, reading.code) == ("unreachable", "ECONNREFUSED")


def test_no_credential_at_hand_is_auth_failed(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = aws()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    reading = asked.ecs()
    assert (reading.state, reading.code) == ("auth_failed", "NoCredentials")


@pytest.mark.parametrize(
    ("missing", "method"),
    [("region", "ecs"), ("ecs_cluster", "ecs"), ("ecs_service", "ecs"), ("autoscaling_group", "autoscaling")],
)
def test_what_is_not_configured_says_which_setting(missing: str, method: str) -> None:
    section = {"region": REGION, "ecs_cluster": CLUSTER, "ecs_service": SERVICE, "autoscaling_group": GROUP}
    reading = getattr(Aws(Context(), AwsSettings(**(section | {missing: ""}))), method)()
    assert (reading.state, reading.reason) == ("not_configured", f"aws.{missing} is not set")
