"""Faults of disks: what fills, on filesystems of the sandbox's own where the machine permits them.

The machine's own disk is never filled: what has to be full is a small filesystem in memory, and what only grows stops
at its bound. Thresholds are scaled so that the machine's own usage decides nothing.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook.embedded import FAST, EmbeddedPostgres
from runbook.errors import SandboxError
from runbook.sandbox.faults import machine
from runbook.sandbox.faults.registry import fault, find_program
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.redis_server import RedisServer
from runbook.sandbox.writers import MODULE

if TYPE_CHECKING:
    import psycopg

RUNBOOK = "high_disk_usage"
#: A disk counts as short when it is full, whatever the machine's own is; what fills it within hours counts as soon.
QUICK = {"threshold_percent": 99.5, "critical_hours": 10, "runaway_gb_per_hour": 10000}
MOUNTS = (machine.mounts,)
MIB = 1024 * 1024
_MOST = 600 * MIB
_SEGMENT = "SELECT pg_logical_emit_message(false, 'sandbox', 'x'), pg_switch_wal()"
_numbers = itertools.count(1)


@fault("D01", "a log grows fast", scaled=QUICK)
def log_grows(scene: Scene, *, megabytes_per_second: float = 8.0, name: str = "gateway.log") -> None:
    """A process writes its log without end, at a pace that fills what is free within days at the most."""
    place = _directory(scene, "logs")
    pace = _filling(scene, megabytes_per_second * MIB)
    free = shutil.disk_usage(place).free
    path = place / name
    child = scene.child(MODULE, {"act": "log_without_end", "path": str(path), "bytes_per_second": pace,
                                 "most_bytes": min(_MOST, free // 2)})  # fmt: skip
    scene.name("D01", path, child.pid)


@fault("D02", "an inactive replication slot keeps WAL", scaled=QUICK)
def inactive_slot(scene: Scene, *, slot: str = "standby_b") -> None:
    """A standby is gone, its slot is not, and the application goes on writing."""
    scene.undo(lambda: scene.as_superuser("CHECKPOINT"))
    scene.change(
        f"SELECT pg_create_physical_replication_slot('{slot}', true)", f"SELECT pg_drop_replication_slot('{slot}')"
    )
    _write_ahead(scene, at_once=80 * MIB)
    scene.name("D02", slot)


@fault("D03", "the archiver fails", scaled=QUICK)
def archiver_fails(scene: Scene) -> None:
    """A server whose archive_command always fails; segments wait for it. It is a server of its own."""
    place = scene.sandbox.directory / "archiving"
    with _own_server(scene, place, archive_mode="on", archive_command="false") as admin:
        for _ in range(3):
            admin.execute(_SEGMENT)

        def failed() -> Any:
            row = admin.execute("SELECT last_failed_wal FROM pg_stat_archiver WHERE failed_count > 0").fetchone()
            return row[0] if row else None

        segment = scene.wait_until(failed, "the archiver to fail")
    scene.name("D03", segment)


@fault("D04", "a disk too small for ordinary WAL", scaled=QUICK, needs=MOUNTS)
def ordinary_wal(scene: Scene, *, megabytes: int = 192) -> None:
    """A server of its own on a disk that has no room for the WAL which its own settings allow."""
    place = _filesystem(scene, f"size={megabytes + 64}m")
    size = f"{megabytes}MB"
    with _own_server(scene, place / "ordinary", max_wal_size=size, min_wal_size=size) as admin:

        def settled() -> bool:
            """Segments are used anew once there are as many as the settings allow."""
            admin.execute(_SEGMENT)
            row = admin.execute("SELECT sum(size) FROM pg_ls_waldir()").fetchone()
            return row is not None and row[0] > 0.9 * megabytes * MIB

        scene.wait_until(settled, "the WAL to be as large as it may be")
        # The segment that is written next has to be there: for another one there will be no room.
        admin.execute("SELECT pg_logical_emit_message(true, 'sandbox', 'x')")
        admin.execute("CHECKPOINT")
    room = os.statvfs(place)
    _fill(place / "catalogue.bin", int(room.f_bavail - 0.003 * room.f_blocks) * room.f_frsize)
    scene.name("D04", place)


@fault("D05", "a query spills", scaled=QUICK)
def query_spills(scene: Scene, *, role: str = "batch", application: str = "report") -> None:
    """A sort that does not fit into memory writes temporary files without end."""
    session = scene.session(role, application)
    session.execute("SET work_mem = '64kB'")
    scene.send(session, "SELECT count(*) FROM (SELECT repeat(md5(i::text), 8) AS t FROM generate_series(1, 30000000) i "
                        "ORDER BY t) s")  # fmt: skip
    size = "SELECT coalesce(sum(size), 0) FROM pg_ls_tmpdir()"
    scene.wait_until(lambda: scene.count(size) > 4 * MIB, "temporary files")
    scene.name("D05", session.info.backend_pid, application)


@fault("D06", "a table grows", scaled=QUICK)
def table_grows(scene: Scene, *, table: str = "audit_events") -> None:
    """A table of events that nobody expires takes megabytes a second."""
    scene.change(f"CREATE TABLE {table} (payload text)", f"DROP TABLE {table}")
    scene.change(f"ALTER TABLE {table} ALTER payload SET STORAGE PLAIN", f"TRUNCATE {table}")
    pace = _filling(scene, 12 * MIB)
    scene.child(MODULE, {"act": "fill_table", "dsn": scene.sandbox.dsn("postgres"), "application": "ingest",
                         "table": table, "bytes_per_second": pace, "most_bytes": _MOST})  # fmt: skip
    scene.undo(lambda: scene.terminate_application("ingest"))
    scene.name("D06", f"public.{table}")


@fault("D07", "a deleted file is still open", scaled=QUICK, needs=MOUNTS)
def deleted_file(scene: Scene, *, megabytes: float = 48.0) -> None:
    """A rotated log was removed; its writer still has it open, and the disk stays full."""
    place = _filesystem(scene, f"size={int(megabytes)}m")
    path = place / "worker.log.1"
    child = scene.child(MODULE, {"act": "deleted_file", "path": str(path), "bytes": int(2 * megabytes * MIB)})
    scene.name("D07", path, child.pid)


@fault("D08", "inodes used up", scaled=QUICK, needs=MOUNTS)
def no_inodes(scene: Scene) -> None:
    """Small files by the hundred: no inode is left, while nearly all bytes are."""
    place = _filesystem(scene, "size=64m,nr_inodes=400")
    sessions = place / "sessions"
    sessions.mkdir()
    try:
        for number in range(400):
            (sessions / f"sess_{number:04}").touch()
    except OSError:
        scene.name("D08", place, sessions)
        return
    raise SandboxError("400 files did not use up 400 inodes")


@fault("D09", "temporary uploads left over", scaled=QUICK, needs=MOUNTS)
def left_over(scene: Scene) -> None:
    """Jobs of the day before yesterday left their files. Their times are set back."""
    place = _filesystem(scene, "size=32m")
    two_days_ago = time.time() - 48 * 3600
    for number in range(8):
        path = place / f"upload-{number:04}.part"
        _fill(path, 5 * MIB)
        os.utime(path, (two_days_ago, two_days_ago))
    scene.settings.setdefault("workers", {})["tmp_paths"] = [str(place)]
    scene.labels["mountpoint"] = str(place)
    scene.name("D09", place / "upload-0000.part")


@fault("D10", "core dumps", scaled=QUICK, needs=MOUNTS)
def core_dumps(scene: Scene) -> None:
    """A process that dies again and again leaves its memory each time."""
    place = _filesystem(scene, "size=32m")
    for number in range(4):
        _fill(place / f"core.{4711 + number}", 9 * MIB)


@fault(
    "D11", "the rest is reserved for root", scaled=QUICK, programs={"mkfs.ext4": "e2fsprogs"}, needs=(machine.loops,)
)
def reserved(scene: Scene) -> None:
    """A filesystem of which a third is root's; what is left for others is used up."""
    make, directory = find_program("mkfs.ext4"), _directory(scene, "images")
    assert make is not None
    image = directory / "data.img"
    with image.open("wb") as out:
        out.truncate(24 * MIB)
    subprocess.run([make, "-q", "-F", "-m", "33", str(image)], check=True, capture_output=True)
    place = _mounted(scene, "-o", "loop", str(image))
    room = os.statvfs(place)
    _fill(place / "catalogue.bin", room.f_bavail * room.f_frsize)
    filled = place / "rest.bin"
    while (room := os.statvfs(place)).f_bavail:  # metadata takes its part
        with filled.open("ab") as out:
            out.write(b"x" * room.f_frsize)
    scene.name("D11", place)


