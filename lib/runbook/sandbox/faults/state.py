"""The state of the sandbox that a fault must leave as it found it, and the check that it did.

What the healthy application does all the while (a session, a job, an upload under way) is no change of state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from runbook.errors import SandboxError
from runbook.sandbox.stack import PREFIX, QUEUE

if TYPE_CHECKING:
    from runbook.sandbox.sandbox import Sandbox

Snapshot = Mapping[str, frozenset[str]]
PATIENCE_SECONDS = 30.0
OTHER_REDIS = "other-redis"
"""Directory of the Redis that a fault starts for itself."""

# Our own sessions (diagnosis, superuser of the sandbox) come and go and are nobody's leftovers.
_QUERIES: Mapping[str, str] = {
    "session": """
        SELECT format('%s of application "%s" (%s, %s)', backend_type, application_name, usename, state)
        FROM pg_stat_activity
        WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()
          AND application_name NOT LIKE 'runbook%' AND application_name NOT IN ('web-app', 'web-worker')""",
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
                      (SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
                       WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
        FROM pg_class c WHERE relnamespace = 'public'::regnamespace""",
    "replication slot": "SELECT slot_name::text FROM pg_replication_slots",
}
_UPLOADS = """
    SELECT format('%s %s', id, status) FROM content
    WHERE id LIKE 'upload-%' AND (status = 'FAILED' OR status <> 'READY' AND "updatedAt" < now() - interval '20 s')"""
VENDORS = ("sentry", "github", "stripe", "mux", "stream", "pagerduty", "discord", "aws")
PAGES = ("stripe", "mux", "cloudflare", "github", "discord")
#: Facts that change while nothing is wrong.
_LIVELY = frozenset({"requests_left", "charges", "assets", "uploads", "deliveries", "messages", "received", "issues"})


def snapshot(sandbox: Sandbox) -> Snapshot:
    """What the sandbox looks like now.

    What is mounted in it; the patient's sessions, waits, prepared transactions, settings, limits, relations and slots;
    with an application also its stage, worker, queue, bad uploads, what guards its bucket, and how its vendors fare.
    """
    asked = dict(_QUERIES)
    found = {"mount": frozenset(_mounts_below(sandbox.directory))}
    if sandbox.has_application:
        asked["upload"] = _UPLOADS
        found |= _of_application(sandbox)
    with sandbox.superuser() as connection:
        for kind, query in asked.items():
            found[kind] = frozenset(str(row[0]) for row in connection.execute(query.encode()).fetchall())
    return found


def _mounts_below(directory: Path) -> Iterator[str]:
    """Mount points in the sandbox's directory, where it has none of its own."""
    beneath = f"{directory.resolve()}/"
    mounts = Path("/proc/mounts")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines() if mounts.exists() else ():
        point = line.split(" ")[1]
        if point.startswith(beneath):
            yield point


def _of_application(sandbox: Sandbox) -> dict[str, frozenset[str]]:
    said = sandbox.application.state()
    stage, lately = said["stage"], said["lately"]
    ill = "fails" if lately["errors"] else "" if lately["requests"] else "answers nothing"
    worker = sandbox.status()["worker"]
    return {
        "application": frozenset({ill} if ill else ()),
        "stage": frozenset(f"{name} {value}" for name, value in stage.items()),
        "worker": frozenset() if worker is None else frozenset({str(worker["name"])}),
        "queue": frozenset(_of_queue(sandbox)),
        "redis": frozenset(_of_redis(sandbox)),
        "storage": frozenset(_of_storage(sandbox)),
        "vendor": frozenset(_of_vendors(sandbox)),
    }


def _of_queue(sandbox: Sandbox) -> Iterator[str]:
    with sandbox.redis() as redis:
        prefix = f"{PREFIX}:{QUEUE}:"
        if redis.hexists(f"{prefix}meta", "paused"):
            yield "paused"
        yield from (f"failed {job}" for job in cast(list[str], redis.zrange(f"{prefix}failed", 0, -1)))


def _of_redis(sandbox: Sandbox) -> Iterator[str]:
    """What somebody may have set in the application's Redis, and a second one that a fault left behind."""
    with sandbox.redis() as redis:
        for name in ("maxclients", "maxmemory*", "min-replicas-to-write", "save", "client-output-buffer-limit"):
            settings = cast(dict[str, str], redis.config_get(name))
            yield from (f"{key} {value}" for key, value in settings.items())
        yield f"role {cast(list[str], redis.role())[0]}"
    if (sandbox.directory / OTHER_REDIS).exists():
        yield "a second server"


def _of_storage(sandbox: Sandbox) -> Iterator[str]:
    iam, s3 = sandbox.storage("iam"), sandbox.storage()
    for user in iam.list_users()["Users"]:
        name = user["UserName"]
        yield from (f"{name} policy {policy}" for policy in iam.list_user_policies(UserName=name)["PolicyNames"])
    for rule in s3.get_bucket_cors(Bucket=sandbox.bucket)["CORSRules"]:
        yield f"CORS {','.join(rule['AllowedOrigins'])}"


def _of_vendors(sandbox: Sandbox) -> Iterator[str]:
    """Each fact; of a list, whose times move with the clock, only how long it is."""
    for vendor in (*VENDORS, *(f"status.{page}" for page in PAGES)):
        for name, value in sandbox.vendors.state(vendor).items():
            if name not in _LIVELY:
                yield f"{vendor} {name} {len(value) if isinstance(value, list) else value}"


def require_clean(sandbox: Sandbox) -> Snapshot:
    """The state before a fault; it must be free of sessions, waits, prepared transactions, and of bad uploads.

    Raises
    ------
    SandboxError
        Somebody is at work in the patient already.
    """
    nothing: frozenset[str] = frozenset()
    clean = {"session": nothing, "lock wait": nothing, "prepared transaction": nothing}
    if sandbox.has_application:
        clean |= {"upload": nothing, "queue": nothing, "application": nothing}
    return _wait_for(sandbox, clean)


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
