"""The findings as an HTML fragment: what a notebook displays where it concludes, and parts that the report shares.

Light enough for a kernel: no nbconvert here. Every value is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from runbook.reporting import words
from runbook.reporting.page import actions, page
from runbook.reporting.tables import table_html, tree_html


def _table(rows: Any, caption: str = "", max_rows: int = 50) -> Markup:
    if all(isinstance(row.get("depth"), int) for row in rows):
        return Markup(tree_html(list(rows), caption=caption, style=False))  # noqa: S704 escapes
    return Markup(table_html(list(rows), caption=caption, max_rows=max_rows, style=False))  # noqa: S704 escapes


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": words.duration,
    "clock": words.clock,
    "plain": words.plain,
    "identity": words.identity,
    "label": words.label,
    "table": _table,
}
"""Filters that the templates of the report and of the fragment share."""


ACTIONS_MARK = '<div class="rb-findings rb-actions">'
"""How the fragment of the actions begins; the report, which opens with them, refers to them instead."""


@cache
def template(name: str) -> jinja2.Template:
    """A template of a fragment; what it is given is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    environment.filters.update(FILTERS)
    return environment.get_template(name)


def findings_html(findings: Mapping[str, Any], *, style: bool = True) -> str:
    """The findings (``symptom`` to ``actions`` of the result document) as a fragment that brings its own style.

    In JupyterLab it takes the theme's colours, light or dark; elsewhere it falls back on its own.
    """
    return template("findings.html.j2").render(page=page(findings), style=style).strip()


def actions_html(proposed: Iterable[Mapping[str, Any]]) -> str:
    """Proposed actions (``actions`` of the result document) as a fragment: targets, what must hold, what to copy."""
    shown = actions(list(proposed))
    if not shown:
        return "<p>Nothing is proposed: no cause was found that an action would help.</p>"
    return template("actions.html.j2").render(actions=shown).strip()
