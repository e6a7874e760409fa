"""A diagnosis changes nothing: what can be changed is read out before and after a healthy control of every runbook.

The application stands still meanwhile, so that whatever differs is the diagnosis' own doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from runbook import catalog
from runbook.execution.execute import RunRequest, execute
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import Archive
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import state
from runbook.settings import from_plain
from runbook.store.ids import new_run_id
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

Picture = dict[str, set[str]]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The application with a history, and nobody who uses it any more."""
    with Sandbox(tmp_path_factory.mktemp("still") / "sandbox", owned=True) as up:
        wait_until(lambda: up.application.state()["uploads"] >= 2, seconds=60, what="two uploads")
        up.application.change(requests_per_second=0, uploads_per_second=0)
        wait_until(lambda: _is_still(up), seconds=60, what="the application to stand still")
        yield up


def _is_still(sandbox: Sandbox) -> bool:
    said = sandbox.application.state()
    under_way = "SELECT count(*) FROM content WHERE status IN ('UPLOADING', 'PROCESSING')"
    with sandbox.superuser() as admin:
        row = admin.execute(under_way.encode()).fetchone()
    return not said["lately"]["requests"] and not said["uploads_under_way"] and row == (0,)


def picture(sandbox: Sandbox) -> Picture:
    """Everything that a diagnosis could have changed, by kind."""
    found = {f"stage of {kind}": set(items) for kind, items in state.snapshot(sandbox).items()}
    return found | _database(sandbox) | _redis(sandbox) | _bucket(sandbox) | _files(sandbox)


def _database(sandbox: Sandbox) -> Picture:
    asked = {
        "tables": "SELECT format('%s.%s', schemaname, tablename) FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
        "settings": "SELECT format('%s=%s', name, setting) FROM pg_settings WHERE source NOT IN ('client', 'session')",
        "roles": "SELECT r::text FROM pg_roles r",
        "memberships": "SELECT m::text FROM pg_auth_members m",
        "objects": "SELECT format('%s %s %s', relkind, oid::regclass, relfilenode) FROM pg_class "
        "WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)",
        "extensions": "SELECT extname::text FROM pg_extension",
        "slots": "SELECT slot_name::text FROM pg_replication_slots",
    }
    with sandbox.superuser() as admin:
        found = {kind: {str(row[0]) for row in admin.execute(query.encode())} for kind, query in asked.items()}
        found["rows"] = {
            f"{table} {admin.execute(_DIGEST.format(table).encode()).fetchone()}" for table in found["tables"]
        }
    return {f"database: {kind}": items for kind, items in found.items()}


# With the transaction that wrote each row: writing the same again is a change as well.
_DIGEST = "SELECT count(*), md5(string_agg(format('%s %s', t.xmin, t), ',' ORDER BY t::text)) FROM {} t"


def _redis(sandbox: Sandbox) -> Picture:
    """Keys without an expiry by content, settings and scripts; what the worker renews by itself expires."""
    with sandbox.redis() as client:
        keys = [key for key in cast(Iterator[str], client.scan_iter()) if client.ttl(key) == -1]
        held = {f"{key} {_READ[cast(str, client.type(key))](client, key)}" for key in keys}
        settings = cast(dict[str, str], client.config_get("*"))
    return {"Redis: keys": held, "Redis: settings": {f"{name} {value}" for name, value in settings.items()}}


_READ: Mapping[str, Callable[[redis.Redis, str], Any]] = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: sorted(cast(dict[str, str], client.hgetall(key)).items()),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: sorted(cast(set[str], client.smembers(key))),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    "stream": lambda client, key: client.xrange(key),
}
"""The content of a key; its dump depends on how it is laid out in memory."""


def _bucket(sandbox: Sandbox) -> Picture:
    s3 = sandbox.storage()
    listed: list[Any] = s3.list_objects_v2(Bucket=sandbox.bucket).get("Contents", [])
    return {
        "bucket: objects": {f"{item['Key']} {item['ETag']} {item['LastModified']}" for item in listed},
        "bucket: open uploads": {
            item["UploadId"] for item in s3.list_multipart_uploads(Bucket=sandbox.bucket).get("Uploads", [])
        },
    }


LIVELY = ("patient/", "redis/", "vendors.log", "storage.log", "worker.log", "application.log")
"""What the servers write for themselves."""


def _files(sandbox: Sandbox) -> Picture:
    """Files where the application, its worker and its logs lie."""
    found = set()
    for path in sandbox.directory.rglob("*"):
        name = str(path.relative_to(sandbox.directory))
        if path.is_file() and not name.startswith(LIVELY):
            facts = path.stat()
            found.add(f"{name} {facts.st_size} {facts.st_mtime_ns} {facts.st_mode:o}")
    return {"files": found}


def test_a_change_would_be_seen(sandbox: Sandbox) -> None:
    """The picture is worth nothing if it stays the same whatever happens."""
    before = picture(sandbox)
    assert picture(sandbox) == before
    with sandbox.superuser() as admin:
        admin.execute(b"UPDATE content SET title = title || '!' WHERE id = (SELECT min(id) FROM content)")
    with sandbox.redis() as client:
        client.set("left-behind", "1")
    sandbox.storage().put_object(Bucket=sandbox.bucket, Key="left-behind", Body=b"1")
    (sandbox.directory / "left-behind").write_text("1")
    after = picture(sandbox)
    changed = {kind for kind in before if before[kind] != after[kind]}
    assert {"database: rows", "Redis: keys", "bucket: objects", "files"} <= changed
    with sandbox.redis() as client:
        client.delete("left-behind")
    sandbox.storage().delete_object(Bucket=sandbox.bucket, Key="left-behind")
    (sandbox.directory / "left-behind").unlink()


@pytest.fixture(scope="module")
def pool() -> Iterator[KernelPool]:
    with KernelPool(1) as warm:
        assert warm.wait_ready()
        yield warm


@pytest.mark.parametrize("runbook", catalog.load_all(), ids=lambda runbook: runbook.name)
def test_a_healthy_control_changes_nothing(
    runbook: catalog.Runbook, sandbox: Sandbox, pool: KernelPool, tmp_path: Path
) -> None:
    quick = {name: value for name, value in {"samples": 2, "sample_seconds": 0.3}.items() if name in runbook.parameters}
    before = picture(sandbox)
    request = RunRequest(run_id=new_run_id(), runbook=runbook.name, parameters=quick)
    result = execute(request, from_plain(sandbox.settings()), archive=Archive(tmp_path), pool=pool)
    assert result["state"] == "succeeded"
    after = picture(sandbox)
    differing = {kind: before[kind] ^ after[kind] for kind in before if before[kind] != after[kind]}
    assert differing == {}
