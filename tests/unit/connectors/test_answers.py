"""Fields of vendors' answers: what is absent or odd is unknown, and never 0."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.connectors import answers
from runbook.connectors.base import Context, Failure, Unavailable
from runbook.connectors.http import HttpConnector, Malformed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("150", 150.0),
        (0, 0.0),
        ("39.5", 39.5),
        ("NaN", None),
        ("+Inf", None),
        ("", None),
        (None, None),
        (True, None),
        ({"n": 1}, None),
    ],
)
def test_a_number_is_finite_or_unknown(value: Any, expected: float | None) -> None:
    assert answers.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-20T09:40:00Z", "2026-11-20T09:40:00.000+00:00"),
        ("2026-11-20T09:40:00.512033Z", "2026-11-20T09:40:00.512+00:00"),
        ("2026-11-20T01:40:00.000-08:00", "2026-11-20T09:40:00.000+00:00"),
        ("2026-11-20T09:40:00", "2026-11-20T09:40:00.000+00:00"),
        ("1795400000", "2026-11-23T02:13:20.000+00:00"),
        (1795400000, "2026-11-23T02:13:20.000+00:00"),
        (1795400000123, "2026-11-23T02:13:20.123+00:00"),
        ("yesterday", None),
        ("", None),
        (None, None),
        (1e300, None),
    ],
)
def test_every_way_to_write_a_time_comes_out_as_utc(value: Any, expected: str | None) -> None:
    assert answers.iso(value) == expected


def test_an_address_in_what_somebody_wrote_is_masked_and_a_release_is_not() -> None:
    assert answers.prose("no account ann.b+x@mail.example.org in app@1.4.0") == "no account [e-mail] in app@1.4.0"
    assert answers.text("frontend@1.0.0") == "frontend@1.0.0"


def test_a_long_text_is_cut_and_says_so() -> None:
    found = answers.prose("x" * 5000)
    assert found is not None
    assert len(found) == answers.TEXT_CHARACTERS + 1
    assert found.endswith("…")


def test_a_time_in_a_request_is_whole_seconds_of_utc() -> None:
    assert answers.zulu(datetime(2026, 11, 20, 9, 40, 1, 999, tzinfo=UTC)) == "2026-11-20T09:40:01Z"


class Toy(HttpConnector):
    source = "toy"


def toy() -> Toy:
    return Toy(Context(), "http://127.0.0.1:9")


def test_requests_side_by_side_keep_their_order_and_fail_alone() -> None:
    def ask(number: int) -> int:
        if number == 1:
            raise Unavailable(Failure(state="rate_limited", reason="slowly"))
        if number == 2:
            raise Malformed("no")
        return number

    first, second, third, last = answers.together(toy(), [0, 1, 2, 3], ask)
    assert (first, last) == (0, 3)
    assert isinstance(second, Failure)
    assert isinstance(third, Failure)
    assert (second.state, third.state) == ("rate_limited", "partial")


def test_one_that_hangs_is_left_behind_and_the_others_are_kept() -> None:
    released = threading.Event()

    def ask(hangs: bool) -> str:
        if hangs:
            released.wait(30)
        return "here"

    hung, quick = answers.together(toy(), [True, False], ask, within_seconds=0.2)
    released.set()
    assert quick == "here"
    assert isinstance(hung, Failure)
    assert hung.state == "timeout"


def test_an_error_of_ours_is_not_taken_for_a_vendors() -> None:
    with pytest.raises(ZeroDivisionError):
        answers.together(toy(), [0], lambda number: 1 // number)


def test_what_came_before_a_page_that_failed_is_kept_and_a_first_page_that_fails_is_a_failure() -> None:
    def pages(good: int) -> Iterator[tuple[list[int], bool]]:
        for number in range(good):
            yield [number], False
        raise Unavailable(Failure(state="timeout", reason="no answer in time"))

    assert answers.collected(toy(), pages(2), "runs") == ([0, 1], "only the newest 2 runs were read: no answer in time")
    with pytest.raises(Unavailable):
        answers.collected(toy(), pages(0), "runs")


@given(JSON)
def test_no_json_value_breaks_a_reader(value: Any) -> None:
    for read in (answers.text, answers.prose, answers.number, answers.whole, answers.iso, answers.first_line):
        read(value)
    assert isinstance(answers.objects(value), list)
    assert answers.known(value, {"up": "up"}, "unknown") in ("up", "unknown")
    answers.inside(value, "a", "b")
