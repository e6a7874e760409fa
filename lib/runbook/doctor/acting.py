"""The credentials that act beside ``postgres.action_dsn``: looked at through the very connections that actions use.

Nothing is changed: a login is let in and asked who it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook.actions.plan import Refused
from runbook.doctor.check import Check

if TYPE_CHECKING:
    from runbook.settings import Settings


@dataclass(frozen=True)
class Login:
    """A credential that acts, by its setting, and how it is looked at; what is seen is said in words."""

    section: str
    name: str
    check: str
    look: Callable[[Settings], str]

    def configured(self, settings: Settings) -> bool:
        return getattr(getattr(settings, self.section), self.name) is not None


def _pgbouncer(settings: Settings) -> str:
    from runbook.actions.pgbouncer_console import console

    with console(settings) as opened:
        opened.must_be_admin()
        return f"{opened.address}: is in admin_users"


def _redis(settings: Settings) -> str:
    from runbook.actions.redis_acting import acting, place, shared_login

    with acting(settings):
        return "; ".join((f"{place(settings)}: gets in", *shared_login(settings)))


def _github(settings: Settings) -> str:
    from runbook.actions.github_deployments import Repository

    repository = Repository(settings)
    newest = repository.newest()
    workflow = settings.github.rollback_workflow
    if workflow:
        repository.workflow(workflow)
    starts = f", may start {workflow}" if workflow else ""
    return f"{repository.name}: newest deployment to {repository.environment} is {newest.shown}{starts}"


LOGINS = (
    Login("postgres", "pgbouncer_action_dsn", "administers", _pgbouncer),
    Login("redis", "action_url", "gets in", _redis),
    Login("github", "action_token", "reads deployments", _github),
)


def acting(prefix: str, scope: Settings, base: Settings) -> Iterator[Check]:
    """What may act in this scope, and for a service only where it differs from ``base``."""
    for login in LOGINS:
        system = f"{prefix}{login.section}.{login.name}"
        if prefix and getattr(scope, login.section) == getattr(base, login.section):
            continue
        if not login.configured(scope):
            if not prefix:
                yield Check(system=system, check="configured", ok=None, seen="not configured: its actions are by hand")
            continue
        try:
            seen = login.look(scope)
        except Refused as error:
            yield Check(system=system, check=login.check, ok=False, seen=error.message, remedy=error.remedy)
        else:
            yield Check(system=system, check=login.check, ok=True, seen=seen)
