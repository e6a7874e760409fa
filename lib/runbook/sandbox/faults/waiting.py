"""Faults of a queue whose jobs wait too long: the workers', the queue's own, the load's, and what stands below them."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from runbook.errors import SandboxError
from runbook.sandbox.faults import machine
from runbook.sandbox.faults.backlog import KEYS, V6, Backlog
from runbook.sandbox.faults.registry import fault, handicap
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.stack import QUEUE

RUNBOOK = "queue_processing_delays"
#: A worker's connection counts as silent sooner than after the 12 s between two questions of one that waits.
QUICK: dict[str, Any] = {"silent_seconds": 1.5}
_LOCK_SECONDS = 1.0
_BEFORE_LOCKS_SECONDS = 10
"""Sooner than the locks of jobs in work expire, of which half of 30 s is left at least."""
_SLOW_SECONDS = 2.5
"""So slow that a machine under load does not get through the jobs before the runbook has looked."""


@fault("Q01", "no worker works on the queue", scaled=QUICK)
def no_worker(scene: Scene, *, jobs: int = 24) -> None:
    """The worker ended between two jobs, and nobody started it again."""
    backlog = Backlog(scene)
    scene.production.no_worker()
    backlog.add(jobs, 12, 7)
    scene.name("Q01", QUEUE)


@fault("Q02", "queue paused, worker up (BullMQ 6)", scaled=QUICK)
def paused(scene: Scene, *, jobs: int = 40) -> None:
    """Somebody paused the queue: a mark in its meta data, jobs stay where they are."""
    backlog = Backlog(scene)
    scene.production.pause_queue()
    backlog.meta(version=V6)
    backlog.add(jobs, 12, 7)
    scene.name("Q02", QUEUE, jobs)


@fault("Q03", "more jobs arrive than the worker gets through", scaled=QUICK)
def under_capacity(scene: Scene) -> None:
    """Jobs come at the pace they always come at, and the worker has become too small for it."""
    backlog = Backlog(scene)
    backlog.past(40, 8, _SLOW_SECONDS)
    scene.production.no_worker()
    backlog.add(120, 12, 0)
    scene.production.worker("slow", seconds=_SLOW_SECONDS)
    backlog.wait_for("completed", 41)


@fault("Q04", "a job hangs", scaled=QUICK)
def hung(scene: Scene) -> None:
    """Every job waits for something that never comes, its lock renewed; jobs in work are set back."""
    backlog = Backlog(scene)
    scene.production.worker("hang")
    ids = backlog.add(6, 4, 2)
    backlog.wait_for("active", 2)
    backlog.set_back("active", 11)
    backlog.set_back("wait", 11)
    scene.name("Q04", ids[0])


@fault("Q05", "the worker's event loop is blocked", scaled=QUICK)
def blocked(scene: Scene) -> None:
    """A job keeps the worker's only thread: connected, and its locks lapse."""
    backlog = Backlog(scene)
    scene.production.worker("block", lock_seconds=_LOCK_SECONDS)
    ids = backlog.add(6, 12, 7)
    backlog.wait_for("active", 1)
    backlog.wait_for_no_lock()
    scene.grow_older_than(scene.threshold("silent_seconds", 12))
    scene.name("Q05", ids[0])


@fault("Q06", "the worker died over its jobs", scaled=QUICK)
def dead(scene: Scene) -> None:
    """Killed in the midst of a job, and nobody is there to take it over."""
    backlog = Backlog(scene)
    scene.production.worker("crash", lock_seconds=_LOCK_SECONDS)
    ids = backlog.add(6, 12, 7)
    backlog.wait_for("active", 1)
    backlog.wait_for_no_lock()
    scene.name("Q06", ids[0])


@fault("Q07", "a job kills every worker that takes it", scaled=QUICK)
def poison(scene: Scene) -> None:
    """It is started again each time, as a supervisor would, until BullMQ gives the job up."""
    backlog = Backlog(scene)
    scene.production.no_worker()
    ids = backlog.add(1, 7, 7, data={"poison": True})
    for _ in range(6):
        scene.production.worker("poison", lock_seconds=0.3)
        if _ends_or_fails(scene, backlog):
            break
    backlog.wait_for("failed", 1)
    scene.name("Q07", ids[0])


def _ends_or_fails(scene: Scene, backlog: Backlog) -> bool:
    """Wait until the worker is gone, or its job is given up; whether it is that."""

    def seen() -> bool:
        with backlog.redis() as redis:
            given_up = bool(redis.zcard(f"{KEYS}failed"))
        return given_up or scene.sandbox.status()["worker"] is None

    scene.wait_until(seen, "the worker to die over its job")
    return scene.sandbox.status()["worker"] is not None


@fault("Q08", "jobs fail and are tried again", scaled=QUICK)
def failing(scene: Scene, *, jobs: int = 24, reason: str = "TypeError: codec of the video is undefined") -> None:
    """Every job fails for one reason, and waits for its next try."""
    backlog = Backlog(scene)
    scene.production.worker("fail", reason=reason)
    backlog.add(jobs, 12, 7, attempts=3, backoff={"type": "fixed", "delay": 600_000})
    backlog.wait_for("delayed", jobs)
    scene.name("Q08", reason)


