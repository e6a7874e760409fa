"""Scaling on moto: one step, within what the scaler permits, and back; never what somebody else has set since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Refused
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.connectors import moto_server
from tests.integration.connectors.moto_server import REGION, Moto
from tests.support import free_port

KIND = "aws.scale"
CLUSTER, SERVICE, GROUP = "production", "api", "workers"
ECS, ASG = {"cluster": CLUSTER, "service": SERVICE}, {"group": GROUP}
RESOURCE = {"ServiceNamespace": "ecs", "ResourceId": f"service/{CLUSTER}/{SERVICE}",
            "ScalableDimension": "ecs:service:DesiredCount"}  # fmt: skip


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server.running() as server:
        ecs = server.client("ecs")
        ecs.create_cluster(clusterName=CLUSTER)
        ecs.register_task_definition(family="api", containerDefinitions=[{"name": "a", "image": "a", "memory": 128}])
        image = server.client("ec2").describe_images()["Images"][0]["ImageId"]
        launch = {"LaunchConfigurationName": "l", "ImageId": image, "InstanceType": "t2.micro"}
        server.client("autoscaling").create_launch_configuration(**launch)
        yield server


@pytest.fixture
def desk(moto: Moto, database: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAANYBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything-goes")
    created(moto)
    scaler(moto, 2, 8)
    grouped(moto)
    aws = {"endpoint_url": moto.url, "region": REGION, "ecs_cluster": CLUSTER, "ecs_service": SERVICE,
           "autoscaling_group": GROUP}  # fmt: skip
    yield Desk({"store": {"url": database}, "aws": aws})
    moto.enforce(on=False)
    moto.client("application-autoscaling").deregister_scalable_target(**RESOURCE)
    moto.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    moto.client("ecs").delete_service(cluster=CLUSTER, service=SERVICE, force=True)


def created(moto: Moto, desired: int = 3) -> None:
    service = {"serviceName": SERVICE, "taskDefinition": "api", "desiredCount": desired}
    moto.client("ecs").create_service(cluster=CLUSTER, **service)


def scaler(moto: Moto, minimum: int, maximum: int) -> None:
    scaling = moto.client("application-autoscaling")
    scaling.register_scalable_target(**RESOURCE, MinCapacity=minimum, MaxCapacity=maximum)


def grouped(moto: Moto) -> None:
    zones = {"AvailabilityZones": [f"{REGION}a"], "LaunchConfigurationName": "l"}
    bounds = {"MinSize": 1, "MaxSize": 5, "DesiredCapacity": 2}
    moto.client("autoscaling").create_auto_scaling_group(AutoScalingGroupName=GROUP, **bounds, **zones)


def desired(moto: Moto, target: dict[str, Any]) -> int:
    if "group" in target:
        found = moto.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        return int(found["AutoScalingGroups"][0]["DesiredCapacity"])
    return int(moto.client("ecs").describe_services(cluster=CLUSTER, services=[SERVICE])["services"][0]["desiredCount"])


def set_to(moto: Moto, target: dict[str, Any], number: int) -> None:
    if "group" in target:
        moto.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=number)
    else:
        moto.client("ecs").update_service(cluster=CLUSTER, service=SERVICE, desiredCount=number)


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


@pytest.mark.parametrize(
    ("target", "after", "before"),
    [
        (ECS, 4, 3),
        ({**ECS, "from": 3, "to": 5}, 5, 3),
        ({**ECS, "from": 3, "to": 12}, 6, 3),
        (ASG, 3, 2),
        ({**ASG, "from": 2, "to": 9}, 4, 2),
    ],
    ids=["a step", "as proposed", "at most twice", "a group", "a group at most twice"],
)
def test_there_is_more_of_it_and_as_much_as_before_again(
    desk: Desk, moto: Moto, target: dict[str, Any], after: int, before: int
) -> None:
    seen = []
    desk.symptom = lambda: seen.append(desired(moto, target)) or 0.0  # type: ignore[func-returns-value]
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order(KIND, [target])))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    assert (seen, verified["holds"]) == ([after], True)
    assert desired(moto, target) == before


def test_the_scalers_maximum_is_respected(desk: Desk, moto: Moto) -> None:
    scaler(moto, 2, 4)
    plan = desk.do(lambda desk: desk.acting.plan(order(KIND, [{**ECS, "to": 6}]), ME))
    assert plan.draft.targets[0].after == 4
    scaler(moto, 2, 3)
    _refused(desk, order(KIND, [{**ECS, "to": 6}]), "at its scaler's maximum, 3")


def test_a_service_that_nothing_scales_is_scaled_as_well(desk: Desk, moto: Moto) -> None:
    moto.client("application-autoscaling").deregister_scalable_target(**RESOURCE)
    try:
        desk.do(lambda desk: desk.applied(order(KIND, [ECS])))
        assert desired(moto, ECS) == 4
    finally:
        scaler(moto, 2, 8)


@pytest.mark.parametrize("target", [ECS, ASG], ids=["service", "group"])
def test_what_a_scaler_has_set_since_the_plan_stays(desk: Desk, moto: Moto, target: dict[str, Any]) -> None:
    effect = desk.do(lambda desk: desk.overtaken(order(KIND, [target]), lambda: set_to(moto, target, 5)))
    assert (effect.done, "5 by now" in effect.said, desired(moto, target)) == (False, True, 5)


def test_a_service_of_the_same_name_that_was_made_anew_is_another_one(desk: Desk, moto: Moto) -> None:
    def anew() -> None:
        moto.client("ecs").delete_service(cluster=CLUSTER, service=SERVICE, force=True)
        created(moto)

    effect = desk.do(lambda desk: desk.overtaken(order(KIND, [ECS]), anew))
    assert (effect.done, "another one" in effect.said, desired(moto, ECS)) == (False, True, 3)


def test_a_maximum_that_was_lowered_since_the_plan_is_respected(desk: Desk, moto: Moto) -> None:
    effect = desk.do(lambda desk: desk.overtaken(order(KIND, [ECS]), lambda: scaler(moto, 2, 3)))
    assert (effect.done, desired(moto, ECS)) == (False, 3)


@pytest.mark.parametrize("target", [ECS, ASG], ids=["service", "group"])
def test_what_a_scaler_has_set_after_us_is_not_taken_back(desk: Desk, moto: Moto, target: dict[str, Any]) -> None:
    asked = order(KIND, [target])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        set_to(moto, target, 5)
        return await desk.acting.undo(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, desired(moto, target)) == (False, 5)


@pytest.mark.parametrize(("minimum", "done", "after"), [(4, True, 4), (6, False, 6)], ids=["partly", "not at all"])
def test_nothing_goes_back_below_the_scalers_minimum(
    desk: Desk, moto: Moto, minimum: int, done: bool, after: int
) -> None:
    asked = order(KIND, [{**ECS, "to": 6}])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        scaler(moto, minimum, 8)
        return await desk.acting.undo(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, desired(moto, ECS)) == (done, after)


def test_a_group_that_starts_nothing_is_refused(desk: Desk, moto: Moto) -> None:
    moto.client("autoscaling").suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Launch"])
    _refused(desk, order(KIND, [ASG]), "Launch is suspended")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({**ECS, "from": 2}, "3 by now, the run saw 2"),
        ({**ECS, "to": 3}, "nothing is left to do"),
        ({**ECS, "to": 1}, "nothing is left to do"),
        ({"cluster": CLUSTER, "service": "web"}, "for production/web, and the settings name production/api"),
        ({"cluster": "staging", "service": SERVICE}, "the settings name"),
        ({"group": "others"}, "for others, and the settings name workers"),
        ({"service": "the application"}, "neither an ECS service nor a group"),
    ],
)
def test_what_is_not_as_the_run_saw_it_is_refused(desk: Desk, target: dict[str, Any], reason: str) -> None:
    _refused(desk, order(KIND, [target]), reason)


def test_a_proposal_without_a_target_is_for_a_persons_own_hands(desk: Desk) -> None:
    _refused(desk, order(KIND, []), "names 0 targets")


def test_what_is_denied_changes_nothing_and_says_what_is(
    desk: Desk, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = moto.user("looks-only", {"Effect": "Deny", "Action": "ecs:UpdateService", "Resource": "*"})
    moto.enforce()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(Refused, match="AccessDenied"):
        desk.do(lambda desk: desk.applied(order(KIND, [ECS])))
    moto.enforce(on=False)
    assert desired(moto, ECS) == 3


def test_limits_that_may_not_be_read_are_not_taken_for_none(
    desk: Desk, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny = {"Effect": "Deny", "Action": "application-autoscaling:*", "Resource": "*"}
    key, secret = moto.user("no-limits", deny)
    moto.enforce()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    _refused(desk, order(KIND, [ECS]), "(?s)does not tell how it is: .*AccessDenied")


def test_none_that_listens_is_refused(desk: Desk) -> None:
    desk.plain["aws"]["endpoint_url"] = f"http://127.0.0.1:{free_port()}"
    _refused(desk, order(KIND, [ECS]), "ECONNREFUSED")


def test_a_region_that_is_not_set_is_named(desk: Desk) -> None:
    desk.plain["aws"]["region"] = ""
    _refused(desk, order(KIND, [ECS]), "aws.region is not set")
