"""What cells are called in words that a person recognises: the number in ``In [n]`` and the heading above.

Also what they displayed. Reads notebooks, never changes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nbformat import NotebookNode

from runbook.result import RESULT_MIME

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_MARKUP = re.compile(r"[*_`]+|\[([^\]]*)\]\([^)]*\)")
TITLE_LENGTH = 80


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a kernel executes, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def title(notebook: NotebookNode, index: int) -> str:
    """The last heading at or above the cell at ``index``; without one, the cell's first line."""
    for cell in reversed(notebook.cells[: index + 1]):
        if cell.cell_type == "markdown" and (headings := _HEADING.findall(cell.source)):
            return _plain(headings[-1])
    lines = [line.strip() for line in notebook.cells[index].source.splitlines() if line.strip()]
    return _plain(lines[0]) if lines else ""


def label(notebook: NotebookNode, index: int) -> str:
    """``12 · Lock waits``: number among the code cells, as in ``In [12]``, and title."""
    number = len([cell for cell in notebook.cells[: index + 1] if cell.cell_type == "code"])
    return f"{number} · {title(notebook, index)}"


def displayed_findings(notebook: NotebookNode) -> dict[str, Any] | None:
    """The findings that the notebook displayed last, when it displayed any that have the right shape."""
    for data in _displays(notebook):
        found = data.get(RESULT_MIME)
        if isinstance(found, dict) and {"outcome", "verdict", "evidence", "not_checked"} <= found.keys():
            return dict(found)
    return None


def _displays(notebook: NotebookNode) -> Iterator[Mapping[str, Any]]:
    for cell in reversed(code_cells(notebook)):
        for output in reversed(cell.get("outputs", [])):
            yield output.get("data", {})


def _plain(heading: str) -> str:
    text = _MARKUP.sub(lambda match: match[1] or "", heading).strip()
    return text if len(text) <= TITLE_LENGTH else text[: TITLE_LENGTH - 1] + "…"