@fault("Q09", "a limit of jobs at a time holds the queue", scaled=QUICK)
def capped(scene: Scene) -> None:
    """Somebody set the queue's own concurrency to one; the worker could do two."""
    backlog = Backlog(scene)
    backlog.meta(concurrency=1)
    scene.production.no_worker()
    backlog.add(40, 12, 2)
    scene.production.worker("slow", seconds=2 * _SLOW_SECONDS)
    backlog.wait_for("active", 1)
    scene.name("Q09", "at most 1 jobs")


@fault("Q09:rate", "a rate limiter holds the queue", scaled=QUICK)
def rate_limited(scene: Scene) -> None:
    """The worker may begin two jobs in ten minutes."""
    backlog = Backlog(scene)
    scene.production.worker("ok", limiter={"max": 2, "duration": 600_000})
    backlog.add(40, 12, 7)
    backlog.wait_for("completed", 2)
    scene.name("Q09", "rate limiter")


@fault("Q10", "jobs are scheduled for later", outcomes=("healthy",), runbooks=(RUNBOOK,), scaled=QUICK)
def scheduled(scene: Scene) -> None:
    """Nothing waits but what is not due yet: all is well."""
    backlog = Backlog(scene)
    backlog.add(12, 30, 10, delay=7_200_000)


@fault("Q11", "jobs of low priority starve", scaled=QUICK)
def starved(scene: Scene) -> None:
    """Newer jobs without a priority go first, one after the other."""
    backlog = Backlog(scene)
    scene.production.no_worker()
    ids = backlog.add(30, 20, 14, priority=10)
    backlog.add(60, 2, 0)
    scene.production.worker("slow", seconds=_SLOW_SECONDS)
    backlog.wait_for("completed", 1)
    scene.name("Q11", ids[0])


@fault("Q12", "a burst of jobs", scaled=QUICK)
def burst(scene: Scene) -> None:
    """Eighty jobs within a minute where one a minute is usual; the worker does what it can."""
    backlog = Backlog(scene)
    backlog.past(20, 1, _SLOW_SECONDS)
    scene.production.no_worker()
    backlog.add(80, 8, 7)
    scene.production.worker("slow", seconds=_SLOW_SECONDS)
    backlog.wait_for("completed", 21)


@fault("Q13", "what the jobs call is slow", scaled=QUICK)
def slow_downstream(scene: Scene) -> None:
    """Mux answers, and takes its time; uploads come as ever, and pile up. They are set back."""
    backlog = Backlog(scene)
    backlog.past(20, 4, 0.2)
    scene.production.vendor_fails("mux", delay_seconds=1.4)
    scene.production.uploads()
    backlog.wait_for("completed", 22)
    scene.production.jobs("wait", 12)
    scene.production.stop_uploads()
    backlog.set_back("wait", 11)
    scene.name("Q13", "Mux: our own call took")


@fault("Q14", "Redis is full and refuses writes", scaled=QUICK)
def redis_full(scene: Scene) -> None:
    """No room, and nothing may be evicted: reads work, and no worker can take a job."""
    backlog = Backlog(scene)
    scene.production.no_worker()
    backlog.add(24, 12, 7)
    backlog.config(maxmemory="1mb")
    scene.production.worker("ok")
    scene.name("Q14", "OOM")


@fault("Q14:misconf", "a full disk stops Redis, which stops the queue", expects=("Q17",), needs=(machine.mounts,),
       runbooks=(RUNBOOK,), scaled=QUICK)  # fmt: skip
def disk_stops_redis(scene: Scene) -> None:
    """Redis cannot write its snapshot to a full file system, and refuses everything that writes, PING as well."""
    backlog = Backlog(scene)
    place = scene.sandbox.directory / "full"
    place.mkdir()
    scene.undo(place.rmdir)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)  # noqa: S607
    scene.undo(lambda: subprocess.run(["umount", str(place)], check=True))  # noqa: S607
    (place / "filler").write_bytes(b"0" * 65536)
    scene.production.no_worker()
    backlog.add(24, 12, 7)
    # Undone the other way round: first no snapshot is owed any more, then the directory is the old one.
    backlog.config(dir=str(place))
    backlog.config(save="3600 1")
    with backlog.redis() as redis:
        redis.bgsave()

        def failed() -> bool:
            return bool(redis.info("persistence")["rdb_last_bgsave_status"] == "err")

        scene.wait_until(failed, "the snapshot to fail")
    scene.name("Q17", str(place))


