"""The HTML report of one run: one file that opens offline, runs no script and asks nobody for anything.

Whatever the notebook or the result document carries, the page is complete; a run that broke off gives a report of
what was known until then.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook.reporting import safe, words
from runbook.reporting.fragment import findings_html
from runbook.reporting.page import page
from runbook.reporting.timeline import headings, timeline

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from runbook.reporting.exporter import ReportExporter

__all__ = ["CONTENT_SECURITY_POLICY", "findings_html", "render", "warm"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; base-uri 'none'; form-action 'none'"
)
"""In the page itself, for copies that are opened from disk; whoever serves one sends it as a header too, with
``sandbox`` (which a page cannot say about itself)."""

_TIMINGS = {
    "queued_s": "In the queue",
    "kernel_s": "Kernel",
    "cells_s": "Cells",
    "render_s": "Report",
    "total_s": "In all",
}
_rendering = threading.Lock()


def render(notebook: NotebookNode, result: Mapping[str, Any]) -> str:
    """The report of a run.

    Parameters
    ----------
    notebook
        As executed, wholly or in part; it is not changed.
    result
        The result document, schema 1.

    Returns
    -------
    str
        A whole HTML page, encodable as UTF-8. Safe to call from any thread; one page is made at a time.
    """
    failed_cell, failed_section = _failure(notebook, result)
    resources = {
        "result": result,
        "page": page(result),
        "timeline": timeline(result, list(notebook.cells)),
        "state_word": words.RUN_STATE_WORDS.get(str(result.get("state")), "The state of this run is not known"),
        "failed_cell": failed_cell,
        "failed_section": failed_section,
        "timing_words": _TIMINGS,
        "csp": CONTENT_SECURITY_POLICY,
        "css": _stylesheet(),
    }
    with _rendering:
        html, _ = _exporter().from_notebook_node(notebook, resources)
    return safe.visible(html)


def warm() -> None:
    """Import what rendering needs and compile the templates, so that a resident process's first report is quick too."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    render(new_notebook(cells=[new_markdown_cell("# x"), new_code_cell("x")]), {})


@cache
def _exporter() -> ReportExporter:
    from runbook.reporting.exporter import ReportExporter

    return ReportExporter()


@cache
def _stylesheet() -> str:
    return (Path(__file__).with_name("templates") / "report" / "report.css").read_text(encoding="utf-8")


def _failure(notebook: NotebookNode, result: Mapping[str, Any]) -> tuple[str, str]:
    """The number of the cell in which the run broke off, and the heading under which that stands."""
    from runbook.reporting.exporter import failed_cell

    failed, heading, number = failed_cell(notebook, result), "", 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((title for title, _ in reversed(headings(cell))), heading)
        elif cell.cell_type == "code":
            number += 1
        if cell is failed:
            return str(number), heading
    named = words.mapping(result.get("error")).get("cell")
    return str(named or ""), ""
