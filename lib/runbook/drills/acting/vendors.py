"""Actions on GitHub, PagerDuty and Discord, as the sandbox's simulator plays them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runbook.drills.acting.case import Case, Scene
from runbook.errors import SandboxError

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox

CONNECTIONS, FAULT, SIZES = "db_connection_exhaustion", "P01", {"sessions": 9}
NUMBER = 501
CHANNEL_ELSEWHERE = "100000000000000077"


@contextmanager
def unchanged_at(scene: Scene, vendor: str) -> Iterator[None]:
    """Nobody asks the vendor for a change while the block lasts."""
    before = len(_changes(scene, vendor))
    yield
    if asked := _changes(scene, vendor)[before:]:
        raise SandboxError(f"{vendor} was asked for a change all the same: {', '.join(asked)}")


def _changes(scene: Scene, vendor: str) -> list[str]:
    return [
        f"{one['method']} {one['path']}" for one in scene.sandbox.vendors.requests(vendor) if one["method"] != "GET"
    ]


# -- GitHub ------------------------------------------------------------------------------------------------------------


@contextmanager
def deployed_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody deploys the next commit."""
    vendors = scene.sandbox.vendors
    facts = vendors.state("github")
    fresh = {"sha": facts["commits"][-1]["sha"], "ref": "main", "created_at": datetime.now(UTC), "state": "success"}
    vendors.change("github", deployments=[fresh, *facts["deployments"]])
    with unchanged_at(scene, "github"):
        yield


# -- PagerDuty ---------------------------------------------------------------------------------------------------------


@contextmanager
def called(sandbox: Sandbox) -> Iterator[None]:
    """Somebody is called: an incident is triggered."""
    _become(sandbox, "triggered")
    yield
    sandbox.vendors.reset("pagerduty")


def _become(sandbox: Sandbox, status: str) -> None:
    incident = {"number": NUMBER, "title": "Connections", "created_at": datetime.now(UTC), "status": status}
    sandbox.vendors.change("pagerduty", incidents=[incident])


def incident(**more: str) -> Any:
    """The order for the incident that is open."""
    from runbook.sandbox.vendors.pagerduty import Incident

    number = Incident(number=NUMBER, title="", created_at=datetime.now(UTC)).identity
    return lambda place: {"incident_id": number, **more}


@contextmanager
def resolved_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody resolves the incident."""
    _become(scene.sandbox, "resolved")
    with unchanged_at(scene, "pagerduty"):
        yield


# -- Discord -----------------------------------------------------------------------------------------------------------


@contextmanager
def webhook_moved(scene: Scene) -> Iterator[None]:
    """Somebody has the webhook lead to another channel."""
    usual = scene.sandbox.vendors.state("discord")["channel"]
    scene.sandbox.vendors.change("discord", channel=CHANNEL_ELSEWHERE)
    with unchanged_at(scene, "discord"):
        yield
    scene.sandbox.vendors.change("discord", channel=usual)


CASES = (
    # GitHub deploys the commit that was there before, on every instance.
    Case(kind="deploy.rollback", runbook="high_error_rate", fault="E01", verdict="fixed", drift=deployed_by_somebody),
    Case(kind="deploy.rollback", runbook="high_response_time", fault="L15", verdict="fixed"),
    Case(kind="deploy.rollback", runbook="health_check_failure", fault="H15", verdict="fixed"),
    # Whoever is called, and is told, has changed nothing yet.
    Case(
        kind="pagerduty.acknowledge", runbook=CONNECTIONS, fault=FAULT, verdict="unchanged", sizes=SIZES,
        prepared=called, wanted=incident(), drift=resolved_by_somebody,
    ),
    Case(
        kind="pagerduty.note", runbook=CONNECTIONS, fault=FAULT, verdict="unchanged", sizes=SIZES, prepared=called,
        wanted=incident(content="a drill"), drift=resolved_by_somebody,
    ),
    Case(
        kind="discord.post", runbook=CONNECTIONS, fault=FAULT, verdict="unchanged", sizes=SIZES,
        wanted=lambda place: {"content": "a drill, and nothing is wrong"}, drift=webhook_moved,
    ),
)  # fmt: skip
