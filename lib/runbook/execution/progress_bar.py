"""Live progress of a run by cell, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runbook.execution.course import Progress as Step


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[Step], None]]:
    """A bar that moves by cell and names the one that runs."""
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting a kernel", total=None)

        def step(now: Step) -> None:
            bar.update(task, total=now.cells, completed=now.cell - (now.state == "running"), description=now.title[:40])

        yield step
