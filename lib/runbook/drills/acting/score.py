"""The score table of drills of actions, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


def action_table(report: Mapping[str, Any]) -> Group:
    """A row for each drill: what was done on which fault, what became of it, whether it was undone, seconds.

    What was skipped and the summary stand below. Fits into 80 columns.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False)
    for name in ("action", "fault", "outcome", "undone", "seconds", ""):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for result in report["results"]:
        table.add_row(
            Text(result["action"]),
            Text(result["fault"]),
            Text(result["found"] or f"not {result['expected']}"),
            Text({None: "–", True: "yes", False: "no"}[result["undone"]]),
            Text(f"{result['seconds']:.1f}"),
            Text("ok", style="green") if result["passed"] else Text("failed", style="bold red"),
        )
    total = report["passed"] + report["failed"]
    return Group(
        table,
        *(
            Text(f"{result['action']} on {result['fault']}: {problem}", style="red")
            for result in report["results"]
            for problem in result.get("problems", ())
        ),
        *(Text(f"skipped {item['fault']}: {item['reason']}", style="yellow") for item in report["skipped"]),
        Text(f"{report['passed']} of {total} drills of actions passed", style="bold"),
    )
