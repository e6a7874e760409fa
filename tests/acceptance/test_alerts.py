"""Every alert that the on-call engineers know leads to its runbook, and so do the usual names of the same things."""

from __future__ import annotations

import pytest

from runbook import catalog

ANSWERED = {
    "error_rate": "high_error_rate",
    "HighErrorRate": "high_error_rate",
    "response_time_p95": "high_response_time",
    "HighRequestLatency": "high_response_time",
    "database_connections": "db_connection_exhaustion",
    "PostgresqlTooManyConnections": "db_connection_exhaustion",
    "disk_usage": "high_disk_usage",
    "NodeFilesystemAlmostOutOfSpace": "high_disk_usage",
    "HostOutOfDiskSpace": "high_disk_usage",
    "memory_usage": "high_memory_usage",
    "HostOutOfMemory": "high_memory_usage",
    "NodeMemoryHighUtilization": "high_memory_usage",
    "health_check_failure": "health_check_failure",
    "redis_connection_failure": "redis_connection_failure",
    "RedisDown": "redis_connection_failure",
    "queue_processing_time": "queue_processing_delays",
    "video_upload_failures": "video_upload_failures",
}


@pytest.mark.parametrize(("alert", "name"), ANSWERED.items())
def test_an_alert_has_its_runbook(alert: str, name: str) -> None:
    assert [runbook.name for runbook in catalog.load_all() if alert in runbook.alerts] == [name]


def test_there_are_nine() -> None:
    assert len(catalog.names()) == 9
