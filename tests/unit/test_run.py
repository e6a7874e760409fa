"""What a run holds: its window, its lease, its parameters."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook import run as run_module
from runbook.run import _window, accept_lease, start

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("alert_at", "begin"),
    [
        ("", "2026-01-02T11:30:00+00:00"),
        ("2026-01-02T11:00:00Z", "2026-01-02T10:30:00+00:00"),
        ("2026-01-02T12:30:00+02:00", "2026-01-02T10:00:00+00:00"),
        ("2026-01-03T00:00:00Z", "2026-01-02T11:30:00+00:00"),
        ("2026-01-02T11:00:00", "2026-01-02T11:30:00+00:00"),
        ("nonsense", "2026-01-02T11:30:00+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+14:00", "2026-01-02T11:30:00+00:00"),
        ("9999-12-31T23:59:59-14:00", "2026-01-02T11:30:00+00:00"),
    ],
)
def test_the_window_begins_before_the_alert_and_is_in_utc(alert_at: str, begin: str) -> None:
    found = _window(NOW, {"alert_at": alert_at, "window_minutes": 30})
    assert (found[0].isoformat(), found[1]) == (begin, NOW)
    assert found[0].utcoffset() == timedelta(0)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_kernel", run_module._Kernel())


@pytest.mark.usefixtures("kernel")
def test_a_lease_decides_what_a_run_knows_and_where_it_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_POSTGRES__DSN", "postgresql://environment/x")
    lease = {
        "run_id": "run-1",
        "runbook": "toy",
        "recording": str(tmp_path / "r"),
        "settings": {"queue": {"name": "q"}},
    }
    accept_lease(json.dumps(lease))
    run = start("toy", window_minutes=5)
    assert (run.id, run.settings.queue.name, run.settings.postgres.dsn) == ("run-1", "q", None)
    run.postgres.connect()
    assert '"not_configured"' in (tmp_path / "r").read_text()
    run.close()


@pytest.mark.usefixtures("kernel")
def test_without_a_lease_the_settings_in_force_are_taken_less_what_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_POSTGRES__DSN", "postgresql://environment/x")
    monkeypatch.setenv("RUNBOOK_POSTGRES__ACTION_DSN", "postgresql://acting/x")
    run = start("toy")
    assert run.settings.postgres.dsn is not None
    assert run.settings.postgres.action_dsn is None
    run.close()


@pytest.mark.usefixtures("kernel")
def test_a_cell_before_start_is_told_what_is_missing() -> None:
    with pytest.raises(LookupError, match="start"):
        run_module.current()
