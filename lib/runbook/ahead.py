"""Fetches that are begun at the start of a notebook, so that vendors answer while earlier cells run.

A cell asks for the reading by name and waits only for what is not there yet. A cell that is run a second time, as an
engineer does, fetches anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial

from runbook.progress import Progress
from runbook.result import Reading

AT_ONCE = 12
"""Fetches under way at the same time; each connector has a limit of its own besides."""

Take = Callable[[], Reading]


class Ahead:
    """Fetches by name.

    Parameters
    ----------
    progress
        Where whoever waits for one sees how far it is.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._takes: dict[str, Take] = {}
        self._begun: dict[str, Future[Reading]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, takes: Mapping[str, Take]) -> None:
        """Begin every fetch, at most :data:`AT_ONCE` at a time."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ahead")
        for name, take in takes.items():
            self._takes[name] = take
            self._begun[name] = self._pool.submit(take)

    def fetch(self, name: str) -> Reading:
        """The reading of that name.

        Raises
        ------
        LookupError
            No fetch of that name was begun.
        """
        if name not in self._takes:
            raise LookupError(f"no fetch {name!r} was begun: run.ahead({name}=…) comes first")
        begun = self._begun.pop(name, None)
        if begun is None:
            return self._takes[name]()
        self._progress.wait(partial(_over, begun))
        return begun.result()

    def wait(self) -> None:
        """Return when everything that was begun is in; an error of ours is raised in the cell that asks for it."""
        for begun in self._begun.values():
            self._progress.wait(partial(_over, begun))

    def close(self) -> None:
        """Begin nothing more; what is under way ends by its own limit."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _over(begun: Future[Reading], seconds: float) -> bool:
    """Whether it has ended, however it did, within so many seconds."""
    try:
        begun.exception(seconds)
    except TimeoutError:
        return False
    except CancelledError:
        return True
    return True
