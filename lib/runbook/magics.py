"""``%%sql NAME``, ``%%sh NAME`` and ``%probe NAME``: live SQL and shell in a notebook.

Values reach SQL as bind parameters (``%(name)s`` takes the notebook's variable ``name``) and shell as positional
arguments; no text is ever substituted. The result is bound to NAME as a DataFrame whose ``attrs["reading"]`` is the
reading; a reading that failed is shown as *unknown*, with the reason, and the next cell runs.
"""

from __future__ import annotations

import argparse
import keyword
import shlex
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import HTML, display

from runbook.connectors.postgres import ROW_CAP, placeholders, probe_names, probe_sql
from runbook.reporting.readings import reading_html
from runbook.result import Reading
from runbook.run import current

MAX_ROWS_SHOWN = 40
MAX_CAP = 10_000


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. {self.format_usage().strip()}")

    def parse_line(self, line: str) -> argparse.Namespace:
        try:
            return self.parse_args(shlex.split(line))
        except ValueError as error:
            self.error(str(error))


def _name(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a variable")
    return text


def _cap(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_CAP):
        raise argparse.ArgumentTypeError(f"a cap is a number from 1 to {MAX_CAP}")
    return int(text)


def _sql_arguments() -> _Arguments:
    parser = _Arguments(prog="%%sql", add_help=False)
    parser.add_argument("name", type=_name, help="variable that the result is bound to")
    parser.add_argument("--cap", type=_cap, default=ROW_CAP, help="most rows that are read")
    return parser


def _sh_arguments() -> _Arguments:
    parser = _Arguments(prog="%%sh", add_help=False)
    parser.add_argument("name", type=_name, help="variable that the result is bound to")
    parser.add_argument("variables", nargs="*", help="variables that become $1, $2 …")
    parser.add_argument(
        "--on", choices=("here", "postgres", "redis", "workers"), default="here", help="the host that it looks at"
    )
    return parser


@magics_class
class RunbookMagics(Magics):
    """The magics of one kernel; they speak to its current run."""

    @cell_magic
    def sql(self, line: str, cell: str) -> None:
        """``%%sql NAME [--cap N]``: one read-only statement on the PostgreSQL under diagnosis."""
        arguments = _sql_arguments().parse_line(line)
        values = {name: self._variable(name) for name in placeholders(cell)}
        self._keep(arguments.name, current().postgres.query(arguments.name, cell, values, row_cap=arguments.cap))

    @cell_magic
    def sh(self, line: str, cell: str) -> None:
        """``%%sh NAME [VARIABLE …] [--on postgres|redis|workers]``: a shell text, variables as positional arguments."""
        arguments = _sh_arguments().parse_line(line)
        run = current()
        values = [text for name in arguments.variables for text in _texts(self._variable(name))]
        if arguments.on == "workers":
            self._keep(arguments.name, run.hosts.script(arguments.name, cell, values))
        elif arguments.on == "postgres" and not run.postgres.is_local:
            reason = f"no shell on the database host ({run.postgres.target})"
            self._keep(arguments.name, run.shell.elsewhere(arguments.name, cell, reason))
        elif arguments.on == "redis" and not run.redis.is_local:
            reason = f"no shell on the host of Redis ({run.redis.target})"
            self._keep(arguments.name, run.shell.elsewhere(arguments.name, cell, reason))
        else:
            self._keep(arguments.name, run.shell.script(arguments.name, cell, values))

    @line_magic
    def probe(self, line: str) -> None:
        """``%probe NAME``: one of the library's own statements; its text is shown with the result."""
        name = line.strip()
        if name not in probe_names():
            raise UsageError(f"%probe NAME, where NAME is one of {', '.join(probe_names())}")
        self._keep(name, current().postgres.probe(name), sql=probe_sql(name))

    def _variable(self, name: str) -> Any:
        """The notebook's variable of that name; ``run.postgres.port`` is looked up from ``run`` on."""
        namespace = self.shell.user_ns if self.shell is not None else {}
        first, *attributes = name.split(".")
        if first not in namespace:
            raise UsageError(f"there is no variable {first!r}; the parameters cell comes first")
        value = namespace[first]
        for attribute in attributes:
            if attribute.startswith("_") or not hasattr(value, attribute):
                raise UsageError(f"{first} has no {attribute!r}")
            value = getattr(value, attribute)
        return value

    def _keep(self, name: str, reading: Reading, *, sql: str = "") -> None:
        import pandas as pd

        frame = pd.DataFrame(reading.rows)
        frame.attrs["reading"] = reading.as_dict()
        if self.shell is not None:
            self.shell.user_ns[name] = frame
        display(HTML(reading_html(reading, max_rows=MAX_ROWS_SHOWN, sql=sql)))


def _texts(value: Any) -> list[str]:
    """A variable as positional arguments: a list gives one for each item."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython's ``load_ext``."""
    shell.register_magics(RunbookMagics)
