"""The demo: a database whose connections leak, the alert, the notebook at work, the verdict, the report, the message.

Everything is started here and stopped here; what stays is the report.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import catalog
from runbook.drills.alerts import alertmanager_body
from runbook.drills.judge import FOUND
from runbook.drills.service import Service
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import inject
from runbook.sandbox.sandbox import DATABASE
from runbook.settings import data_dir

if TYPE_CHECKING:
    from rich.console import Console

RUNBOOK = "db_connection_exhaustion"
FAULT = "P01"


def run_demo(console: Console) -> int:
    """Show the whole way on ``console``.

    Returns
    -------
    int
        Exit status: 0 when the verdict names the fault that was injected, 1 otherwise.
    """
    runbook = catalog.load(RUNBOOK)
    archive = data_dir() / "demo"
    archive.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="runbook-demo-") as place:
        _step(console, 1, "A PostgreSQL to try on, with room for 25 sessions")
        with Sandbox(Path(place) / "sandbox", systems=DATABASE, owned=True) as sandbox:
            console.print(f"   listens on 127.0.0.1:{sandbox.port}", style="dim")
            _step(console, 2, "The service that alerts are sent to")
            settings = sandbox.settings()
            del settings["discord"]
            settings["archive"] = {"url": f"file:{archive}"}
            settings["thresholds"] = {RUNBOOK: {"idle_after_seconds": 1.0, "sample_seconds": 0.5}}
            with Service(Path(place), settings) as service:
                console.print(f"   listens on {service.base_url}", style="dim")
                _step(console, 3, "Connections leak: 20 sessions of api-leaky stay idle inside a transaction")
                with inject(FAULT, sandbox):
                    result = _incident(console, service, runbook)
                _show(console, service, result)
    return 0 if _first(result) == FAULT else 1


def _incident(console: Console, service: Service, runbook: catalog.Runbook) -> dict[str, Any]:
    """Fire the alert and follow the run to its end; the result document."""
    body = alertmanager_body(runbook, {"service": "app"}, datetime.now(UTC), public_url=service.base_url)
    _step(console, 4, "Alertmanager sends an alert, and the notebook runs")
    began = time.monotonic()
    run_id = service.fire(body)
    labels = body["alerts"][0]["labels"]
    console.print(
        f"   POST /alerts/alertmanager {json.dumps(labels)} → 202, run {run_id}", style="dim", highlight=False
    )
    for event, data in service.events(run_id):
        if event == "cell":
            _show_cell(console, json.loads(data))
    result = service.wait_for(run_id, seconds=runbook.timeout_seconds)
    console.print(f"   report archived {time.monotonic() - began:.1f} s after the alert", style="dim")
    return result


def _show_cell(console: Console, cell: Mapping[str, Any]) -> None:
    """One line when a cell is done."""
    if cell.get("state") == "running":
        return
    mark = "[green]✓[/]" if cell.get("state") == "ok" else "[red]✗[/]"
    console.print(f"   {mark} {cell['cell']:>2}/{cell['cells']}", end=" ")
    console.print(str(cell.get("title", "")), markup=False, highlight=False, no_wrap=True, overflow="ellipsis")


def _show(console: Console, service: Service, result: Mapping[str, Any]) -> None:
    """Verdict, report and message of a finished run."""
    from runbook.notify import discord

    _step(console, 5, f"Verdict: {result['outcome']}")
    for entry in result["verdict"]:
        if entry["tier"] in FOUND:
            _show_cause(console, entry, result)
    _step(console, 6, "The report, which opens offline")
    console.print(f"   {result['report']['html']}", markup=False, highlight=False, soft_wrap=True)
    _step(console, 7, "The message that would have gone to Discord (no webhook is configured)")
    url = f"{service.base_url}/reports/{result['run_id']}"
    for line in discord.shown(discord.message(result, url)):
        console.print(f"   {line}", markup=False, highlight=False)


def _show_cause(console: Console, entry: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    name, tier = entry["name"], entry["tier"]
    console.print(f"   [bold]{entry['cause']}[/] {name} – {tier}, explains {entry['share']:.0%}", highlight=False)
    application = entry["details"].get("application_name")
    if application:
        console.print(f"   application {application}", markup=False, highlight=False, style="bold")
    labels = {item["id"]: item for item in result["evidence"]}
    for evidence in entry["because"]:
        item = labels[evidence]
        said = f"   · {item['label']}: {item['value']} {item['unit']} ({item['threshold']})"
        console.print(said, markup=False, highlight=False, style="dim")


def _first(result: Mapping[str, Any]) -> str:
    found = [entry["cause"] for entry in result["verdict"] if entry["tier"] in FOUND]
    return str(found[0]) if found else ""


def _step(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/] [bold]{text}[/]", highlight=False)
