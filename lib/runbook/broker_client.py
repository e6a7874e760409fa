"""The kernel's way to the broker: what may act is another process, and here is only where it listens, and a token.

JSON over HTTP on a Unix socket, by the standard library alone, since every notebook imports it. Nothing here holds a
credential of any system, and nothing here decides.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

from runbook.errors import RunbookError

SOCKET, TOKEN = "RUNBOOK_BROKER", "RUNBOOK_BROKER_TOKEN"
"""Environment variables of a kernel that has a broker beside it."""

_SECONDS = 30.0
_LONG_SECONDS = 900.0
"""Applying, and verifying, which runs the whole runbook again."""


class BrokerUnreachable(RunbookError):
    """Nobody answers where the broker should be."""


class BrokerRefused(RunbookError):
    """The broker answered, and does not do it; says why."""

    exit_code = 1


class BrokerClient:
    """Asks the broker that listens on ``path``. Blocking; safe to use from any thread."""

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        self._token = token

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> BrokerClient | None:
        """The broker of this kernel; ``None`` where there is none, as in every headless run."""
        given = os.environ if environ is None else environ
        path, token = given.get(SOCKET), given.get(TOKEN)
        return cls(path, token) if path and token else None

    def diagnosing(self, service: str) -> dict[str, Any]:
        """Plain settings of a service with the diagnosing credentials; nothing that acts is among them."""
        return cast(dict[str, Any], self._ask("GET", f"/settings?service={quote(service)}")["settings"])

    def offer(self, run: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Hand in what a run concluded (``{run_id, runbook, parameters, findings}``); how far each action has come."""
        return cast(list[dict[str, Any]], self._ask("POST", "/runs", run)["actions"])

    def order(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Order what the run did not propose (``{run_id, kind, targets, title, notebook}``).

        How far it has come, and the ``action`` as a proposal is told.
        """
        return self._ask("POST", "/orders", wish)

    def told(self, action: str) -> dict[str, Any]:
        """How far an action has come."""
        return self._ask("GET", f"/actions/{quote(action, safe='')}")

    def plan(self, action: str) -> dict[str, Any]:
        """Look at the targets as they are now; how far the action has come then."""
        return self._step(action, "plan")

    def apply(self, action: str, *, digest: str, typed: str) -> dict[str, Any]:
        """Approve the plan with this digest, by what was typed, and do it."""
        return self._step(action, "apply", {"digest": digest, "typed": typed})

    def verify(self, action: str) -> dict[str, Any]:
        """Measure the symptom again; takes as long as the runbook does."""
        return self._step(action, "verify")

    def undo(self, action: str) -> dict[str, Any]:
        """Put back what was changed."""
        return self._step(action, "undo")

    def publish(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Archive the saved notebook of a run as its report, and announce it; where it is then, and what was sent."""
        return self._ask("POST", "/publish", run, seconds=_LONG_SECONDS)

    def again(self, runbook: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Run a runbook with these values, headless; ``{run_id, said, lead, error, notebook}``."""
        return self._ask("POST", "/again", {"runbook": runbook, "parameters": parameters}, seconds=_LONG_SECONDS)

    def open(self, run_id: str) -> str:
        """Make the working copy of an archived run, or find it; its path below what JupyterLab shows."""
        return str(self._ask("POST", f"/runs/{quote(run_id, safe='')}/open", {})["notebook"])

    def _step(self, action: str, step: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._ask("POST", f"/actions/{quote(action, safe='')}/{step}", body or {}, seconds=_LONG_SECONDS)

    def _ask(
        self, method: str, target: str, body: Mapping[str, Any] | None = None, *, seconds: float = _SECONDS
    ) -> dict[str, Any]:
        connection = _UnixConnection(self._path, seconds)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            text = None if body is None else json.dumps(body, default=str).encode(errors="backslashreplace")
            connection.request(method, target, body=text, headers=headers)
            answer = connection.getresponse()
            said: Any = json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokerUnreachable(
                f"the broker does not answer ({type(error).__name__})",
                remedy="Is the runbook jupyter that started it still running?",
            ) from None
        finally:
            connection.close()
        if not isinstance(said, dict) or answer.status >= 400:
            told = said if isinstance(said, dict) else {}
            raise BrokerRefused(
                str(told.get("error") or f"the broker answered {answer.status}"), remedy=str(told.get("remedy") or "")
            )
        return said


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """See :meth:`http.client.HTTPConnection.connect`."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
