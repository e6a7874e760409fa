"""nbconvert with a template of our own: the notebook's cells as the narrative of a report.

Built on nbconvert's template exporter and not on its HTML exporter: that one loads scripts from the web, parses the
whole page a second time to add attributes, and sanitises every highlighted input (nbconvert#1892), which is most of
its time. Here every piece is made safe once, where it enters the page, and the template escapes by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from nbconvert.exporters.templateexporter import TemplateExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

from runbook.catalog import PARAMETERS_TAG, Parameter, parse_parameters
from runbook.reporting import fragment, outputs, safe, svg, timeline, words

INJECTED_TAG = "injected-parameters"
MACHINE_TAGS = frozenset({"machine", "hide"})
_BANNER_TAGS = frozenset({"papermill-error-cell-tag"})

_ACTIONS_ABOVE = Markup('<p class="above">The actions are proposed <a href="#actions">above</a>.</p>')
_SEE_ABOVE = Markup('<p class="above">The verdict of this run opens this report: <a href="#verdict">see above</a>.</p>')
_HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.DOTALL)
_LEADING_NUMBER = re.compile(r"\d{1,6}")
_TAG = re.compile(r"<[^>]*>")
_FIRST_LEVEL = 3
"""Level of the narrative's uppermost headings: the page has the two above."""


class Narrative(Preprocessor):  # type: ignore[misc]
    """Prepares a notebook for the page: allowed outputs only, cut to size, and what the template has to know."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """A new notebook; the one that is given is left as it is."""
        result = resources["result"]
        headings = _Headings(str(result.get("title") or ""))
        budget = outputs.MAX_ALL_OUTPUTS
        failed = failed_cell(nb, result)
        cells: list[NotebookNode] = []
        number = 0
        for cell in nb.cells:
            tags = set(words.texts(cell.get("metadata", {}).get("tags", [])))
            if tags & _BANNER_TAGS:
                continue
            if cell.cell_type == "code":
                number += 1
                if INJECTED_TAG in tags:
                    continue
                shown, budget = _outputs(cell, budget)
                about = _about(cell, tags, number, shown, failed=cell is failed, result=result)
                cells.append(_cell("code", cell.source, about, shown))
            elif cell.cell_type == "markdown":
                html = headings.placed(safe.prose(cell.source))
                cells.append(_cell("markdown", html, {"machine": bool(tags & MACHINE_TAGS)}, []))
        resources["contents"] = headings.found
        return NotebookNode(nbformat=4, nbformat_minor=5, metadata=nb.metadata, cells=cells), resources


def _cell(kind: str, source: str, about: dict[str, Any], shown: list[dict[str, Any]]) -> NotebookNode:
    made = NotebookNode(cell_type=kind, source=source, metadata=NotebookNode(), report=about)
    made["outputs"] = [NotebookNode(o) for o in shown]
    return made


def _outputs(cell: Mapping[str, Any], budget: int) -> tuple[list[dict[str, Any]], int]:
    shown: list[dict[str, Any]] = []
    left_out = 0
    for output in cell.get("outputs", []):
        kept = outputs.shown(output)
        if kept is None:
            continue
        if (size := outputs.length(kept)) > budget:
            left_out += 1
            continue
        budget -= size
        shown.append(kept)
    return [*shown, outputs.left_out(left_out)] if left_out else shown, budget


def failed_cell(nb: NotebookNode, result: Mapping[str, Any]) -> NotebookNode | None:
    """The cell that ended the run: as the engine marked it, else by the number that the result names."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    if result.get("state") in (None, "succeeded"):
        return None
    named = _LEADING_NUMBER.match(str(words.mapping(result.get("error")).get("cell")))
    number = int(named[0]) if named else 0
    by_number = code[number - 1] if 0 < number <= len(code) else None
    return next((cell for cell in code if timeline.is_failed(cell)), by_number)


def _about(
    cell: NotebookNode,
    tags: set[str],
    number: int,
    shown: list[dict[str, Any]],
    *,
    failed: bool,
    result: Mapping[str, Any],
) -> dict[str, Any]:
    _, seconds = timeline.cell_times(cell)
    raised = any(o["output_type"] == "error" for o in shown)
    ran = cell.get("execution_count") is not None or bool(shown) or seconds is not None
    language = _language(cell.source)
    return {
        "number": number,
        "failed": failed,
        "raised": raised and not failed,
        "not_run": not ran and result.get("state") != "succeeded" and not failed,
        "took": words.duration(seconds) if seconds is not None else "",
        "language": {"python": "Python", "sql": "SQL", "bash": "Shell"}[language],
        "lexer": language,
        "machine": bool(tags & MACHINE_TAGS),
        "parameters": _parameters(cell.source, words.mapping(result.get("parameters")))
        if PARAMETERS_TAG in tags
        else None,
    }


def _language(source: str) -> str:
    first = source.lstrip()
    if first.startswith("%%sql"):
        return "sql"
    return "bash" if first.startswith(("%%sh", "%%bash", "%%script")) else "python"


