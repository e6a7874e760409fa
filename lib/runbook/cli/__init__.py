"""The ``runbook`` command: each command is a few lines over the library.

Human output goes through Rich. Exit status: 0 done, whatever was found; 1 a check did not pass; 2 usage or
configuration; 3 the run itself failed.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from runbook import __version__
from runbook.cli import actions, interactive, runbooks, service, trials
from runbook.cli.base import app, error
from runbook.errors import RunbookError

__all__ = ["actions", "app", "interactive", "main", "runbooks", "service", "trials"]


def main() -> NoReturn:
    """Run the command line; one line for every error that is a person's to mend."""
    try:
        app()
    except RunbookError as problem:
        error(str(problem))
        sys.exit(problem.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough of it; nothing is left to say to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


@app.callback(invoke_without_command=True)
def _about(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
