"""What the commands share: the application, its options, how answers and complaints are printed.

With ``--json`` exactly one JSON document goes to standard output and everything else to standard error. Nothing heavy
is imported before a command needs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runbook.errors import InvalidParameter

if TYPE_CHECKING:
    from rich.console import Console


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


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=not sys.stdout.isatty())


def error(text: str) -> None:
    typer.echo(f"error: {' '.join(text.split())}", err=True)


def print_json(document: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, default=str))


def log_to_stderr(level: str) -> None:
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


def pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidParameter(f"{text[:60]!r} is not KEY=VALUE")
    return key, value
