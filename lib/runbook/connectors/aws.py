"""The read side of AWS: an ECS service with its deployments and scaling limits, an EC2 autoscaling group.

Only ``Describe`` calls are made, with the credential of the settings. Where they name none, the SDK's own chain decides
whose they are: the environment, a profile, or the role of the container or instance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runbook.connectors import aws_session
from runbook.connectors.base import Connector, Context, Failure, Fetched, Unavailable
from runbook.result import Reading
from runbook.settings import Aws as AwsSettings

LIMIT_SECONDS = 12.0
MAX_EVENTS = 20
"""The newest messages of a service that are kept; ECS itself keeps a hundred."""


class Aws(Connector):
    """What runs how often, and between which limits it may be scaled."""

    source = "aws"

    def __init__(self, context: Context, section: AwsSettings) -> None:
        self.failures = aws_session.errors()
        self._section = section
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        super().__init__(context, f"aws {section.region}".rstrip())

    def failure(self, error: Exception) -> Failure:
        return aws_session.failure(error)

    def ecs(self) -> Reading:
        """``ecs_service``: one row with counts, rollout, deployments and events of the service, newest first.

        ``scaling_minimum`` and ``scaling_maximum`` are of Application Auto Scaling; ``None`` where nothing scales the
        service, and also where that could not be read, which makes the reading partial.
        """
        query = f"ecs:DescribeServices {self._section.ecs_cluster}/{self._section.ecs_service}"
        return self._ask("ecs_service", query, ("region", "ecs_cluster", "ecs_service"), self._service)

    def autoscaling(self) -> Reading:
        """``autoscaling_group``: one row with the group's limits, its instances and the suspended processes."""
        query = f"autoscaling:DescribeAutoScalingGroups {self._section.autoscaling_group}"
        return self._ask("autoscaling_group", query, ("region", "autoscaling_group"), self._group)

    def _ask(self, name: str, query: str, needs: Sequence[str], fetch: Callable[[], Fetched]) -> Reading:
        for key in (*needs, *(("secret_access_key",) if self._section.access_key_id else ())):
            if not getattr(self._section, key):
                return self.missing(name, query, Failure(state="not_configured", reason=f"aws.{key} is not set"))
        return self.read(name, query, fetch, limit_seconds=LIMIT_SECONDS)

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                secret = self._section.secret_access_key
                self._clients[service] = aws_session.client(
                    service,
                    region=self._section.region,
                    endpoint_url=self._section.endpoint_url,
                    access_key_id=self._section.access_key_id,
                    secret_access_key=secret.get_secret_value() if secret is not None else "",
                )
            return self._clients[service]

    def _service(self) -> Fetched:
        cluster, service = self._section.ecs_cluster, self._section.ecs_service
        answer = self._client("ecs").describe_services(cluster=cluster, services=[service])
        if not answer.get("services"):
            why = next((failure.get("reason", "") for failure in answer.get("failures", ())), "") or "MISSING"
            reason = f"{why}: no service {service} in cluster {cluster} of {self._section.region}"
            raise Unavailable(Failure(state="partial", reason=reason, code=why))
        found = answer["services"][0]
        limits, unread = self._scaling_limits(cluster, service)
        return Fetched(value=[_service_row(found, cluster) | limits], partial=unread)

    def _scaling_limits(self, cluster: str, service: str) -> tuple[dict[str, Any], str]:
        """Between what the service is scaled, and why that is unknown."""
        limits: dict[str, Any] = {"scaling_minimum": None, "scaling_maximum": None}
        try:
            answer = self._client("application-autoscaling").describe_scalable_targets(
                ServiceNamespace="ecs",
                ResourceIds=[f"service/{cluster.rpartition('/')[2]}/{service.rpartition('/')[2]}"],
                ScalableDimension="ecs:service:DesiredCount",
            )
        except aws_session.errors() as error:
            return limits, f"scaling limits not read: {aws_session.failure(error).reason}"
        for target in answer.get("ScalableTargets", ()):
            limits = {"scaling_minimum": target.get("MinCapacity"), "scaling_maximum": target.get("MaxCapacity")}
        return limits, ""

    def _group(self) -> Fetched:
        name = self._section.autoscaling_group
        client = self._client("autoscaling")
        answer = aws_session.asked(client.describe_auto_scaling_groups, AutoScalingGroupNames=[name])
        groups = answer.get("AutoScalingGroups", ())
        if not groups:
            reason = f"no autoscaling group {name} in {self._section.region}"
            raise Unavailable(Failure(state="partial", reason=reason, code="MISSING"))
        return Fetched(value=[_group_row(groups[0])])


def _service_row(found: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    deployments = [_deployment(one) for one in found.get("deployments", ())]
    primary = next((one for one in deployments if one["status"] == "PRIMARY"), None)
    events = [
        {"at": _iso(event.get("createdAt")), "message": event.get("message", "")} for event in found.get("events", ())
    ]
    events.sort(key=lambda event: event["at"] or "", reverse=True)
    return {
        "cluster": cluster,
        "service": found.get("serviceName"),
        "desired": found.get("desiredCount"),
        "running": found.get("runningCount"),
        "pending": found.get("pendingCount"),
        "rollout_state": primary["rollout_state"] if primary else None,
        "rollout_reason": primary["rollout_reason"] if primary else None,
        "failed_tasks": primary["failed_tasks"] if primary else None,
        "deployments": deployments,
        "events": events[:MAX_EVENTS],
    }


def _deployment(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": one.get("id"),
        "status": one.get("status"),
        "task_definition": str(one.get("taskDefinition") or "").rpartition("/")[2] or None,
        "desired": one.get("desiredCount"),
        "running": one.get("runningCount"),
        "pending": one.get("pendingCount"),
        "failed_tasks": one.get("failedTasks"),
        "rollout_state": one.get("rolloutState"),
        "rollout_reason": one.get("rolloutStateReason"),
        "created_at": _iso(one.get("createdAt")),
        "updated_at": _iso(one.get("updatedAt")),
    }


def _group_row(group: Mapping[str, Any]) -> dict[str, Any]:
    instances = group.get("Instances", ())
    return {
        "name": group.get("AutoScalingGroupName"),
        "desired": group.get("DesiredCapacity"),
        "minimum": group.get("MinSize"),
        "maximum": group.get("MaxSize"),
        "in_service": sum(one.get("LifecycleState") == "InService" for one in instances),
        "unhealthy": sum(str(one.get("HealthStatus", "")).lower() == "unhealthy" for one in instances),
        "suspended": sorted(str(process.get("ProcessName")) for process in group.get("SuspendedProcesses", ())),
    }


def _iso(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at is not None else None
