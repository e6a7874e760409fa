"""Examines what is configured: reachable, which version, what our role sees, what it could do and should not.

It reads and never changes anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runbook.connectors.base import Context
from runbook.doctor.acting import acting
from runbook.doctor.check import Check
from runbook.doctor.databases import databases
from runbook.doctor.systems import systems
from runbook.errors import RunbookError
from runbook.redaction import Redactor

if TYPE_CHECKING:
    from runbook.settings import Settings

__all__ = ["Check", "examine"]


def examine(settings: Settings) -> list[Check]:
    """Every check, by system; a service that has a system of its own is examined there too."""
    context = Context(redactor=Redactor(settings.secrets()))
    scopes = {"": settings, **{f"services.{name}.": settings.for_service(name) for name in settings.services}}
    own = {prefix: scope for prefix, scope in scopes.items() if not prefix or scope.postgres != settings.postgres}
    return [
        *(check for prefix, scope in own.items() for check in databases(prefix, scope, context)),
        *(check for prefix, scope in scopes.items() for check in systems(prefix, scope, settings, context)),
        *(check for prefix, scope in scopes.items() for check in acting(prefix, scope, settings)),
        _archive(settings),
        _announcing(settings),
    ]


def _archive(settings: Settings) -> Check:
    from runbook.reporting.archive import open_archive

    try:
        archive = open_archive(settings)
        archive.check()
    except RunbookError as error:
        return Check(system="archive", check="writable", ok=False, seen=error.message, remedy=error.remedy)
    return Check(system="archive", check="writable", ok=True, seen=str(archive.directory))


def _announcing(settings: Settings) -> Check:
    configured = settings.discord.webhook_url is not None
    return Check(system="discord.webhook_url", check="configured", ok=True if configured else None,
                 seen="messages are sent" if configured else "not configured: messages are shown only")  # fmt: skip
