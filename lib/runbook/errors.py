"""The one exception tree.

Every error that a person may meet says what happened, to which target, and what to do next; the command line prints
``str(error)`` on one line and exits with ``exit_code``. A system under diagnosis that fails is no error: it is a
reading with a state (see :mod:`runbook.result`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class RunbookError(Exception):
    """Base of everything raised on purpose. ``remedy`` is one sentence: what to do next."""

    exit_code = 2

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class ConfigurationError(RunbookError):
    """Settings that cannot be used: unknown key, unreadable file, value out of range."""


class UnknownRunbook(RunbookError):
    """No notebook of that name in the catalog."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"unknown runbook {name!r}",
            remedy=f"Known: {', '.join(known) if known else '(no notebooks found)'}",
        )
        self.name = name


class BrokenNotebook(RunbookError):
    """A notebook that is not a runbook: not JSON, no metadata, a parameters cell that does not parse."""


class InvalidParameter(RunbookError):
    """A parameter that is not declared, or whose value does not fit its declared type or bounds.

    ``fields`` says of each parameter that was not understood what is allowed, where they were read together.
    """

    def __init__(self, message: str, *, remedy: str = "", fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.fields = dict(fields or {})


class StoreError(RunbookError):
    """The store cannot be opened, or answers in a way that we do not understand."""


class ArchiveError(RunbookError):
    """The archive cannot be written or read."""


class NotFound(RunbookError):
    """A run, report or alert that does not exist."""


class SandboxError(RunbookError):
    """The sandbox, or a fault in it, could not be started or healed."""


class EmbeddedServerError(RunbookError):
    """A PostgreSQL from the wheel could not be started."""


class RunFailed(RunbookError):
    """The run itself failed (a report was still written)."""

    exit_code = 3


class CheckFailed(RunbookError):
    """A drill, lint or doctor check did not pass."""

    exit_code = 1
