"""Prism, a mock server for OpenAPI documents, as the vendor's side of a contract test.

Before it stands a gate that hands every request on as it came, asks Prism for a certain documented answer where the
test wants one, and remembers what Prism had to say about the request. The published documents are read from the folder
that ``RUNBOOK_CONTRACTS`` names, and adapted where Prism or the document, not the request, is at fault.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support import free_port, missing, require_program, wait_until
from tests.vendor_stub import Stub, respond, serving

MEDIA_TYPES = {"github": "application/vnd.github+json", "pagerduty": "application/vnd.pagerduty+json;version=2"}
"""What we accept from vendors whose documents call it ``application/json``; Prism compares the names."""


def contract(name: str) -> dict[str, Any]:
    """The published document of that name, as it is. Skips where it is not at hand."""
    folder = os.environ.get("RUNBOOK_CONTRACTS", "")
    path = Path(folder) / f"{name}.json"
    if not folder or not path.is_file():
        missing(f"the published specification {name}.json (RUNBOOK_CONTRACTS names their folder)")
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def adapted(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document as Prism needs it: the same operations, parameters and answers.

    Prism serves paths without the path of their server; GitHub types ``created`` as a point in time although it takes
    ranges; Cloudflare's document wants every kind of credential at once where any will do.
    """
    prefix = urlsplit(document["servers"][0]["url"]).path.rstrip("/")
    document["paths"] = {prefix + path: item for path, item in document["paths"].items()}
    for item in document["paths"].values():
        operation = item.get("get", {})
        for answer in operation.get("responses", {}).values():
            _also_called(answer, MEDIA_TYPES.get(name))
        if len(operation.get("security") or ()) == 1:
            operation["security"] = [{scheme: scopes} for scheme, scopes in operation["security"][0].items()]
    components = document.get("components", {})
    for answer in components.get("responses", {}).values():
        _also_called(answer, MEDIA_TYPES.get(name))
    if name == "github":
        components["parameters"]["created"]["schema"].pop("format")
    return document


def _also_called(answer: dict[str, Any], media_type: str | None) -> None:
    content = answer.get("content", {})
    if media_type is not None and "application/json" in content:
        content[media_type] = content["application/json"]


def operation(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The GET operation of a path, its answers without references."""
    found: dict[str, Any] = document["paths"][path]["get"]
    answers = {
        status: _resolved(document, answer["$ref"]) if "$ref" in answer else answer
        for status, answer in found["responses"].items()
    }
    return found | {"responses": answers}


def _resolved(document: dict[str, Any], reference: str) -> Any:
    value: Any = document
    for part in reference.removeprefix("#/").split("/"):
        value = value[part]
    return value


@dataclass(frozen=True, kw_only=True)
class Passed:
    """One request that went through the gate."""

    path: str
    status: int
    #: What Prism found wrong with it; empty when nothing.
    violations: str


class Gate:
    """Where connectors ask, instead of the vendor."""

    def __init__(self, prism: str) -> None:
        self._client = httpx.Client(base_url=prism, timeout=20)
        self.passed: list[Passed] = []
        #: Paths of requests that want a certain answer, and which: ``code=429``, ``example=scalarResult``.
        self.wanted: tuple[re.Pattern[str], str] | None = None

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in ("host", "connection")}
        if self.wanted is not None and self.wanted[0].fullmatch(path):
            headers["Prefer"] = self.wanted[1]
        answer = self._client.get(handler.path, headers=headers)
        refused = answer.text if "problem+json" in answer.headers.get("content-type", "") else ""
        violations = answer.headers.get("sl-violations", refused)
        self.passed.append(Passed(path=path, status=answer.status_code, violations=violations))
        # An example of a Link header points at the vendor itself.
        kept = {name: answer.headers[name] for name in ("content-type", "retry-after") if name in answer.headers}
        respond(handler, answer.status_code, answer.content, kept)

    def close(self) -> None:
        self._client.close()


@contextmanager
def gate(name: str, scratch: Path) -> Iterator[tuple[Gate, Stub]]:
    """Prism with the document ``name``, and the gate before it. Skips where Prism or the document is not at hand."""
    folder = os.environ.get("RUNBOOK_TEST_PRISM", "")
    program = Path(folder) / "node_modules" / ".bin" / "prism"
    if not folder or not program.is_file():
        missing("Prism (tests/fetch_prism DIRECTORY, and RUNBOOK_TEST_PRISM=DIRECTORY)")
    require_program("node", package="nodejs")
    path = scratch / f"{name}.json"
    path.write_text(json.dumps(adapted(name, contract(name))), encoding="utf-8")
    port, log = free_port(), scratch / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "mock", "--errors", "--host", "127.0.0.1", "--port", str(port), path],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: b"is listening" in log.read_bytes(), seconds=60, what=f"Prism with {name}")
        passing = Gate(f"http://127.0.0.1:{port}")
        with serving(behaviour=passing) as stub:
            yield passing, stub
        passing.close()
    finally:
        process.terminate()
        process.wait(timeout=10)
