"""How far long work is, for a person who waits for it before a live front end; nothing of it where nobody looks.

Whatever takes long counts here, on whichever thread it works; the cell that waits shows the counts and takes them away
when it goes on. A headless run, papermill and nbconvert show nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

MARK = '<div class="rb-progress"'
"""How the output begins; what is published has none of it."""
_LOOK_SECONDS = 0.2
SESSION = "JPY_SESSION_NAME"
"""Where a Jupyter server tells a kernel which file it belongs to; a kernel that nobody opened is not told."""
_VISUAL_STUDIO = "__vsc_ipynb_file__"
"""Visual Studio Code puts this name into its kernels."""

Over = Callable[[float], bool]
"""Waits for so many seconds at most; whether it is over."""


def is_live(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this kernel belongs to a front end with a person before it, as far as anybody told."""
    main = sys.modules.get("__main__")
    return bool((os.environ if environ is None else environ).get(SESSION)) or hasattr(main, _VISUAL_STUDIO)


@dataclass
class Count:
    """Something that is counted: ``hosts 12 of 40 answered``."""

    what: str
    total: int
    ending: str
    done: int = 0

    def advance(self) -> None:
        """One more; from one thread at a time."""
        self.done += 1

    def __str__(self) -> str:
        return f"{self.what} {self.done} of {self.total} {self.ending}"


class Progress:
    """The counts of one run.

    Parameters
    ----------
    watched
        Somebody waits before a screen.
    """

    def __init__(self, *, watched: bool = False) -> None:
        self.watched = watched
        self._counts: list[Count] = []

    @contextlib.contextmanager
    def counting(self, what: str, total: int, ending: str) -> Generator[Count]:
        """Count up to ``total`` while the block lasts."""
        count = Count(what, total, ending)
        self._counts.append(count)
        try:
            yield count
        finally:
            self._counts.remove(count)

    def wait(self, over: Over, limit_seconds: float = threading.TIMEOUT_MAX) -> None:
        """Return when it is over, or the limit is; meanwhile the cell shows what is counted."""
        # Only the thread of the cells waits before anybody's eyes.
        if not self.watched or threading.current_thread() is not threading.main_thread():
            over(limit_seconds)
            return
        deadline, line = time.monotonic() + limit_seconds, _Line()
        try:
            while (left := deadline - time.monotonic()) > 0 and not over(min(_LOOK_SECONDS, left)):
                line.show(list(self._counts))
        finally:
            line.remove()


class _Line:
    """One output of the cell, changed in place; there is none before something is counted."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""

    def show(self, counts: list[Count]) -> None:
        several = [count for count in counts if count.total > 1]
        if several:
            # Of fetches beside each other, the one that holds up the cell.
            last = min(several, key=lambda count: count.done / count.total)
            bar = f'<progress max="{last.total}" value="{last.done}" aria-hidden="true"></progress>'
            self._put(f'{MARK} role="status">{bar} {last}</div>', str(last))

    def remove(self) -> None:
        if self._handle is not None:
            self._put(f"{MARK}></div>", "")

    def _put(self, html: str, text: str) -> None:
        if html == self._shown:
            return
        self._shown, data = html, {"text/html": html, "text/plain": text}
        if self._handle is not None:
            self._handle.update(data, raw=True)
            return
        from IPython.display import display

        self._handle = display(data, raw=True, display_id=True)
