"""The one boundary: time limit, states of failure, redaction before recording."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from runbook.connectors.base import MAX_CELL_CHARACTERS, Connector, Context, Failure, Fetched, Unavailable
from runbook.redaction import Redactor
from runbook.result import Reading

SECRET = "hunter2Canary"


class Toy(Connector):
    source = "toy"
    failures = (OSError,)

    def __init__(self) -> None:
        super().__init__(Context(redactor=Redactor([SECRET])), f"host-{SECRET}")
        self.aborted = threading.Event()

    def failure(self, error: Exception) -> Failure:
        return Failure(state="unreachable", reason=f"{error}", code="E1")

    def abort(self) -> None:
        self.aborted.set()

    def ask(self, fetch: Callable[[], Fetched], *, limit_seconds: float = 5) -> Reading:
        return self.read("r", f"query {SECRET}", fetch, limit_seconds=limit_seconds)


def fails(error: BaseException) -> Callable[[], Fetched]:
    def fetch() -> Fetched:
        raise error

    return fetch


def test_what_was_fetched_is_recorded_with_its_provenance() -> None:
    toy = Toy()
    reading = toy.ask(lambda: Fetched(value=[{"a": 1}]))
    assert (reading.state, reading.value, reading.source, reading.name) == ("ok", [{"a": 1}], "toy", "r")
    assert reading.duration_ms >= 0
    assert toy.context.recorder.readings == [reading]


def test_something_missing_makes_it_partial() -> None:
    reading = Toy().ask(lambda: Fetched(value=[{"a": 1}], partial="only one", code="7"))
    assert (reading.state, reading.reason, reading.code, reading.known) == ("partial", "only one", "7", True)


def test_a_failure_of_the_system_is_a_reading_of_its_state() -> None:
    reading = Toy().ask(fails(ConnectionRefusedError("refused")))
    assert (reading.state, reading.reason, reading.code, reading.value) == ("unreachable", "refused", "E1", None)


def test_a_connector_can_say_itself_why_it_is_unavailable() -> None:
    reading = Toy().ask(fails(Unavailable(Failure(state="rate_limited", reason="later"))))
    assert (reading.state, reading.reason) == ("rate_limited", "later")


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError(), KeyboardInterrupt()])
def test_a_bug_is_not_swallowed(error: BaseException) -> None:
    toy = Toy()
    with pytest.raises(type(error)):
        toy.ask(fails(error))
    assert toy.context.recorder.readings == []


def test_a_fetch_that_hangs_is_aborted_and_reads_as_timeout() -> None:
    toy = Toy()

    def fetch() -> Fetched:
        toy.aborted.wait(60)
        return Fetched(value="too late")

    reading = toy.ask(fetch, limit_seconds=0.05)
    assert toy.aborted.is_set()
    assert (reading.state, reading.value, reading.known) == ("timeout", None, False)
    assert "0.05 s" in reading.reason


def test_a_reading_that_was_not_attempted_is_kept_too() -> None:
    toy = Toy()
    toy.missing("r", "q", Failure(state="not_configured", reason="no"))
    assert [r.state for r in toy.context.recorder.readings] == ["not_configured"]


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        [SECRET],
        [[SECRET]],
        {"a": SECRET},
        [{"a": {"b": [SECRET]}}],
        {SECRET: 1},
        [{"query": f"SELECT '{SECRET}'"}],
        {"a": "x" * (MAX_CELL_CHARACTERS - 3) + SECRET},
    ],
)
def test_nothing_is_recorded_before_it_was_redacted(value: Any) -> None:
    toy = Toy()
    reading = toy.ask(lambda: Fetched(value=value, partial=f"missing {SECRET}", code=SECRET))
    assert SECRET not in repr(reading)
    assert SECRET[:3] not in repr(reading.value)
    assert SECRET not in repr(toy.context.recorder.readings)


def test_the_reason_of_a_failure_is_redacted_before_it_is_cut() -> None:
    reading = Toy().ask(fails(OSError("x" * 495 + SECRET)))
    assert SECRET[:3] not in reading.reason
    assert len(reading.reason) <= 500


def test_a_long_text_is_cut_and_says_so() -> None:
    value = Toy().ask(lambda: Fetched(value=[{"a": "x" * 10_000}])).value
    assert value == [{"a": "x" * MAX_CELL_CHARACTERS + "…"}]
