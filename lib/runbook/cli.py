"""The ``runbook`` command: each command is a few lines over the library.

Human output goes through Rich; with ``--json`` exactly one JSON document goes to standard output and everything else to
standard error. Exit status: 0 done, whatever was found; 1 a check did not pass; 2 usage or configuration; 3 the run
itself failed. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from runbook import __version__
from runbook.errors import CheckFailed, InvalidParameter, RunbookError, RunFailed

if TYPE_CHECKING:
    from rich.console import Console

    from runbook.catalog import Runbook

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's help costs twice the rest of the start
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Executable incident runbooks: an alert fires, a notebook looks, a report says what is wrong and why.",
)
sandbox_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Systems that a runbook can be tried on.")
app.add_typer(sandbox_app, name="sandbox")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Name = Annotated[str, typer.Argument(help="Name of the runbook.")]


def main() -> NoReturn:
    """Run the command line; one line for every error that is a person's to mend."""
    try:
        app()
    except RunbookError as error:
        _error(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough of it; nothing is left to say to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("list")
def list_(as_json: Json = False) -> None:
    """The runbooks there are."""
    from runbook import catalog

    runbooks = catalog.load_all()
    if as_json:
        _print_json({"runbooks": [r.as_dict() for r in runbooks]})
        return
    width = max((len(r.name) for r in runbooks), default=0)
    for runbook in runbooks:
        typer.echo(f"{runbook.name:<{width}}  {runbook.severity:<8}  {runbook.title}")


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
        _print_json(document)
        return
    from rich.table import Table
    from rich.text import Text

    # Text, since to Rich a pattern like [a-z] would be markup.
    out = _console()
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

    _log_to_stderr("WARNING")
    runbook = catalog.load(name)
    given = _given(runbook, parameters or [])
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
        _print_json(result)
    else:
        _print_verdict(result)
    if result["state"] != "succeeded":
        told = result.get("error") or {}
        where = f" at cell {told['cell']}" if told.get("cell") else ""
        raise RunFailed(f"the run {result['state']}{where}: {told.get('message', '')}", remedy="The report says more")


@app.command()
def serve() -> None:
    """Take alerts in over HTTP, run their runbooks, archive and announce the reports."""
    from runbook import settings
    from runbook.web.server import serve as serve_

    _log_to_stderr("INFO")
    serve_(settings.load(), started=lambda url: typer.echo(f"listening on {url}", err=True))


@app.command()
def worker() -> None:
    """Execute queued runs; any number of workers on any number of machines share one store."""
    from runbook import settings
    from runbook.web.server import work

    _log_to_stderr("INFO")
    work(settings.load())


@app.command()
def fire(
    name: Name,
    labels: Annotated[list[str] | None, typer.Option("-l", "--label", metavar="KEY=VALUE")] = None,
    resolved: Annotated[bool, typer.Option(help="Send the resolved message instead.")] = False,
    token: Annotated[str, typer.Option(envvar="RUNBOOK_TOKEN", help="Bearer token of the service.")] = "",
    as_json: Json = False,
) -> None:
    """Send the service an alert as Alertmanager would, to try the whole way."""
    from datetime import UTC, datetime

    import httpx

    from runbook import catalog, settings
    from runbook.dispatch.announce import public_url
    from runbook.drills.alerts import alertmanager_body

    runbook, base = catalog.load(name), public_url(settings.load())
    body = alertmanager_body(
        runbook,
        dict(_pair(label) for label in labels or []),
        datetime.now(UTC),
        "resolved" if resolved else "firing",
        public_url=base,
    )
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.post(f"{base}/alerts/alertmanager", json=body, headers=headers, timeout=30)
    except httpx.TransportError as error:
        raise RunbookError(f"the service at {base} cannot be reached ({type(error).__name__})",
                           remedy="Start it with: runbook serve") from None  # fmt: skip
    if answer.status_code != 202:
        raise RunbookError(f"the service answered {answer.status_code}: {answer.text[:200]}")
    if as_json:
        _print_json(answer.json())
        return
    for alert in answer.json()["alerts"]:
        _console().print(f"{alert['fate']}: alert {alert['alert_id']}, run {alert['run_id'] or '–'}")


@app.command()
def reports(query: Annotated[str, typer.Argument(help="Words to look for.")] = "", as_json: Json = False) -> None:
    """Archived reports, the newest first."""
    from runbook import settings
    from runbook.dispatch.reports import search

    _log_to_stderr("WARNING")
    found = search(settings.load(), query)
    if as_json:
        _print_json({"reports": found})
        return
    from rich.table import Table

    table = Table("started", "runbook", "outcome", "causes", "report", box=None, pad_edge=False)
    for row in found:
        causes = ", ".join(str(c) for c in row["causes"])
        table.add_row(
            (row["started_at"] or "")[:19], row["runbook"], row["outcome"] or row["state"], causes, row["report"]
        )
    _console().print(table if found else "no report")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Whether the configured systems can be reached, and what our roles there may see and do."""
    from runbook import settings
    from runbook.doctor import examine

    _log_to_stderr("WARNING")
    checks = examine(settings.load())
    if as_json:
        _print_json({"checks": [c.as_dict() for c in checks]})
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
        _print_json({"problems": [{"notebook": notebook, "problem": text} for notebook, text in found]})
    else:
        for notebook, text in found:
            _error(f"{notebook}: {text}")
    if found:
        raise CheckFailed(f"{len(found)} problems in the notebooks")


@app.command()
def drill(
    name: Annotated[str | None, typer.Argument(help="Name of the runbook; default: every one that has drills.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Fault id, e.g. P01, P01+P02, P01~no_pg_monitor.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every fault that the sandbox knows.")] = False,
    full_length: Annotated[bool, typer.Option(help="At the notebook's own thresholds, in real length.")] = False,
    rotate: Annotated[int, typer.Option(help="So many in real length, another few every day.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Inject known faults, fire the alert over HTTP, and score the verdicts."""
    from datetime import UTC, datetime

    from runbook.drills.drill import rotating_few, run_drills
    from runbook.drills.history import remember
    from runbook.drills.score import score_table
    from runbook.sandbox.faults import known

    _log_to_stderr("WARNING")
    if not fault and not every:
        raise RunbookError("nothing to drill", remedy="Name a --fault, or say --all")
    err = _console(stderr=True)
    chosen = fault or known()
    report = run_drills(
        name or "db_connection_exhaustion",
        chosen,
        at_defaults=chosen if full_length else rotating_few(rotate, day=datetime.now(UTC).date(), among=chosen),
        progress=lambda line: err.print(line, style="dim"),
    )
    remember(name or "db_connection_exhaustion", report)
    if as_json:
        _print_json(report)
    else:
        _console().print(score_table(report))
    if report["failed"] or not report["passed"]:
        raise CheckFailed(f"{report['failed']} drills failed, {len(report['skipped'])} skipped")


@app.command()
def demo() -> None:
    """Show the whole way on a sandbox: a leak, an alert, the notebook, the report, the message."""
    from runbook.drills.demo import run_demo

    _log_to_stderr("WARNING")
    status = run_demo(_console())
    if status:
        raise typer.Exit(status)


@sandbox_app.command("up")
def sandbox_up(as_json: Json = False) -> None:
    """Start the sandbox and leave it running; with --json, print the settings that point at it."""
    from runbook.sandbox import Sandbox
    from runbook.sandbox.sandbox import as_environment

    _log_to_stderr("WARNING")
    sandbox = Sandbox().up()
    if as_json:
        _print_json(sandbox.settings())
        return
    out = _console()
    out.print("sandbox is up; to point the commands at it:")
    for variable, value in as_environment(sandbox.settings()).items():
        typer.echo(f"export {variable}={_quoted(value)}")


@sandbox_app.command("down")
def sandbox_down(as_json: Json = False) -> None:
    """Stop the sandbox and delete it."""
    from runbook.sandbox import Sandbox

    _log_to_stderr("WARNING")
    sandbox = Sandbox()
    sandbox.down()
    _print_json(sandbox.status()) if as_json else _console().print("sandbox is down")


@sandbox_app.command("status")
def sandbox_status(as_json: Json = False) -> None:
    """What of the sandbox runs."""
    from runbook.sandbox import Sandbox

    status = Sandbox().status()
    _print_json(status) if as_json else _console().print_json(json.dumps(status))


@sandbox_app.command("inject")
def sandbox_inject(fault: str, as_json: Json = False) -> None:
    """Inject a fault and leave it there."""
    from runbook.sandbox import Sandbox

    _log_to_stderr("WARNING")
    sandbox = Sandbox()
    sandbox.inject(fault)
    _print_json(sandbox.status()) if as_json else _console().print(f"{fault} is injected")


@sandbox_app.command("heal")
def sandbox_heal(as_json: Json = False) -> None:
    """Take the injected fault out again, and check that nothing of it is left."""
    from runbook.sandbox import Sandbox

    _log_to_stderr("WARNING")
    sandbox = Sandbox()
    healed = sandbox.heal()
    _print_json(sandbox.status()) if as_json else _console().print(
        f"{healed} is healed" if healed else "nothing to heal"
    )


# -- what the commands share ------------------------------------------------------------------------------------------


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=not sys.stdout.isatty())


