"""The demo application as a process: instances, front, traffic, and the control that faults use."""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runbook.sandbox import processes
from runbook.sandbox.application import history, http1
from runbook.sandbox.application.backend import Backend, Configuration
from runbook.sandbox.application.front import AccessLog, Front
from runbook.sandbox.application.http1 import Request, Response, answer
from runbook.sandbox.application.instance import Instance
from runbook.sandbox.application.stage import INSTANCES, PATH, SERVICE, Stage
from runbook.sandbox.application.traffic import Traffic


class _Director:
    """Answers the control's requests."""

    def __init__(self, backend: Backend, front: Front, traffic: Traffic, log: AccessLog) -> None:
        self._backend = backend
        self._front = front
        self._traffic = traffic
        self._log = log

    async def __call__(self, request: Request) -> Response:
        token = request.headers.get("x-sandbox-token", "")
        if not hmac.compare_digest(token, self._backend.configuration.token):
            return answer(403, {"error": "token"})
        match request.method, request.path.removeprefix(PATH):
            case "PATCH", "":
                try:
                    self._backend.enact(Stage.model_validate(self._backend.stage.model_dump() | request.json()))
                except ValidationError as error:
                    return answer(400, {"error": str(error)})
            case "DELETE", "":
                self._backend.enact(Stage())
            case "POST", "/deploy":
                version = str(request.json().get("version") or "")
                releases = dict.fromkeys(INSTANCES, f"{SERVICE}@{version}") if version else {}
                self._backend.enact(self._backend.stage.model_copy(update={"releases": releases}))
            case "POST", "/reconnect":
                await self._backend.database.close_idle()
            case "POST", "/rewrite":
                await self._rewrite(request.json())
            case "GET", "":
                pass
            case _:
                return answer(404, {"error": "not found"})
        return answer(200, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "stage": self._backend.stage.model_dump(mode="json"),
            "lately": self._front.lately(),
            "requests": self._front.requests,
            "errors": self._front.errors,
            "uploads": self._traffic.uploads,
            "uploads_under_way": self._traffic.uploads_under_way,
        }

    async def _rewrite(self, given: dict[str, Any]) -> None:
        """Between the last line that stays and now nothing has happened that anybody should remember."""
        await self._front.quiet()
        os.truncate(self._backend.configuration.app_log, given["app"])
        self._log.cut(given["access"])
        self._log.write("".join(history.lines(datetime.fromisoformat(given["since"]), datetime.now(UTC))))


async def _run(given: dict[str, Any]) -> None:
    configuration = Configuration(**given)
    backend = Backend(configuration)
    servers = {name: await http1.serve(Instance(name, backend)) for name in INSTANCES}
    urls = {name: f"http://127.0.0.1:{http1.port_of(server)}" for name, server in servers.items()}
    log = AccessLog(Path(configuration.access_log))
    now = datetime.now(UTC)
    if log.is_empty:
        log.write("".join(history.lines(now - timedelta(minutes=history.MINUTES), now)))
    front = Front(backend, urls, log)
    entrance = await http1.serve(front)
    traffic = Traffic(backend, f"http://127.0.0.1:{http1.port_of(entrance)}")
    control = await http1.serve(_Director(backend, front, traffic, log))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    processes.ready(front=http1.port_of(entrance), control=http1.port_of(control), instances=urls)
    people = asyncio.create_task(traffic.run())
    pulse = [asyncio.create_task(work) for work in (backend.pulse.run(), backend.pulse.block(backend))]
    await asyncio.wait({people, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    for task in pulse:
        task.cancel()
    if people.done():
        people.result()


def main() -> None:
    """In the child: start everything, say where it listens, work until SIGTERM."""
    asyncio.run(_run(processes.arguments()))


if __name__ == "__main__":
    main()
