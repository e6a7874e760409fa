"""Readings as they stand in a notebook: their rows, where they come from, or why they are unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from runbook.reporting.fragment import actions_html
from runbook.reporting.tables import facts_html, table_html
from runbook.result import Reading

__all__ = ["actions_html", "lock_tree_html", "message_draft", "reading_html"]

FACT_COLUMNS = 8
"""A single row with more columns is shown upright, a fact a line."""


def reading_html(reading: Reading, *, caption: str = "", max_rows: int = 40, sql: str = "") -> str:
    """A reading as a table with its provenance; its statement folded under it when given."""
    rows: list[dict[str, Any]] = reading.rows
    caption = caption or reading.name.replace("_", " ")
    origin: dict[str, Any] = {
        "source": reading.source,
        "target": reading.target,
        "duration_ms": reading.duration_ms,
        "state": reading.state,
        "reason": reading.reason,
    }
    if len(rows) == 1 and len(rows[0]) > FACT_COLUMNS:
        shown = facts_html(rows[0], caption=caption, **origin)
    else:
        shown = table_html(rows, caption=caption, max_rows=max_rows, **origin)
    if not sql:
        return shown
    return f"{shown}<details><summary>The statement</summary><pre>{escape(sql.strip())}</pre></details>"


def lock_tree_html(lines: Iterable[tuple[int, Mapping[str, Any]]]) -> str:
    """Lock waits from the root down, a row a session, indented by depth."""
    rows = [
        {
            "who waits for whom": "\u00a0" * 3 * depth + ("└\u00a0" if depth else "") + _who(row),
            "role": row.get("role"),
            "state": row.get("state") or row.get("backend_type"),
            "waits for": " ".join(str(row[k]) for k in ("mode", "relation") if row.get(k)) if depth else "",
            "seconds": row.get("query_seconds") if depth else row.get("state_seconds"),
            "query": row.get("query"),
        }
        for depth, row in lines
    ]
    if not rows:
        return ""
    return table_html(rows, caption="Lock waits, from the root down", max_rows=60)


def _who(row: Mapping[str, Any]) -> str:
    if not row.get("pid"):
        return "prepared transaction (pid 0)"
    return f"{row['pid']}\u00a0{row.get('application_name')}"


def message_draft(findings: Mapping[str, Any], runbook: str) -> str:
    """A draft for the incident channel, in plain text."""
    symptom = findings["symptom"]
    found = [v for v in findings["verdict"] if v["tier"] in ("confirmed", "probable") and v["role"] != "consequence"]
    value = "unknown" if symptom["value"] is None else f"{symptom['value']:g} {symptom['unit']}".strip()
    seen = f"{symptom['label']}: {value}"
    lines = [f"{runbook}: {findings['outcome'].replace('_', ' ')}", f"Seen: {seen}", f"Impact: {findings['impact']}"]
    lines += [f"Cause: {v['cause']} {v['name']} ({v['tier']}, {v['share']:.0%} of it)" for v in found]
    lines += [f"Proposed: {a['title']}" for a in findings["actions"][:3]]
    if findings["not_checked"]:
        lines.append("Not checked: " + ", ".join(dict.fromkeys(n["source"] for n in findings["not_checked"])))
    return "\n".join([*lines, "Next update in 15 minutes, or when something changes."])
