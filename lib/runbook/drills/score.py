"""The score table of a drill report, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def score_table(report: Mapping[str, Any]) -> Table:
    """One row per drill: expected, found with tier, wrong causes, outcome, seconds; skipped ones last.

    Fits into 80 columns.
    """
    from rich.table import Table
    from rich.text import Text

    total = report["passed"] + report["failed"]
    table = Table(title=f"{report['passed']} of {total} drills passed", title_justify="left", pad_edge=False)
    for name in ("fault", "expected", "found", "tier", "wrong", "seconds", ""):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for result in report["results"]:
        found = result["found"] or [{"cause": result["outcome"] or "–", "tier": "–"}]
        table.add_row(
            Text(result["fault"]),
            Text("\n".join(result["expected"]) or "–"),
            Text("\n".join(item["cause"] for item in found)),
            Text("\n".join(item["tier"] for item in found)),
            Text("\n".join(result["wrong"]) or "–", style="red" if result["wrong"] else ""),
            Text(f"{result['seconds']:.1f}"),
            Text("ok", style="green") if result["passed"] else Text("failed", style="bold red"),
        )
        for problem in result.get("problems", ()):
            table.add_row("", "", Text(problem, style="red"))
    for item in report["skipped"]:
        table.add_row(Text(item["fault"]), "", Text(f"skipped: {item['reason']}", style="yellow"))
    return table