def _error(text: str) -> None:
    typer.echo(f"error: {' '.join(text.split())}", err=True)


def _print_json(document: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, default=str))


def _log_to_stderr(level: str) -> None:
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Plain tracebacks: the rich ones print local variables, and those hold credentials.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidParameter(f"{text[:60]!r} is not KEY=VALUE")
    return key, value


def _given(runbook: Runbook, pairs: list[str]) -> dict[str, Any]:
    from runbook.catalog import parse_text

    given: dict[str, Any] = {}
    for key, text in map(_pair, pairs):
        parameter = runbook.parameters.get(key)
        try:
            given[key] = parse_text(parameter, text) if parameter is not None else text
        except ValueError as error:
            raise InvalidParameter(f"runbook {runbook.name}: {error}") from None
    return given


def _progress(*, quiet: bool) -> Any:
    """A context manager that gives the progress callback: a bar by cell on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        return contextlib.nullcontext(None)
    from runbook.execution.progress_bar import progress_bar

    return progress_bar(_console(stderr=True))


def _warn_of_unreachable(result: Mapping[str, Any]) -> None:
    for item in result["not_checked"]:
        if item["state"] not in ("not_configured", "partial"):
            typer.echo(f"warning: {item['source']}: {item['state'].replace('_', ' ')}: {item['reason']}", err=True)


def _print_verdict(result: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = _console()
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
    _console().print(table)


def _quoted(value: str) -> str:
    import shlex

    return shlex.quote(value)


__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
