"""Runs: the rows that are the truth about what is queued, who runs it, and how it ended.

A worker holds a run by a lease and a fencing token. Whoever takes the run from it (the reaper, when the lease is
over) raises the token, so that a worker that was only slow cannot write over what happened since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from runbook.store.documents import search_text, summary
from runbook.store.rows import Claim, NewRun, RunRow

if TYPE_CHECKING:
    from runbook.store.store import Connection, Store

CHANNEL = "runbook_runs"
"""Where a run's progress and change of state are notified, as JSON with ``run_id`` and ``event``."""

_COLUMNS = (
    "id, runbook, parameters, alert, alert_id, incident_id, state, error, queued_at, started_at, finished_at, worker,"
    " attempts, progress, title, severity, service, outcome, summary, report"
)

_INSERT = """
INSERT INTO runs (id, run_key, runbook, parameters, title, severity, service, alert, alert_id, incident_id, state)
SELECT id, key, runbook, parameters, title, severity, service, alert, alert_id, incident_id, 'queued'
  FROM jsonb_to_recordset(%s) AS fresh (
       id text, key text, runbook text, parameters jsonb, title text, severity text, service text, alert jsonb,
       alert_id text, incident_id text)
 ORDER BY key
"""

_HELD = """id AS run_id, fencing_token AS token, runbook, parameters, alert, incident_id, queued_at, attempts, title,
          severity, started_at"""

_CLAIM = f"""
UPDATE runs
   SET state = 'running', worker = %(worker)s, fencing_token = fencing_token + 1, attempts = attempts + 1,
       lease_until = now() + make_interval(secs => %(seconds)s), started_at = now(), progress = NULL
 WHERE id = %(id)s AND state = 'queued'
RETURNING {_HELD}
""".encode()

_TAKE_EXPIRED = f"""
UPDATE runs
   SET fencing_token = fencing_token + 1, worker = %(worker)s,
       lease_until = now() + make_interval(secs => %(seconds)s)
 WHERE id IN (SELECT id FROM runs WHERE state = 'running' AND lease_until < now()
               ORDER BY lease_until LIMIT 20 FOR UPDATE SKIP LOCKED)
RETURNING {_HELD}
""".encode()

_FINISH = """
UPDATE runs
   SET state = %(state)s, error = %(error)s, started_at = coalesce(%(started_at)s::timestamptz, started_at),
       finished_at = now(), lease_until = NULL, title = coalesce(nullif(%(title)s, ''), title),
       severity = coalesce(nullif(%(severity)s, ''), severity), outcome = %(outcome)s, summary = %(summary)s,
       report = %(report)s, search = to_tsvector('simple', %(search)s)
 WHERE id = %(id)s AND state = 'running' AND fencing_token = %(token)s
RETURNING id
"""

_RECORD = """
INSERT INTO runs (id, run_key, runbook, parameters, alert, state, error, queued_at, started_at, finished_at, title,
                  severity, service, outcome, summary, report, announced_at, search)
VALUES (%(id)s, %(id)s, %(runbook)s, %(parameters)s, %(alert)s, %(state)s, %(error)s,
        coalesce(%(started_at)s::timestamptz, now()), %(started_at)s, coalesce(%(finished_at)s::timestamptz, now()),
        %(title)s, %(severity)s, %(service)s, %(outcome)s, %(summary)s, %(report)s, now(),
        to_tsvector('simple', %(search)s))
ON CONFLICT (id) DO UPDATE
   SET title = excluded.title, severity = excluded.severity, state = excluded.state, error = excluded.error,
       outcome = excluded.outcome, summary = excluded.summary, report = excluded.report, search = excluded.search
 WHERE runs.finished_at IS NOT NULL
   AND coalesce((runs.summary->>'revision')::int, 1) < coalesce((excluded.summary->>'revision')::int, 1)
"""

# A queued run without a job that waits for a worker: its job was taken by a worker that died before it claimed.
_LOST = """
UPDATE runs SET deferred_at = now()
 WHERE id IN (SELECT id FROM runs
               WHERE state = 'queued' AND deferred_at < now() - make_interval(secs => %(seconds)s)
                 AND NOT EXISTS (SELECT FROM procrastinate_jobs
                                  WHERE status = 'todo' AND args->>'run_id' = runs.id)
               ORDER BY queued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id
"""


