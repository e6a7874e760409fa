"""The settings that a service works by while it runs: read again on SIGHUP, taken over as a whole or not at all.

Where it listens, its store and its archive stay what they were until it is started anew. A secret that was ever known
stays known, so that nothing of before leaks afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from runbook import catalog, settings
from runbook.dispatch.incidents import RememberingRedactor
from runbook.dispatch.routing import check_routes
from runbook.errors import RunbookError
from runbook.settings import Settings

log = structlog.get_logger(__name__)

FIXED = ("store", "archive", "server")
"""Sections that only a new start takes over."""


class InForce:
    """The settings in force, and the redactor that knows their secrets.

    Parameters
    ----------
    load
        Reads the settings again.
    """

    def __init__(self, initial: Settings, *, load: Callable[[], Settings] = settings.load) -> None:
        self.settings = initial
        self._load = load
        self._secrets = initial.secrets()
        self.redactor = RememberingRedactor(self._secrets)

    def read_again(self) -> None:
        """Take over the settings as they are now; what is wrong with them is logged, and those of before stay."""
        try:
            fresh = self._load()
            check_routes({runbook.name: runbook for runbook in catalog.load_all()}, fresh.routes)
        except RunbookError as error:
            log.error("settings not taken over", reason=self.redactor.text(str(error)))
            return
        before = self.settings
        if changed := [section for section in FIXED if getattr(fresh, section) != getattr(before, section)]:
            log.warning("settings that wait for a new start", sections=changed)
        self._secrets = list(dict.fromkeys([*self._secrets, *fresh.secrets()]))
        self.redactor = RememberingRedactor(self._secrets)
        self.settings = fresh.model_copy(update={section: getattr(before, section) for section in FIXED})
        log.info("settings taken over")
