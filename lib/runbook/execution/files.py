"""The four files of a run, as bytes. Nothing is written here, and nothing leaves here that was not redacted before."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import nbformat
import structlog
from nbformat import NotebookNode

from runbook import recording
from runbook.execution.document import what_happened
from runbook.redaction import Redactor
from runbook.result import Reading

log = structlog.get_logger(__name__)

REPORT, NOTEBOOK, RESULT, READINGS = "report.html", "notebook.ipynb", "result.json", "readings.jsonl.gz"

_TIMINGS = ("papermill", "execution")
_PAPERMILL_KEPT = ("start_time", "end_time", "duration", "exception", "parameters", "version")


def redacted_notebook(notebook: NotebookNode, redactor: Redactor) -> NotebookNode:
    """The executed notebook without secrets, and without the paths of this machine that papermill notes down."""
    noted = notebook.metadata.get("papermill", {})
    metadata = {key: value for key, value in notebook.metadata.items() if key != "widgets"}
    metadata["papermill"] = {key: noted[key] for key in _PAPERMILL_KEPT if key in noted}
    cells = [_redacted_cell(cell, redactor) for cell in notebook.cells]
    return nbformat.from_dict({**notebook, "metadata": redactor.value(metadata), "cells": cells})


def _redacted_cell(cell: NotebookNode, redactor: Redactor) -> dict[str, Any]:
    """Everything in the cell that an author, a system or an alert wrote; not the ids and times that are ours."""
    ours = {key: cell.metadata[key] for key in _TIMINGS if key in cell.metadata}
    theirs = {key: value for key, value in cell.metadata.items() if key not in _TIMINGS}
    rest = {key: redactor.value(value) for key, value in cell.items() if key not in ("id", "metadata")}
    identity = {"id": cell["id"]} if "id" in cell else {}
    return {**rest, **identity, "metadata": {**redactor.value(theirs), **ours}}


def rendered(notebook: NotebookNode, result: Mapping[str, Any], redactor: Redactor) -> str:
    """The HTML report. A report that cannot be rendered becomes a page that says so, with the result in it."""
    try:
        from runbook.reporting.html import render

        return render(notebook, result)
    except Exception as error:  # noqa: BLE001 - a run must not be lost for want of its looks
        why = redactor.text(what_happened(error))
        log.error("render_failed", run_id=result["run_id"], reason=why)
        return _plain_report(result, why)


def _plain_report(result: Mapping[str, Any], why: str) -> str:
    shown = html.escape(json.dumps(result, ensure_ascii=False, indent=2))
    title = html.escape(f"{result['title']} · {result['outcome']}")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title></head>\n'
        f"<body><main><h1>{title}</h1>\n"
        f"<p>The report could not be rendered ({html.escape(why)}). "
        f"This is the result document; the executed notebook lies beside it.</p>\n"
        f"<pre>{shown}</pre></main></body></html>\n"
    )


def packed(
    report: str, notebook: NotebookNode, result: Mapping[str, Any], readings: Sequence[Reading]
) -> dict[str, bytes]:
    """The files by name."""
    return {
        REPORT: report.encode(),
        # Not indented as Jupyter does it: that is pure Python, and longer than all of the redaction takes.
        NOTEBOOK: (json.dumps(notebook, ensure_ascii=False, sort_keys=True) + "\n").encode(),
        RESULT: (json.dumps(result, ensure_ascii=False, indent=2) + "\n").encode(),
        READINGS: recording.pack(readings),
    }
