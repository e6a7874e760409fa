"""A service of our own for the length of a drill, and the HTTP client that drills talk to it with.

Its store, archive and settings lie in one directory; when it is stopped, none of its processes is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from runbook.actions.plan import Refused
from runbook.embedded import EmbeddedPostgres, die_with_parent, free_port
from runbook.errors import SandboxError
from runbook.sandbox import as_toml

if TYPE_CHECKING:
    import httpx

FINISHED = ("succeeded", "failed", "interrupted", "cancelled")
_READY_SECONDS = 90.0
_STOP_SECONDS = 30.0
_STEP_SECONDS = 180.0
"""What a step of an action may take: verifying runs the runbook again."""
_WARM_SECONDS = 45.0
"""How long to wait for warm kernels: without them a first run pays for a cold start, which no later one does."""
_TAKEN_OVER = "settings taken over"
_WARM = re.compile(r"warm kernels: (\d+) of (\d+)")


class Service:
    """``runbook serve`` in ``directory``, with exactly these settings and no others.

    Parameters
    ----------
    directory
        Private directory; it holds the settings, which name passwords, hence 0600.
    settings
        Nested settings, by section.
    token
        One that may do everything, which the service then asks for; empty = it asks for none, and nobody may act.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], *, token: str = "") -> None:
        self.directory = directory
        self._token = token
        self.log_path = directory / "service.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        self.base_url = ""

    def __enter__(self) -> Service:
        """Start it; returns when it is ready.

        Raises
        ------
        SandboxError
            It ended, or was not ready in time; the message ends with its last line.
        """
        import httpx

        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self._write_settings(port)
        self._process = self._spawn()
        self._client = httpx.Client(
            base_url=self.base_url,
            timeout=30,
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help; then whatever server it may have left."""
        if self._client is not None:
            self._client.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for left in self.directory.rglob("data/postmaster.pid"):
            EmbeddedPostgres(left.parent.parent).stop(force=True)

    def use(self, settings: Mapping[str, Any]) -> None:
        """Work by these settings from now on; it is the same service, with warm kernels.

        Raises
        ------
        SandboxError
            It does not take them over.
        """
        assert self._process is not None
        if settings == self._settings:
            return
        self._settings = settings
        before = self._said(_TAKEN_OVER)
        self._write_settings(int(self.base_url.rpartition(":")[2]))
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._said(_TAKEN_OVER) == before:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SandboxError("the service does not take its settings over", remedy=f"See {self.log_path}")
            time.sleep(0.05)

    def _said(self, words: str) -> int:
        return self.log_path.read_text(errors="replace").count(words)

    # -- talking to it --------------------------------------------------------------------------------------------

    def fire(self, body: Mapping[str, Any]) -> str:
        """Post an Alertmanager body; the id of the run that it started.

        Raises
        ------
        SandboxError
            It was not accepted, or started no run.
        """
        answer = self._http.post("/alerts/alertmanager", json=body)
        if answer.status_code != 202:
            raise SandboxError(f"the service answered the alert with {answer.status_code}: {answer.text[:300]}")
        alert = answer.json()["alerts"][0]
        if not alert.get("run_id"):
            raise SandboxError(f"the alert started no run: {alert['fate']}")
        return str(alert["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """The run as the service tells it: the result document once it has finished."""
        answer = self._http.get(f"/api/runs/{run_id}")
        if answer.status_code != 200:
            raise SandboxError(f"the service answered for run {run_id} with {answer.status_code}: {answer.text[:300]}")
        document: dict[str, Any] = answer.json()
        return document

    def wait_for(self, run_id: str, *, seconds: float) -> dict[str, Any]:
        """The result document of a run.

        Raises
        ------
        SandboxError
            It was not there in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            document = self.run(run_id)
            if document.get("state") in FINISHED and document.get("verdict") is not None:
                return document
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"run {run_id} is still {document.get('state')} after {seconds:g} s", remedy=f"See {self.log_path}"
                )
            time.sleep(0.1)

    def proposed(self, run_id: str) -> list[dict[str, Any]]:
        """The actions that a run proposed, as the service tells them."""
        found: list[dict[str, Any]] = self._acted(self._http.get("/api/actions", params={"run": run_id}))["actions"]
        return found

    def order(self, run_id: str, kind: str, target: Mapping[str, Any]) -> str:
        """Order what the run did not propose; the id of the action. Raises as :meth:`act`."""
        body = {"run": run_id, "kind": kind, "targets": [dict(target)]}
        return str(self._acted(self._http.post("/api/actions", json=body), status=201)["id"])

    def act(self, action: str, step: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Take a step of an action, ``plan`` to ``undo``; what the service says of it.

        Raises
        ------
        Refused
            The service refuses the step; the message is its own.
        SandboxError
            It answers anything else but that it was taken.
        """
        answer = self._http.post(f"/api/actions/{action}/{step}", json=body, timeout=_STEP_SECONDS)
        return self._acted(answer)

    @staticmethod
    def _acted(answer: httpx.Response, *, status: int = 200) -> dict[str, Any]:
        if answer.status_code == 409:
            raise Refused(str(answer.json()["error"]))
        if answer.status_code != status:
            raise SandboxError(f"the service answered {answer.request.url.path} with {answer.status_code}: "
                               f"{answer.text[:300]}")  # fmt: skip
        document: dict[str, Any] = answer.json()
        return document

    def events(self, run_id: str) -> Iterator[tuple[str, str]]:
        """Server-sent events of a run, as (event, data), until the service ends the stream."""
        with self._http.stream("GET", f"/api/runs/{run_id}/events", timeout=None) as answer:
            event = "message"
            data: list[str] = []
            for line in answer.iter_lines():
                if not line:
                    if data:
                        yield event, "\n".join(data)
                    event, data = "message", []
                elif line.startswith("event:"):
                    event = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    data.append(line.removeprefix("data:").strip())

    # -- helpers --------------------------------------------------------------------------------------------------

    @property
    def _http(self) -> httpx.Client:
        if self._client is None:
            raise SandboxError("the service is not running")
        return self._client

    def _write_settings(self, port: int) -> None:
        server = {**self._settings.get("server", {}), "host": "127.0.0.1", "port": port, "public_url": self.base_url}
        if self._token:
            digest = hashlib.sha256(self._token.encode()).hexdigest()
            server["tokens"] = [{"name": "drill", "role": "admin", "sha256": digest}]
        fd = os.open(self.directory / "runbook.toml", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as out:
            out.write(as_toml({**self._settings, "server": server}))

    def _spawn(self) -> subprocess.Popen[bytes]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RUNBOOK_", "AWS_")) or name == "RUNBOOK_NOTEBOOKS"
        }
        # What acts on AWS does so with the credential of its process: here it is nobody's.
        kept |= {"AWS_ACCESS_KEY_ID": "drill", "AWS_SECRET_ACCESS_KEY": "drill", "AWS_EC2_METADATA_DISABLED": "true"}
        kept |= {
            "RUNBOOK_CONFIG": str(self.directory / "runbook.toml"),
            "RUNBOOK_DATA_DIR": str(self.directory / "data"),
        }
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "runbook.cli", "serve"],
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def _wait_until_ready(self) -> None:
        import httpx

        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        patience = time.monotonic() + _WARM_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = self._http.get("/readyz")
                warm = _WARM.search(answer.text)
                if answer.status_code == 200 and (warm is None or warm[1] == warm[2] or time.monotonic() > patience):
                    return
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                lines = self.log_path.read_text(errors="replace").strip().splitlines()
                what = "ended at once" if ended else f"was not ready after {_READY_SECONDS:g} s"
                raise SandboxError(f"the service {what}: {lines[-1] if lines else 'no word'}")
            time.sleep(0.1)