def _parameters(source: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        declared = parse_parameters(source)
    except ValueError:
        declared = []
    if not declared:
        declared = [Parameter(name=str(name), type="", default=value) for name, value in given.items()]
    rows = []
    for p in declared:
        value = given.get(p.name, p.default)
        default = "" if value == p.default else _literal(p.default, p.unit)
        rows.append({"name": p.name, "value": _literal(value, p.unit), "help": p.help, "default": default})
    return rows


def _literal(value: Any, unit: str) -> str:
    if value in ("", []):
        return "(empty)"
    shown = words.identity(value)
    return f"{shown} {unit}" if unit and isinstance(value, int | float) else shown


class _Headings:
    """Gives the headings of the prose an id and a level that skips none, and remembers them."""

    def __init__(self, title: str) -> None:
        self._title = title.casefold().strip()
        self._level = _FIRST_LEVEL - 1
        self._base = 0
        #: Id, text and level of each heading.
        self.found: list[tuple[str, str, int]] = []

    def placed(self, html: Markup) -> Markup:
        return Markup(_HEADING.sub(self._place, str(html)))  # noqa: S704 already sanitised

    def _place(self, match: re.Match[str]) -> str:
        level, inner = int(match[1]), match[2]
        text = Markup(_TAG.sub("", inner)).unescape().strip()  # noqa: S704 back to plain text
        if level == 1 and not self.found and text.casefold() == self._title:
            return ""  # the page carries this title already
        self._base = self._base or level
        wanted = _FIRST_LEVEL + max(0, level - self._base)
        self._level = max(_FIRST_LEVEL, min(wanted, self._level + 1, 6))
        anchor = f"narrative-{len(self.found) + 1}"
        self.found.append((anchor, text, self._level))
        return f'<h{self._level} id="{anchor}">{inner}</h{self._level}>'


class ReportExporter(TemplateExporter):  # type: ignore[misc]
    """One notebook and its result document to one page. Not thread-safe: :mod:`runbook.reporting.html` serialises."""

    output_mimetype = "text/html"
    file_extension = ".html"

    def __init__(self) -> None:
        templates = str(Path(__file__).with_name("templates"))
        super().__init__(template_name="report", extra_template_basedirs=[templates], extra_template_paths=[templates])
        self._narrative = Narrative()

    def _create_environment(self) -> jinja2.Environment:
        environment: jinja2.Environment = super()._create_environment()
        environment.autoescape = True
        environment.trim_blocks = environment.lstrip_blocks = True
        return environment

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        yield from super().default_filters()
        yield from fragment.FILTERS.items()
        yield "filter_data_type", _kinds
        yield "terminal", safe.terminal
        yield "output_markdown", safe.output_markdown
        yield "highlighted", highlighted

    def from_notebook_node(
        self, nb: NotebookNode, resources: Mapping[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """The page of ``nb``; ``resources`` carries ``result`` and what else the template asks for.

        Neither copied nor validated on the way: a notebook of a run that broke off may well be invalid, and its
        report matters most.
        """
        prepared, given = self._narrative.preprocess(nb, dict(resources or {}))
        drawings = _Drawings()
        given |= {
            "global_content_filter": {
                "include_code": True,
                "include_markdown": True,
                "include_raw": False,
                "include_unknown": False,
                "include_input": True,
                "include_output": True,
                "include_input_prompt": False,
                "include_output_prompt": False,
            },
            "drawing": drawings.placed,
            "finding": _finding(given["result"]),
            "html": _html(given["result"]),
        }
        return self.template.render(nb=prepared, resources=given).lstrip(), given


def _kinds(data: Mapping[str, Any]) -> list[str]:
    """The one representation that is left of an output."""
    return list(data)


class _Drawings:
    """SVG outputs, each with ids of its own."""

    def __init__(self) -> None:
        self._count = 0

    def placed(self, source: str, alt: str) -> Markup:
        self._count += 1
        try:
            return Markup(svg.sanitised(source, prefix=f"drawing{self._count}-", label=alt or "Chart"))  # noqa: S704
        except svg.UnsafeDrawing as error:
            return Markup('<p class="rb-note">A drawing is not shown: it {}.</p>').format(str(error))


def _finding(result: Mapping[str, Any]) -> Any:
    """How a result display inside the narrative is shown: by reference when the page opens with the same."""

    def shown(data: Mapping[str, Any]) -> Markup:
        if _ranking(data) == _ranking(result):
            return _SEE_ABOVE
        return Markup(fragment.findings_html(data, style=False))  # noqa: S704 escaped by its template

    return shown


def _html(result: Mapping[str, Any]) -> Any:
    """How HTML of an output is shown: sanitised, or by reference when it is the actions that the page opens with."""
    proposed = bool(words.mappings(result.get("actions")))

    def shown(source: str) -> Markup:
        if proposed and source.startswith(fragment.ACTIONS_MARK):
            return _ACTIONS_ABOVE
        return safe.output_html(source)

    return shown


def _ranking(findings: Mapping[str, Any]) -> tuple[Any, ...]:
    causes = words.mappings(findings.get("verdict"))
    return findings.get("outcome"), [(cause.get("cause"), cause.get("tier")) for cause in causes]


@lru_cache(maxsize=3)
def _lexer(language: str) -> Any:
    from pygments.lexers import BashLexer, PostgresLexer, PythonLexer

    return {"python": PythonLexer, "sql": PostgresLexer, "bash": BashLexer}[language]()


@lru_cache(maxsize=1024)
def highlighted(source: str, language: str) -> Markup:
    """Source with its tokens marked by class; the magic's own line stays as it is. Escaped by pygments."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter

    magic = ""
    if source.lstrip().startswith("%%"):
        magic, _, source = source.lstrip().partition("\n")
        magic = f'<span class="cm">{safe.text(magic)}</span>\n'
    return Markup(magic + highlight(source[:40_000], _lexer(language), HtmlFormatter(nowrap=True)))  # noqa: S704
