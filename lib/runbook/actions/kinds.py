"""What a kind of action has to be able to do, and which kinds there are.

A kind reads its targets anew for every plan, and changes them one by one: identity and change in one step wherever the
system can, so that what has moved on since the plan is left alone. None decides whether it may.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from runbook.actions.plan import Draft, Effect, Order, Plan, Refused

if TYPE_CHECKING:
    from runbook.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Said:
    """One thing that a person says about the target of an order."""

    #: In words, for whoever left it out.
    means: str
    form: Literal["text", "number", "labels"] = "text"
    #: Without it there is no order.
    needed: bool = False


class Kind(ABC):
    """One kind of action on one system.

    Parameters
    ----------
    settings
        Those of the service that the run was about, with the credentials that act.
    """

    #: A policy may permit it; what only a person may decide says ``False``.
    may_be_automatic: ClassVar[bool] = True
    #: A person may order it without a proposal: whoever has looked can name its target.
    may_be_ordered: ClassVar[bool] = False
    #: What such an order says about its target, by key, and how it is called where nobody says.
    said: ClassVar[Mapping[str, Said]] = {}
    called: ClassVar[str] = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def draft(self, order: Order) -> Draft:
        """Look at the targets as they are now; changes nothing.

        Raises
        ------
        Refused
            There is nothing left to do, or it may not be done.
        """

    @abstractmethod
    def apply(self, plan: Plan) -> list[Effect]:
        """Change the targets of the plan that are still what they were, one effect each.

        Raises
        ------
        Refused
            The system cannot be reached, or refuses.
        """

    def completed(self, given: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
        """The target that a person means who says only this: the rest by the settings and the run's result document.

        Raises
        ------
        InvalidParameter
            It cannot be known, and has to be said.
        """
        return given

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """Whether what was changed is so now, and in words; ``None`` when nobody can tell."""
        return None, "the system does not tell"

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """Put back what was changed, where it is still as we left it.

        Raises
        ------
        Refused
            It cannot be undone.
        """
        raise Refused("this cannot be undone", remedy=plan.draft.undo)


KINDS: Mapping[str, str] = {
    "postgres.terminate_session": "runbook.actions.postgres_sessions:Terminate",
    "postgres.cancel_statement": "runbook.actions.postgres_sessions:Cancel",
    "postgres.set_role_timeout": "runbook.actions.postgres_settings:RoleSetting",
    "postgres.raise_role_limit": "runbook.actions.postgres_settings:RoleLimit",
    "postgres.raise_database_limit": "runbook.actions.postgres_settings:DatabaseLimit",
    "redis.script_kill": "runbook.actions.redis_script:KillScript",
    "redis.kill_client": "runbook.actions.redis_clients:KillClient",
    "redis.raise_maxclients": "runbook.actions.redis_clients:RaiseMaxclients",
    "queue.retry": "runbook.actions.queue_jobs:Retry",
    "queue.pause": "runbook.actions.queue_pause:Pause",
    "queue.resume": "runbook.actions.queue_pause:Resume",
    "worker.restart": "runbook.actions.worker_restart:Restart",
    "files.delete_temporary": "runbook.actions.temporary_files:Delete",
    "content.resync": "runbook.actions.content_rows:Resync",
    "pgbouncer.pool_size": "runbook.actions.pgbouncer:PoolSize",
    "pgbouncer.pause": "runbook.actions.pgbouncer:Pause",
    "pgbouncer.resume": "runbook.actions.pgbouncer:Resume",
    "pgbouncer.reload": "runbook.actions.pgbouncer:Reload",
    "deploy.rollback": "runbook.actions.deploy_rollback:Rollback",
    "aws.scale": "runbook.actions.aws_scale:Scale",
    "alertmanager.silence": "runbook.actions.alertmanager_silence:Silence",
    "pagerduty.acknowledge": "runbook.actions.pagerduty_incidents:Acknowledge",
    "pagerduty.note": "runbook.actions.pagerduty_incidents:Note",
    "discord.post": "runbook.actions.discord_post:Post",
}
"""Kinds that can be applied, by name; every other proposal is for a person's own hands."""

NEVER_AUTOMATIC = frozenset({
    "postgres.drop_slot", "postgres.finish_prepared", "postgres.alter_system", "postgres.restart", "host.restart",
    "redis.flushall", "queue.obliterate", "storage.policy", "media.delete",
})  # fmt: skip
"""No policy can permit these, whatever it says. Source: reference fault model, section 2."""


def kind_named(name: str) -> type[Kind] | None:
    """The class of a kind; ``None`` for one that only a person's own hands can do."""
    where = KINDS.get(name)
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    found: type[Kind] = getattr(importlib.import_module(module), attribute)
    return found
