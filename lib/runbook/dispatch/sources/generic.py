"""The plain form for whatever has no format of its own: ``{name, status, severity, service, labels, …}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from runbook.dispatch.alert import Alert, identity, moment, texts
from runbook.dispatch.sources.body import checked


class _Generic(BaseModel):
    name: str = Field(min_length=1, max_length=256)
    status: Literal["firing", "resolved"] = "firing"
    severity: str = Field(default="", max_length=64)
    service: str = Field(default="", max_length=256)
    labels: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    starts_at: Any = None


def alerts(body: Mapping[str, Any]) -> list[Alert]:
    """The one alert of a generic message.

    Name, service and severity stand among the labels too, where those do not say otherwise, so that routing and the
    mapping of labels to parameters find them. Identity is name, service and labels.

    Raises
    ------
    MalformedAlert
        It is no such message.
    """
    message = checked(_Generic, body, called="a generic alert")
    own = texts(message.labels)
    named = {"alertname": message.name, "severity": message.severity, "service": message.service}
    starts_at = moment(message.starts_at)
    odd = message.starts_at is not None and starts_at is None
    return [
        Alert(
            source="generic",
            name=message.name,
            status=message.status,
            fingerprint=identity(message.name, message.service, own),
            starts_at=starts_at,
            severity=message.severity,
            service=message.service or own.get("service", ""),
            labels={name: value for name, value in named.items() if value} | own,
            annotations=texts(message.annotations),
            raw=body,
            notes=("starts_at is no time",) if odd else (),
        )
    ]
