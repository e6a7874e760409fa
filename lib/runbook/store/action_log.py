"""The log of actions: who planned, approved and did what, and what was found afterwards; appended to, never changed.

Each entry is sealed (HMAC-SHA-256) over its own text and the seal of the entry before it. The key is the setting
``actions.audit_key``, else a file of this machine's data directory, and never in the database; the newest seal that
this machine wrote stands beside it, so that an end that was cut off shows as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runbook.errors import StoreError
from runbook.settings import data_dir

if TYPE_CHECKING:
    from runbook.settings import Settings
    from runbook.store.store import Connection, Store

Event = Literal[
    "ordered", "planned", "approved", "applying", "applied", "verified", "undoing", "undone", "refused", "failed"
]  # fmt: skip

_LOCK = 7_254_310_553_270_102
"""Any number that nobody else takes for an advisory lock: entries are appended one after the other."""
_ITS_LOCK = "hashtextextended(%s, 7254310553)"
_SELECT = "SELECT seq, at, action, event, actor, body, seal FROM action_log"
_MAY_HAVE_CHANGED = """
event = 'applying' AND at > now() - %s AND (
    SELECT next.event FROM action_log AS next
     WHERE next.action = action_log.action AND next.seq > action_log.seq ORDER BY next.seq LIMIT 1
) IS DISTINCT FROM 'refused'
"""
_INSERT = """
INSERT INTO action_log (seq, at, action, event, actor, body, seal)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


class Moved(StoreError):
    """Somebody else has taken this action further in the meantime."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log."""

    seq: int
    at: datetime
    action: str
    event: Event
    actor: str
    detail: Mapping[str, Any]
    seal: str


