"""What cards and forms in a live notebook are made of: buttons with names, lines that say how it went, work beside it.

Work that a click asks for is done on a thread of its own, so that no cell and no other click waits for it.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from html import escape
from typing import Any

_CLASS = "rb-named"
STYLE = (
    f"<style>.jupyter-button.{_CLASS}{{display:inline-flex;flex-direction:column;align-items:center;"
    "justify-content:flex-start;white-space:pre-line}</style>"
)
"""To be put into an HTML widget beside the buttons."""


def button(text: str, about: str, tooltip: str, clicked: Callable[[], None], *, style: str = "") -> Any:
    """A button that shows ``text``, and whose name is that and what it is about."""
    import ipywidgets

    made = ipywidgets.Button(tooltip=tooltip, button_style=style)
    made.add_class(_CLASS)
    name(made, text, about)
    made.on_click(lambda _: clicked())
    return made


def name(control: Any, text: str, about: str) -> None:
    """Name a button: its first line is what is seen, the others what a screen reader says besides."""
    control.description = f"{text}\n{' '.join(about.split())}" if about else text


def visible(control: Any, shown: bool) -> None:
    """What is not shown is not reached by the keyboard either."""
    control.layout.display = None if shown else "none"


def beside_cells(name: str, work: Callable[[], None]) -> threading.Thread:
    """Do it on a thread of its own, in the context of the click, so that the widgets know whom they answer."""
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread


def status(text: str) -> str:
    """A line that says how far it is."""
    return f'<p role="status" style="margin:2px 0">{escape(text)}</p>'


def alarm(text: str) -> str:
    """A line that says what was not done, or is not as it should be."""
    return (
        f'<p role="alert" style="margin:2px 0;font-weight:600;color:var(--jp-error-color1,#b3261e)">{escape(text)}</p>'
    )
