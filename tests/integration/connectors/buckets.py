"""Buckets to ask, and services that answer as nobody's real one would."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

from runbook.connectors import aws_session
from runbook.connectors.base import Context
from runbook.connectors.bucket_checks import STEPS, BucketChecks
from runbook.connectors.object_storage import ObjectStorage
from runbook.redaction import Redactor
from runbook.result import Reading
from runbook.settings import S3

REGION = "us-east-1"
ORIGIN = "https://app.example.com"
SECRET = "Canary-5e4d3c2b1a"
BUCKET = "media"


def storage(url: str, key: tuple[str, str] = ("AKIAEXAMPLE", SECRET), **changed: Any) -> ObjectStorage:
    settings: dict[str, Any] = {
        "endpoint_url": url,
        "region": REGION,
        "bucket": BUCKET,
        "prefix": "uploads",
    }
    section = S3(**{**settings, "access_key_id": key[0], "secret_access_key": key[1], "canary": True, **changed})
    return ObjectStorage(Context(redactor=Redactor([key[1]])), section, ORIGIN)


def rows(reading: Reading) -> dict[str, dict[str, Any]]:
    assert reading.state == "ok", reading.reason
    assert tuple(row["step"] for row in reading.value) == STEPS
    return {row["step"]: row for row in reading.value}


def answers(reading: Reading) -> dict[str, tuple[str, str]]:
    return {step: (row["answer"], row["code"]) for step, row in rows(reading).items()}


def amazon(url: str, key: tuple[str, str] = ("AKIAEXAMPLE", SECRET), region: str = "") -> BucketChecks:
    """Checks as they are made where no other address than Amazon's own is configured."""
    named: dict[str, Any] = {  # as keywords
        "region": REGION,
        "endpoint_url": url,
        "access_key_id": key[0],
        "secret_access_key": key[1],
    }
    return BucketChecks(
        client=aws_session.client("s3", path_style=True, attempts=1, **named),
        identities=aws_session.client("sts", attempts=1, **named),
        r2=False, bucket=BUCKET, prefix="", region=region, origin="", canary=False,
    )  # fmt: skip


Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def service(answer: Handler) -> Iterator[str]:
    """A service that answers every request by ``answer``; its URL."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def __getattr__(self, name: str) -> Callable[[], None]:
            if not name.startswith("do_"):
                raise AttributeError(name)
            return self.handled

        def handled(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def says(status: int, code: str = "", message: str = "", **headers: str) -> Handler:
    """An error in S3's form."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode() if code else b""
        body = b"" if request.command == "HEAD" else body
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer
