"""Faults of the queue behind the uploads and of the worker that should empty it."""

from __future__ import annotations

from runbook.sandbox.faults.backlog import V6, Backlog
from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.faults.uploads import QUICK
from runbook.sandbox.stack import QUEUE, WORKER_LOCK_SECONDS

_WAITING = 24


@fault("V11", "worker's disk full", scaled=QUICK)
def worker_disk_full(scene: Scene) -> None:
    """The worker cannot write its temporary file: ENOSPC, job after job."""
    Backlog(scene).meta(version=V6)
    scene.production.worker("full_disk")
    scene.production.uploads()
    scene.production.rows("FAILED", _WAITING)


@fault("V12", "no worker", scaled=QUICK)
def no_worker(scene: Scene) -> None:
    """The worker is gone; jobs wait. The rows and their jobs are set back."""
    scene.production.no_worker()
    _pile_up(scene, "wait")
    scene.name("V12", "Q01", QUEUE)


@fault("V12:paused", "queue paused", scaled=QUICK)
def paused(scene: Scene) -> None:
    """Somebody paused the queue and forgot it. The rows and their jobs are set back."""
    scene.production.pause_queue()
    _pile_up(scene, "wait")
    scene.name("V12", "Q02", QUEUE)


@fault("V12:hung", "jobs hang", scaled=QUICK)
def hung(scene: Scene) -> None:
    """Every job waits for something that never comes, its lock renewed. Rows and jobs are set back."""
    scene.production.worker("hang")
    _pile_up(scene, "active")
    scene.name("V12", "Q04", QUEUE)


@fault("V12:blocked", "worker's event loop blocked", scaled=QUICK)
def blocked(scene: Scene) -> None:
    """A job keeps the worker's only thread: connected, and its locks lapse. Rows and jobs are set back."""
    scene.production.worker("block")
    _pile_up(scene, "active")
    scene.grow_older_than(WORKER_LOCK_SECONDS)
    scene.name("V12", "Q05", QUEUE)


@fault("V12:dead", "worker died over its jobs", scaled=QUICK)
def dead(scene: Scene) -> None:
    """The worker is killed in the midst of its jobs and nobody takes over. Rows and jobs are set back."""
    scene.production.worker("crash")
    _pile_up(scene, "active")
    scene.grow_older_than(WORKER_LOCK_SECONDS)
    scene.name("V12", QUEUE)


@fault("V14", "row not written", scaled=QUICK)
def row_not_written(scene: Scene) -> None:
    """The worker completes its jobs and cannot write the rows. They are set back."""
    scene.production.worker("no_database")
    scene.production.vendor("mux", webhooks=False)
    scene.production.uploads()
    scene.production.jobs("completed", _WAITING)
    scene.production.stop_uploads()
    scene.production.age_uploads()


def _pile_up(scene: Scene, where: str) -> None:
    """Uploads until enough of them stand in the queue, then set back by more than what counts as stuck."""
    scene.production.uploads()
    scene.production.jobs(where, 1 if where == "active" else _WAITING)
    scene.production.rows("UPLOADING", _WAITING)
    scene.production.stop_uploads()
    scene.production.age_uploads()
