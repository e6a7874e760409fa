"""A broker in a process of its own, to be killed: ``python -m tests.integration.broker.broker_process ROOT``.

What a kernel would be told of it is printed as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from runbook import settings as settings_module
from runbook.broker.server import listening
from runbook.cli.base import log_to_stderr


async def main(root: Path) -> None:
    async with listening(settings_module.load(), root=root) as broker:
        sys.stdout.write(json.dumps(broker.environment) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


log_to_stderr("WARNING")
asyncio.run(main(Path(sys.argv[1])))
