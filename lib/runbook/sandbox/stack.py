"""The systems under and around the demo application: Redis, object storage, the application itself, and its worker.

Started together, so that their imports overlap; each is recognised before it is signalled.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from runbook.errors import SandboxError
from runbook.sandbox import processes
from runbook.sandbox.redis_server import RedisServer

APPLICATION_MODULE = "runbook.sandbox.application"
WORKER_MODULE = "runbook.sandbox.application.worker"
STORAGE_MODULE = "runbook.sandbox.object_store"
RESTART_MODULE = "runbook.sandbox.restart_worker"
#: Under this path of its port the object storage is told how to behave; no part of S3.
STORAGE_CONTROL_PATH = "/-/sandbox"
REGION = "us-east-1"
_MODULES = {"application": APPLICATION_MODULE, "worker": WORKER_MODULE, "storage": STORAGE_MODULE}
QUEUE = "video-transcoding"
PREFIX = "bull"
BUCKET = "acme-media"
WORKER_LOCK_SECONDS = 4
"""How long a job's lock lives in the worker; shorter than BullMQ's 30, so that a drill can see one lapse."""
_TERM_SECONDS = 3.0
"""So long a worker that is restarted may take to end by itself; one whose event loop is blocked never does."""
UPSTREAMS: Mapping[str, str] = {"api.stripe.com": "stripe", "api.mux.com": "mux"}
"""Hosts as the application knows them, and the simulator's path that stands for each."""


