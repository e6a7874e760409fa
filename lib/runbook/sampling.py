"""Samples of a symptom, taken on a thread of their own while the notebook goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runbook.connectors.base import utc_now
from runbook.progress import Count, Progress


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
        self._take, self._count, self._seconds = take, count, seconds
        # Not that of the connectors: samples are taken while other cells run, and belong to the one that needs them.
        self._progress = Progress(watched=watched)
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        if count > 0:
            self._thread.start()

    def wait(self) -> None:
        """Return when the last one is in; an error of ours is raised here, in the cell that needs the samples."""
        if self._thread.is_alive():
            self._progress.wait(self._over)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def cancel(self) -> None:
        """Take no more."""
        self._stop.set()

    def _over(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        with self._progress.counting("samples", self._count, "taken") as count:
            self._take_all(count)

    def _take_all(self, count: Count) -> None:
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
            count.advance()
