"""A scene's side of the application: what faults change in it, around it and at its vendors, and how all of it heals.

The first touch marks the logs; the last undo cuts them back to that mark, so that no drill sees what another one did.
"""

from __future__ import annotations

import json
import math
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from runbook.embedded import free_port
from runbook.sandbox.application.database import APPLICATION_NAME, WORKER_NAME
from runbook.sandbox.application.stage import Stage
from runbook.sandbox.stack import PREFIX, QUEUE

if TYPE_CHECKING:
    from runbook.sandbox.faults.scene import Scene

USERS = ("app", "runbook")
"""Users of the object storage whom a policy meets: the application, and the diagnosis that tries in its stead."""
_KEYS = f"{PREFIX}:{QUEUE}:"
#: Above the usual limit of a queue (ten minutes), after which a job counts as stuck.
_JOB_MINUTES = 11


class Production:
    """The application of the scene's sandbox; made by :attr:`Scene.production` at the first touch."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._sandbox = scene.sandbox
        self._application = scene.sandbox.application
        self._vendors = scene.sandbox.vendors
        self._uploads_begun = False
        self.began = datetime.now(UTC)
        access, app = (path.stat().st_size for path in (scene.sandbox.access_log, scene.sandbox.app_log))
        # The last of all undone: by then everything around the application is as it was.
        scene.undo(lambda: self._restore(access, app))

    def _restore(self, access: int, app: int) -> None:
        """A healthy day again, which no log and no row of an upload remembers otherwise."""
        self._application.reset()
        self.stop_uploads()
        self._scene.wait_until(self._is_idle, "the queue to be empty")
        self._delete_rows()
        self._application.rewrite(access, app, self.began.isoformat())
        self._application.reset()

    # -- the application --------------------------------------------------------------------------------

    def change(self, **stage: Any) -> None:
        """Change the application or its traffic; see :class:`~runbook.sandbox.application.stage.Stage`."""
        self._application.change(**stage)

    def new_connections(self) -> None:
        """Make the application open its connections to the database anew."""
        self._application.reconnect()
        self._scene.terminate_application(APPLICATION_NAME)

    def no_connections(self) -> None:
        """End the connections of the application and its worker, while nobody uses them; returns when they are gone."""
        self.new_connections()
        self._scene.terminate_application(WORKER_NAME)
        names = f"'{APPLICATION_NAME}', '{WORKER_NAME}'"
        query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name IN ({names})"
        self._scene.wait_until(lambda: not self._scene.count(query), "the application's sessions to end")

    @contextmanager
    def nobody_there(self) -> Iterator[None]:
        """For the time of the block nobody uses the application; then the traffic is that of a healthy day."""
        usual = Stage()
        self.change(requests_per_second=0)
        self.stop_uploads()
        self._scene.wait_until(lambda: not self._application.state()["lately"]["requests"], "the last request to end")
        under_way = "SELECT count(*) FROM content WHERE id LIKE 'upload-%' AND status IN ('UPLOADING', 'PROCESSING')"
        self._scene.wait_until(lambda: not self._scene.count(under_way), "the last upload to end")
        yield
        self.change(requests_per_second=usual.requests_per_second, uploads_per_second=usual.uploads_per_second)

    def timed(self, path: str) -> float:
        """How long the application takes to answer a request of ours, in seconds."""
        url = str(self._sandbox.settings()["app"]["health_url"]).removesuffix("/api/health") + path
        began = time.perf_counter()
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the sandbox's own, http
            answer.read()
        return time.perf_counter() - began

    def fill_window(self) -> None:
        """Wait until the window over which the runbook takes its rate saw nothing but the fault."""
        self._scene.grow_older_than(60 * self._scene.threshold("rate_minutes", 5))

    def show_in_curve(self) -> None:
        """Wait until the fault is at least two fifths of the minute that it began in, or has a minute of its own.

        A curve by the minute shows an onset only then.
        """
        second = self.began.second + self.began.microsecond / 1e6
        needed = min(second * 2 / 3, 60 - second + 3)
        self._scene.grow_older_than(max(0.0, needed - (datetime.now(UTC) - self.began).total_seconds()))

    def failing(self, share: float, *, seconds: float = 30.0) -> None:
        """Wait until that share of the requests since now fails."""
        before = self._application.state()

        def seen() -> bool:
            now = self._application.state()
            requests, errors = (now[key] - before[key] for key in ("requests", "errors"))
            return bool(requests >= 40 and errors >= share * requests)

        self._scene.wait_until(seen, f"{share:.0%} of the requests to fail", seconds=seconds)

    # -- vendors ----------------------------------------------------------------------------------------

    def vendor(self, name: str, **facts: Any) -> None:
        """Change a vendor's facts; a good day again when the fault heals."""
        self._scene.undo(lambda: self._vendors.reset(name))
        self._vendors.change(name, **facts)

    def vendor_fails(self, name: str, **how: Any) -> None:
        """Have a vendor answer badly; see :meth:`Vendors.fail`."""
        self._scene.undo(lambda: self._vendors.reset(name))
        self._vendors.fail(name, **how)

    def deploy(
        self,
        sha: str,
        *,
        ref: str,
        description: str,
        minutes_ago: float = 0.0,
        files: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """A deployment that finished then, as GitHub tells it: the deployment, its workflow run, its commit."""
        finished = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        begun = finished - timedelta(minutes=2)
        facts = self._vendors.state("github")
        deployment = {
            "sha": sha,
            "ref": ref,
            "created_at": begun,
            "finished_at": finished,
            "state": "success",
            "description": description,
        }
        run = {"sha": sha, "name": "deploy", "created_at": begun, "updated_at": finished}
        commit = {"sha": sha, "at": begun - timedelta(minutes=9), "message": description, "files": list(files)}
        self.vendor(
            "github",
            deployments=[deployment, *facts["deployments"]],
            workflow_runs=[run, *facts["workflow_runs"]],
            commits=[commit, *facts["commits"]],
        )

    def deployed_to(self, url: str) -> None:
        """Have GitHub deploy to something else than the application; to that again when the fault heals."""
        facts = self._vendors.state("github")
        usual = {name: facts[name] for name in ("deploy_url", "deploy_token")}
        self._scene.undo(lambda: self._vendors.change("github", **usual))
        self._vendors.change("github", deploy_url=url, deploy_token="")

    def workflow(self, name: str, *, minutes_ago: float = 0.0) -> None:
        """A workflow that somebody started by hand and that ended then."""
        ended = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        facts = self._vendors.state("github")
        run = {
            "sha": facts["commits"][0]["sha"],
            "name": name,
            "event": "workflow_dispatch",
            "created_at": ended - timedelta(minutes=1),
            "updated_at": ended,
        }
        self.vendor("github", workflow_runs=[run, *facts["workflow_runs"]])

    def release(self, version: str, *, minutes_ago: float = 0.0) -> None:
        """A release and its deploy, as Sentry tells them."""
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        facts = self._vendors.state("sentry")
        fresh = {"version": version, "created_at": at - timedelta(minutes=5), "released_at": at, "new_issues": 1}
        fresh["deploys"] = [{"finished_at": at, "name": "deploy"}]
        self.vendor("sentry", releases=[fresh, *facts["releases"]])

    # -- object storage ---------------------------------------------------------------------------------

    def deny(self, action: str) -> None:
        """Deny ``action`` on every object to those who upload."""
        iam = self._sandbox.storage("iam")
        statement = {"Effect": "Deny", "Action": action, "Resource": f"arn:aws:s3:::{self._sandbox.bucket}/*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        for user in USERS:
            iam.put_user_policy(UserName=user, PolicyName="denied", PolicyDocument=policy)
            self._scene.undo(partial(iam.delete_user_policy, UserName=user, PolicyName="denied"))

    def origins(self, *origins: str) -> None:
        """Let browsers of these origins upload, and no others; none = no CORS configuration at all."""
        self._scene.undo(lambda: self._sandbox.tell_storage(origins=[self._sandbox.origin]))
        self._sandbox.tell_storage(origins=list(origins))

    def throttle(self) -> None:
        """Have the object storage answer SlowDown."""
        self._scene.undo(lambda: self._sandbox.tell_storage(throttled=False))
        self._sandbox.tell_storage(throttled=True)

    def storage_settings(self, **values: str) -> None:
        """Configure application and diagnosis alike with a wrong value: a bucket, a key, an endpoint."""
        self._scene.settings.setdefault("s3", {}).update(values)
        self.change(**{f"s3_{name}": value for name, value in values.items()})

    @staticmethod
    def closed_port() -> int:
        """A port of loopback on which nobody listens."""
        return free_port()

    # -- uploads ----------------------------------------------------------------------------------------

    def uploads(self, per_second: float = 10.0, **stage: Any) -> None:
        """Many uploads from now on, with what went before forgotten; healing forgets these as well."""
        self._begin_uploads()
        self.change(uploads_per_second=per_second, **stage)

    def stop_uploads(self) -> None:
        """No further uploads; returns when those under way have left the browser."""
        self.change(uploads_per_second=0)
        self._scene.wait_until(lambda: not self._application.state()["uploads_under_way"], "uploads to leave")

    def quiet_queue(self) -> None:
        """No uploads: the queue is the fault's alone, and whatever is in it is forgotten when the fault heals."""
        self._begin_uploads()

    def worker(self, mode: str, **orders: Any) -> None:
        """Replace the worker by one in that mode."""
        self._begin_uploads()
        self._sandbox.start_worker(mode, **orders)

    def no_worker(self) -> None:
        """End the worker at once, whatever it does."""
        self._begin_uploads()
        self._sandbox.stop_worker()

    def pause_queue(self) -> None:
        """Pause the queue as BullMQ 6 does: a mark in its meta data, jobs stay where they are."""
        self._begin_uploads()
        with self._redis() as redis:
            redis.hset(f"{_KEYS}meta", "paused", 1)

    def rows(self, status: str, count: int) -> None:
        """Wait until that many uploads have that status."""
        query = f"SELECT count(*) FROM content WHERE id LIKE 'upload-%' AND status = '{status}'"
        self._scene.wait_until(lambda: self._scene.count(query) >= count, f"{count} uploads to be {status}")

    def jobs(self, where: str, count: int) -> None:
        """Wait until that many jobs are ``wait``, ``active`` or ``completed``."""

        def there() -> bool:
            with self._redis() as redis:
                key = f"{_KEYS}{where}"
                found: int = redis.zcard(key) if where == "completed" else redis.llen(key)
            return found >= count

        self._scene.wait_until(there, f"{count} jobs to be in {where}")

    def age_uploads(self) -> None:
        """Set uploads that are under way, and their jobs and videos, back by more than what counts as stuck.

        The one thing here that does not happen by itself: nobody waits an hour for a drill.
        """
        minutes = math.ceil(self._scene.threshold("stuck_after_minutes", 60)) + 2
        self._scene.as_superuser(
            f"""UPDATE content SET "createdAt" = "createdAt" - interval '{minutes} min',
                                   "updatedAt" = "updatedAt" - interval '{minutes} min'
                WHERE id LIKE 'upload-%' AND status IN ('UPLOADING', 'PROCESSING')"""
        )
        # Jobs have a limit of their own, in the settings of the queue.
        self._age_jobs(max(minutes, _JOB_MINUTES))
        assets = self._vendors.state("mux")["assets"]
        for asset in assets:
            created = datetime.fromisoformat(asset["created_at"])
            asset["created_at"] = created - timedelta(minutes=minutes) if created >= self.began else created
        self.vendor("mux", assets=assets)

    def _age_jobs(self, minutes: int) -> None:
        with self._redis() as redis:
            for queue in ("wait", "active"):
                for job in redis.lrange(f"{_KEYS}{queue}", 0, -1):
                    for field in ("timestamp", "processedOn"):
                        if redis.hexists(f"{_KEYS}{job}", field):
                            redis.hincrby(f"{_KEYS}{job}", field, -60_000 * minutes)

    def _begin_uploads(self) -> None:
        """Once: forget the uploads of the healthy day before, so that those of the fault are the ones to be seen."""
        if self._uploads_begun:
            return
        self._uploads_begun = True
        self._scene.undo(self._forget_uploads)
        self.stop_uploads()
        self._scene.wait_until(self._is_idle, "the queue to be empty")
        with self._redis() as redis:
            done = redis.zrange(f"{_KEYS}completed", 0, -1)
            redis.delete(f"{_KEYS}completed", *(f"{_KEYS}{job}" for job in done))
        self._delete_rows()

    def _is_idle(self) -> bool:
        with self._redis() as redis:
            return not redis.llen(f"{_KEYS}wait") and not redis.llen(f"{_KEYS}active")

    def _forget_uploads(self) -> None:
        """Delete rows and the whole queue, under no worker's hands; then a healthy worker begins anew."""
        self.stop_uploads()
        self._sandbox.stop_worker()
        with self._redis() as redis:
            keys = list(redis.scan_iter(f"{_KEYS}*", count=1000))
            if keys:
                redis.delete(*keys)
        self._sandbox.start_worker()

    def _delete_rows(self) -> None:
        self._scene.as_superuser("DELETE FROM content WHERE id LIKE 'upload-%'")

    @contextmanager
    def _redis(self) -> Iterator[Any]:
        with self._sandbox.redis() as redis:
            yield redis
