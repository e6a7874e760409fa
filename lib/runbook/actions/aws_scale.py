"""More of an ECS service or of an Auto Scaling group: one step, or as many as are proposed, at most twice as many.

Only the service or the group of the settings, within what its own scaler permits. The number is compared before it is
changed and before it is put back: what a scaler has set since stays. Source: contracts, section 9; reference fault
model, R1 (E09).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook.actions.attempts import Unheard, left_alone, only_target, tried
from runbook.actions.kinds import Kind
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors import aws_session
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings

_NOT_SENT = frozenset({"connect:ECONNREFUSED", "connect:DNS", "connect:TLS", "NoCredentials"})


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many there are to be, now."""

    desired: int
    running: int
    #: Of its scaler; ``None`` = nothing scales it, or sets no bound.
    minimum: int | None
    maximum: int | None
    #: What tells it from another one of the same name.
    identity: Mapping[str, Any]
    #: The roll-out that is in force: a newer one changes what there would be more of.
    rollout: str
    #: Why it must not be scaled; empty when it may.
    hinder: str


class Scaled(ABC):
    """What is scaled."""

    #: As a person calls it.
    name: str

    @abstractmethod
    def look(self) -> Size:
        """How it is now.

        Raises
        ------
        Refused
            It is not there, or may not be read.
        """

    @abstractmethod
    def set(self, desired: int) -> None:
        """Ask once for so many."""


class Service(Scaled):
    """The ECS service of the settings."""

    def __init__(self, settings: Settings) -> None:
        section = settings.aws
        self._cluster, self._service = section.ecs_cluster, section.ecs_service
        self._ecs, self._scaling = (_client(settings, name) for name in ("ecs", "application-autoscaling"))
        self.name = f"{_last(self._cluster)}/{_last(self._service)}"

    def look(self) -> Size:
        """See :meth:`Scaled.look`."""
        answer = _asked(self._ecs.describe_services, cluster=self._cluster, services=[self._service])
        found = next(iter(answer.get("services") or ()), None)
        if found is None or found.get("status") != "ACTIVE":
            raise Refused(f"there is no active service {self.name}")
        targets = _asked(
            self._scaling.describe_scalable_targets, ServiceNamespace="ecs", ResourceIds=[f"service/{self.name}"],
            ScalableDimension="ecs:service:DesiredCount",
        ).get("ScalableTargets")  # fmt: skip
        bounds = targets[0] if targets else {}
        daemon = found.get("schedulingStrategy") == "DAEMON"
        return Size(
            desired=int(found["desiredCount"]),
            running=int(found.get("runningCount") or 0),
            minimum=bounds.get("MinCapacity"),
            maximum=bounds.get("MaxCapacity"),
            identity={"service": found.get("serviceArn"), "created": _iso(found.get("createdAt"))},
            rollout=next(
                (str(d.get("id")) for d in found.get("deployments") or () if d.get("status") == "PRIMARY"), ""
            ),
            hinder="it runs once on every instance (DAEMON), and has no number" if daemon else "",
        )

    def set(self, desired: int) -> None:
        """See :meth:`Scaled.set`."""
        _changed(self._ecs.update_service, cluster=self._cluster, service=self._service, desiredCount=desired)


