"""Executable incident runbooks.

A notebook imports from here and from nowhere else. Names are resolved on first use, so that
``import runbook`` costs nothing by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runbook.diagnosis import connections, uploads
    from runbook.run import Run, start

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "connections", "start", "uploads"]

_DIAGNOSES = frozenset({"connections", "uploads"})


def __getattr__(name: str) -> Any:
    if name in {"Run", "start"}:
        from runbook import run

        return getattr(run, name)
    if name in _DIAGNOSES:
        import importlib

        return importlib.import_module(f"runbook.diagnosis.{name}")
    raise AttributeError(f"module 'runbook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
