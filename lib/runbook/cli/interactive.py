"""Commands for the engineer who takes over: JupyterLab with a broker beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from runbook.cli.base import app, log_to_stderr


@app.command()
def jupyter(
    run: Annotated[str, typer.Argument(help="Id of a run: opens its own working copy.")] = "",
    port: Annotated[int, typer.Option(help="Port of JupyterLab on loopback; 0 = a free one.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Open the runbooks, or one run, in JupyterLab, with a broker beside it that may act."""
    from runbook import settings
    from runbook.broker.jupyter import jupyter as open_

    log_to_stderr("WARNING")
    open_(settings.load(), run, port=port, browser=browser, say=lambda line: typer.echo(line, err=True))
