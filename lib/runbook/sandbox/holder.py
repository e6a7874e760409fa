"""Keeps a fault injected after the command that asked for it has ended: one process that injects, waits, and heals.

It must never end without having tried to heal, unless the whole sandbox goes down with it.
"""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

from runbook.errors import RunbookError, SandboxError
from runbook.sandbox import processes

MODULE = "runbook.sandbox.holder"
_HEAL_SECONDS = 60.0


def start(directory: Path, fault: str) -> None:
    """Start the process that injects ``fault``; returns when it is injected."""
    held = injected(directory)
    if held:
        raise SandboxError(f"fault {held} is injected already", remedy="Run: runbook sandbox heal")
    given = {"directory": str(directory), "fault": fault}
    child = processes.spawn(MODULE, given, log=directory / "fault.log", owned=False)
    if "error" in child.greeting:
        child.process.wait()
        raise SandboxError(child.greeting["error"])
    record = {"pid": child.pid, "fault": fault}
    (directory / "fault.json").write_text(json.dumps(record))


def stop(directory: Path) -> str | None:
    """Ask that process to heal and wait until it has; the id of the fault, ``None`` when none was injected."""
    record = _record(directory)
    if record is None:
        return None
    processes.end(record["pid"], MODULE, seconds=_HEAL_SECONDS)
    outcome = directory / "healed.json"
    try:
        problem = json.loads(outcome.read_text())["problem"]
    except (OSError, ValueError):
        problem = f"the process that held {record['fault']} ended without healing"
    outcome.unlink(missing_ok=True)
    (directory / "fault.json").unlink(missing_ok=True)
    if problem:
        raise SandboxError(problem, remedy="Run: runbook sandbox down, then up")
    return str(record["fault"])


def abandon(directory: Path) -> None:
    """End that process without waiting for a clean patient: the patient goes as well."""
    record = _record(directory)
    if record is not None:
        processes.end(record["pid"], MODULE)


def injected(directory: Path) -> str | None:
    """The fault injected at the moment."""
    record = _record(directory)
    return str(record["fault"]) if record is not None and processes.is_running(record["pid"], MODULE) else None


def _record(directory: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((directory / "fault.json").read_text())
    except (OSError, ValueError):
        return None
    return record


def main() -> None:
    """In the child: inject, say so, wait for SIGTERM, heal, leave a word."""
    from runbook.sandbox.faults import inject
    from runbook.sandbox.sandbox import Sandbox

    asked_to_heal = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_heal.set())
    given = processes.arguments()
    directory = Path(given["directory"])
    said = False
    problem = ""
    try:
        with inject(given["fault"], Sandbox(directory)):
            processes.ready(fault=given["fault"])
            said = True
            asked_to_heal.wait()
    except RunbookError as error:
        problem = str(error)
    if said:
        (directory / "healed.json").write_text(json.dumps({"problem": problem}))
    else:
        processes.ready(error=problem)


if __name__ == "__main__":
    main()
