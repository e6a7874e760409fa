"""Alerts and incidents: the statements behind taking alerts in, and the lists of them.

Every function here works on many rows at once, because a storm of alerts is taken in batches. Rows are always
touched in the same order, so that two processes that take in the same storm do not lock each other out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from runbook.store.ids import new_id
from runbook.store.rows import NewAlert, Receipt

if TYPE_CHECKING:
    from runbook.store.store import Connection, Store

REPEAT_SECONDS = 3600
"""A firing without a start time is a repeat while the same one was last heard of this long ago or less."""

_INSERT = """
INSERT INTO alerts (id, source, fingerprint, starts_at, status, name, severity, service, labels, annotations, raw,
                    notes, fate, runbook, run_id)
SELECT id, source, fingerprint, starts_at, status, name, severity, service, labels, annotations, raw,
       notes, fate, runbook, run_id
  FROM jsonb_to_recordset(%s) AS fresh (
       id text, source text, fingerprint text, starts_at timestamptz, status text, name text, severity text,
       service text, labels jsonb, annotations jsonb, raw jsonb, notes jsonb, fate text, runbook text, run_id text)
 ORDER BY fingerprint, starts_at, status
ON CONFLICT (fingerprint, starts_at, status)
   DO UPDATE SET received = alerts.received + 1, last_received_at = now()
RETURNING id, fingerprint, starts_at, status, run_id
"""

_OPEN_INCIDENTS = """
INSERT INTO incidents (id, key, runbook, service, title, severity)
SELECT id, key, runbook, service, title, severity
  FROM jsonb_to_recordset(%s) AS fresh (
       id text, key text, runbook text, service text, title text, severity text)
 ORDER BY key
ON CONFLICT (key) WHERE resolved_at IS NULL DO UPDATE SET key = EXCLUDED.key
RETURNING key, id
"""

_JOIN = """
UPDATE alerts SET incident_id = joined.incident_id
  FROM jsonb_to_recordset(%s) AS joined (id text, incident_id text)
 WHERE alerts.id = joined.id
"""

# A firing that arrives after the message that it is over (two sources, one of them slow) is over at once.
_RESOLVE = """
UPDATE alerts AS firing SET resolved_at = now()
  FROM alerts AS over
 WHERE over.status = 'resolved' AND firing.status = 'firing' AND firing.resolved_at IS NULL
   AND firing.fingerprint = over.fingerprint AND firing.starts_at = over.starts_at
   AND (over.id = ANY(%(ids)s) OR firing.id = ANY(%(ids)s))
RETURNING firing.incident_id
"""

_CLOSE = """
UPDATE incidents SET resolved_at = now()
 WHERE id = ANY(%s) AND resolved_at IS NULL
   AND NOT EXISTS (SELECT FROM alerts
                    WHERE alerts.incident_id = incidents.id AND status = 'firing' AND alerts.resolved_at IS NULL)
"""

_OPEN_STARTS = """
SELECT DISTINCT ON (fingerprint) fingerprint, starts_at
  FROM alerts
 WHERE status = 'firing' AND resolved_at IS NULL
   AND (fingerprint = ANY(%(resolved)s)
        OR fingerprint = ANY(%(firing)s) AND last_received_at > now() - make_interval(secs => %(seconds)s))
 ORDER BY fingerprint, starts_at DESC
"""

_LISTED = """
SELECT id, source, fingerprint, starts_at, status, name, severity, service, labels, annotations, notes, fate, runbook,
       run_id, incident_id, received_at, received, last_received_at, resolved_at
  FROM alerts
 WHERE %(fate)s::text IS NULL OR fate = %(fate)s
 ORDER BY received_at DESC LIMIT %(limit)s
"""


class Alerts:
    """Alerts and incidents of a store. What takes a connection works inside the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def open_starts(
        self, connection: Connection, *, firing: Sequence[str], resolved: Sequence[str]
    ) -> dict[str, datetime]:
        """Fingerprint → start of the firing that is still open, for messages that do not tell their start.

        Holds a lock on those fingerprints until the transaction ends: two such messages at the same moment must not
        both find nothing.
        """
        keys = sorted({*firing, *resolved})
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(f, 0)) FROM unnest(%s::text[]) AS f", (keys,)
        )
        values = {"firing": list(firing), "resolved": list(resolved), "seconds": REPEAT_SECONDS}
        rows = await (await connection.execute(_OPEN_STARTS, values)).fetchall()
        return {row[0]: row[1] for row in rows}

    async def insert(self, connection: Connection, alerts: Sequence[NewAlert]) -> list[Receipt]:
        """Keep alerts (no two with the same key); a receipt for each, in order, ``duplicate`` where it was known."""
        rows = [
            {
                "id": a.id,
                "source": a.source,
                "fingerprint": a.fingerprint,
                "starts_at": a.starts_at.isoformat(),
                "status": a.status,
                "name": a.name,
                "severity": a.severity,
                "service": a.service,
                "labels": a.labels,
                "annotations": a.annotations,
                "raw": a.raw,
                "notes": list(a.notes),
                "fate": a.fate,
                "runbook": a.runbook,
                "run_id": a.run_id,
            }
            for a in alerts
        ]
        found = await (await connection.execute(_INSERT, (Jsonb(rows),))).fetchall()
        known = {(row[1], row[2], row[3]): (row[0], row[4]) for row in found}
        kept = [(alert, *known[alert.key]) for alert in alerts]
        return [
            Receipt(alert_id=kept_id, fate=alert.fate if kept_id == alert.id else "duplicate", run_id=run_id)
            for alert, kept_id, run_id in kept
        ]

    async def join_incidents(self, connection: Connection, alerts: Sequence[NewAlert]) -> dict[str, str]:
        """Open or join an incident for each of these firing alerts; alert id → incident id."""
        first = {alert.incident_key: alert for alert in reversed(alerts)}
        rows = [
            {
                "id": new_id(),
                "key": key,
                "runbook": alert.runbook,
                "service": alert.service,
                "title": alert.name,
                "severity": alert.severity,
            }
            for key, alert in first.items()
        ]
        found = await (await connection.execute(_OPEN_INCIDENTS, (Jsonb(rows),))).fetchall()
        incidents = {row[0]: row[1] for row in found}
        joined = {alert.id: incidents[alert.incident_key] for alert in alerts}
        await connection.execute(
            _JOIN, (Jsonb([{"id": alert_id, "incident_id": incident} for alert_id, incident in joined.items()]),)
        )
        return joined

    async def resolve(self, connection: Connection, alert_ids: Sequence[str]) -> None:
        """Close what these freshly kept alerts say is over, and the incidents that are over with it."""
        rows = await (await connection.execute(_RESOLVE, {"ids": list(alert_ids)})).fetchall()
        incidents = sorted({row[0] for row in rows if row[0]})
        if incidents:
            # Two alerts of one incident that end at the same moment: the second sees what the first wrote.
            await connection.execute("SELECT FROM incidents WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (incidents,))
            await connection.execute(_CLOSE, (incidents,))

    async def listed(self, *, fate: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The latest alerts, newest first, as plain mappings; without the raw body."""
        async with self._store.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_LISTED, {"fate": fate, "limit": limit})
            return await cursor.fetchall()

    async def incident(self, incident_id: str) -> dict[str, Any] | None:
        """One incident, or ``None``."""
        async with self._store.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("SELECT * FROM incidents WHERE id = %s", (incident_id,))
            return await cursor.fetchone()
