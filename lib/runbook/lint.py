"""Whether a notebook is a well-formed runbook: stripped, complete, in order, its statements known.

The digests of the SQL statements that ship in notebooks stand in ``connectors/sql/shipped.json``: with a role that
could act, only those are run. ``python -m runbook.lint --update`` writes the list anew after a statement was changed.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runbook import catalog
from runbook.connectors.postgres import digest
from runbook.errors import RunbookError

SECTIONS = ("Is it real?", "Immediate actions", "Investigation", "Verdict", "Resolution", "Prevention", "Communicate")
"""Second-level headings of a runbook, in this order."""
SHIPPED = Path(__file__).parent / "connectors" / "sql" / "shipped.json"


def problems() -> list[tuple[str, str]]:
    """(notebook, problem) of every notebook of the catalog."""
    found = [(name, problem) for name in catalog.names() for problem in _problems(name)]
    try:
        found += _answered_twice()
        current = shipped()
    except RunbookError:
        return found  # told above; there is nothing to compare yet
    if json.loads(SHIPPED.read_text(encoding="utf-8")) != current:
        found.append(("shipped.json", "does not match the notebooks: python -m runbook.lint --update"))
    return found


def _answered_twice() -> Iterator[tuple[str, str]]:
    """An alert, or a cause, that two notebooks claim: nobody could say which of them is meant."""
    first: dict[str, str] = {}
    for runbook in catalog.load_all():
        for name in (*runbook.alerts, *runbook.causes):
            if first.setdefault(name, runbook.name) != runbook.name:
                yield runbook.name, f"{name} is {first[name]}'s already"


def _problems(name: str) -> Iterator[str]:
    try:
        runbook = catalog.load(name)
    except RunbookError as error:
        yield error.message
        return
    notebook = json.loads(runbook.path.read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    if any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"]):
        yield "has outputs: strip them"
    headings = [
        line[3:] for kind, text in cells if kind == "markdown" for line in text.split("\n") if line[:3] == "## "
    ]
    if headings != list(SECTIONS):
        yield f"its sections are {headings}, not {list(SECTIONS)}"
    code = [text for kind, text in cells if kind == "code" and not text.startswith("%")]
    try:
        trees = [ast.parse(text) for text in code]
    except (SyntaxError, ValueError) as error:
        yield f"a code cell is not Python ({error})"
    else:
        yield from _start_problems(runbook, trees)
    for kind, text in cells:
        if kind == "code" and text.startswith("%%sql") and len(text.partition("\n")[0].split()) < 2:
            yield "a %%sql cell names no variable"
    yield from _diagnosis_problems(runbook)


def _start_problems(runbook: catalog.Runbook, trees: list[ast.Module]) -> Iterator[str]:
    """Every declared parameter is handed to ``start``, under its own name."""
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "start"
    ]
    if len(calls) != 1:
        yield "start(…) is not called exactly once"
        return
    first = calls[0].args[0] if calls[0].args else None
    if not (isinstance(first, ast.Constant) and first.value == runbook.name):
        yield f"start(…) does not begin the run of {runbook.name!r}"
    given = {k.arg for k in calls[0].keywords if isinstance(k.value, ast.Name) and k.value.id == k.arg}
    if missing := sorted(set(runbook.parameters) - given):
        yield f"start(…) is not given {', '.join(missing)}"


def _diagnosis_problems(runbook: catalog.Runbook) -> Iterator[str]:
    module, _, function = runbook.diagnosis.partition(":")
    if not module.startswith("runbook.diagnosis."):
        yield f"diagnosis {runbook.diagnosis} is not in runbook.diagnosis"
        return
    try:
        diagnose = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError):
        yield f"diagnosis {runbook.diagnosis} does not exist"
        return
    judged = {verdict.cause for verdict in diagnose([], {}).verdict}
    if judged != set(runbook.causes):
        yield f"causes differ from what the diagnosis judges: {', '.join(sorted(judged ^ set(runbook.causes)))}"


def shipped() -> dict[str, str]:
    """``notebook/name`` → digest of every ``%%sql`` statement in the notebooks."""
    found: dict[str, str] = {}
    for name in catalog.names():
        notebook: Mapping[str, Any] = json.loads(catalog.load(name).path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            head, _, body = "".join(cell["source"]).partition("\n")
            words = head.split()
            if cell["cell_type"] == "code" and words[:1] == ["%%sql"] and len(words) > 1:
                found[f"{name}/{words[1]}"] = digest(body)
    return found


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit("usage: python -m runbook.lint --update")
    SHIPPED.write_text(json.dumps(shipped(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
