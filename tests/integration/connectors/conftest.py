"""One server of each version for the whole room, and connectors that are closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runbook.connectors.base import Context
from runbook.connectors.postgres import Postgres
from runbook.embedded import EmbeddedPostgres
from runbook.redaction import Redactor
from tests.integration.connectors import servers

Connect = Callable[..., Postgres]


@pytest.fixture(scope="session")
def every_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], EmbeddedPostgres]]:
    started: dict[int, EmbeddedPostgres] = {}

    def get(version: int) -> EmbeddedPostgres:
        if version not in started:
            started[version] = servers.server(version, tmp_path_factory.mktemp(f"pg{version}") / "s")
        return started[version]

    yield get
    for made in started.values():
        made.stop(force=True)


@pytest.fixture
def server(every_server: Callable[[int], EmbeddedPostgres]) -> EmbeddedPostgres:
    return every_server(18)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(dsn, reserve_dsn)``: a connector that knows its DSNs as secrets, and is closed at the end."""
    made: list[Postgres] = []

    def get(dsn: str | None, reserve_dsn: str | None = None, **_: Any) -> Postgres:
        redactor = Redactor([secret for secret in (dsn, reserve_dsn) if secret])
        made.append(Postgres(Context(redactor=redactor), dsn, reserve_dsn))
        return made[-1]

    yield get
    for postgres in made:
        postgres.close()
