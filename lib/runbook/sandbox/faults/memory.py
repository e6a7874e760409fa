"""Faults of memory. Those that use much of it do so in a memory cgroup of their own, or take some 100 MB of the host.

Nothing here exhausts the machine: where a host's own memory is the matter, the runbook's threshold is lowered instead,
for the time of the fault and for its service alone, so that a healthy host beside it stays healthy.
"""

from __future__ import annotations

import signal
import subprocess
from functools import partial
from typing import Any, cast

from runbook.embedded import die_with_parent
from runbook.sandbox import cgroups, hogs
from runbook.sandbox.cgroups import MemoryCgroup
from runbook.sandbox.faults import machine
from runbook.sandbox.faults.registry import fault, find_program
from runbook.sandbox.faults.scene import Scene

RUNBOOK = "high_memory_usage"
SERVICE = "app"
_MB = 2**20
_ANY_USE_PERCENT = 0.5
"""Every host has that much of its memory in use."""
_SETTLED_SECONDS = 1.0
_FULL = 0.94


def _leaks_are_seen_at_once(scene: Scene) -> None:
    """Thresholds of the service that the alert names, under which a leak of seconds is one."""
    values = {"threshold_percent": _ANY_USE_PERCENT, "settled_seconds": _SETTLED_SECONDS}
    scene.settings["thresholds"] = {RUNBOOK: values}
    scene.settings["services"] = {SERVICE: {"thresholds": {RUNBOOK: values}}}


def _cgroup(scene: Scene, limit_mb: int, *, asked: bool = True) -> MemoryCgroup:
    """A cgroup with that limit until the fault heals; the alert names it unless said otherwise."""
    made = cgroups.make(limit_mb * _MB)
    scene.undo(made.remove)
    if asked:
        scene.labels["cgroup"] = made.path
    return made


def _fill(group: MemoryCgroup) -> None:
    """Lower the limit until what is there fills it to more than nine tenths, with room to breathe."""
    group.limit(int(group.working_bytes / _FULL))


def _procs(group: MemoryCgroup) -> str:
    return str(group.directory / "cgroup.procs")


@fault("M01", "a subprocess leaks")
def leaking_subprocess(scene: Scene, *, mb_per_second: int = 48, most_mb: int = 1600) -> None:
    """A process takes ever more of the host's memory and gives nothing back."""
    _leaks_are_seen_at_once(scene)
    child = scene.child(hogs.MODULE, {"act": "leak", "mb_per_second": mb_per_second, "most_mb": most_mb})
    scene.grow_older_than(_SETTLED_SECONDS)
    scene.name("M01", child.pid)


@fault("M01:cgroup", "a subprocess leaks in a cgroup", needs=(machine.memory_cgroups,))
def leak_in_cgroup(scene: Scene, *, limit_mb: int = 1024) -> None:
    """The same in a cgroup with a limit: the host has plenty."""
    _leaks_are_seen_at_once(scene)
    group = _cgroup(scene, limit_mb)
    order = {"act": "leak", "join": _procs(group), "begin_mb": 40, "mb_per_second": 24, "most_mb": 800}
    child = scene.child(hogs.MODULE, order)
    scene.grow_older_than(_SETTLED_SECONDS)
    scene.name("M01", child.pid, group.path)


@fault("M02", "many processes", needs=(machine.memory_cgroups,))
def many_processes(scene: Scene, *, count: int = 24, each_mb: int = 12) -> None:
    """Two dozen processes of one program, none of them large."""
    group = _cgroup(scene, 2 * count * (each_mb + 20))
    scene.child(hogs.MODULE, {"act": "many", "join": _procs(group), "count": count, "mb": each_mb})
    _fill(group)
    scene.name("M02", count, group.path)


@fault("M03", "page cache fills a cgroup", needs=(machine.memory_cgroups,))
def page_cache(scene: Scene, *, limit_mb: int = 64) -> None:
    """A process writes a file larger than its cgroup's limit: all of that is page cache, and nobody is short."""
    group = _cgroup(scene, limit_mb)
    path = scene.sandbox.directory / "cache.bin"
    scene.child(hogs.MODULE, {"act": "files", "join": _procs(group), "path": str(path), "mb": limit_mb + 36})
    scene.wait_until(lambda: group.usage_bytes > 0.92 * limit_mb * _MB, "the page cache to fill the cgroup")
    scene.name("M03", group.path)


