"""A run's own notebook to work on: its parameters injected, with the outputs and the verdict that were archived.

It lies in the data directory and is kept: who opens the run again goes on where they were. What the outputs hold came
from systems and alerts, so it is cleaned as in a report before the notebook is signed as trusted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary

from runbook.errors import NotFound, RunbookError
from runbook.reporting.archive import NOTEBOOK, RESULT, Archive
from runbook.reporting.fragment import ACTIONS_MARK, actions_html, findings_html
from runbook.reporting.tables import FRAGMENT_STYLE
from runbook.result import RESULT_MIME
from runbook.settings import data_dir

WORK = "work"
WIDGET = "application/vnd.jupyter.widget-view+json"


def directory(run_id: str) -> Path:
    """Where the working copy of a run lies, whether or not it is there yet."""
    return data_dir() / WORK / run_id


def seen_from(root: Path, notebook: Path) -> str:
    """The path of a working copy below the directory that JupyterLab shows; empty where it cannot reach it."""
    below = notebook.resolve()
    return below.relative_to(root.resolve()).as_posix() if below.is_relative_to(root.resolve()) else ""


def run_of(notebook: Path) -> str:
    """The run that a notebook is the working copy of; empty when it is none."""
    try:
        parts = notebook.resolve().relative_to((data_dir() / WORK).resolve()).parts
    except ValueError:
        return ""
    return parts[0] if len(parts) > 1 else ""


def working_copy(run_id: str, archive: Archive) -> Path:
    """The working copy of an archived run, made when there is none yet.

    Raises
    ------
    NotFound
        The archive has no such run.
    RunbookError
        What is archived is no notebook.
    """
    archived = archive.find(run_id)
    if archived is None:
        raise NotFound(f"the archive has no run {run_id[:60]!r}", remedy="runbook reports lists them")
    try:
        result = json.loads((archived / RESULT).read_text(encoding="utf-8"))
        notebook = nbformat.read(archived / NOTEBOOK, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise RunbookError(f"run {run_id} cannot be opened ({type(error).__name__})",
                           remedy=f"Look at {archived}") from None  # fmt: skip
    path = directory(run_id) / f"{result['runbook']}.ipynb"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        nbformat.write(_prepared(notebook, result), path)
        # As it is read again: how it is split into lines counts.
        NotebookNotary().sign(nbformat.read(path, as_version=4))
    else:
        _without_dead_widgets(path)
    return path


def _without_dead_widgets(path: Path) -> None:
    """Where the state of widgets was not saved, a form or a card is an error message by now; its static form is not."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if WIDGET not in text:
        return
    try:
        notebook = nbformat.reads(text, as_version=4)
    except (ValueError, nbformat.ValidationError):  # it stays as it was left; JupyterLab says what is wrong with it
        return
    if "widgets" in notebook.metadata:
        return
    trusted = NotebookNotary().check_signature(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if set(data := output.get("data", {})) - {WIDGET}:
                data.pop(WIDGET, None)
    nbformat.write(notebook, path)
    if trusted:
        NotebookNotary().sign(nbformat.read(path, as_version=4))


def _prepared(notebook: NotebookNode, result: dict[str, Any]) -> NotebookNode:
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    loaded = load_notebook_node(notebook)
    prepared = parameterize_notebook(
        loaded, result.get("parameters") or {}, kernel_name="python3", language="python", engine_name="runbook"
    )
    for cell in prepared.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown for o in cell.get("outputs", []) if (shown := _shown(o, result)) is not None]
    return prepared


def _shown(output: Any, result: dict[str, Any]) -> Any:
    """An output with nothing in it that could run: our own findings drawn anew, other HTML cleaned."""
    from runbook.reporting import outputs, safe

    if output.output_type not in ("display_data", "execute_result"):
        return output
    data = {mime: value for mime, value in output.data.items() if mime in outputs.ALLOWED}
    if not data:
        return None
    html = "".join(data.get("text/html", ""))
    if RESULT_MIME in data:
        data["text/html"] = findings_html(data[RESULT_MIME])
    elif html.startswith(ACTIONS_MARK):
        data["text/html"] = actions_html(result.get("actions") or [])
    elif html:
        data["text/html"] = FRAGMENT_STYLE + str(safe.output_html(html))
    if "text/markdown" in data:
        data["text/html"] = str(safe.output_markdown("".join(data.pop("text/markdown"))))
    return nbformat.from_dict({**output, "data": data})
