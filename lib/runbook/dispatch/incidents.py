"""Taking alerts in: route, redact, drop repeats, open or close incidents, queue runs; all of it or nothing.

When :func:`accept` returns, everything is durable, the job in the queue included. The same firing never gets a second
run: its key is unique in the store, whoever sends it and how often.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from runbook.catalog import Runbook
from runbook.dispatch.alert import Alert, iso
from runbook.dispatch.routing import Mapped, anchored, labels_asked_for, parameters, route
from runbook.redaction import Redactor, kept_labels, secrets_in_labels
from runbook.settings import Settings
from runbook.store.ids import new_id, new_run_id
from runbook.store.rows import NewAlert, NewRun, Receipt

if TYPE_CHECKING:
    from runbook.store.store import Connection, Store

Defer = Callable[["Connection", Sequence[str]], Awaitable[None]]
"""Puts jobs for these runs into the queue, inside the transaction of that connection."""

_REMEMBERED_CHARACTERS = 256


class RememberingRedactor(Redactor):
    """A redactor for storms of alerts, which say the same things over and over."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(secrets)
        self._remembered = lru_cache(maxsize=4096)(super().text)

    def text(self, text: str) -> str:
        """See :meth:`Redactor.text`."""
        return self._remembered(text) if len(text) <= _REMEMBERED_CHARACTERS else super().text(text)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An alert, redacted, with the runbook that it will start."""

    alert: Alert
    runbook: Runbook | None = None
    mapped: Mapped = field(default_factory=Mapped)


def prepare(alert: Alert, runbooks: Mapping[str, Runbook], settings: Settings, redactor: Redactor) -> Arrival:
    """Route an alert on what it says, and redact it before anybody keeps it."""
    runbook = route(alert, runbooks, settings.routes) if alert.status == "firing" else None
    asked_for = labels_asked_for(runbook, settings.routes)
    clean = redactor
    if suspects := secrets_in_labels(alert.labels, also=asked_for):
        clean = redactor.with_secrets(suspects)
    mapped = parameters(alert, runbook, settings, clean) if runbook else Mapped()
    shown = {
        "labels": clean.value(kept_labels(alert.labels, also=asked_for)),
        "annotations": clean.value(alert.annotations),
    }
    # The message itself repeats both; they are not redacted twice.
    raw = clean.value({key: value for key, value in alert.raw.items() if key not in shown})
    return Arrival(
        alert=replace(
            alert,
            name=clean.text(alert.name),
            severity=clean.text(alert.severity),
            service=clean.text(alert.service),
            fingerprint=redactor.text(alert.fingerprint),
            **shown,
            raw=raw | {key: value for key, value in shown.items() if key in alert.raw},
        ),
        runbook=runbook,
        mapped=replace(mapped, notes=[clean.text(note) for note in mapped.notes]),
    )


async def accept(store: Store, defer: Defer, arrivals: Sequence[Arrival]) -> list[Receipt]:
    """Keep alerts and queue their runs in one transaction; a receipt for each alert, in order.

    Raises
    ------
    StoreError
        Nothing was kept; the sender should try again.
    """
    now = datetime.now(UTC)
    async with store.transaction() as connection:
        starts = await _starts(store, connection, arrivals)
        alerts = [_new_alert(arrival, starts.get(i, now)) for i, arrival in enumerate(arrivals)]
        unique = {alert.key: alert for alert in reversed(alerts)}
        receipts = dict(zip(unique, await store.alerts.insert(connection, list(unique.values())), strict=True))
        fresh = {key for key, receipt in receipts.items() if receipt.fate != "duplicate"}
        fresh_alerts = [alert for key, alert in unique.items() if key in fresh]
        firing = [alert for alert in fresh_alerts if alert.status == "firing"]
        if firing:
            incidents = await store.alerts.join_incidents(connection, firing)
            arrived = {alert.id: arrival for alert, arrival in zip(alerts, arrivals, strict=True)}
            runs = [_new_run(alert, arrived[alert.id], incidents[alert.id]) for alert in firing if alert.run_id]
            if runs:
                await store.runs.insert(connection, runs)
                await defer(connection, [run.id for run in runs])
        if fresh_alerts:
            await store.alerts.resolve(connection, [alert.id for alert in fresh_alerts])
    return [
        receipts[alert.key] if unique[alert.key] is alert else replace(receipts[alert.key], fate="duplicate")
        for alert in alerts
    ]


async def _starts(store: Store, connection: Connection, arrivals: Sequence[Arrival]) -> dict[int, datetime]:
    """Position → start: its own, else that of the open firing of the same fingerprint, if there is one."""
    known = {i: a.alert.starts_at for i, a in enumerate(arrivals) if a.alert.starts_at is not None}
    silent = [(i, a.alert) for i, a in enumerate(arrivals) if i not in known]
    if silent:
        found = await store.alerts.open_starts(
            connection,
            firing=[alert.fingerprint for _, alert in silent if alert.status == "firing"],
            resolved=[alert.fingerprint for _, alert in silent if alert.status == "resolved"],
        )
        known |= {i: found[alert.fingerprint] for i, alert in silent if alert.fingerprint in found}
    return known


def _new_alert(arrival: Arrival, starts_at: datetime) -> NewAlert:
    alert = arrival.alert
    return NewAlert(
        id=new_id(),
        source=alert.source,
        fingerprint=alert.fingerprint,
        starts_at=starts_at,
        status=alert.status,
        name=alert.name,
        severity=alert.severity,
        service=alert.service,
        labels=alert.labels,
        annotations=alert.annotations,
        raw=alert.raw,
        notes=[*alert.notes, *arrival.mapped.notes],
        runbook=arrival.runbook.name if arrival.runbook else None,
        run_id=new_run_id() if arrival.runbook else None,
    )


def _new_run(alert: NewAlert, arrival: Arrival, incident_id: str) -> NewRun:
    runbook = arrival.runbook
    assert runbook is not None
    assert alert.run_id is not None
    return NewRun(
        id=alert.run_id,
        key=f"{runbook.name}/{alert.fingerprint}/{iso(alert.starts_at)}",
        runbook=runbook.name,
        parameters=anchored(arrival.mapped.parameters, runbook, alert.starts_at),
        title=runbook.title,
        severity=alert.severity or runbook.severity,
        service=alert.service,
        alert=_as_told(alert),
        alert_id=alert.id,
        incident_id=incident_id,
    )


def _as_told(alert: NewAlert) -> dict[str, Any]:
    """The alert as the run and its report see it."""
    return {
        "alert_id": alert.id,
        "source": alert.source,
        "name": alert.name,
        "status": alert.status,
        "severity": alert.severity,
        "service": alert.service,
        "fingerprint": alert.fingerprint,
        "starts_at": iso(alert.starts_at),
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "notes": list(alert.notes),
    }
