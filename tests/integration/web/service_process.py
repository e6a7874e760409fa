"""The service in a process of its own, with an executor that takes no kernel; prints its URL when it serves."""

from __future__ import annotations

import sys

from runbook import settings as settings_module
from runbook.web.server import serve
from tests.integration.dispatch.tiny import TinyExecutor


def tell(url: str) -> None:
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


settings = settings_module.load()
serve(settings, executor=TinyExecutor(settings), started=tell)
