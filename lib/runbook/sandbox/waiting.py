"""Waiting for what was set going in the sandbox, and no longer than it may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from runbook.errors import SandboxError

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = 20.0, remedy: str = "") -> T:
    """The first true value of ``condition``.

    Raises
    ------
    SandboxError
        It did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SandboxError(f"waited {seconds:g} s in vain for {what}", remedy=remedy)
        time.sleep(0.05)
    return value
