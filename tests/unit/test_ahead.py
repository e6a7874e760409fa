"""Fetches begun ahead: they run beside each other, are waited for by name, and are taken anew the second time."""

from __future__ import annotations

import threading

import pytest

from runbook.ahead import Ahead
from runbook.result import Reading


def reading(name: str) -> Reading:
    return Reading(name=name, source="s", target="t", query="", measured_at="", duration_ms=0.0, value=[])


def test_fetches_run_beside_each_other() -> None:
    ahead, both = Ahead(), threading.Barrier(2, timeout=10)

    def take() -> Reading:
        both.wait()  # passes only when two are here
        return reading("met")

    ahead.begin({"a": take, "b": take})
    assert [ahead.fetch("a").name, ahead.fetch("b").name] == ["met", "met"]
    ahead.close()


def test_a_cell_that_is_run_again_fetches_anew() -> None:
    ahead, taken = Ahead(), []

    def take() -> Reading:
        taken.append(1)
        return reading("x")

    ahead.begin({"x": take})
    ahead.fetch("x")
    assert len(taken) == 1
    ahead.fetch("x")
    assert len(taken) == 2
    ahead.close()


def test_what_was_never_begun_is_told_by_name() -> None:
    with pytest.raises(LookupError, match="'absent'"):
        Ahead().fetch("absent")


def test_an_error_of_ours_is_raised_in_the_cell_that_asks_and_not_in_the_verdict() -> None:
    ahead = Ahead()

    def take() -> Reading:
        raise KeyError("ours")

    ahead.begin({"x": take})
    ahead.wait()
    with pytest.raises(KeyError, match="ours"):
        ahead.fetch("x")
    ahead.close()


def test_after_close_nothing_more_is_begun() -> None:
    ahead, free, taken = Ahead(), threading.Event(), []

    def take() -> Reading:
        free.wait(10)
        taken.append(1)
        return reading("x")

    ahead.begin({str(n): take for n in range(40)})
    ahead.close()
    free.set()
    ahead.wait()
    assert len(taken) < 40
