"""What a fault may change in the demo application while it runs, and the client with which it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from runbook.errors import SandboxError

INSTANCES = ("web-1", "web-2", "web-3", "web-4")
SERVICE = "api"
RELEASE = f"{SERVICE}@1.41.0"
NEXT_RELEASE = f"{SERVICE}@1.42.0"
REQUESTS_PER_SECOND = 50.0
CLIENTS = 60
#: Under this path of its own port, and with its token, the application is told how to behave.
PATH = "/-/stage"


class Failure(BaseModel):
    """Requests that fail inside the application; what is not said matches everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: str | None = None
    instance: str | None = None
    route: str | None = None
    #: Share of the matching requests, in steps of 0.05: of twenty in a row that many fail.
    share: float = Field(default=1.0, ge=0.05, le=1)
    message: str = "Error: unexpected state"


class Slowness(BaseModel):
    """Requests that take longer inside the application; what is not said matches everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: str | None = None
    instance: str | None = None
    route: str | None = None
    seconds: float = Field(gt=0)


class Abuser(BaseModel):
    """One client that asks far more often than the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client: str
    requests_per_second: float
    path: str = "/api/content"


class Stage(BaseModel):
    """How the application and its traffic behave now. The defaults are a healthy day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_second: float = REQUESTS_PER_SECOND
    uploads_per_second: float = 0.5
    #: How many addresses the traffic comes from.
    clients: int = CLIENTS
    #: Weights of routes that differ from the usual mix.
    weights: Mapping[str, float] = {}
    abuser: Abuser | None = None
    #: Requests a second that the front lets through for one client; what is more gets 503, as nginx gives it.
    client_limit: float = 10.0

    releases: Mapping[str, str] = {}
    failures: tuple[Failure, ...] = ()
    slownesses: tuple[Slowness, ...] = ()
    #: Statements that a list of content runs one by one, where one would do.
    statements_in_a_loop: int = 0
    #: A search takes what stands first, as one takes from a queue.
    search_oldest: bool = False
    #: How long a request keeps its connection to the database after its statement, seconds.
    hold_connection_seconds: float = 0.0
    #: Work that keeps the event loop for so long, again and again, seconds.
    block_seconds: float = 0.0
    #: How long the application waits for a vendor, seconds.
    vendor_seconds: float = 1.0
    #: How many do the work of each instance, as when more of it are started behind the same address.
    hands: int = Field(default=1, ge=1, le=8)
    #: Requests that may wait for an instance; more are refused.
    backlog: int = 8
    #: Share of requests for which the front finds no instance that lives.
    unreachable_share: float = 0.0

    #: Overrides of the application's own configuration; empty = as started.
    stripe_key: str = ""
    database_dsn: str = ""
    redis_url: str = ""
    s3_endpoint_url: str = ""
    s3_bucket: str = ""
    s3_access_key_id: str = ""
    s3_region: str = ""

    upload_limit_bytes: int = 500 * 1024 * 1024
    #: A creator who makes half of all uploads; empty = nobody stands out.
    busy_creator: str = ""


class Control:
    """Tells a running application how to behave.

    Parameters
    ----------
    port
        Where its control listens.
    token
        Its token.
    """

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    def state(self) -> dict[str, Any]:
        """What it does now: ``stage``, ``lately`` (``requests`` and ``errors`` of the last second), and the counters
        ``requests``, ``errors``, ``uploads`` and ``uploads_under_way``.
        """
        return self._ask("GET", PATH)

    def change(self, **changes: Any) -> None:
        """Change some of the stage; the rest stays."""
        self._ask("PATCH", PATH, changes)

    def reset(self) -> None:
        """A healthy day again."""
        self._ask("DELETE", PATH)

    def reconnect(self) -> None:
        """Close the idle connections to the database, so that the next request has to open its own."""
        self._ask("POST", f"{PATH}/reconnect")

    def rewrite(self, access_offset: int, app_offset: int, since: str) -> None:
        """Cut both logs back to these lengths and fill the access log up to now with the traffic of a healthy day."""
        self._ask("POST", f"{PATH}/rewrite", {"access": access_offset, "app": app_offset, "since": since})

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body or {}), {"x-sandbox-token": self._token})
            response = connection.getresponse()
            text = response.read()
        except OSError as error:
            raise SandboxError(f"the demo application does not answer: {error}", remedy="See application.log") from None
        finally:
            connection.close()
        if response.status != 200:
            raise SandboxError(f"the demo application refuses: {text.decode(errors='replace')}")
        said: dict[str, Any] = json.loads(text)
        return said
