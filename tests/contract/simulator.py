"""A running simulator as the contract tests hold it: its control client and its credentials, ready for requests."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from runbook.sandbox import processes
from runbook.sandbox.vendors.control import Vendors
from runbook.sandbox.vendors.credentials import Credentials, settings

BASES = {
    "sentry": "/sentry",
    "github": "/github",
    "mux": "/mux",
    "stream": "/cloudflare/client/v4",
    "pagerduty": "/pagerduty",
    "discord": "/discord/api",
    "status.stripe": "/status/stripe",
}
"""Where each vendor's specification begins."""


@contextmanager
def running(directory: Path, token: str) -> Iterator[Simulator]:
    """A simulator of one's own, its log in this directory; it must not have tripped over anything."""
    log = directory / "vendors.log"
    child = processes.spawn("runbook.sandbox.vendors", {"token": token}, log=log)
    yield Simulator(f"http://127.0.0.1:{child.greeting['port']}", token)
    child.end()
    assert "Traceback" not in log.read_text()


class Simulator:
    """One process, seen from outside."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.vendors = Vendors(url, token)
        self.known = Credentials.of(token)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that point the product at it."""
        return settings(self.url, self.token)

    def authorization(self, vendor: str) -> dict[str, str]:
        """The right credential, as that vendor takes it."""
        pair = base64.b64encode(f"{self.known.mux_id}:{self.known.mux_secret}".encode()).decode()
        given = {
            "sentry": f"Bearer {self.known.sentry}",
            "github": f"Bearer {self.known.github}",
            "mux": f"Basic {pair}",
            "stream": f"Bearer {self.known.cloudflare}",
            "pagerduty": f"Token token={self.known.pagerduty}",
            "stripe": f"Bearer {self.known.stripe}",
        }
        return {"Authorization": given[vendor]} if vendor in given else {}

    def ask(self, vendor: str, method: str, path: str, **more: Any) -> httpx.Response:
        """One request below the vendor's base, with the right credential unless headers are given."""
        headers = more.pop("headers", None)
        if headers is None:
            headers = self.authorization(vendor)
        base = BASES.get(vendor, f"/{vendor.replace('.', '/')}")
        return httpx.request(method, self.url + base + path, headers=headers, timeout=30, trust_env=False, **more)
