"""Queues as the library itself makes them: one of a major version of BullMQ, what is done to it and what is read."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from runbook.connectors.base import Context
from runbook.connectors.bullmq import BullQueue
from runbook.settings import Queue
from tests.integration.connectors.redis_servers import RedisProcess
from tests.support import missing, require_program

HERE = Path(__file__).parent / "bullmq"


def modules(version: int | str) -> str:
    home = Path(os.environ.get("RUNBOOK_TEST_BULLMQ", "/nonexistent")) / str(version) / "node_modules"
    if not home.is_dir():
        missing(f"BullMQ {version} in RUNBOOK_TEST_BULLMQ (tests/fetch_bullmq)")
    return str(home)


class Bench:
    """One queue of one version: what is done to it, and what is read from it."""

    def __init__(self, server: RedisProcess, version: int, name: str, prefix: str = "bull") -> None:
        self.server, self.version, self.name, self.prefix = server, version, name, prefix
        self.node = require_program("node", package="nodejs")
        self.workers: list[subprocess.Popen[str]] = []

    def connector(self, **changed: Any) -> BullQueue:
        return BullQueue(Context(), self.server.url(), Queue(**{"name": self.name, "prefix": self.prefix, **changed}))

    def row(self) -> dict[str, Any]:
        reading = self.connector().state()
        assert reading.state == "ok", reading.reason
        row: dict[str, Any] = reading.value[0]
        return row

    def do(self, *steps: list[Any]) -> dict[str, int]:
        """Steps of ``queue.cjs``; the counts that the library gives afterwards."""
        command = [self.node, str(HERE / "queue.cjs"), *self._where(), json.dumps(steps)]
        counts: dict[str, int] = json.loads(subprocess.check_output(command, text=True, timeout=60))
        return counts

    def work(self, **options: Any) -> subprocess.Popen[str]:
        """A worker that is ready."""
        command = [self.node, str(HERE / "worker.cjs"), *self._where(), json.dumps(options)]
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        self.workers.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def _where(self) -> list[str]:
        return [modules(self.version), str(self.server.port), self.prefix, self.name]

    def close(self) -> None:
        for process in self.workers:
            process.kill()
            process.communicate()
        self.workers.clear()