@fault("Q15", "Redis evicted what the jobs hold", scaled=QUICK)
def evicted(scene: Scene) -> None:
    """Memory was short and the policy let it: the hashes of jobs went, their ids still wait."""
    backlog = Backlog(scene)
    scene.production.worker("hang")
    ids = backlog.add(40, 12, 7, data={"note": "x" * 400})
    backlog.wait_for("active", 2)
    lost = [f"{KEYS}{job}" for job in ids[3:33]]
    # Of keys that expire, the next ones: so these hashes go and no other key, whatever the memory does meanwhile.
    backlog.config(maxmemory="0", maxmemory_policy="volatile-ttl", maxmemory_samples="64")
    with backlog.redis() as redis:
        for key in lost:
            redis.expire(key, _BEFORE_LOCKS_SECONDS)
        scene.undo(lambda: _forget_evictions(backlog))
        used = int(redis.info("memory")["used_memory"])
        for less in range(0, 200_000, 4_000):
            redis.config_set("maxmemory", used - less)
            redis.ping()
            if sum(not redis.exists(key) for key in lost) >= 24:
                break
        else:
            raise SandboxError("Redis would not evict the jobs' hashes")
        redis.config_set("maxmemory", 0)
        for key in lost:
            redis.persist(key)
    scene.name("Q15", "volatile-ttl")


def _forget_evictions(backlog: Backlog) -> None:
    with backlog.redis() as redis:
        redis.config_resetstat()


@fault("Q16", "the queue is not there by its name", expects=(), outcomes=("undetermined",), runbooks=(RUNBOOK,),
       scaled=QUICK)  # fmt: skip
def misspelt(scene: Scene, *, name: str = "video-transcodings") -> None:
    """The settings name a queue that does not exist: nobody knows, and the report says which there are."""
    scene.settings.setdefault("queue", {})["name"] = name


@fault("Q17", "the worker's disk is full", scaled=QUICK)
def no_room(scene: Scene, *, jobs: int = 24) -> None:
    """The worker cannot write its temporary file: ENOSPC, job after job."""
    backlog = Backlog(scene)
    backlog.meta(version=V6)
    scene.production.worker("full_disk")
    backlog.add(jobs, 12, 7)
    backlog.wait_for("failed", jobs)
    scene.name("Q17", "No space left on device")


@fault("Q18", "the worker lives and is not connected", scaled=QUICK)
def zombie(scene: Scene) -> None:
    """Its connections are gone, and it does not come back: it is there, and does nothing."""
    backlog = Backlog(scene)
    pid = _stop_worker(scene)
    with backlog.redis() as redis:
        for client in redis.client_list():
            if str(client["name"]).startswith(KEYS.split(":")[0] + ":"):
                redis.client_kill_filter(_id=str(client["id"]))
    backlog.add(24, 12, 7)
    scene.name("Q18", pid)


@fault("Q19", "versions of BullMQ are mixed", scaled=QUICK)
def mixed_versions(scene: Scene) -> None:
    """Version 5 paused and left the jobs in its list; version 6 resumed, and does not read it."""
    backlog = Backlog(scene)
    scene.production.no_worker()
    backlog.add(24, 12, 7)
    with backlog.redis() as redis:
        redis.rename(f"{KEYS}wait", f"{KEYS}paused")
    backlog.meta(version=V6)
    scene.production.worker("ok")
    scene.name("Q19", V6)


@fault("Q20", "parents wait for a child that failed", scaled=QUICK)
def orphaned(scene: Scene) -> None:
    """The children failed for good, and nobody told what that means for their parents."""
    backlog = Backlog(scene)
    scene.production.worker("fail", reason="Error: no such picture")
    backlog.families(3, 12)
    backlog.wait_for("failed", 3)
    scene.name("Q20", "no such picture")


def _stop_worker(scene: Scene) -> int:
    """SIGSTOP; whoever replaces the worker ends the stopped one."""
    pid = int(scene.sandbox.status()["worker"]["pid"])
    os.kill(pid, signal.SIGSTOP)
    return pid


@handicap("workers_unlisted", "Redis does not list who works on the queue", tried_with="Q01", unknown=("bullmq",))
def workers_unlisted(scene: Scene) -> None:
    """As many a managed Redis: who is connected is not said, and not seen is not absent."""
    _narrow(scene, "+client|setname")


@handicap("workers_unnamed", "Redis hides the names of its clients", tried_with="Q02", blinds=False)
def workers_unnamed(scene: Scene) -> None:
    """Nobody has a name, ourselves included: a pause shows all the same."""
    _narrow(scene, "+client|list")


def _narrow(scene: Scene, *rules: str) -> None:
    user, password = "narrow", "narrow-Canary-7d1"  # a user of this sandbox, for the length of a drill
    with scene.sandbox.redis() as redis:
        redis.execute_command(
            "ACL", "SETUSER", user, "reset", "on", f">{password}", "~*", "&*", "+@all", "-client", *rules
        )

    def gone() -> None:
        with scene.sandbox.redis() as redis:
            redis.execute_command("ACL", "DELUSER", user)

    scene.undo(gone)
    place = scene.sandbox.settings()["redis"]["url"].rpartition("//")[2].rpartition("@")[2]
    scene.settings.setdefault("redis", {})["url"] = f"redis://{user}:{password}@{place}"
