"""The part of JupyterLab's server that follows the links in messages and on pages: it opens the working copy of a run.

The broker makes the copy. Whoever has not logged in with JupyterLab's token is asked for it first, as everywhere else.
"""

from __future__ import annotations

import asyncio
import html
from typing import Any
from urllib.parse import quote

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.web import authenticated

from runbook.broker_client import BrokerClient
from runbook.errors import RunbookError

RUNS = "/runbook/runs/"
"""Links lead to this and the id of the run."""


def _load_jupyter_server_extension(server: Any) -> None:
    base = server.web_app.settings["base_url"]
    server.web_app.add_handlers(".*$", [(url_path_join(base, RUNS, "([0-9A-Za-z-]{1,64})"), OpenRun)])


class OpenRun(JupyterHandler):
    """``GET /runbook/runs/<id>``: the run's notebook in JupyterLab."""

    @authenticated
    async def get(self, run_id: str) -> None:
        broker = BrokerClient.from_environment()
        if broker is None:
            await self._say("this JupyterLab was not started by runbook jupyter, and has no broker beside it")
            return
        try:
            copy = await asyncio.to_thread(broker.open, run_id)
        except RunbookError as error:
            await self._say(str(error))
            return
        self.redirect(url_path_join(self.base_url, "lab/tree", quote(copy)))

    async def _say(self, text: str) -> None:
        self.set_status(404)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        await self.finish(f"<!doctype html><title>Not opened</title><p>{html.escape(text)}</p>")
