"""Scaling on moto, which stands for AWS; what ECS would start for the number is done in the application instead."""

from __future__ import annotations

import logging
import threading
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

    # It would tell of each request on standard error.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
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
        with _followed(ecs, sandbox):
            yield {"aws": aws}
        ecs.delete_service(cluster=CLUSTER, service=SERVICE, force=True)
    finally:
        server.stop()


@contextmanager
def _followed(ecs: Any, sandbox: Sandbox) -> Iterator[None]:
    """As ECS does: as many as are wanted do the application's work."""
    over = threading.Event()

    def follow() -> None:
        hands = 1
        while not over.wait(0.3):
            wanted = max(1, _desired(ecs) // DESIRED)
            if wanted != hands:
                hands = wanted
                sandbox.application.change(hands=hands)

    thread = threading.Thread(target=follow, name="ecs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _desired(ecs: Any) -> int:
    (service,) = ecs.describe_services(cluster=CLUSTER, services=[SERVICE])["services"]
    return int(service["desiredCount"])


@contextmanager
def scaled_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody, or the scaler, wants one more."""
    ecs = _client("ecs", str(scene.sections["aws"]["endpoint_url"]))
    ecs.update_service(cluster=CLUSTER, service=SERVICE, desiredCount=OTHER)
    yield
    if (now := _desired(ecs)) != OTHER:
        raise SandboxError(f"the service is to be {now} although somebody else had said {OTHER}")


def _client(service: str, endpoint_url: str) -> Any:
    import boto3

    anybody = {"aws_access_key_id": "drill", "aws_secret_access_key": "drill"}
    return boto3.client(service, region_name=REGION, endpoint_url=endpoint_url, **anybody)


CASES = (
    Case(
        kind="aws.scale", runbook="high_error_rate", fault="E09", verdict="fixed", prepared=service_of_four,
        drift=scaled_by_somebody,
    ),
)  # fmt: skip