@fault("D12", "files hidden below a mount", scaled=QUICK, needs=MOUNTS)
def hidden(scene: Scene) -> None:
    """Files were written before another filesystem was mounted over them."""
    place = _filesystem(scene, "size=32m")
    below = place / "media"
    below.mkdir()
    _fill(below / "clip-0001.mp4", 40 * MIB)
    _mounted(scene, "-t", "tmpfs", "-o", "size=8m", "tmpfs", at=below)
    scene.name("D12", below)


@fault("D13", "remounted read-only", scaled=QUICK, needs=MOUNTS)
def read_only(scene: Scene) -> None:
    """The disk of the workers' temporary files was remounted read-only."""
    place = _filesystem(scene, "size=32m")
    _run("mount", "-o", "remount,ro", str(place))
    scene.settings.setdefault("workers", {})["tmp_paths"] = [str(place)]
    scene.name("D13", place)


@fault("D15", "Redis writes a snapshot", scaled=QUICK, needs=MOUNTS)
def redis_snapshot(scene: Scene) -> None:
    """A Redis of its own saves its data, slowly, on a small disk."""
    import redis

    place = _filesystem(scene, "size=256m")
    server = RedisServer(place / "redis", owned=True)
    started = server.start()
    scene.undo(lambda: server.end(started["pid"]))
    server.wait(started)
    url = server.url(started)
    with redis.Redis.from_url(url) as client:
        client.config_set("rdbcompression", "no")
        client.config_set("rdb-key-save-delay", 50_000)
        pipeline = client.pipeline(transaction=False)
        for number in range(600):
            pipeline.set(f"cache:{number}", b"x" * 200_000)
        pipeline.execute()
        client.bgsave()
    temporary = scene.wait_until(
        lambda: next((f for f in (place / "redis").glob("temp-*.rdb") if f.stat().st_size > MIB), None), "the snapshot"
    )
    scene.settings.setdefault("redis", {})["url"] = url
    scene.name("D15", temporary)


