"""The people who use the demo application: real requests at the stage's rate, and now and then an upload."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from runbook.sandbox.application.backend import Backend
from runbook.sandbox.application.http1 import FAILURES, Client, Response

#: The usual mix: method, path, weight.
MIX: Mapping[str, tuple[str, str, float]] = {
    "browse": ("GET", "/api/content", 30),
    "show": ("GET", "/api/content/{content}", 20),
    "feed": ("GET", "/api/feed", 15),
    "like": ("POST", "/api/content/{content}/likes", 14),
    "checkout": ("POST", "/api/checkout", 22),
    "search": ("GET", "/api/search/{content}", 3),
}
USERS = 40
_TICK_SECONDS = 0.02
_IN_FLIGHT = 400
_SIZES = (4_000_000, 20_000_000, 60_000_000, 150_000_000, 400_000_000)
#: The first bytes stand for the whole file, whose size is only declared.
_FILE = b"\x00\x00\x00\x18ftypmp42" + bytes(2036)


class Traffic:
    """Sends requests to the front until it is cancelled.

    Parameters
    ----------
    url
        Base URL of the front, which is also the browsers' origin.
    """

    def __init__(self, backend: Backend, url: str) -> None:
        self._backend = backend
        self._url = url
        self._client = Client()
        self._random = random.Random(20)  # noqa: S311 - traffic, not secrets
        self._tasks: set[asyncio.Task[Any]] = set()
        self.uploads = 0
        self.uploads_under_way = 0

    async def run(self) -> None:
        """Keep the rates of the stage, on average."""
        owed = {"request": 0.0, "upload": 0.0, "abuse": 0.0}
        last = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            stage = self._backend.stage
            abuse = stage.abuser.requests_per_second if stage.abuser else 0.0
            rates = {"request": stage.requests_per_second, "upload": stage.uploads_per_second, "abuse": abuse}
            # What a stalled machine could not send is not made up for: a burst would be a fault of its own.
            passed = min(now - last, 0.25)
            last = now
            for kind, rate in rates.items():
                owed[kind] += rate * passed
                while owed[kind] >= 1:
                    owed[kind] -= 1
                    self._start(self._one(kind))

    async def _one(self, kind: str) -> None:
        if kind == "upload":
            self.uploads_under_way += 1
            try:
                await self._upload()
            finally:
                self.uploads_under_way -= 1
        elif kind == "abuse" and (abuser := self._backend.stage.abuser) is not None:
            await self._send("GET", abuser.path, client=abuser.client)
        else:
            stage = self._backend.stage
            weights = [stage.weights.get(name, usual[2]) for name, usual in MIX.items()]
            method, path, _ = self._random.choices(list(MIX.values()), weights)[0]
            await self._send(method, path.format(content=f"content-{self._random.randint(1, 3000)}"))

    async def _upload(self) -> None:
        """What a browser does: ask for a place, ask whether it may, put the file, say so."""
        creator = f"creator-{self._random.randint(1, 12)}"
        busy = self._backend.stage.busy_creator
        if busy and self.uploads % 2:
            creator = busy
        self.uploads += 1
        asked = {"title": f"Video {self.uploads}", "size": self._random.choice(_SIZES)}
        begun = await self._send("POST", "/api/uploads", asked, user=creator)
        if begun is None or begun.status != 201:
            return
        place = _json(begun)
        problem = await self._put(str(place["url"]))
        where = f"/api/uploads/{place['id']}/{'failed' if problem else 'complete'}"
        await self._send("POST", where, {"reason": problem} if problem else {}, user=creator)

    async def _put(self, url: str) -> str:
        """Preflight and PUT; what went wrong, empty when nothing did."""
        asked = {"origin": self._url, "access-control-request-method": "PUT"}
        try:
            allowed = await self._client.request("OPTIONS", url, headers=asked)
            if allowed.headers.get("access-control-allow-origin") not in (self._url, "*"):
                return "network error (blocked by CORS)"
            done = await self._client.request("PUT", url, headers={"origin": self._url}, body=_FILE)
        except FAILURES as error:
            return f"network error ({type(error).__name__})"
        if done.status == 200:
            return ""
        code = done.body.decode(errors="replace").partition("<Code>")[2].partition("</Code>")[0]
        return f"bucket answered {done.status} {code}".strip()

    async def _send(
        self, method: str, path: str, body: Any = None, *, client: str = "", user: str = ""
    ) -> Response | None:
        import json

        address = client or f"198.51.100.{self._random.randint(1, self._backend.stage.clients)}"
        headers = {"x-forwarded-for": address, "x-user": user or f"user-{self._random.randint(1, USERS)}"}
        data = json.dumps(body).encode() if body is not None else b""
        try:
            return await self._client.request(method, self._url + path, headers=headers, body=data)
        except FAILURES:
            return None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= _IN_FLIGHT:
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _json(response: Response) -> dict[str, Any]:
    import json

    value: dict[str, Any] = json.loads(response.body)
    return value
