"""Alertmanager's webhook, version 4, as its configuration sends it by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import structlog
from pydantic import BaseModel, Field

from runbook.dispatch.alert import Alert, MalformedAlert, fingerprint, moment, texts
from runbook.dispatch.sources.body import checked

log = structlog.get_logger(__name__)

MOST_ALERTS = 5000
"""More alerts in one message than any Alertmanager group is worth."""


class _Alert(BaseModel):
    status: Literal["firing", "resolved"]
    labels: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    startsAt: Any = None  # noqa: N815  (the field's name on the wire)
    fingerprint: str = ""


class _Webhook(BaseModel):
    alerts: list[_Alert] = Field(max_length=MOST_ALERTS)
    truncatedAlerts: Any = 0  # noqa: N815
    receiver: Any = ""


def alerts(body: Mapping[str, Any]) -> list[Alert]:
    """The alerts of one webhook message.

    Raises
    ------
    MalformedAlert
        It is no such message.
    """
    message = checked(_Webhook, body, called="an Alertmanager webhook")
    notes: list[str] = []
    truncated = message.truncatedAlerts
    if isinstance(truncated, int) and truncated > 0:
        notes.append(f"Alertmanager left {truncated} alerts out of this message (max_alerts)")
        log.warning("alerts truncated by the sender", source="alertmanager", truncated=truncated)
    raws = body["alerts"]
    return [_alert(alert, raw, notes) for alert, raw in zip(message.alerts, raws, strict=True)]


def _alert(alert: _Alert, raw: Mapping[str, Any], notes: list[str]) -> Alert:
    labels = texts(alert.labels)
    starts_at = moment(alert.startsAt)
    if not labels:
        raise MalformedAlert("an alert has no labels", remedy="Send Alertmanager's own webhook body")
    return Alert(
        source="alertmanager",
        name=labels.get("alertname") or "(unnamed)",
        status=alert.status,
        fingerprint=fingerprint(alert.fingerprint, labels),
        starts_at=starts_at,
        severity=labels.get("severity", ""),
        service=labels.get("service", ""),
        labels=labels,
        annotations=texts(alert.annotations),
        raw=raw,
        notes=(*notes, *([] if starts_at else ["startsAt is missing or no time"])),
    )
