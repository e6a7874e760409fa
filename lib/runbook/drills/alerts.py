"""Alert bodies as Alertmanager sends them, for drills, the demo and ``runbook fire``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from runbook.catalog import Runbook

_OPEN = "0001-01-01T00:00:00Z"
_FNV_OFFSET, _FNV_PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF


def alertmanager_body(
    runbook: Runbook,
    labels: Mapping[str, str],
    starts_at: datetime,
    status: Literal["firing", "resolved"] = "firing",
    *,
    public_url: str = "http://127.0.0.1:8340",
) -> dict[str, Any]:
    """One alert that this runbook answers, in a body of Alertmanager's webhook version 4.

    ``labels`` are added to ``alertname`` and ``severity``, or replace them; ``starts_at`` must know its time zone.
    """
    started = starts_at.astimezone(UTC)
    all_labels = {"alertname": (*runbook.alerts, runbook.name)[0], "severity": runbook.severity, **labels}
    annotations = {
        "summary": runbook.title,
        "runbook_url": f"{public_url.rstrip('/')}/runbooks/{runbook.name}",
    }
    alert = {
        "status": status,
        "labels": all_labels,
        "annotations": annotations,
        "startsAt": _rfc3339(started),
        "endsAt": _rfc3339(datetime.now(UTC)) if status == "resolved" else _OPEN,
        "generatorURL": "http://127.0.0.1:9090/graph",
        "fingerprint": fingerprint(all_labels),
    }
    group = {"alertname": all_labels["alertname"]}
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{group["alertname"]}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "runbook",
        "groupLabels": group,
        "commonLabels": all_labels,
        "commonAnnotations": annotations,
        "externalURL": "http://127.0.0.1:9093",
        "alerts": [alert],
    }


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's identity of a label set: 64-bit FNV-1a over the sorted names and values, in hex."""
    value = _FNV_OFFSET
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = ((value ^ byte) * _FNV_PRIME) & _MASK
    return f"{value:016x}"


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
