"""What the tests share: asking for a program that the machine may lack, free ports, waiting for a condition.

A test that needs a program of a Debian package says so with :func:`require_program`; it skips with the package's name
where that is absent, and fails instead when ``RUNBOOK_TEST_REQUIRE=all`` (continuous integration sets it).
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""A browser that only does what a test asks for."""

SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/postgresql/15/bin")


def missing(what: str) -> None:
    """Skip for want of ``what``; fail where everything is required."""
    if os.environ.get("RUNBOOK_TEST_REQUIRE") == "all":
        pytest.fail(f"{what} is required here (RUNBOOK_TEST_REQUIRE=all) and is not installed")
    pytest.skip(f"needs {what}")


def require_program(name: str, *, package: str) -> str:
    """Path of the program ``name``; skips with the Debian package's name when it is absent."""
    path = shutil.which(name) or next(
        (str(p) for d in SYSTEM_PATHS if (p := Path(d) / name).is_file() and os.access(p, os.X_OK)), None
    )
    if path is None:
        missing(f"{name} (Debian package {package})")
    assert path is not None
    return path


def open_to_others(directory: Path) -> None:
    """Let servers that run as another user reach a temporary directory of pytest's: those above it are private."""
    for parent in (directory, *directory.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)


def displayed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What cells display from now on, as plain text, each change of an output an entry of its own."""
    said: list[str] = []

    class Handle:
        def update(self, data: Any, **_: Any) -> None:
            said.append(data["text/plain"])

    def display(data: Any, **_: Any) -> Handle:
        said.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    return said


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_until(condition: Callable[[], T], *, seconds: float = 20, every: float = 0.05, what: str = "") -> T:
    """The first true value of ``condition``; fails the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain{' for ' + what if what else ''}; last value: {value!r}")
        time.sleep(every)
