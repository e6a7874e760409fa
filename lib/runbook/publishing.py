"""``run.publish()``: hand the notebook, as it is saved next, to whoever archives and announces it.

That is the broker beside this kernel, else a process of its own with the settings in force here. No cell waits: the
next save, by hand or by JupyterLab itself, is waited for on a thread, and the output says what became of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from runbook.broker_client import BrokerClient
from runbook.errors import NotFound, RunbookError
from runbook.progress import SESSION

SAVE_SECONDS = 600.0
"""So long the next save is waited for."""
MARK = '<div class="rb-publish">'
"""How the output begins; in the published notebook it says so instead."""
_LOOK_SECONDS = 0.25

Say = Callable[[str], None]


def notebook_file(given: str = "") -> Path:
    """The file of this notebook: the given one, else the one that the Jupyter server named.

    Raises
    ------
    NotFound
        Nobody said which one it is, or it is not there.
    """
    named = given or os.environ.get(SESSION, "")
    path = Path(named).absolute()
    if not named.endswith(".ipynb") or not path.is_file():
        raise NotFound("it is not known which file this notebook is", remedy='Say so: run.publish("/path/to/it.ipynb")')
    return path


def known_file() -> Path | None:
    """The file of this notebook, where the Jupyter server named it."""
    with contextlib.suppress(NotFound):
        return notebook_file()
    return None


def publish(run: Mapping[str, Any], notebook: Path, broker: BrokerClient | None) -> threading.Thread:
    """Publish the run once the notebook is saved; the thread that waits for that.

    Parameters
    ----------
    run
        ``{run_id, runbook, parameters, started_at, readings}``.
    """
    say = _output(f"{notebook.name} is published as soon as it is saved (Ctrl+S) …")
    asked_ns = time.time_ns()

    def work() -> None:
        try:
            if not _saved(notebook, asked_ns):
                say("Not published: the notebook was not saved.")
                return
            say("Publishing …")
            document = {**run, "notebook": str(notebook)}
            say(_told(broker.publish(document) if broker is not None else _here(document)))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs into the output, not into a lost thread
            say(f"Not published: {error if isinstance(error, RunbookError) else type(error).__name__}")

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="publish", daemon=True)
    thread.start()
    return thread


def _saved(notebook: Path, since_ns: int) -> bool:
    """Wait for a save, and for its end: Jupyter writes into the file itself, so half of it can be seen."""
    deadline, seen = time.monotonic() + SAVE_SECONDS, (0, 0)
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            stat = notebook.stat()
            now = (stat.st_mtime_ns, stat.st_size)
            if now[0] > since_ns and now == seen and _is_whole(notebook):
                return True
            seen = now
        time.sleep(_LOOK_SECONDS)
    return False


def _is_whole(notebook: Path) -> bool:
    try:
        json.loads(notebook.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _here(document: Mapping[str, Any]) -> dict[str, Any]:
    """Publish with the settings in force, in a process that may have what this kernel may not."""
    done = subprocess.run(
        [sys.executable, "-m", "runbook.broker.publish"],
        input=json.dumps(document, default=str), capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines()
        raise RunbookError(f"publishing failed: {said[-1] if said else 'it said nothing'}") from None
    if "error" in told:
        raise RunbookError(told["error"], remedy=told.get("remedy", ""))
    return told


def _told(done: Mapping[str, Any]) -> str:
    return (
        f"Published as run {done['run_id']}, revision {done['revision']}: {done['report']}. "
        f"Message on Discord: {done['message']}."
    )


def _output(text: str) -> Say:
    """Show a line; what is returned replaces it."""
    from IPython.display import HTML, display

    def html(said: str) -> Any:
        return HTML(f'{MARK}<p role="status">{escape(said)}</p></div>')

    handle = display(html(text), display_id=True)
    return lambda said: handle.update(html(said)) if handle is not None else None
