"""What all instances share: configuration, database, cache, queue, vendors, and the application's log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from runbook.sandbox.application import http1
from runbook.sandbox.application.database import Database
from runbook.sandbox.application.stage import Failure, Stage

STRIPE_HOST = "api.stripe.com"
SENTRY_PROJECT = "1"
_TICK_SECONDS, _LAG_SECONDS, _BREATH_SECONDS = 0.02, 4.0, 0.05
_ROW = 20
REPORTS_PER_SECOND = 5.0
"""More errors than these are not reported: what Sentry sees is a sample."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How the application was started."""

    token: str
    database_dsn: str
    redis_url: str
    queue: str
    queue_prefix: str
    stripe_url: str
    stripe_key: str
    #: Where errors are reported, and with which key; an environment of Sentry's.
    sentry_url: str
    sentry_key: str
    environment: str
    webhook_secret: str
    s3_endpoint_url: str
    s3_region: str
    s3_bucket: str
    s3_access_key_id: str
    s3_secret_access_key: str
    access_log: str
    app_log: str


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """One call to a vendor, as the access log tells it."""

    host: str
    #: ``None`` = no answer.
    status: int | None
    #: ``None`` = no connection.
    connect_seconds: float | None
    #: From the first byte to the last; ``None`` = no answer was waited for.
    seconds: float | None = None


