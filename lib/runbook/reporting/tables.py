"""Rows of a reading as an HTML fragment, for the notebook and for the report.

Every value is escaped. The fragment brings its own small style for Jupyter; the report drops that and applies its own
to the same classes. Nothing here knows where rows come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from runbook.reporting import words

FRAGMENT_STYLE = """<style>
.rb-reading{overflow-x:auto;margin:.4em 0}
.rb-reading table{border-collapse:collapse;font-size:.92em}
.rb-reading caption{text-align:left;font-weight:600;padding:.2em 0}
.rb-reading th,.rb-reading td{text-align:left!important;vertical-align:top;padding:.25em .7em;max-width:44em;\
overflow-wrap:break-word;white-space:pre-wrap}
.rb-reading .rb-number{text-align:right!important;font-variant-numeric:tabular-nums;white-space:nowrap}
.rb-reading .rb-time{font-variant-numeric:tabular-nums;white-space:nowrap}
.rb-reading .rb-facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(12em,1fr));gap:.3em 1.5em}
.rb-reading .rb-facts dt,.rb-reading .rb-facts dd{float:none;width:auto;margin:0;padding:0;overflow-wrap:anywhere}
.rb-reading .rb-facts dt{color:var(--jp-ui-font-color2,#616161);font-size:.88em}
.rb-reading .rb-caption{font-weight:600;margin:.3em 0}
.rb-reading .rb-tree,.rb-reading .rb-tree ul{list-style:none;margin:.1em 0;padding-left:0}
.rb-reading .rb-tree ul{padding-left:1.2em;border-left:1px solid var(--jp-border-color1,#999)}
.rb-reading .rb-code{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:.93em}
.rb-reading .rb-null{color:var(--jp-ui-font-color2,#616161);font-style:italic}
.rb-reading .rb-note,.rb-reading .rb-provenance{color:var(--jp-ui-font-color2,#616161);font-size:.88em;margin:.3em 0}
</style>"""

MAX_CELL_CHARACTERS = 600
MAX_DEPTH = 12
_CODE_COLUMNS = frozenset({"query", "sql", "statement", "definition", "command", "argv"})


def table_html(
    rows: Sequence[Mapping[str, Any]],
    *,
    caption: str = "",
    max_rows: int = 50,
    source: str = "",
    target: str = "",
    duration_ms: float | None = None,
    state: str = "ok",
    reason: str = "",
    style: bool = True,
) -> str:
    """Rows as a table: numbers to the right, NULL visible, long text wrapped and cut, everything escaped.

    Parameters
    ----------
    caption
        What the table shows.
    max_rows
        Rows that are shown; the rest is counted under the table.
    source, target, duration_ms, state, reason
        Where the rows come from; printed as one line under the table.
    style
        Bring the style along; ``False`` where the page has it.
    """
    parts = [FRAGMENT_STYLE if style else "", '<div class="rb-reading">']
    if rows:
        parts.append(_table(rows[:max_rows], caption))
        if len(rows) > max_rows:
            parts.append(f'<p class="rb-note">Showing {max_rows} of {words.number(len(rows))} rows.</p>')
    else:
        nothing = "no rows." if state in ("ok", "partial") else "<strong>unknown</strong>, it could not be read."
        heading = f"{escape(caption)}: " if caption else ""
        parts.append(f'<p class="rb-note">{heading}{nothing}</p>')
    parts.append(_provenance(source, target, duration_ms, state, reason))
    parts.append("</div>")
    return "".join(parts)


def facts_html(
    facts: Mapping[str, Any],
    *,
    caption: str = "",
    source: str = "",
    target: str = "",
    duration_ms: float | None = None,
    state: str = "ok",
    reason: str = "",
    style: bool = True,
) -> str:
    """One row with many columns, as names and values side by side; parameters as for :func:`table_html`."""
    title = f'<p class="rb-caption">{escape(caption)}</p>' if caption else ""
    pairs = "".join(f"<div><dt>{escape(key)}</dt><dd>{_fact(key, value)}</dd></div>" for key, value in facts.items())
    provenance = _provenance(source, target, duration_ms, state, reason)
    start = FRAGMENT_STYLE if style else ""
    return f'{start}<div class="rb-reading">{title}<dl class="rb-facts">{pairs}</dl>{provenance}</div>'


def _fact(key: str, value: Any) -> str:
    if value is None:
        return '<span class="rb-null">NULL</span>'
    if value == "" or value == []:
        return '<span class="rb-null">(empty)</span>'
    if isinstance(value, int | float) and not isinstance(value, bool):
        return escape(_digits(key, value))
    text = words.compact(value) if isinstance(value, str) and words.TIMESTAMP.fullmatch(value) else words.plain(value)
    return escape(text[:MAX_CELL_CHARACTERS]) + ("…" if len(text) > MAX_CELL_CHARACTERS else "")


def tree_html(rows: Sequence[Mapping[str, Any]], *, caption: str = "", style: bool = True) -> str:
    """Rows that carry a ``depth``, a parent before its children, as an indented list: who blocks whom.

    Everything but ``depth`` is shown, the process id first.
    """
    parts = [FRAGMENT_STYLE if style else "", '<div class="rb-reading">']
    if caption:
        parts.append(f'<p class="rb-note">{escape(caption)}</p>')
    level = -1
    for row in rows:
        depth = max(0, min(int(row.get("depth") or 0), level + 1, MAX_DEPTH))
        if depth > level:
            parts.append('<ul class="rb-tree"><li>' if level < 0 else "<ul><li>")
        else:
            parts.append("</li>" + "</ul></li>" * (level - depth) + "<li>")
        parts.append(_node(row))
        level = depth
    parts.append("</li></ul>" * (level + 1) + "</div>")
    return "".join(parts)


def _node(row: Mapping[str, Any]) -> str:
    told = [f"{key} {words.identity(v)}" if key == "pid" else words.detail(key, v)
            for key, v in row.items() if key != "depth" and v not in (None, "")]  # fmt: skip
    text = " · ".join(told)
    return f"{escape(text[:MAX_CELL_CHARACTERS])}{'…' if len(text) > MAX_CELL_CHARACTERS else ''}"


def _table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    numeric = {column for column in columns if _is_numeric(rows, column)}
    head = "".join(f"<th{_class(c in numeric)} scope='col'>{escape(c)}</th>" for c in columns)
    body = "".join(f"<tr>{''.join(_cell(row, c, c in numeric) for c in columns)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="dataframe">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _is_numeric(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    values = [row[column] for row in rows if row.get(column) is not None]
    return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _class(numeric: bool) -> str:
    return ' class="rb-number"' if numeric else ""


def _cell(row: Mapping[str, Any], column: str, numeric: bool) -> str:
    if column not in row:
        return "<td></td>"
    value = row[column]
    if value is None:
        return '<td class="rb-null">NULL</td>'
    if value == "":
        return '<td class="rb-null">(empty)</td>'
    if numeric:
        return f'<td class="rb-number">{escape(_digits(column, value))}</td>'
    text = words.plain(value)
    if words.TIMESTAMP.fullmatch(text):
        return f'<td class="rb-time">{escape(words.compact(text))}</td>'
    if len(text) > MAX_CELL_CHARACTERS:
        text = f"{text[:MAX_CELL_CHARACTERS]}… ({words.number(len(text))} characters)"
    code = ' class="rb-code"' if column.lower() in _CODE_COLUMNS else ""
    return f"<td{code}>{escape(text)}</td>"


def _digits(column: str, value: float) -> str:
    """Identifiers as they are, measures with thousands apart."""
    name = column.lower()
    if isinstance(value, int) and (
        name.endswith(("pid", "id", "oid", "port", "version_num")) or name in ("xid", "xmin")
    ):
        return str(value)
    return words.number(value)


def _provenance(source: str, target: str, duration_ms: float | None, state: str, reason: str) -> str:
    told = [part for part in (source, target) if part]
    if told or state != "ok":
        took = "" if duration_ms is None else f" in {words.duration(duration_ms / 1000)}"
        told.append(f"{words.STATE_WORDS.get(state, state)}{took if state in ('ok', 'partial') else ''}")
    if reason:
        told.append(reason)
    return f'<p class="rb-provenance">{escape(" · ".join(told))}</p>' if told else ""
