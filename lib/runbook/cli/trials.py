"""Commands to try things on: the sandbox, drills, the demo."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from runbook.cli.base import Json, app, console, log_to_stderr, print_json, sandbox_app
from runbook.errors import CheckFailed, RunbookError


@app.command()
def drill(
    name: Annotated[str | None, typer.Argument(help="Name of the runbook; default: every one that has drills.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Fault id, e.g. P01, P01+P02, P01~no_pg_monitor.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every fault that the sandbox knows.")] = False,
    full_length: Annotated[bool, typer.Option(help="At the notebook's own thresholds, in real length.")] = False,
    rotate: Annotated[int, typer.Option(help="So many in real length, another few every day.", min=0)] = 0,
    turns: Annotated[int, typer.Option(help="With --all: the reference set, and of the rest an Nth a day.", min=1)] = 1,
    actions: Annotated[bool, typer.Option("--actions", help="Act on what is diagnosed: plan to undo.")] = False,
    kind: Annotated[list[str] | None, typer.Option("--action", help="Only this kind, e.g. queue.resume.")] = None,
    as_json: Json = False,
) -> None:
    """Inject known faults, fire the alert over HTTP, and score the verdicts, or the actions that they propose."""
    from datetime import UTC, datetime

    from runbook import catalog
    from runbook.drills.drill import run_drills
    from runbook.drills.history import remember
    from runbook.drills.report import together
    from runbook.drills.score import score_table
    from runbook.drills.turns import by_turns, rotating_few
    from runbook.sandbox.faults import known, suits

    log_to_stderr("WARNING")
    if actions or kind:
        _drill_actions(name, kind or [], turns=turns, as_json=as_json)
        return
    if not fault and not every:
        raise RunbookError("nothing to drill", remedy="Name a --fault, or say --all or --actions")
    err = console(stderr=True)
    today = datetime.now(UTC).date()
    reports = []
    for runbook in [catalog.load(name)] if name else catalog.load_all():
        chosen = (
            [f for f in fault if name or suits(f, runbook)]
            if fault
            else by_turns(turns, day=today, among=known(runbook))
        )
        if not chosen:
            continue
        report = run_drills(
            runbook.name,
            chosen,
            at_defaults=chosen if full_length else rotating_few(rotate, day=today, among=chosen),
            progress=lambda line: err.print(line, style="dim"),
        )
        remember(runbook.name, report)
        reports.append(report)
    report = together(reports)
    print_json(report) if as_json else console().print(score_table(report))
    _passed(report)


def _drill_actions(name: str | None, kinds: list[str], *, turns: int, as_json: bool) -> None:
    """Drill actions, by ``drill --actions``."""
    from datetime import UTC, datetime

    from runbook.drills.acting.cases import chosen
    from runbook.drills.acting.drill import run_action_drills
    from runbook.drills.acting.score import action_table
    from runbook.drills.turns import taking_turns

    err = console(stderr=True)
    cases = taking_turns(turns, day=datetime.now(UTC).date(), among=chosen(kinds, runbook=name))
    report = run_action_drills(cases, progress=lambda line: err.print(line, style="dim", markup=False))
    print_json(report) if as_json else console().print(action_table(report))
    _passed(report)


def _passed(report: Mapping[str, Any]) -> None:
    if report["failed"] or not report["passed"]:
        raise CheckFailed(f"{report['failed']} drills failed, {len(report['skipped'])} skipped")


@app.command()
def demo() -> None:
    """Show the whole way on a sandbox: a leak, an alert, the notebook, the report, the message."""
    from runbook.drills.demo import run_demo

    log_to_stderr("WARNING")
    status = run_demo(console())
    if status:
        raise typer.Exit(status)


@sandbox_app.command("up")
def sandbox_up(as_json: Json = False) -> None:
    """Start the sandbox and leave it running; with --json, print the settings that point at it."""
    from runbook.sandbox import Sandbox
    from runbook.sandbox.sandbox import as_environment

    log_to_stderr("WARNING")
    sandbox = Sandbox().up()
    if as_json:
        print_json(sandbox.settings())
        return
    out = console()
    out.print("sandbox is up; to point the commands at it:")
    for variable, value in as_environment(sandbox.settings()).items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


@sandbox_app.command("down")
def sandbox_down(as_json: Json = False) -> None:
    """Stop the sandbox and delete it."""
    from runbook.sandbox import Sandbox

    log_to_stderr("WARNING")
    sandbox = Sandbox()
    sandbox.down()
    print_json(sandbox.status()) if as_json else console().print("sandbox is down")


@sandbox_app.command("status")
def sandbox_status(as_json: Json = False) -> None:
    """What of the sandbox runs."""
    from runbook.sandbox import Sandbox

    status = Sandbox().status()
    print_json(status) if as_json else console().print_json(json.dumps(status))


@sandbox_app.command("inject")
def sandbox_inject(fault: str, as_json: Json = False) -> None:
    """Inject a fault and leave it there."""
    from runbook.sandbox import Sandbox

    log_to_stderr("WARNING")
    sandbox = Sandbox()
    sandbox.inject(fault)
    print_json(sandbox.status()) if as_json else console().print(f"{fault} is injected")


@sandbox_app.command("heal")
def sandbox_heal(as_json: Json = False) -> None:
    """Take the injected fault out again, and check that nothing of it is left."""
    from runbook.sandbox import Sandbox

    log_to_stderr("WARNING")
    sandbox = Sandbox()
    healed = sandbox.heal()
    print_json(sandbox.status()) if as_json else console().print(f"{healed} is healed" if healed else "nothing to heal")
