"""What an unexpected error leaves in the log: its kind and where it happened, never its values.

A traceback with local variables, or an exception's own text, may carry a DSN or a token.
"""

from __future__ import annotations

import traceback
from pathlib import Path


def where(error: BaseException) -> str:
    """Kind of error and the places it came through, innermost first, on one line."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
    return f"{type(error).__name__} at {' < '.join(places)}" if places else type(error).__name__