class Runs:
    """The runs of a store. What takes a connection works inside the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- queueing -------------------------------------------------------------------------------------------------

    async def insert(self, connection: Connection, runs: Sequence[NewRun]) -> None:
        """Queue runs; their jobs are deferred by the caller in the same transaction."""
        await connection.execute(_INSERT, (Jsonb([vars(run) for run in runs]),))

    async def take_lost(self, connection: Connection, *, seconds: float, limit: int = 100) -> list[str]:
        """Queued runs that have waited ``seconds`` and have no job; the caller defers them anew."""
        rows = await connection.execute(_LOST, {"seconds": seconds, "limit": limit})
        return [row[0] for row in await rows.fetchall()]

    # -- running --------------------------------------------------------------------------------------------------

    async def claim(self, run_id: str, *, worker: str, lease_seconds: float) -> Claim | None:
        """Take a queued run; ``None`` when it is not queued (any more)."""
        values = {"id": run_id, "worker": worker, "seconds": lease_seconds}
        async with self._store.transaction() as connection, connection.cursor(row_factory=class_row(Claim)) as cursor:
            await cursor.execute(_CLAIM, values)
            claim = await cursor.fetchone()
            if claim is not None:
                await _notify(connection, run_id, "state", state="running")
        return claim

    async def extend(self, claim: Claim, *, lease_seconds: float) -> bool:
        """Prolong the lease; ``False`` when the run was taken from this worker."""
        async with self._store.connection() as connection:
            done = await connection.execute(
                "UPDATE runs SET lease_until = now() + make_interval(secs => %s)"
                " WHERE id = %s AND state = 'running' AND fencing_token = %s",
                (lease_seconds, claim.run_id, claim.token),
            )
        return done.rowcount == 1

    async def progress(self, claim: Claim, steps: Sequence[Mapping[str, Any]]) -> None:
        """Tell whoever listens of these steps, and keep the last of them."""
        payloads = [text for step in steps if (text := _payload(claim.run_id, "cell", **step))]
        async with self._store.connection() as connection:
            await connection.execute(
                "WITH mine AS (UPDATE runs SET progress = %s WHERE id = %s AND state = 'running' AND fencing_token = %s"
                " RETURNING id) SELECT pg_notify(%s, payload) FROM mine, unnest(%s::text[]) AS payload",
                (Jsonb(steps[-1]), claim.run_id, claim.token, CHANNEL, payloads),
            )

    async def finish(self, claim: Claim, result: Mapping[str, Any]) -> bool:
        """Write the end of a run from its result document; ``False`` when it was taken from this worker."""
        async with self._store.transaction() as connection:
            values = _from_document(result) | {"id": claim.run_id, "token": claim.token}
            row = await (await connection.execute(_FINISH, values)).fetchone()
            if row is not None:
                await _notify(connection, claim.run_id, "state", state=str(result["state"]))
        return row is not None

    async def release(self, connection: Connection, claim: Claim) -> bool:
        """Put a held run back into the queue; the caller defers it. ``False`` when it was taken meanwhile."""
        done = await connection.execute(
            "UPDATE runs SET state = 'queued', lease_until = NULL, worker = NULL, progress = NULL, deferred_at = now(),"
            " fencing_token = fencing_token + 1 WHERE id = %s AND state = 'running' AND fencing_token = %s",
            (claim.run_id, claim.token),
        )
        return done.rowcount == 1

    # -- reaping --------------------------------------------------------------------------------------------------

    async def take_expired(self, *, worker: str, lease_seconds: float) -> list[Claim]:
        """Runs whose worker has not been heard of: held by ``worker`` from now on, their old tokens void."""
        async with (
            self._store.connection() as connection,
            connection.cursor(row_factory=class_row(Claim)) as cursor,
        ):
            await cursor.execute(_TAKE_EXPIRED, {"worker": worker, "seconds": lease_seconds})
            return await cursor.fetchall()

    # -- announcing -----------------------------------------------------------------------------------------------

    async def take_announcement(self, run_id: str) -> bool:
        """Whether the caller is the one to announce this run: true once for each run."""
        async with self._store.connection() as connection:
            done = await connection.execute(
                "UPDATE runs SET announced_at = now()"
                " WHERE id = %s AND announced_at IS NULL AND finished_at IS NOT NULL",
                (run_id,),
            )
        return done.rowcount == 1

    async def unannounced(self, *, seconds: float) -> list[str]:
        """Runs that ended ``seconds`` ago or more and were not announced: their worker died in between."""
        async with self._store.connection() as connection:
            rows = await connection.execute(
                "SELECT id FROM runs WHERE announced_at IS NULL"
                " AND finished_at < now() - make_interval(secs => %s) ORDER BY finished_at LIMIT 20",
                (seconds,),
            )
            return [row[0] for row in await rows.fetchall()]

    # -- reading --------------------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunRow | None:
        """One run, or ``None``."""
        async with (
            self._store.connection() as connection,
            connection.cursor(row_factory=class_row(RunRow)) as cursor,
        ):
            await cursor.execute(f"SELECT {_COLUMNS} FROM runs WHERE id = %s".encode(), (run_id,))
            return await cursor.fetchone()

    async def listed(self, *, state: str | None = None, limit: int = 100) -> list[RunRow]:
        """The latest runs, newest first."""
        async with (
            self._store.connection() as connection,
            connection.cursor(row_factory=class_row(RunRow)) as cursor,
        ):
            await cursor.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE %(state)s::text IS NULL OR state = %(state)s"
                " ORDER BY queued_at DESC LIMIT %(limit)s".encode(),
                {"state": state, "limit": limit},
            )
            return await cursor.fetchall()

    async def search(self, query: str, *, limit: int = 50) -> list[RunRow]:
        """Ended runs that match every word of ``query`` (quotes, ``or`` and ``-`` as on the web), newest first."""
        words = query.replace("\x00", " ").strip()
        matching = "AND search @@ websearch_to_tsquery('simple', %(words)s)" if words else ""
        async with (
            self._store.connection() as connection,
            connection.cursor(row_factory=class_row(RunRow)) as cursor,
        ):
            # Not prepared: the best plan depends on how common the words are.
            await cursor.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE finished_at IS NOT NULL {matching}"
                " ORDER BY finished_at DESC LIMIT %(limit)s".encode(),
                {"words": words, "limit": limit},
                prepare=False,
            )
            return await cursor.fetchall()

    async def record(self, result: Mapping[str, Any]) -> None:
        """Index a run that was executed outside the queue, so that its report is found by a search.

        Of a run that is known, a newer revision of its report takes the place of the older one; when the run began and
        ended stays, and so does everything else about it.
        """
        async with self._store.connection() as connection:
            await connection.execute(
                _RECORD,
                _from_document(result)
                | {
                    "id": result["run_id"],
                    "runbook": result["runbook"],
                    "parameters": Jsonb(result.get("parameters") or {}),
                    "alert": Jsonb(result.get("alert")) if result.get("alert") else None,
                    "finished_at": result.get("finished_at"),
                    "service": str((result.get("parameters") or {}).get("service", "")),
                },
            )

    async def counts(self) -> dict[str, int]:
        """How many runs are queued and running now."""
        async with self._store.connection() as connection:
            rows = await connection.execute(
                "SELECT state, count(*) FROM runs WHERE state IN ('queued', 'running') GROUP BY state"
            )
            found = dict(await rows.fetchall())
        return {state: found.get(state, 0) for state in ("queued", "running")}


def _from_document(result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a result document fills."""
    error = result.get("error")
    return {
        "state": result["state"],
        "error": Jsonb(error) if error else None,
        "started_at": result.get("started_at"),
        "title": result.get("title") or "",
        "severity": result.get("severity") or "",
        "outcome": result.get("outcome"),
        "summary": Jsonb(summary(result)),
        "report": (result.get("report") or {}).get("html"),
        "search": search_text(result),
    }


async def _notify(connection: Connection, run_id: str, event: str, **facts: Any) -> None:
    if payload := _payload(run_id, event, **facts):
        await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


def _payload(run_id: str, event: str, **facts: Any) -> str:
    """An event as text; empty when PostgreSQL would not take it (8000 bytes; only a cell's title has any length)."""
    payload = json.dumps({"run_id": run_id, "event": event} | facts)
    return payload if len(payload.encode()) < 7900 else ""