class Group(Scaled):
    """The Auto Scaling group of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.aws.autoscaling_group
        self._client = _client(settings, "autoscaling")

    def look(self) -> Size:
        """See :meth:`Scaled.look`."""
        answer = _asked(self._client.describe_auto_scaling_groups, AutoScalingGroupNames=[self.name])
        found = next(iter(answer.get("AutoScalingGroups") or ()), None)
        if found is None:
            raise Refused(f"there is no group {self.name}")
        suspended = [str(one.get("ProcessName")) for one in found.get("SuspendedProcesses") or ()]
        return Size(
            desired=int(found["DesiredCapacity"]),
            running=sum(one.get("LifecycleState") == "InService" for one in found.get("Instances") or ()),
            minimum=found.get("MinSize"),
            maximum=found.get("MaxSize"),
            identity={"group": found.get("AutoScalingGroupARN"), "created": _iso(found.get("CreatedTime"))},
            rollout="",
            hinder="its process Launch is suspended: nothing would start" if "Launch" in suspended else "",
        )

    def set(self, desired: int) -> None:
        """See :meth:`Scaled.set`."""
        _changed(self._client.set_desired_capacity, AutoScalingGroupName=self.name, DesiredCapacity=desired,
                 HonorCooldown=False)  # fmt: skip


class Scale(Kind):
    """``aws.scale``: more of what serves."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = only_target(order)
        scaled = self._scaled(wanted)
        now = scaled.look()
        if now.hinder:
            raise Refused(f"{scaled.name} is not scaled: {now.hinder}")
        seen = wanted.get("from")
        if isinstance(seen, int) and seen != now.desired:
            raise Refused(f"{scaled.name} is {now.desired} by now, the run saw {seen}", remedy="Run the runbook again")
        after = _wanted(scaled.name, now, wanted.get("to"))
        bounds = f"{'no minimum' if now.minimum is None else now.minimum} to " \
                 f"{'no maximum' if now.maximum is None else now.maximum}"  # fmt: skip
        target = Target(
            name=scaled.name, identity={**now.identity, "rollout": now.rollout},
            shown=f"{scaled.name} is to be {now.desired}, {now.running} run; its scaler: {bounds}",
            change=f"it is to be {after}", before=now.desired, after=after,
        )  # fmt: skip
        return Draft(
            targets=[target],
            preconditions=(
                Precondition(label=f"it is still to be {now.desired}", holds=True, value=now.desired),
                Precondition(label="within what its scaler permits", holds=True, value=bounds),
                Precondition(label="PostgreSQL has room for the pools of more instances", holds=None),
            ),
            risks=("each new one opens a pool of its own in the database",
                   "a scaler that does not see the need takes them away again",
                   "AWS takes no condition with this: a change in the moment before it is not seen"),
            undo=f"it is to be {now.desired} again, never below its minimum, and not if a scaler or somebody else has "
            "changed it since",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        scaled = self._named(target)
        now = scaled.look()
        if {**now.identity, "rollout": now.rollout} != dict(target.identity):
            return [left_alone(target.name, "it is another one of the same name, or rolls out anew, by now")]
        if now.desired != target.before:
            return [left_alone(target.name, f"it is to be {now.desired} by now")]
        if now.hinder or (now.maximum is not None and int(target.after) > now.maximum):
            return [left_alone(target.name, now.hinder or f"its maximum is {now.maximum} by now")]
        return [tried(target.name, f"it is to be {target.after}", lambda: scaled.set(int(target.after)))]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`. That they are wanted; those that run follow within minutes."""
        (target,) = plan.draft.targets
        now = self._named(target).look()
        return now.desired == target.after, f"{target.name} is to be {now.desired}, {now.running} run"

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        (target,) = plan.draft.targets
        scaled = self._named(target)
        now = scaled.look()
        back = max(int(target.before), now.minimum or 0)
        same = {**now.identity, "rollout": target.identity["rollout"]} == dict(target.identity)
        if not same or now.desired != target.after:
            return [left_alone(target.name, f"it is to be {now.desired} by now, which is not ours")]
        if back >= now.desired:
            return [left_alone(target.name, f"its minimum is {now.minimum} by now")]
        return [tried(target.name, f"it is to be {back}", lambda: scaled.set(back))]

    def _scaled(self, wanted: Mapping[str, Any]) -> Scaled:
        """What the target names, which must be what the settings name."""
        aws = self.settings.aws
        made: Callable[[Settings], Scaled]
        if wanted.get("group"):
            named, ours, made = str(wanted["group"]), aws.autoscaling_group, Group
        elif wanted.get("cluster") and wanted.get("service"):
            named = f"{_last(str(wanted['cluster']))}/{_last(str(wanted['service']))}"
            ours, made = f"{_last(aws.ecs_cluster)}/{_last(aws.ecs_service)}", Service
        else:
            raise Refused("it names neither an ECS service nor a group", remedy="Start more by the way you deploy")
        if named != ours:
            raise Refused(f"it is for {named}, and the settings name {ours.strip('/') or 'none'}")
        return made(self.settings)

    def _named(self, target: Target) -> Scaled:
        return Group(self.settings) if "group" in target.identity else Service(self.settings)


def _wanted(name: str, now: Size, named: Any) -> int:
    """The number to go to: at most twice what it is, at most the scaler's maximum."""
    wanted = int(named) if isinstance(named, int) else now.desired + 1
    after = min(wanted, max(1, 2 * now.desired), wanted if now.maximum is None else now.maximum)
    if after > now.desired:
        return after
    if now.maximum is not None and now.desired >= now.maximum:
        raise Refused(f"{name} is at its scaler's maximum, {now.maximum}", remedy="Its owner raises that")
    raise Refused(f"nothing is left to do: {name} is to be {now.desired} already, and {wanted} is proposed")


def _client(settings: Settings, service: str) -> Any:
    region = settings.aws.region
    if not region:
        raise Refused("aws.region is not set", remedy="Do it by hand, or set it")
    return aws_session.client(service, region=region, endpoint_url=settings.aws.endpoint_url, attempts=1)


def _asked(operation: Callable[..., Mapping[str, Any]], **arguments: Any) -> Mapping[str, Any]:
    try:
        return aws_session.asked(operation, **arguments)
    except aws_session.errors() as error:
        raise Refused(f"AWS does not tell how it is: {aws_session.failure(error).reason}") from None


def _changed(operation: Callable[..., Mapping[str, Any]], **arguments: Any) -> None:
    try:
        operation(**arguments)
    except aws_session.errors() as error:
        code, status, said = aws_session.code_and_status(error)
        reason = f"{code}: {said}" if said else code
        if code in _NOT_SENT or (status is not None and status < 500):
            raise Refused(
                f"AWS refuses: {reason}", remedy="See what the action needs: docs/actions/vendors.md"
            ) from None
        raise Unheard(f"AWS did not say what became of it ({reason})") from None


def _last(name: str) -> str:
    """The name at the end of an ARN, or the name itself."""
    return name.rpartition("/")[2]


def _iso(at: Any) -> str:
    return at.isoformat() if at is not None else ""
