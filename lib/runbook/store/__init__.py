"""Runs, incidents and alerts as they are kept: the only SQL on our own tables.

The store is a PostgreSQL: the one in the wheel, or a real server by ``store.url``. It is never the database under
diagnosis, no kernel is given its URL, and nothing is written to it that was not redacted before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runbook.settings import Settings
    from runbook.store.store import Store


def open_store(settings: Settings) -> Store:
    """The store named by the settings, not connected yet: use it as ``async with open_store(settings) as store``."""
    from runbook.store.store import Store

    return Store(settings)