class ActionLog:
    """The action log of a store.

    Parameters
    ----------
    directory
        Where the key and the newest seal lie; default: the data directory.
    """

    def __init__(self, store: Store, settings: Settings, directory: Path | None = None) -> None:
        self._store = store
        self._directory = directory or data_dir()
        key = settings.actions.audit_key
        self._key = key.get_secret_value().encode() if key else _key_in(self._directory)

    async def append(
        self, action: str, event: Event, actor: str, detail: Mapping[str, Any], *, after: Entry | None
    ) -> Entry:
        """Add an entry.

        Parameters
        ----------
        after
            The newest entry of this action as the caller knows it; ``None`` = there is none.

        Raises
        ------
        Moved
            There is a newer one: the caller's picture is out of date, and nothing was written.
        StoreError
            The store cannot be reached.
        """
        async with self._store.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            newest = await self._newest(connection, action)
            if newest != (after.seq if after else None):
                raise Moved(f"{action} was taken further by somebody else", remedy="See runbook actions show")
            seq, before = await self._end(connection)
            at = datetime.now(UTC)
            body = _text({"seq": seq + 1, "at": at.isoformat(), "action": action, "event": event, "actor": actor,
                          "before": before, "detail": detail})  # fmt: skip
            seal = self._sealed(body)
            await connection.execute(_INSERT, (seq + 1, at, action, event, actor, body, seal))
        self._remember(seq + 1, seal)
        return Entry(
            seq=seq + 1, at=at, action=action, event=event, actor=actor, detail=json.loads(body)["detail"], seal=seal
        )

    @contextlib.asynccontextmanager
    async def held(self, action: str) -> AsyncGenerator[None]:
        """Nobody else works on this action while the block lasts; a process that dies lets go of it.

        Raises
        ------
        Moved
            Somebody works on it now.
        """
        async with self._store.connection() as connection:
            lock = f"SELECT pg_try_advisory_lock({_ITS_LOCK})".encode()
            row = await (await connection.execute(lock, (action,))).fetchone()
            if not (row and row[0]):
                raise Moved(f"somebody works on {action} just now", remedy="See runbook actions show")
            try:
                yield
            finally:
                await connection.execute(f"SELECT pg_advisory_unlock({_ITS_LOCK})".encode(), (action,))

    async def of(self, action: str) -> list[Entry]:
        """The entries of one action, in their order."""
        return await self._entries(f"{_SELECT} WHERE action = %s ORDER BY seq", action)

    async def ordered(self, run_id: str) -> list[Entry]:
        """What persons ordered about a run, in that order."""
        of_run = "event = 'ordered' AND split_part(action, ':', 1) = %s"
        return await self._entries(f"{_SELECT} WHERE {of_run} ORDER BY seq", run_id)

    async def latest(self, *, limit: int = 100) -> list[Entry]:
        """The newest entry of each action, the last one first."""
        newest = "SELECT max(seq) FROM action_log GROUP BY action"
        return await self._entries(f"{_SELECT} WHERE seq IN ({newest}) ORDER BY seq DESC LIMIT %s", limit)

    async def applied_since(self, since: timedelta) -> list[Entry]:
        """What began to be applied within that time, the last one first; not what left all of its targets alone."""
        return await self._entries(f"{_SELECT} WHERE {_MAY_HAVE_CHANGED} ORDER BY seq DESC", since)

    async def check(self) -> tuple[int, list[str]]:
        """How many entries there are, and what is wrong with them, in words; nothing when every seal holds."""
        problems: list[str] = []
        before, expected = "", 1
        known = self._remembered()
        async with self._store.connection() as connection:
            rows = await (await connection.execute(f"{_SELECT} ORDER BY seq".encode())).fetchall()
        for row in rows:
            seq, at, action, event, actor, body, seal = row
            if seq != expected:
                problems.append(f"entries {expected} to {seq - 1} are missing")
            if not hmac.compare_digest(seal, self._sealed(body)):
                problems.append(f"entry {seq} was changed, or sealed with another key")
            told = json.loads(body) if body.startswith("{") else {}
            columns = {"seq": seq, "at": at.isoformat(), "action": action, "event": event, "actor": actor}
            if any(told.get(name) != value for name, value in columns.items()):
                problems.append(f"entry {seq} says something else than its columns")
            if told.get("before") != before:
                problems.append(f"entry {seq} does not follow from the one before it")
            if known is not None and known[0] == seq and known[1] != seal:
                problems.append(f"entry {seq} is not the one that this machine wrote")
            before, expected = seal, seq + 1
        if known is not None and known[0] >= expected:
            problems.append(f"entries {expected} to {known[0]}, which this machine wrote, are missing at the end")
        return len(rows), problems

    # -- helpers ------------------------------------------------------------------------------------------------------

    async def _entries(self, query: str, value: Any) -> list[Entry]:
        async with self._store.connection() as connection:
            rows = await connection.execute(query.encode(), (value,))
            return [_entry(row) for row in await rows.fetchall()]

    def _sealed(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()

    @staticmethod
    async def _newest(connection: Connection, action: str) -> int | None:
        row = await (
            await connection.execute("SELECT max(seq) FROM action_log WHERE action = %s", (action,))
        ).fetchone()
        return row[0] if row else None

    @staticmethod
    async def _end(connection: Connection) -> tuple[int, str]:
        row = await (await connection.execute("SELECT seq, seal FROM action_log ORDER BY seq DESC LIMIT 1")).fetchone()
        return (row[0], row[1]) if row else (0, "")

    def _remember(self, seq: int, seal: str) -> None:
        path = self._directory / "actions.seal"
        fresh = path.with_suffix(f".{secrets.token_hex(4)}")
        fresh.write_text(f"{seq} {seal}\n", encoding="ascii")
        known = self._remembered()
        if known is None or known[0] < seq:
            fresh.replace(path)
        else:
            fresh.unlink()

    def _remembered(self) -> tuple[int, str] | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            seq, seal = (self._directory / "actions.seal").read_text(encoding="ascii").split()
            return int(seq), seal
        return None


def _text(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _entry(row: Sequence[Any]) -> Entry:
    seq, at, action, event, actor, body, seal = row
    return Entry(seq=seq, at=at, action=action, event=event, actor=actor, detail=json.loads(body)["detail"], seal=seal)


def _key_in(directory: Path) -> bytes:
    """The key of this machine, made at the first use, for its owner only."""
    path = directory / "actions.key"
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f"actions.key.{secrets.token_hex(4)}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(secrets.token_bytes(32))
    try:
        os.link(fresh, path)  # whoever comes second uses the first one's
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()
