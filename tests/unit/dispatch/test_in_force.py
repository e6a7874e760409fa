"""Settings that are read again while the service runs."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from runbook import settings
from runbook.dispatch.in_force import InForce
from runbook.errors import ConfigurationError
from runbook.settings import Settings

OLD, NEW = "postgresql://u:old-Canary-11@db/x", "postgresql://u:new-Canary-22@db/x"


def of(dsn: str = OLD, **sections: Any) -> Settings:
    return settings.from_plain({"postgres": {"dsn": dsn}, **sections})


def test_what_changed_is_taken_over_and_old_secrets_stay_secret() -> None:
    in_force = InForce(of(), load=lambda: of(NEW, thresholds={"high_error_rate": {"samples": 2}}))
    in_force.read_again()
    assert in_force.settings.thresholds == {"high_error_rate": {"samples": 2}}
    for canary in ("old-Canary-11", "new-Canary-22"):
        assert canary not in in_force.redactor.text(f"failed with {canary} today")


@pytest.mark.parametrize(
    "section", [{"store": {"url": "postgresql://s@h/d"}}, {"archive": {"url": "file:/x"}}, {"server": {"port": 1}}]
)
def test_what_only_a_new_start_can_change_stays_and_is_named(section: dict[str, Any]) -> None:
    before = of()
    in_force = InForce(before, load=lambda: of(NEW, **section))
    with capture_logs() as logs:
        in_force.read_again()
    name = next(iter(section))
    assert getattr(in_force.settings, name) == getattr(before, name)
    assert in_force.settings.postgres.dsn != before.postgres.dsn
    assert logs[0]["sections"] == [name]


@pytest.mark.parametrize("routes", [None, [{"match": {"a": "b"}, "runbook": "no_such_runbook"}]])
def test_settings_that_are_wrong_change_nothing(routes: list[dict[str, Any]] | None) -> None:
    def load() -> Settings:
        if routes is None:
            raise ConfigurationError(f"bad value near {OLD}")
        return of(NEW, routes=routes)

    before = of()
    in_force = InForce(before, load=load)
    with capture_logs() as logs:
        in_force.read_again()
    assert in_force.settings is before
    assert logs[0]["event"] == "settings not taken over"
    assert "old-Canary-11" not in str(logs)
