from __future__ import annotations

from tests.integration.store.servers import data, database, notebooks, postgres, settings
from tests.integration.web.service import environment, guarded, service, shared, start

__all__ = [
    "data", "database", "environment", "guarded", "notebooks", "postgres", "service", "settings", "shared", "start",
]  # fmt: skip
