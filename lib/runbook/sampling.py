"""Samples of a symptom, taken on a thread of their own while the notebook goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from runbook.connectors.base import utc_now

if TYPE_CHECKING:
    from rich.progress import Progress

_LOOK_SECONDS = 0.2


class Sampler:
    """Calls ``take`` ``count`` times, ``seconds`` apart, from now on.

    Parameters
    ----------
    watched
        Somebody waits before a screen: waiting shows how many are in.
    """

    def __init__(self, take: Callable[[], object], count: int, seconds: float, *, watched: bool = False) -> None:
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._take, self._count, self._seconds, self._watched = take, count, seconds, watched
        self._taken = 0
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        if count > 0:
            self._thread.start()

    def wait(self) -> None:
        """Return when the last one is in; an error of ours is raised here, in the cell that needs the samples."""
        if self._thread.is_alive():
            with self._bar() as bar:
                task = bar.add_task("Samples", total=self._count) if bar is not None else None
                while self._thread.is_alive():
                    if bar is not None and task is not None:
                        bar.update(task, completed=self._taken)
                    self._thread.join(_LOOK_SECONDS)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def cancel(self) -> None:
        """Take no more."""
        self._stop.set()

    def _work(self) -> None:
        began = utc_now()
        for number in range(1, self._count + 1):
            due = self._seconds * number - (utc_now() - began).total_seconds()
            if self._stop.wait(max(0.0, due)):
                return
            try:
                self._take()
            except Exception as error:  # noqa: BLE001 - raised again by wait()
                self._error = error
                return
            self._taken = number

    def _bar(self) -> AbstractContextManager[Progress | None]:
        if not self._watched:
            return nullcontext()
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), transient=True)
