"""The one boundary: every fact from outside becomes a :class:`~runbook.result.Reading` here.

What is common to all systems stands here once: the time limit, the state of a failure, redaction, provenance and
recording. A connector never raises for what the system under diagnosis does; it answers with a reading whose state
says what happened. An error that is ours (a bug) is not caught.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from runbook.progress import Progress
from runbook.recording import Recorder
from runbook.redaction import Redactor
from runbook.result import Reading, ReadingState

MAX_CELL_CHARACTERS = 4000
"""A longer text in one cell of a result is cut, and says so."""
MAX_CELL_ITEMS = 1000
"""A longer list in one cell is cut as well."""


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every connector of a run shares."""

    recorder: Recorder = field(default_factory=Recorder)
    redactor: Redactor = field(default_factory=Redactor)
    now: Callable[[], datetime] = utc_now
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What a fetch brought: the value, and whether something is missing from it."""

    value: Any
    partial: str = ""
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a fetch failed, in the words of the verdict."""

    state: ReadingState
    reason: str
    code: str = ""


class Unavailable(Exception):
    """A connector found that the system cannot answer; carries the failure as it is to be recorded."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Connector(ABC):
    """Base of all connectors. A subclass states which exceptions of its library mean a failure, and how."""

    #: Name of the system in readings: ``postgresql``.
    source: str
    #: Exceptions of the library below that speak of the system, not of us.
    failures: tuple[type[Exception], ...] = (OSError,)
    #: Columns of its rows that may hold SQL, whose literals are people's data; ``None`` = any.
    statements: Collection[str] | None = ()

    def __init__(self, context: Context, target: str) -> None:
        self.context = context
        self.target = target

    @abstractmethod
    def failure(self, error: Exception) -> Failure:
        """The state and reason of one of :attr:`failures`."""

    def abort(self) -> None:
        """Stop a fetch that ran past its limit, as far as the library lets us."""

    def read(self, name: str, query: str, fetch: Callable[[], Fetched], *, limit_seconds: float) -> Reading:
        """Run ``fetch`` within ``limit_seconds`` and keep what it brought as the reading ``name``."""
        at, started = self.context.now(), time.perf_counter()
        outcome = _within(limit_seconds, fetch, (*self.failures, Unavailable), self.context.progress)
        elapsed_ms = round((time.perf_counter() - started) * 1000, 2)
        reading = Reading(
            name=name,
            source=self.source,
            target=self.target,
            query=query,
            measured_at=at.isoformat(timespec="milliseconds"),
            duration_ms=elapsed_ms,
        )
        if isinstance(outcome, Fetched):
            state: ReadingState = "partial" if outcome.partial else "ok"
            return self.keep(
                replace(reading, value=outcome.value, state=state, reason=outcome.partial, code=outcome.code)
            )
        if outcome is None:
            self.abort()
            failure = Failure(state="timeout", reason=f"no answer within {limit_seconds:g} s")
        elif isinstance(outcome, Unavailable):
            failure = outcome.failure
        else:
            failure = self.failure(outcome)
        return self.keep(replace(reading, state=failure.state, reason=failure.reason, code=failure.code))

    def missing(self, name: str, query: str, failure: Failure) -> Reading:
        """A reading that was not attempted, and why."""
        at = self.context.now().isoformat(timespec="milliseconds")
        return self.keep(
            Reading(
                name=name,
                source=self.source,
                target=self.target,
                query=query,
                measured_at=at,
                duration_ms=0.0,
                state=failure.state,
                reason=failure.reason,
                code=failure.code,
            )
        )

    def keep(self, reading: Reading) -> Reading:
        """Redact and record."""
        redactor = self.context.redactor
        value = reading.value
        if isinstance(value, list):
            value = [
                redactor.row(row, statements=self.statements) if isinstance(row, dict) else redactor.value(row)
                for row in value
            ]
        elif isinstance(value, dict):
            value = redactor.row(value, statements=self.statements)
        else:
            value = redactor.value(value)
        return self.context.recorder.add(
            replace(
                reading,
                value=_cut(value),
                target=redactor.text(reading.target),
                query=redactor.text(reading.query),
                reason=redactor.text(reading.reason)[:500],
                code=redactor.text(reading.code)[:40],
            )
        )


def _cut(value: Any) -> Any:
    """Long texts cut. Only after redaction: half a secret is no longer recognised as one."""
    if isinstance(value, str):
        return value if len(value) <= MAX_CELL_CHARACTERS else value[:MAX_CELL_CHARACTERS] + "…"
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return value


def _within(
    limit_seconds: float, fetch: Callable[[], Fetched], expected: tuple[type[Exception], ...], progress: Progress
) -> Fetched | Exception | None:
    """What ``fetch`` returned, or the expected exception it raised; ``None`` when it did neither in time.

    A fetch that hangs is left behind on a daemon thread: the run goes on without it.
    """
    box: list[Any] = []

    def work() -> None:
        try:
            box.append(fetch())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread, raised or mapped there
            box.append(error)

    thread = threading.Thread(target=work, name="reading", daemon=True)
    thread.start()

    def over(seconds: float) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    progress.wait(over, limit_seconds)
    if not box:
        return None
    outcome: Fetched | Exception = box[0]
    if isinstance(outcome, BaseException) and not isinstance(outcome, expected):
        raise outcome
    return outcome
