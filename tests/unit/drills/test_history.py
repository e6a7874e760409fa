"""How the last drill of each runbook ended is remembered, whoever drills at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runbook.drills.history import in_words, last_drill, remember


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(tmp_path))
    return tmp_path


def test_drills_that_end_together_are_all_remembered() -> None:
    names = [f"runbook_{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: remember(name, {"passed": 2, "failed": 1, "skipped": ["x"]}), names))
    assert all(in_words(last_drill(name)).endswith(": 2 of 3 passed, 1 skipped") for name in names)


def test_what_was_never_drilled_or_cannot_be_read_is_said(data: Path) -> None:
    assert in_words(last_drill("never")) == "never drilled"
    (data / "drills.json").write_text("{half")
    assert last_drill("never") is None
    remember("now", {"passed": 1, "failed": 0, "skipped": []})
    assert in_words(last_drill("now")).endswith(": 1 of 1 passed")
