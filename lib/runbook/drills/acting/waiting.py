"""Waiting for what a drill has set going."""

from __future__ import annotations

import time
from collections.abc import Callable

from runbook.errors import SandboxError

SECONDS = 20.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when ``condition`` holds.

    Raises
    ------
    SandboxError
        It did not in :data:`SECONDS`.
    """
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SandboxError(f"waited {SECONDS:g} s in vain for {what}")
        time.sleep(0.05)
