"""Executable incident runbooks.

A notebook imports ``start`` from here and its rules from :mod:`runbook.diagnosis`. Names are resolved on first use, so
that ``import runbook`` costs nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbook.run import Run, start

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "start"]


def __getattr__(name: str) -> Any:
    if name in {"Run", "start"}:
        from runbook import run

        return getattr(run, name)
    raise AttributeError(f"module 'runbook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
