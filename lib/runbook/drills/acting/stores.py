"""Actions on Redis, queues, workers, files and rows."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook.drills.acting.case import Case, Look, Scene, drift
from runbook.sandbox.waiting import wait_until

if TYPE_CHECKING:
    from bullmq import Queue

REDIS, QUEUE, UPLOADS = "redis_connection_failure", "queue_processing_delays", "video_upload_failures"
_ROWS = 'SELECT id::text, status::text, "updatedAt" FROM content WHERE id::text = ANY(%s) ORDER BY 1'
_LATER = """UPDATE content SET "updatedAt" = "updatedAt" + interval '1 s' WHERE id::text = ANY(%s)"""


# -- Redis -------------------------------------------------------------------------------------------------------------


@drift
def clients_go_on(scene: Scene) -> Look:
    """Each client sends a command more."""
    scene.injected.go_on()
    ids = {str(number) for number in scene.identities("id")}
    return lambda: sorted(client["id"] for client in _redis(scene, "CLIENT LIST") if client["id"] in ids)


@drift
def script_ended(scene: Scene) -> Look:
    """Somebody else ends the script."""
    _redis(scene, "SCRIPT KILL")

    def times_asked() -> dict[str, int]:
        """7.0 and later count each subcommand."""
        counted = _redis(scene, "INFO", "commandstats")
        return {name: told["calls"] for name, told in counted.items() if name.startswith("cmdstat_script")}

    return times_asked


@drift
def another_maxclients(scene: Scene) -> Look:
    """Somebody else raises it, to another number."""
    _redis(scene, "CONFIG SET", "maxclients", int(scene.target.before) + 1)
    return partial(_redis, scene, "CONFIG GET", "maxclients")


def _redis(scene: Scene, *command: Any) -> Any:
    """The answer to one command, as soon as the server lets us in."""
    import redis

    url = scene.settings.redis.action_url
    assert url is not None

    answers: list[Any] = []

    def answered() -> bool:
        client: Any = redis.Redis.from_url(url.get_secret_value(), decode_responses=True, protocol=2)
        with client, suppress(redis.ConnectionError):  # no slot is free in this moment
            answers.append(client.execute_command(*command))
        return bool(answers)

    wait_until(answered, "Redis to let us in")
    return answers[0]


# -- queues and rows ---------------------------------------------------------------------------------------------------


@drift
def queue_turned(scene: Scene) -> Look:
    """Somebody else pauses the queue, or resumes it."""
    _on_queue(scene, lambda queue: queue.pause() if scene.target.after else queue.resume())
    return partial(_on_queue, scene, lambda queue: queue.isPaused())


@drift
def jobs_retried(scene: Scene) -> Look:
    """Somebody else retries the jobs, and a worker does them."""
    ids = [str(number) for number in scene.identities("job_id")]

    async def retry(queue: Queue) -> None:
        from bullmq import Job

        for number in ids:
            job = await Job.fromId(queue, number)
            assert job is not None
            await job.retry()

    async def done(queue: Queue) -> list[Any]:
        return [await queue.client.zscore(f"{queue.prefix}:{queue.name}:completed", number) for number in ids]

    _on_queue(scene, retry)
    wait_until(lambda: None not in _on_queue(scene, done), "the jobs to be done")
    return partial(_on_queue, scene, done)


@drift
def rows_updated(scene: Scene) -> Look:
    """The application writes to the rows, a second later than it did."""
    ids = scene.identities("id")
    with scene.sandbox.superuser() as connection:
        connection.execute(_LATER.encode(), [ids])

    def rows() -> list[Any]:
        with scene.sandbox.superuser() as connection:
            return connection.execute(_ROWS.encode(), [ids]).fetchall()

    return rows


def _on_queue(scene: Scene, work: Callable[[Queue], Awaitable[Any]]) -> Any:
    """What the application's own library does with its queue."""
    settings = scene.settings
    assert settings.redis.url is not None
    url = settings.redis.url.get_secret_value()

    async def opened() -> Any:
        from bullmq import Queue

        queue = Queue(settings.queue.name, {"connection": url, "prefix": settings.queue.prefix})
        try:
            return await work(queue)
        finally:
            await queue.close()

    return asyncio.run(opened())


# -- hosts -------------------------------------------------------------------------------------------------------------


@drift
def worker_restarted(scene: Scene) -> Look:
    """Somebody else restarts the worker, or starts one where there was none."""
    subprocess.run(scene.settings.workers.restart, check=True, stdin=subprocess.DEVNULL, timeout=60)

    def worker() -> tuple[int, str]:
        """The one that runs, and when it began."""
        pid = int(scene.sandbox.status()["worker"]["pid"])
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        return pid, stat.rpartition(") ")[2].split()[19]

    return worker


@drift
def files_written_to(scene: Scene) -> Look:
    """Somebody still writes to the files; in place, there may be no room for more."""
    paths = [Path(path) for path in scene.identities("path")]
    for path in paths:
        with path.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(first)
            if not first:
                file.truncate()
    return lambda: [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]


SOON_FORGOTTEN = {"rate_minutes": 0.2}
"""How long jobs have waited that are done counts for seconds, and not for minutes."""
CASES = (
    # One client of fifty: it comes back, or it does not.
    Case(kind="redis.kill_client", runbook=REDIS, fault="K06", verdict="unchanged", drift=clients_go_on),
    Case(kind="redis.script_kill", runbook=REDIS, fault="K11", verdict="fixed", drift=script_ended),
    # All slots are taken: whoever acts gets in when one of the clients leaves.
    Case(
        kind="redis.raise_maxclients", runbook=REDIS, fault="K05", verdict="fixed", sizes={"maxclients": 16},
        meanwhile=lambda place: place.injected.go_on(), drift=another_maxclients,
    ),
    # What has piled up is worked off by and by.
    Case(
        kind="queue.resume", runbook=QUEUE, fault="Q02", verdict="fixed", sizes={"jobs": 12}, scaled=SOON_FORGOTTEN,
        drift=queue_turned,
    ),
    # No more jobs use up their attempts; there is no room still.
    Case(kind="queue.pause", runbook=UPLOADS, fault="V11", verdict="unchanged", drift=queue_turned),
    # Ten jobs at once, the oldest first: here all of them, once there is room.
    Case(
        kind="queue.retry", runbook=QUEUE, fault="Q17", verdict="fixed", sizes={"jobs": 8},
        meanwhile=lambda place: place.sandbox.start_worker(), drift=jobs_retried,
    ),
    Case(
        kind="worker.restart", runbook=QUEUE, fault="Q01", verdict="fixed", scaled=SOON_FORGOTTEN,
        drift=worker_restarted,
    ),
    Case(kind="worker.restart", runbook=QUEUE, fault="Q04", verdict="fixed", drift=worker_restarted),
    Case(kind="worker.restart", runbook=UPLOADS, fault="V12:blocked", verdict="fixed"),
    Case(
        kind="files.delete_temporary", runbook="high_disk_usage", fault="D09", verdict="fixed", drift=files_written_to
    ),
    # Ten rows at once, the oldest first: here all of them.
    Case(
        kind="content.resync", runbook=UPLOADS, fault="V10", verdict="fixed", sizes={"rows": 8}, drift=rows_updated
    ),
)  # fmt: skip
