"""What the fields of a job mean, whatever stands in them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook.connectors import bullmq_rows as rows
from runbook.connectors.redis_server import CLIENT_NAME

VALUES = st.sampled_from(["", "0", "-1", "1e9", "9" * 40, "null", "[]", '{"delay": "x"}', "{", "∞", "1795400000000"])
FIELDS = st.dictionaries(st.sampled_from(rows.JOB), VALUES)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FIELDS)
def test_no_job_breaks_a_reading(fields: dict[str, str]) -> None:
    assert rows.active_row("1", fields, 100, 0.0)["id"] == "1"
    assert rows.failed_row("1", fields)["id"] == "1"
    assert rows.completed_row("1", fields)["id"] == "1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "a"}, (0, 0)),
        ({"name": "a", "attemptsMade": "2", "stalledCounter": "1"}, (2, 1)),
        ({"name": "a", "atm": "3", "stc": "2"}, (3, 2)),
        ({}, (None, None)),
        ({"name": "a", "atm": "many"}, (None, 0)),
    ],
)
def test_attempts_and_stalls_are_read_by_either_name(fields: dict[str, str], expected: tuple[Any, Any]) -> None:
    tries = rows.tries(fields)
    assert (tries["attempts"], tries["stalled_count"]) == expected


@pytest.mark.parametrize(
    ("fields", "waited"),
    [
        ({"timestamp": "1000", "processedOn": "61000", "opts": "{}"}, 60.0),
        ({"timestamp": "1000", "processedOn": "61000", "opts": '{"delay": 50000}'}, 10.0),
        ({"timestamp": "1000", "processedOn": "61000", "opts": "not json"}, 60.0),
        ({"timestamp": "1000", "processedOn": "61000", "ats": "2"}, None),
        ({"timestamp": "1000", "processedOn": "61000", "attemptsMade": "2"}, None),
        ({"processedOn": "61000"}, None),
        ({"timestamp": "1000"}, None),
    ],
)
def test_a_wait_is_from_when_it_was_due_to_its_first_try(fields: dict[str, str], waited: float | None) -> None:
    assert rows.completed_row("1", fields)["waited_seconds"] == waited


@pytest.mark.parametrize(("lock", "has", "left"), [(12_000, True, 12_000), (-2, False, None), (OSError(), None, None)])
def test_a_lock_is_there_gone_or_unknown(lock: Any, has: bool | None, left: int | None) -> None:
    row = rows.active_row("1", {"processedOn": "0"}, lock, timedelta(seconds=5).total_seconds() * 1000)
    assert (row["has_lock"], row["lock_ms"], row["running_seconds"]) == (has, left, 5.0)


@pytest.mark.parametrize(
    ("names", "workers"),
    [
        ([CLIENT_NAME], 0),
        ([CLIENT_NAME, "bull:eA==", "bull:eA==:w:encoder", "bull:eA==:qe", "bull:eQ==", "other:eA==", ""], 2),
        (["", ""], None),
        (None, None),
    ],
)
def test_workers_are_those_of_this_queue_and_unknown_where_names_are_hidden(
    names: list[str] | None, workers: int | None
) -> None:
    clients = None if names is None else [{"id": "1", "name": name} for name in names]
    assert rows.workers(clients, "bull:eA==")["workers"] == workers