class Pulse:
    """Measures how late the event loop is over the last few seconds, and blocks it where a fault says so."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=1000)

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK_SECONDS)
            now = time.perf_counter()
            self._late.append((now, max(0.0, now - began - _TICK_SECONDS)))

    @staticmethod
    async def block(backend: Backend) -> None:
        """Keep the loop as the stage says, with a breath between, until cancelled."""
        while True:
            await asyncio.sleep(_BREATH_SECONDS)
            till = time.perf_counter() + backend.stage.block_seconds
            while time.perf_counter() < till:  # what a synchronous hash or a bad regular expression does
                hashlib.sha256(b"0" * 65_536).digest()

    def lag_seconds(self, share: float) -> float:
        """That quantile of how late it was."""
        since = time.perf_counter() - _LAG_SECONDS
        late = sorted(seconds for at, seconds in self._late if at >= since)
        return late[min(len(late) - 1, int(share * len(late)))] if late else 0.0


class Backend:
    """The shared part of the application; ``stage`` is replaced as a whole."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.stage = Stage()
        self._next: dict[Failure, list[bool]] = {}
        self._chance = random.Random(20)  # noqa: S311 - which request fails is no secret
        self.pulse = Pulse()
        self.database = Database(configuration.database_dsn)
        self._caches: dict[str, Any] = {}
        self.client = http1.Client()
        self.log = _application_log(configuration.app_log)
        self._queue: Any = None
        self._presigners: dict[tuple[str, str, str], Any] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._reported_at = 0.0

    def enact(self, stage: Stage) -> None:
        """Behave like that from now on."""
        self.stage = stage
        self._next.clear()

    @property
    def redis(self) -> Any:
        """The cache that is configured now; one client for each address, as long as that is in force."""
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        url = self.stage.redis_url or self.configuration.redis_url
        for other in [known for known in self._caches if known != url]:
            task = asyncio.create_task(self._caches.pop(other).aclose())
            self._reports.add(task)
            task.add_done_callback(self._reports.discard)
        if url not in self._caches:
            # A page does not wait for a cache that fails: nothing is tried twice.
            once = Retry(NoBackoff(), 0)
            self._caches[url] = redis.asyncio.from_url(url, socket_timeout=2, socket_connect_timeout=2, retry=once)
        return self._caches[url]

    def meets(self, failure: Failure) -> bool:
        """Whether the next request that this failure concerns is one of its share.

        Of twenty in a row it is the right number, in no order: requests are handed to the instances in turn, and every
        third or fourth would always be the same instance's.
        """
        coming = self._next.setdefault(failure, [])
        if not coming:
            failing = round(_ROW * failure.share)
            coming += [True] * failing + [False] * (_ROW - failing)
            self._chance.shuffle(coming)
        return coming.pop()

    async def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """Run one statement on whichever database is configured now."""
        stage = self.stage
        return await self.database.rows(
            statement, parameters, dsn=stage.database_dsn, hold_seconds=stage.hold_connection_seconds
        )

    async def charge(self, amount: int) -> Upstream:
        """Charge a card at Stripe."""
        key = self.stage.stripe_key or self.configuration.stripe_key
        headers = {"authorization": f"Bearer {key}", "content-type": "application/x-www-form-urlencoded"}
        form = {"amount": amount, "currency": "eur", "source": "tok_visa"}
        began = time.perf_counter()
        try:
            response = await self.client.request(
                "POST",
                f"{self.configuration.stripe_url}/v1/charges",
                headers=headers,
                body=urlencode(form).encode(),
                seconds=self.stage.vendor_seconds,
            )
        except TimeoutError:
            took = time.perf_counter() - began
            return Upstream(host=STRIPE_HOST, status=None, connect_seconds=min(took, 0.001), seconds=took)
        except http1.FAILURES:
            return Upstream(host=STRIPE_HOST, status=None, connect_seconds=None)
        took = time.perf_counter() - began
        connected = response.connect_seconds
        return Upstream(host=STRIPE_HOST, status=response.status, connect_seconds=connected, seconds=took)

    def report(self, message: str, *, release: str, transaction: str, user: str) -> None:
        """Report an error to Sentry, in the background and not every one."""
        now = time.monotonic()
        if now - self._reported_at < 1 / REPORTS_PER_SECOND:
            return
        self._reported_at = now
        kind, _, value = message.partition(": ")
        event = {
            "level": "error",
            "release": release,
            "environment": self.configuration.environment,
            "transaction": transaction,
            "user": {"id": user},
            "exception": {"values": [{"type": kind, "value": value}]},
        }
        task = asyncio.create_task(self._send_report(event))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _send_report(self, event: dict[str, Any]) -> None:
        key = f"Sentry sentry_version=7, sentry_key={self.configuration.sentry_key}"
        headers = {"x-sentry-auth": key, "content-type": "application/json"}
        # Who cannot report an error has nobody to report that to.
        with contextlib.suppress(*http1.FAILURES):
            await self.client.request(
                "POST",
                f"{self.configuration.sentry_url}/api/{SENTRY_PROJECT}/store/",
                headers=headers,
                body=json.dumps(event).encode(),
                seconds=2.0,
            )

    async def enqueue(self, name: str, data: dict[str, Any]) -> None:
        """Add a job for the worker."""
        if self._queue is None:
            from bullmq import Queue

            options: Any = {"connection": self.configuration.redis_url, "prefix": self.configuration.queue_prefix}
            self._queue = Queue(self.configuration.queue, options)
        await self._queue.add(name, data, {"attempts": 1})

    def presign(self, method: str, key: str) -> str:
        """A URL with which a browser may put, or the transcoder get, an object."""
        stage, own = self.stage, self.configuration
        signer = (
            stage.s3_endpoint_url or own.s3_endpoint_url,
            stage.s3_region or own.s3_region,
            stage.s3_access_key_id or own.s3_access_key_id,
        )
        if signer not in self._presigners:
            self._presigners[signer] = _s3_client(*signer, own.s3_secret_access_key)
        bucket = stage.s3_bucket or own.s3_bucket
        url: str = self._presigners[signer].generate_presigned_url(
            method, Params={"Bucket": bucket, "Key": key}, ExpiresIn=900
        )
        return url

    def webhook_is_genuine(self, signature: str, body: bytes) -> bool:
        """Whether Mux signed this body: ``t=<unix>,v1=<hex>`` over ``<t>.<body>``."""
        parts = dict(part.partition("=")[::2] for part in signature.split(","))
        signed = f"{parts.get('t', '')}.".encode() + body
        expected = hmac.digest(self.configuration.webhook_secret.encode(), signed, hashlib.sha256).hex()
        return hmac.compare_digest(parts.get("v1", ""), expected)


def basic(user: str, password: str) -> str:
    """The header of HTTP's basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _s3_client(endpoint_url: str, region: str, access_key_id: str, secret: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def _application_log(path: str) -> logging.Logger:
    handler = logging.FileHandler(path)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger = logging.getLogger("web")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
