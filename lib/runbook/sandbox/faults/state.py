"""The state of the patient that a fault must leave as it found it, and the check that it did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runbook.errors import SandboxError

if TYPE_CHECKING:
    from runbook.sandbox.sandbox import Sandbox

Snapshot = Mapping[str, frozenset[str]]
PATIENCE_SECONDS = 10.0

# Our own sessions (diagnosis, superuser of the sandbox) come and go and are nobody's leftovers.
_QUERIES: Mapping[str, str] = {
    "session": """
        SELECT format('%s of application "%s" (%s, %s)', backend_type, application_name, usename, state)
        FROM pg_stat_activity
        WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()
          AND application_name NOT LIKE 'runbook%'""",
    "lock wait": "SELECT format('%s %s pid %s', locktype, mode, pid) FROM pg_locks WHERE NOT granted",
    "prepared transaction": "SELECT gid FROM pg_prepared_xacts",
    "setting": """
        SELECT format('%s=%s', name, setting) FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'""",
    "role or database setting": """
        SELECT format('%s/%s %s', setdatabase, setrole, array_to_string(setconfig, ',')) FROM pg_db_role_setting""",
    "role": "SELECT format('%s limit %s super %s', rolname, rolconnlimit, rolsuper) FROM pg_roles",
    "database": "SELECT format('%s limit %s', datname, datconnlimit) FROM pg_database",
    "relation": """
        SELECT format('%s %s %s', c.relname, array_to_string(c.reloptions, ','),
                      (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
        FROM pg_class c WHERE relnamespace = 'public'::regnamespace""",
    "replication slot": "SELECT slot_name::text FROM pg_replication_slots",
}


def snapshot(sandbox: Sandbox) -> Snapshot:
    """What the patient looks like now: sessions, waits, prepared transactions, settings, limits, relations, slots."""
    with sandbox.superuser() as connection:
        return {
            kind: frozenset(str(row[0]) for row in connection.execute(query.encode()).fetchall())
            for kind, query in _QUERIES.items()
        }


def require_clean(sandbox: Sandbox) -> Snapshot:
    """The state before a fault; it must be free of sessions, waits and prepared transactions.

    Raises
    ------
    SandboxError
        Somebody is at work in the patient already.
    """
    return _wait_for(sandbox, {"session": frozenset(), "lock wait": frozenset(), "prepared transaction": frozenset()})


def require_restored(sandbox: Sandbox, before: Snapshot) -> None:
    """Check that the patient is as it was.

    Raises
    ------
    SandboxError
        Something is left or changed; the message lists it.
    """
    _wait_for(sandbox, before)


def _wait_for(sandbox: Sandbox, expected: Snapshot) -> Snapshot:
    """Backends take a moment to end, so the check is repeated until it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        now = snapshot(sandbox)
        differences = [
            f"{kind} {'left' if item in now[kind] else 'lost'}: {item}"
            for kind, items in expected.items()
            for item in sorted(now[kind] ^ items)
        ]
        if not differences:
            return now
        if time.monotonic() > deadline:
            raise SandboxError(
                f"the patient is not clean: {'; '.join(differences)}", remedy="Run: runbook sandbox down"
            )
        time.sleep(0.1)
