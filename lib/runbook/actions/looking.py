"""How an action looks at its targets with the connectors of a diagnosis: what they say is redacted all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runbook.connectors.base import Context
from runbook.redaction import Redactor

if TYPE_CHECKING:
    from runbook.settings import Settings


def context(settings: Settings) -> Context:
    """For connectors of these settings; nothing of it is kept."""
    return Context(redactor=redactor(settings))


def redactor(settings: Settings) -> Redactor:
    """Takes every configured secret out of a text, and what has the shape of one."""
    return Redactor(settings.secrets())
