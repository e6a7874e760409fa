"""One browser, a sandbox with a leak that one action can end, and a channel that hears what is posted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runbook.sandbox import Sandbox
from runbook.sandbox.faults import inject
from runbook.sandbox.faults.registry import plan
from runbook.sandbox.sandbox import DATABASE
from tests.browser.reporting.conftest import chromium

__all__ = ["chromium"]

LEAKED = 9


@pytest.fixture
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A PostgreSQL in which nine sessions idle in a transaction: no more than one action may end."""
    with (
        Sandbox(tmp_path_factory.mktemp("leaking") / "sandbox", systems=DATABASE, owned=True) as sandbox,
        inject(plan("P01", sessions=LEAKED), sandbox),
    ):
        yield sandbox


class Channel:
    """A webhook's other end."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = b'{"id": "1"}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/api/webhooks/1/token"


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory without anybody's settings."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"
