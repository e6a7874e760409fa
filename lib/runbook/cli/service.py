"""Commands around the service: run it, work for it, send it an alert, look through its reports."""

from __future__ import annotations

from typing import Annotated

import typer

from runbook.cli.base import Json, Name, app, console, log_to_stderr, pair, print_json
from runbook.errors import RunbookError


@app.command()
def serve() -> None:
    """Take alerts in over HTTP, run their runbooks, archive and announce the reports."""
    from runbook import settings
    from runbook.web.server import serve as serve_

    log_to_stderr("INFO")
    serve_(settings.load(), started=lambda url: typer.echo(f"listening on {url}", err=True))


@app.command()
def worker() -> None:
    """Execute queued runs; any number of workers on any number of machines share one store."""
    from runbook import settings
    from runbook.web.server import work

    log_to_stderr("INFO")
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
        dict(pair(label) for label in labels or []),
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
        print_json(answer.json())
        return
    for alert in answer.json()["alerts"]:
        console().print(f"{alert['fate']}: alert {alert['alert_id']}, run {alert['run_id'] or '–'}")


@app.command()
def reports(query: Annotated[str, typer.Argument(help="Words to look for.")] = "", as_json: Json = False) -> None:
    """Archived reports, the newest first."""
    from runbook import settings
    from runbook.dispatch.reports import search

    log_to_stderr("WARNING")
    found = search(settings.load(), query)
    if as_json:
        print_json({"reports": found})
        return
    from rich.table import Table

    table = Table("started", "runbook", "outcome", "causes", "report", box=None, pad_edge=False)
    for row in found:
        causes = ", ".join(str(c) for c in row["causes"])
        table.add_row(
            (row["started_at"] or "")[:19], row["runbook"], row["outcome"] or row["state"], causes, row["report"]
        )
    console().print(table if found else "no report")
