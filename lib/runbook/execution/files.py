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

_PAPERMILL_KEPT = ("start_time", "end_time", "duration", "exception", "parameters", "version")


def redacted_notebook(notebook: NotebookNode, redactor: Redactor) -> NotebookNode:
    """The executed notebook without secrets, and without the paths of this machine that papermill notes down."""
    clean = nbformat.from_dict(redactor.value(notebook))
    noted = clean.metadata.get("papermill", {})
    clean.metadata["papermill"] = {key: noted[key] for key in _PAPERMILL_KEPT if key in noted}
    clean.metadata.pop("widgets", None)
    return clean


def rendered(notebook: NotebookNode, result: Mapping[str, Any], redactor: Redactor) -> str:
    """The HTML report. A report that cannot be rendered becomes a page that says so, with the result in it."""
    try:
        from runbook.reporting.html import render

        return render(notebook, result)
    except Exception as error:
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
        NOTEBOOK: (nbformat.v4.writes(notebook) + "\n").encode(),
        RESULT: (json.dumps(result, ensure_ascii=False, indent=2) + "\n").encode(),
        READINGS: recording.pack(readings),
    }
