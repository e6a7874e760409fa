from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.reporting import words


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (20, "20"), (12345, "12 345"), (0.042, "0.042"), (245.3, "245.3"), (1.0, "1"), (3.14159, "3.14"),
     (-2.5, "-2.5"), (1e-9, "0.000000001"), (float("inf"), "inf"), (float("nan"), "nan")],
)  # fmt: skip
def test_number(value: float, said: str) -> None:
    assert words.number(value).replace("\u202f", " ") == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.084, "84 ms"), (4.23, "4.2 s"), (119, "119 s"), (192, "3 min 12 s"), (7500, "2 h 5 min"), (3600, "1 h"),
     (273600, "3 d 4 h"), (-5, "−5 s"), (float("inf"), "inf")],
)  # fmt: skip
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(0.88, "share", "88 %"), (80.04, "%", "80 %"), (1536, "bytes", "1.5 KiB"), (30, "s", "30 s"),
     (None, "s", "unknown"),
     (True, "", "yes"), ("x", "", "x"), (3, "sessions", "3 sessions"), ([1, 2], "", "1, 2"), (0.005, "share", "0.5 %")],
)  # fmt: skip
def test_amount(value: Any, unit: str, said: str) -> None:
    assert words.amount(value, unit).replace("\u202f", " ") == said


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [("≥ 30", "s", "≥ 30 s"), ("≥ 0.2", "share", "≥ 20 %"), ("2 of 3 samples", "s", "2 of 3 samples"), (None, "s", ""),
     (80, "%", "80 %"), ("", "s", "")],
)  # fmt: skip
def test_threshold_is_in_the_unit_of_its_value(text: Any, unit: str, said: str) -> None:
    assert words.threshold(text, unit).replace("\u202f", " ") == said


def test_unknown_is_never_printed_as_a_number() -> None:
    assert words.amount(None, "share") == words.amount(None, "bytes") == "unknown"


@pytest.mark.parametrize(
    ("text", "said"),
    [("2026-03-01T03:12:05.5+02:00", "2026-03-01 01:12:05 UTC"), ("2026-03-01T03:12:05Z", "2026-03-01 03:12:05 UTC"),
     ("yesterday", "yesterday"), (None, "unknown")],
)  # fmt: skip
def test_clock_is_utc_and_says_so(text: Any, said: str) -> None:
    assert words.clock(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [("lock pile-up", "Lock pile-up"), ("idle-in-transaction leak", "Idle-in-transaction leak"),
     ("pg_stat_statements is there", "pg_stat_statements is there"), ("PostgreSQL", "PostgreSQL"), ("", "")],
)  # fmt: skip
def test_sentence_begins_with_a_capital_unless_it_begins_with_code(text: str, said: str) -> None:
    assert words.sentence(text) == said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("oldest_seconds", 245.3, "4 min 5 s"), ("retained_bytes", 1048576, "1 MiB"), ("pid", 48210, "48210"),
     ("waiters", [5121, 5122], "5121, 5122"), ("amplifier", {"pid": 5120, "mode": None}, "pid 5120"),
     ("backend_start", "2026-03-01T02:50:10.104211+00:00", "2026-03-01 02:50:10.104211Z")],
)  # fmt: skip
def test_detail_says_its_value_in_the_unit_of_its_key(key: str, value: Any, said: str) -> None:
    assert words.detail(key, value) == said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON, unit=st.sampled_from(["", "s", "%", "share", "bytes", "sessions"]), key=st.text())
def test_no_json_value_is_too_odd_to_be_said(value: Any, unit: str, key: str) -> None:
    for said in (words.amount(value, unit), words.threshold(value, unit), words.clock(value), words.detail(key, value)):
        assert isinstance(said, str)
