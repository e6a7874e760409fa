"""A worker in a process of its own, to be killed: ``python -m tests.integration.dispatch.worker_process LEASE``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from typing import Any

from runbook import settings as settings_module
from runbook.dispatch.in_force import InForce
from runbook.dispatch.worker import Worker
from runbook.store import open_store
from tests.integration.dispatch.tiny import TinyExecutor


async def main(lease_seconds: float) -> None:
    settings = settings_module.load()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def announce(result: Mapping[str, Any]) -> None:
        del result

    async with open_store(settings) as store:
        worker = Worker(store, InForce(settings), TinyExecutor(settings), announce, lease_seconds=lease_seconds)
        async with worker:
            await stop.wait()
            await worker.stop(grace_seconds=0.5)


asyncio.run(main(float(sys.argv[1])))
