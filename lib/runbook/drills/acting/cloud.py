"""Scaling on moto, which stands for AWS: it keeps the number, and starts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runbook.drills.acting.case import Case, Scene, Sections
from runbook.errors import SandboxError

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox

REGION, CLUSTER, SERVICE = "us-east-1", "production", "api"
DESIRED, MINIMUM, MAXIMUM, OTHER = 4, 2, 12, 5


@contextmanager
def service_of_four(sandbox: Sandbox) -> Iterator[Sections]:
    """An ECS service that is to be four, and may be two to twelve."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        aws = {"endpoint_url": f"http://{host}:{port}", "region": REGION, "ecs_cluster": CLUSTER,
               "ecs_service": SERVICE, "access_key_id": "drill", "secret_access_key": "drill"}  # fmt: skip
        ecs = _client("ecs", aws["endpoint_url"])
        ecs.create_cluster(clusterName=CLUSTER)
        ecs.register_task_definition(family="api", containerDefinitions=[{"name": "a", "image": "a", "memory": 128}])
        ecs.create_service(cluster=CLUSTER, serviceName=SERVICE, taskDefinition="api", desiredCount=DESIRED)
        _client("application-autoscaling", aws["endpoint_url"]).register_scalable_target(
            ServiceNamespace="ecs", ResourceId=f"service/{CLUSTER}/{SERVICE}",
            ScalableDimension="ecs:service:DesiredCount", MinCapacity=MINIMUM, MaxCapacity=MAXIMUM,
        )  # fmt: skip
        yield {"aws": aws}
        ecs.delete_service(cluster=CLUSTER, service=SERVICE, force=True)
    finally:
        server.stop()


@contextmanager
def scaled_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody, or the scaler, wants one more."""
    ecs = _client("ecs", str(scene.sections["aws"]["endpoint_url"]))
    ecs.update_service(cluster=CLUSTER, service=SERVICE, desiredCount=OTHER)
    yield
    (now,) = ecs.describe_services(cluster=CLUSTER, services=[SERVICE])["services"]
    if now["desiredCount"] != OTHER:
        raise SandboxError(f"the service is to be {now['desiredCount']} although somebody else had said {OTHER}")


def _client(service: str, endpoint_url: str) -> Any:
    import boto3

    anybody = {"aws_access_key_id": "drill", "aws_secret_access_key": "drill"}
    return boto3.client(service, region_name=REGION, endpoint_url=endpoint_url, **anybody)


CASES = (
    # Nothing serves more: what is behind the number is not simulated.
    Case(
        kind="aws.scale", runbook="high_error_rate", fault="E09", verdict="unchanged", prepared=service_of_four,
        drift=scaled_by_somebody,
    ),
)  # fmt: skip
