"""Commands on runbooks: what there is, run one, whether it is well-formed, whether its systems can be reached."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from runbook.cli.base import Json, Name, app, console, error, log_to_stderr, pair, print_json
from runbook.errors import CheckFailed, RunFailed


@app.command("list")
def list_(as_json: Json = False) -> None:
    """The runbooks there are, the alerts they answer, and how their last drill went."""
    from runbook import catalog
    from runbook.drills.history import in_words, last_drill

    runbooks = catalog.load_all()
    if as_json:
        print_json({"runbooks": [{**r.as_dict(), "last_drill": last_drill(r.name)} for r in runbooks]})
        return
    for runbook in runbooks:
        typer.echo(f"{runbook.name} ({runbook.severity}): {runbook.title}")
        typer.echo(f"    alerts  {_shortened(runbook.alerts)}")
        typer.echo(f"    drill   {in_words(last_drill(runbook.name))}")


def _shortened(names: Sequence[str], width: int = 68) -> str:
    """As many names as fit into a line, and how many more there are."""
    shown = list(names)
    while len(text := ", ".join(shown) + f", … ({len(names)})" * (len(shown) < len(names))) > width and len(shown) > 1:
        shown.pop()
    return text


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """What a runbook takes, answers and looks for."""
    from runbook import catalog
    from runbook.drills.history import last_drill

    runbook = catalog.load(name)
    document = {
        **runbook.as_dict(),
        "parameters": {p.name: p.as_dict() for p in runbook.parameters.values()},
        "last_drill": last_drill(name),
    }
    if as_json:
        print_json(document)
        return
    from rich.table import Table
    from rich.text import Text

    # Text, since to Rich a pattern like [a-z] would be markup.
    out = console()
    out.print(Text.assemble((runbook.title, "bold"), f" ({runbook.name}, {runbook.severity})"))
    out.print(Text(f"alerts: {', '.join(runbook.alerts)}\ncauses: {', '.join(runbook.causes)}"))
    table = Table("parameter", "allowed", "default", "what it is", box=None, pad_edge=False)
    for p in runbook.parameters.values():
        told = (p.name, p.allowed(), json.dumps(p.default), f"{p.help}{', ' + p.unit if p.unit else ''}")
        table.add_row(*map(Text, told))
    out.print(table)


@app.command()
def run(
    name: Name,
    parameters: Annotated[list[str] | None, typer.Option("-p", "--parameter", metavar="KEY=VALUE")] = None,
    as_json: Json = False,
    output: Annotated[Path | None, typer.Option(help="Put the four files of the archive here as well.")] = None,
) -> None:
    """Run a runbook now, headless, and archive its report."""
    import threading

    from runbook import catalog, settings
    from runbook.execution.execute import NotArchived, RunRequest, execute
    from runbook.reporting.archive import FILES, open_archive, write_flat
    from runbook.reporting.html import warm
    from runbook.store.ids import new_run_id

    log_to_stderr("WARNING")
    runbook = catalog.load(name)
    given = catalog.parse_given(runbook, dict(map(pair, parameters or [])))
    configured = settings.load()
    catalog.check_parameters(runbook, given, configured)
    archive = open_archive(configured)
    archive.check()
    if output is not None:
        write_flat(output, {})  # makes the directory, or says now that it cannot
    request = RunRequest(run_id=new_run_id(), runbook=name, parameters=given)
    threading.Thread(target=warm, name="warm", daemon=True).start()  # while the kernel starts
    with _progress(quiet=as_json) as progress:
        try:
            result = execute(request, configured, archive=archive, progress=progress)
        except NotArchived as error:
            if output is not None:
                write_flat(output, error.files)
            raise
    if output is not None:
        directory = Path(result["report"]["html"]).parent
        write_flat(output, {file: (directory / file).read_bytes() for file in FILES})
    _warn_of_unreachable(result)
    if as_json:
        print_json(result)
    else:
        _print_verdict(result)
    if result["state"] != "succeeded":
        told = result.get("error") or {}
        where = f" at cell {told['cell']}" if told.get("cell") else ""
        raise RunFailed(f"the run {result['state']}{where}: {told.get('message', '')}", remedy="The report says more")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Whether the configured systems can be reached, and what our roles there may see and do."""
    from runbook import settings
    from runbook.doctor import examine

    log_to_stderr("WARNING")
    checks = examine(settings.load())
    if as_json:
        print_json({"checks": [c.as_dict() for c in checks]})
    else:
        _print_checks([c.as_dict() for c in checks])
    if any(c.ok is False for c in checks):
        raise CheckFailed("something is not as it should be", remedy="See the remedies above")


@app.command()
def lint(as_json: Json = False) -> None:
    """Whether every notebook is a well-formed runbook."""
    from runbook.lint import problems

    found = problems()
    if as_json:
        print_json({"problems": [{"notebook": notebook, "problem": text} for notebook, text in found]})
    else:
        for notebook, text in found:
            error(f"{notebook}: {text}")
    if found:
        raise CheckFailed(f"{len(found)} problems in the notebooks")


def _progress(*, quiet: bool) -> Any:
    """A context manager that gives the progress callback: a bar by cell on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        return contextlib.nullcontext(None)
    from runbook.execution.progress_bar import progress_bar

    return progress_bar(console(stderr=True))


def _warn_of_unreachable(result: Mapping[str, Any]) -> None:
    for item in result["not_checked"]:
        if item["state"] not in ("not_configured", "partial"):
            typer.echo(f"warning: {item['source']}: {item['state'].replace('_', ' ')}: {item['reason']}", err=True)


def _print_verdict(result: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    symptom = result["symptom"]
    out.print(Text(f"{result['title']}: {result['outcome'].replace('_', ' ')}", style="bold"))
    value = "not measured" if symptom["value"] is None else f"{symptom['value']:g} {symptom['unit']}".strip()
    out.print(Text(f"{symptom['label']}: {value}. {result['impact']}"))
    shown = [v for v in result["verdict"] if v["tier"] in ("confirmed", "probable", "possible")]
    if shown:
        table = Table("cause", "", "tier", "share", box=None, pad_edge=False)
        for verdict in shown:
            who = verdict["details"].get("application_name") or ""
            table.add_row(verdict["cause"], Text(f"{verdict['name']} {who}".strip()), verdict["tier"],
                          f"{verdict['share']:.0%}")  # fmt: skip
        out.print(table)
    for action in result["actions"]:
        out.print(Text(f"proposed: {action['title']}"))
    if result["not_checked"]:
        out.print(Text("not checked: " + ", ".join(dict.fromkeys(n["source"] for n in result["not_checked"]))))
    typer.echo(f"report: {result['report']['html']}")


def _print_checks(checks: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("system", "check", "", "what was seen", box=None, pad_edge=False)
    words = {True: Text("ok", style="green"), False: Text("no", style="red"), None: Text("–")}
    for check in checks:
        seen = Text(check["seen"] + (f"\n→ {check['remedy']}" if check["remedy"] and check["ok"] is False else ""))
        table.add_row(check["system"], check["check"], words[check["ok"]], seen)
    console().print(table)
