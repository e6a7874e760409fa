"""What the drills of one call share: a sandbox, and a service that fires at the fault which is injected there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbook.catalog import Runbook
from runbook.drills.alerts import alertmanager_body
from runbook.drills.service import Service
from runbook.sandbox import Sandbox, laid_over
from runbook.sandbox.faults import Injected

#: What a run may take beyond the runbook's own limit: waiting for a kernel, rendering, writing.
_SLACK_SECONDS = 60.0


def thresholds_of(runbook: Runbook, scaled: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook's own parameters with what is scaled of them."""
    own = {name: parameter.default for name, parameter in runbook.parameters.items()}
    return own | {name: value for name, value in scaled.items() if name in own}


class Crew:
    """One sandbox and one service for many drills; the service works by the settings that each fault needs.

    Parameters
    ----------
    place
        Where the service's directory lies.
    services
        Ends the service.
    sections
        Settings that every drill has beside those of the sandbox.
    token
        What drills show the service; without one they need none.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        place: Path,
        services: ExitStack,
        *,
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        token: str = "",
    ) -> None:
        self.sandbox = sandbox
        self._place = place
        self._services = services
        self._sections = sections or {}
        self._token = token
        self._running: Service | None = None

    def service(
        self,
        runbook: Runbook,
        injected: Injected,
        thresholds: Mapping[str, Any],
        sections: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Service:
        """The service, by the settings that this fault needs, and these ``sections``."""
        settings = laid_over(self.sandbox.settings(), self._sections, injected.settings, sections or {})
        settings["thresholds"] = {runbook.name: dict(thresholds)}
        if self._running is None:
            directory = Path(tempfile.mkdtemp(prefix="service-", dir=self._place))
            self._running = self._services.enter_context(Service(directory, settings, token=self._token))
        self._running.use(settings)
        return self._running

    def diagnosed(self, runbook: Runbook, injected: Injected, service: Service) -> dict[str, Any]:
        """Fire the runbook's alert at what is injected; the result document of the run that it starts.

        Raises
        ------
        SandboxError
            The service does not take the alert, or has no result in time.
        """
        labels = {"service": "app", "drill": injected.plan.id, **injected.labels}
        body = alertmanager_body(runbook, labels, datetime.now(UTC), public_url=service.base_url)
        return service.wait_for(service.fire(body), seconds=runbook.timeout_seconds + _SLACK_SECONDS)
