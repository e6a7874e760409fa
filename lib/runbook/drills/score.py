"""The score table of a drill report, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def summary(report: Mapping[str, Any]) -> str:
    """What a set of drills says of the rules, in a line.

    Top-1 counts the drills of a fault in which a cause that was injected stands first. *Confirmed wrongly* is the worst
    error that there is. *Unknown, and said so*: drills in which the cause cannot be told. Controls: nothing is wrong.
    """
    results = report["results"]
    faults = [r for r in results if r["expected"]]
    first = sum(bool(r["found"]) and r["found"][0]["cause"] in r["expected"] for r in faults)
    confirmed = sum(f["tier"] == "confirmed" and f["cause"] in r["wrong"] for r in results for f in r["found"])
    blind = [r for r in results if not r["expected"] and ("~" in r["fault"] or r["outcome"] in UNKNOWN)]
    controls = [r for r in results if not r["expected"] and r not in blind]
    parts = [
        f"top-1 {first} of {len(faults)}" if faults else "",
        f"confirmed wrongly {confirmed}",
        f"unknown, and said so {sum(r['passed'] for r in blind)} of {len(blind)}" if blind else "",
        f"controls without a fault {sum(r['passed'] for r in controls)} of {len(controls)}" if controls else "",
    ]
    return " · ".join(part for part in parts if part)


UNKNOWN = ("undetermined", "insufficient_data")
"""Outcomes that say that nothing can be said."""


def score_table(report: Mapping[str, Any]) -> Group:
    """A table a runbook with a row for each drill: expected, found with tier, wrong causes or the outcome, seconds.

    What was skipped and the summary stand below. Fits into 80 columns.
    """
    from rich.console import Group
    from rich.text import Text

    by_runbook: dict[str, list[Mapping[str, Any]]] = {}
    for result in report["results"]:
        by_runbook.setdefault(result["runbook"], []).append(result)
    total = report["passed"] + report["failed"]
    return Group(
        *(_table(runbook, results) for runbook, results in by_runbook.items()),
        *(Text(f"skipped {item['fault']}: {item['reason']}", style="yellow") for item in report["skipped"]),
        Text(f"{report['passed']} of {total} drills passed", style="bold"),
        Text(summary(report)),
    )


def _table(runbook: str, results: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    passed = sum(bool(result["passed"]) for result in results)
    title = Text(f"{runbook}: {passed} of {len(results)}", style="bold")
    table = Table(title=title, title_justify="left", pad_edge=False)
    for name in ("fault", "expected", "found", "tier", "wrong", "seconds", ""):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for result in results:
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
    return table
