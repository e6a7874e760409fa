"""What the handlers share: settings, store, intake, catalog, archive, numbers; and the feed of runs' events."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from runbook.catalog import Runbook
from runbook.dispatch.in_force import InForce
from runbook.dispatch.intake import Intake
from runbook.dispatch.queue import Queue
from runbook.errors import StoreError
from runbook.execution.kernels import KernelPool
from runbook.redaction import Redactor
from runbook.reporting.archive import Archive
from runbook.settings import Settings
from runbook.store.runs import CHANNEL
from runbook.store.store import Store
from runbook.web.access import Access
from runbook.web.metrics import Metrics

log = structlog.get_logger(__name__)

_BEHIND = 1000
_RECONNECT_SECONDS = 2.0


class Feed:
    """Events of runs, from whichever process executes them, to whoever watches one of them here."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: dict[str, set[asyncio.Queue[dict[str, Any]]]] = defaultdict(set)

    @contextmanager
    def watch(self, run_id: str) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """A queue that receives the events of a run while the block lasts."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_BEHIND)
        self._watchers[run_id].add(queue)
        try:
            yield queue
        finally:
            self._watchers[run_id].discard(queue)
            if not self._watchers[run_id]:
                del self._watchers[run_id]

    async def run(self) -> None:
        """Listen to the store until cancelled; a lost connection is made anew."""
        while True:
            try:
                async for payload in self._store.listen(CHANNEL):
                    self._pass_on(json.loads(payload))
            except StoreError as error:
                log.warning("events of runs are not heard", reason=error.message)
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _pass_on(self, event: dict[str, Any]) -> None:
        for queue in self._watchers.get(event["run_id"], ()):
            # Whoever is that far behind learns the rest from the row.
            if not queue.full():
                queue.put_nowait(event)


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that a handler needs."""

    in_force: InForce
    store: Store
    queue: Queue
    intake: Intake
    runbooks: Mapping[str, Runbook]
    archive: Archive
    access: Access
    feed: Feed
    #: Warm kernels of this process; ``None`` where runs are left to workers.
    kernels: KernelPool | None = None
    metrics: Metrics = field(default_factory=Metrics)
    #: Set when the service stops, so that open streams end.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.in_force.settings

    @property
    def redactor(self) -> Redactor:
        """Knows the secrets of the settings, those of before too."""
        return self.in_force.redactor