@fault("M04", "killed at a cgroup's limit, again and again", needs=(machine.memory_cgroups,))
def killed_at_limit(scene: Scene, *, limit_mb: int = 40) -> None:
    """A service outgrows its cgroup, is killed and started anew, while the host has plenty."""
    group = _cgroup(scene, limit_mb, asked=False)
    scene.child(hogs.MODULE, {"act": "killed", "procs": _procs(group), "again": True})
    scene.wait_until(lambda: group.kills, "a kill")
    scene.name("M04", group.path)


@fault("M04:killed", "killed once at a cgroup's limit", needs=(machine.memory_cgroups,))
def killed_once(scene: Scene, *, limit_mb: int = 40) -> None:
    """A process was killed at the limit; since then memory looks fine, in the cgroup as on the host."""
    group = _cgroup(scene, limit_mb)
    child = scene.child(hogs.MODULE, {"act": "killed", "procs": _procs(group), "again": False})
    scene.wait_until(lambda: group.kills, "a kill")
    scene.name("M04", group.path, child.greeting["pid"])


@fault("M05", "files in memory", needs=(machine.memory_cgroups,))
def files_in_memory(scene: Scene, *, megabytes: int = 160) -> None:
    """Somebody writes to /dev/shm, which is memory."""
    group = _cgroup(scene, 2 * megabytes)
    path = f"/dev/shm/{group.path.strip('/')}.bin"  # noqa: S108 - that is the fault
    scene.child(hogs.MODULE, {"act": "files", "join": _procs(group), "path": path, "mb": megabytes})
    _fill(group)
    scene.name("M05", "/dev/shm")  # noqa: S108


@fault("M07", "PostgreSQL sorts in memory", needs=(machine.memory_cgroups,))
def sorts(scene: Scene, *, sessions: int = 3, application: str = "reports") -> None:
    """Sessions with a large work_mem hold the result of a sort, each its own."""
    group = _cgroup(scene, 200 * sessions)
    for session in scene.sessions(sessions, "web", application):
        group.add(session.info.backend_pid)
        session.execute("SET work_mem = '256MB'")
        session.execute("BEGIN")
        session.execute(
            """DECLARE sorted CURSOR FOR
               SELECT i, repeat('x', 1000) || i FROM generate_series(1, 45000) AS i ORDER BY 2 DESC"""
        )
        session.execute("FETCH 1 FROM sorted")
        scene.name("M07", session.info.backend_pid)
    _fill(group)


@fault("M08", "Redis at its limit")
def redis_full(scene: Scene, *, limit_mb: int = 48) -> None:
    """Data fills Redis to 93 % of its maxmemory, at which it will refuse writes."""
    key = "report-cache"
    with scene.sandbox.redis() as redis:
        before = cast(dict[str, str], redis.config_get("maxmemory"))["maxmemory"]
        scene.undo(partial(_empty_redis, scene, key, before))
        used = int(cast(dict[str, Any], redis.info("memory"))["used_memory"])
        limit = max(limit_mb * _MB, 4 * used)
        redis.config_set("maxmemory", limit)
        redis.setrange(key, int(0.935 * limit) - used, b"x")
    scene.name("M08", round(limit / _MB, 1))


def _empty_redis(scene: Scene, key: str, maxmemory: str) -> None:
    with scene.sandbox.redis() as redis:
        redis.delete(key)
        redis.config_set("maxmemory", maxmemory)


@fault("M09", "a burst of transcoding", needs=(machine.memory_cgroups,), programs={"perl": "perl-base"})
def transcoding(scene: Scene, *, jobs: int = 3, each_mb: int = 40) -> None:
    """Several transcoders at once, each with its file. Stand-ins by that name: what they hold is real."""
    group = _cgroup(scene, 4 * jobs * each_mb)
    join, die = _procs(group), die_with_parent(signal.SIGKILL)

    def begin() -> None:
        die()
        with open(join, "w") as procs:  # noqa: PTH123 - in the child, before it is another program
            procs.write("0")

    for job in range(jobs):
        script = f"$held = 'x' x ({each_mb} * 1048576); $| = 1; print 1; sleep 600"
        process = subprocess.Popen(
            ["ffmpeg", "-e", script, "-i", f"upload-{job}.mp4"],  # noqa: S607 - the name; below is what runs
            executable=str(find_program("perl")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=begin,
        )
        scene.undo(partial(_end, process))
        assert process.stdout is not None
        process.stdout.read(1)
        scene.name("M09", process.pid)
    _fill(group)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
