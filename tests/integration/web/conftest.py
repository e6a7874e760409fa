from __future__ import annotations

from tests.integration.store.servers import data, database, notebooks, postgres, settings

__all__ = ["data", "database", "notebooks", "postgres", "settings"]