class Stack:
    """The application's systems in the sandbox's directory.

    Parameters
    ----------
    directory
        The sandbox's.
    owned
        End them when the thread that started them ends.
    """

    def __init__(self, directory: Path, *, owned: bool) -> None:
        self._directory = directory
        self._owned = owned
        self._redis = RedisServer(directory / "redis", owned=owned)
        self._launched: dict[str, processes.Launch] = {}

    def launch(self, state: dict[str, Any]) -> None:
        """Start importing whatever does not run; nothing is waited for."""
        if self._is_uprooted(state):
            # They know the addresses of before.
            self._end(state, "worker", "application")
        if not self._redis.is_running(state.get("redis", {}).get("pid")):
            state["redis"] = self._redis.start()
        for name in ("storage", "application"):
            if not processes.is_running(state.get(name, {}).get("pid"), _MODULES[name]):
                self._launched[name] = processes.launch(_MODULES[name], log=self._log(name), owned=self._owned)
        if not processes.is_running(state.get("worker", {}).get("pid"), WORKER_MODULE):
            state.setdefault("worker", {})["name"] = f"transcoder-{secrets.token_hex(4)}"
            self._launched["worker"] = self._launch_worker(state)
        if "storage" in self._launched:
            token = secrets.token_urlsafe(16)
            self._launched["storage"].give({"token": token, "bucket": BUCKET})
            state["storage"] = {"token": token}

    def settle(self, state: dict[str, Any], surroundings: Mapping[str, Any]) -> None:
        """Give the others their arguments and wait for all of them; ``state`` learns how to reach them.

        ``surroundings``: ``database_dsn`` (the application's), ``worker_dsn``, ``vendors_url``, ``stripe_key``,
        ``mux`` and ``sentry`` (their sections of the settings), ``sentry_key`` and ``webhook_secret``.
        """
        self._redis.wait(state["redis"])
        if "storage" in self._launched:
            child = self._launched["storage"].ready()
            state["storage"] |= {"pid": child.pid, **child.greeting}
        state["worker"]["orders"] = self._worker_orders(state, surroundings)
        if "worker" in self._launched:
            self._launched["worker"].give(state["worker"]["orders"])
        if "application" in self._launched:
            token = secrets.token_urlsafe(16)
            arguments = self._application_arguments(state, surroundings) | {"token": token}
            child = self._launched["application"].give(arguments).ready()
            state["application"] = {"token": token, "pid": child.pid, **child.greeting}
            self.tell_storage(state, origins=[self.front_url(state)])
        if "worker" in self._launched:
            state["worker"]["pid"] = self._launched["worker"].ready().pid
        self._launched.clear()

    def end(self, state: Mapping[str, Any]) -> None:
        """End all of them, those too that never became ready."""
        for launched in self._launched.values():
            launched.abandon()
        self._launched.clear()
        self._end(state, "worker", "application", "storage")
        self._redis.end(state.get("redis", {}).get("pid"))

    def status(self, state: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
        """What runs: pid and address of each, ``None`` for one that does not."""
        redis = state.get("redis", {})
        found: dict[str, dict[str, Any] | None] = {
            "redis": {"pid": redis["pid"], "port": redis["port"]} if self._redis.is_running(redis.get("pid")) else None
        }
        for name, key in (("storage", "port"), ("application", "front"), ("worker", "name")):
            facts = state.get(name, {})
            runs = processes.is_running(facts.get("pid"), _MODULES[name])
            found[name] = {"pid": facts["pid"], key: facts[key]} if runs else None
        return found

    # -- the worker, which faults replace --------------------------------------------------------------

    def start_worker(self, state: dict[str, Any], mode: str = "ok", **orders: Any) -> None:
        """Start the worker in that mode; one that runs is ended first."""
        self.stop_worker(state)
        launched = self._launch_worker(state)
        state["worker"]["pid"] = launched.give({**state["worker"]["orders"], "mode": mode, **orders}).ready().pid

    @staticmethod
    def stop_worker(state: Mapping[str, Any]) -> None:
        """End the worker as a machine does that goes away: at once."""
        pid = state["worker"].get("pid")
        processes.end(pid, WORKER_MODULE, how=signal.SIGKILL)

    def restart_worker(self, state: dict[str, Any]) -> None:
        """Ask the worker to end, and start a healthy one, as a service manager does.

        Whoever asks for that ends soon after, hence the new one ends with the sandbox's owner, if there is one.
        """
        processes.end(state["worker"].get("pid"), WORKER_MODULE, seconds=_TERM_SECONDS)
        orders = {**state["worker"]["orders"], "owner": state.get("owner")}
        state["worker"]["pid"] = self._launch_worker(state).give(orders).ready().pid

    def _launch_worker(self, state: Mapping[str, Any]) -> processes.Launch:
        return processes.launch(WORKER_MODULE, state["worker"]["name"], log=self._log("worker"), owned=self._owned)

    # -- addresses --------------------------------------------------------------------------------

    @staticmethod
    def front_url(state: Mapping[str, Any]) -> str:
        """The application's public address."""
        return f"http://127.0.0.1:{state['application']['front']}"

    @staticmethod
    def deploy(state: Mapping[str, Any]) -> dict[str, str]:
        """Where the application takes another version, and with which token."""
        from runbook.sandbox.application.stage import PATH

        application = state["application"]
        return {"deploy_url": f"http://127.0.0.1:{application['control']}{PATH}/deploy",
                "deploy_token": application["token"]}  # fmt: skip

    @staticmethod
    def storage_url(state: Mapping[str, Any]) -> str:
        """The object storage's endpoint."""
        return f"http://127.0.0.1:{state['storage']['port']}"

    def redis_url(self, state: Mapping[str, Any]) -> str:
        """Redis with its password."""
        return self._redis.url(state["redis"])

    @staticmethod
    def tell_storage(state: Mapping[str, Any], **said: Any) -> None:
        """Set the storage's behaviour: ``throttled``, or the ``origins`` whose browsers may upload."""
        connection = HTTPConnection("127.0.0.1", state["storage"]["port"], timeout=15)
        try:
            headers = {"x-sandbox-token": state["storage"]["token"]}
            connection.request("POST", STORAGE_CONTROL_PATH, json.dumps({"bucket": BUCKET, **said}), headers)
            answer = connection.getresponse()
            answer.read()
        except OSError as error:
            raise SandboxError(f"the object storage does not answer: {error}", remedy="See storage.log") from None
        finally:
            connection.close()
        if answer.status != 204:
            raise SandboxError(f"the object storage refuses: {answer.status}")

    def settings(self, state: Mapping[str, Any], vendors_url: str) -> dict[str, dict[str, Any]]:
        """The settings, by section, that point the product at these systems. They hold passwords."""
        front = self.front_url(state)
        key = state["storage"]["keys"]["runbook"]
        return {
            "redis": {"url": self.redis_url(state), "action_url": self.redis_url(state)},
            "queue": {"name": QUEUE, "prefix": PREFIX},
            "s3": {
                "endpoint_url": self.storage_url(state),
                "region": REGION,
                "bucket": BUCKET,
                "prefix": "uploads",
                "canary": True,
                **key,
            },
            "traffic": {
                "access_log": str(self._directory / "access.log"),
                "upstream_hosts": [f"{host}={vendors_url}/{path}/" for host, path in UPSTREAMS.items()],
            },
            "app": {
                "health_url": f"{front}/api/health",
                "ready_url": f"{front}/health/ready",
                "live_url": f"{front}/health/live",
                "metrics_url": f"{front}/metrics",
                "public_url": front,
                "instances": list(state["application"]["instances"].values()),
            },
            "workers": {
                "hosts": ["local"],
                "tmp_paths": [str(self._directory)],
                "process_pattern": state["worker"]["name"],
                "restart": [sys.executable, "-m", RESTART_MODULE, str(self._directory.resolve())],
            },
        }

    # -- helpers --------------------------------------------------------------------------------

    def _is_uprooted(self, state: Mapping[str, Any]) -> bool:
        """Whether what the application stands on is gone."""
        storage = processes.is_running(state.get("storage", {}).get("pid"), STORAGE_MODULE)
        return not storage or not self._redis.is_running(state.get("redis", {}).get("pid"))

    @staticmethod
    def _end(state: Mapping[str, Any], *names: str) -> None:
        for name in names:
            # moto's threads and a worker in the midst of a job need no orderly end; nothing of theirs is kept.
            how = signal.SIGTERM if name == "application" else signal.SIGKILL
            processes.end(state.get(name, {}).get("pid"), _MODULES[name], how=how)

    def _application_arguments(self, state: Mapping[str, Any], surroundings: Mapping[str, Any]) -> dict[str, Any]:
        key = state["storage"]["keys"]["app"]
        (self._directory / "access.log").touch(mode=0o600)
        return {
            "database_dsn": surroundings["database_dsn"],
            "redis_url": self.redis_url(state),
            "queue": QUEUE,
            "queue_prefix": PREFIX,
            "stripe_url": f"{surroundings['vendors_url']}/stripe",
            "stripe_key": surroundings["stripe_key"],
            "sentry_url": surroundings["sentry"]["base_url"],
            "sentry_key": surroundings["sentry_key"],
            "environment": surroundings["sentry"]["environment"],
            "webhook_secret": surroundings["webhook_secret"],
            "s3_endpoint_url": self.storage_url(state),
            "s3_region": REGION,
            "s3_bucket": BUCKET,
            "s3_access_key_id": key["access_key_id"],
            "s3_secret_access_key": key["secret_access_key"],
            "access_log": str(self._directory / "access.log"),
            "app_log": str(self._directory / "app.log"),
        }

    def _worker_orders(self, state: Mapping[str, Any], surroundings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "redis_url": self.redis_url(state),
            "queue": QUEUE,
            "prefix": PREFIX,
            "database_dsn": surroundings["worker_dsn"],
            "mux_url": surroundings["mux"]["base_url"],
            "mux_token_id": surroundings["mux"]["token_id"],
            "mux_token_secret": surroundings["mux"]["token_secret"],
            "log": str(self._directory / "app.log"),
            "lock_seconds": WORKER_LOCK_SECONDS,
        }

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"