@fault("D16", "an image that is full by nature", expects=("D16",), outcomes=("healthy", "no_current_fault"),
       runbooks=(RUNBOOK,), scaled=QUICK, needs=(machine.loops, machine.squashfs))  # fmt: skip
def full_image(scene: Scene) -> None:
    """A squashfs is mounted, 100 % full as all of them, and somebody's rule does not leave it out."""
    image = _directory(scene, "images") / "tools.squashfs"
    image.write_bytes(machine.empty_squashfs())
    place = _mounted(scene, "-t", "squashfs", "-o", "loop,ro", str(image))
    scene.labels["mountpoint"] = str(place)
    scene.name("D16", place)


# -- what they share ---------------------------------------------------------------------------------------------------


@contextmanager
def _own_server(scene: Scene, place: Path, **settings: str) -> Iterator[psycopg.Connection]:
    """A server beside the patient, with these settings; the diagnosis looks at it. Its administrator's connection."""
    import psycopg

    password = secrets.token_urlsafe()
    server = EmbeddedPostgres(place, settings={**FAST, **settings, "max_connections": "10"}, owned=True)
    scene.undo(lambda: server.remove() if place.exists() else None)
    server.start()
    with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE monitor LOGIN PASSWORD '{password}' IN ROLE pg_monitor".encode())
        yield admin
    dsn = server.dsn(user="monitor", database="postgres", password=password)
    scene.settings.setdefault("postgres", {})["dsn"] = dsn


def _filling(scene: Scene, at_least: float) -> float:
    """A pace, bytes a second, at which the sandbox's disk would be full within two thirds of the critical time.

    Raises
    ------
    SandboxError
        The disk is so large that nobody writes that fast.
    """
    free = shutil.disk_usage(scene.sandbox.directory).free
    pace = max(at_least, 1.5 * free / (3600 * scene.threshold("critical_hours", 4)))
    if pace > 100 * MIB:
        raise SandboxError("the sandbox's disk is too large to be filled within hours")
    return pace


def _directory(scene: Scene, name: str) -> Path:
    """A directory of the sandbox that goes when the fault heals."""
    place = scene.sandbox.directory.resolve() / f"{name}-{next(_numbers)}"
    place.mkdir()
    scene.undo(lambda: shutil.rmtree(place))
    return place


def _filesystem(scene: Scene, options: str) -> Path:
    """A filesystem in memory, in the sandbox's directory."""
    return _mounted(scene, "-t", "tmpfs", "-o", options, "tmpfs")


def _mounted(scene: Scene, *how: str, at: Path | None = None) -> Path:
    place = at or _directory(scene, "disk")
    _run("mount", *how, str(place))
    scene.undo(lambda: _unmount(scene, place))
    return place


def _unmount(scene: Scene, place: Path) -> None:
    """It may be busy for a moment: somebody looks at it."""
    umount = find_program("umount")
    assert umount is not None

    def done() -> bool:
        return subprocess.run([umount, str(place)], capture_output=True, check=False).returncode == 0

    scene.wait_until(done, f"{place} to be free")


def _run(program: str, *arguments: str) -> None:
    path = find_program(program)
    assert path is not None
    done = subprocess.run([path, *arguments], capture_output=True, check=False, text=True)
    if done.returncode:
        raise SandboxError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")


def _fill(path: Path, count: int) -> None:
    """Write so many bytes, or as many as there is room for."""
    block = b"x" * 65536
    with path.open("wb", buffering=0) as out:
        try:
            while count > 0:
                written = out.write(block[: min(count, len(block))])
                count -= written
        except OSError:
            return


def _write_ahead(scene: Scene, *, at_once: int) -> None:
    scene.undo(lambda: scene.terminate_application("importer"))
    scene.child(MODULE, {"act": "write_ahead", "dsn": scene.sandbox.dsn("web"), "application": "importer",
                         "at_once": at_once, "bytes_per_second": 12 * MIB, "most_bytes": _MOST})  # fmt: skip
