"""Alert bodies are Alertmanager's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from runbook.catalog import Runbook
from runbook.drills.alerts import alertmanager_body, fingerprint

RUNBOOK = Runbook(
    name="db_connection_exhaustion",
    path=Path("db_connection_exhaustion.ipynb"),
    title="PostgreSQL connections exhausted",
    severity="critical",
    alerts=("database_connections", "PostgresConnections"),
    parameters={},
    parameters_from_alert={},
    diagnosis="m:f",
    causes=("P01",),
)
STARTED = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # Values of prometheus/common: the empty set is the offset basis of FNV-1a.
        ({}, "cbf29ce484222325"),
        # The example in prometheus/common's own tests.
        ({"name": "garland, briggs", "fear": "love is not enough"}, f"{5799056148416392346:016x}"),
    ],
)
def test_fingerprint_is_fnv_1a_over_separated_labels(labels: dict[str, str], expected: str) -> None:
    assert fingerprint(labels) == expected


def test_fingerprint_ignores_the_order_of_labels() -> None:
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})


def test_a_firing_alert_has_every_field_of_version_4() -> None:
    body = alertmanager_body(RUNBOOK, {"service": "app"}, STARTED)
    assert body.keys() == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    }  # fmt: skip
    [alert] = body["alerts"]
    assert alert["labels"] == {"alertname": "database_connections", "severity": "critical", "service": "app"}
    assert alert["annotations"]["runbook_url"].endswith("/runbooks/db_connection_exhaustion")
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-04T05:06:07.089Z", "0001-01-01T00:00:00Z")
    assert (body["version"], body["status"], alert["status"]) == ("4", "firing", "firing")


def test_a_resolved_alert_keeps_its_identity_and_has_an_end() -> None:
    [firing] = alertmanager_body(RUNBOOK, {}, STARTED)["alerts"]
    [resolved] = alertmanager_body(RUNBOOK, {}, STARTED, "resolved")["alerts"]
    assert (resolved["fingerprint"], resolved["startsAt"]) == (firing["fingerprint"], firing["startsAt"])
    assert resolved["endsAt"] > "2026"


def test_times_are_utc_whatever_the_zone_given() -> None:
    elsewhere = STARTED.astimezone(timezone(timedelta(hours=9)))
    assert alertmanager_body(RUNBOOK, {}, elsewhere)["alerts"][0]["startsAt"] == "2026-03-04T05:06:07.089Z"
