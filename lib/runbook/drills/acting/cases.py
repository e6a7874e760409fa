"""All drills of actions, and whose turn it is."""

from __future__ import annotations

from collections.abc import Collection

from runbook.drills.acting import alertmanager, cloud, pooler, postgres, stores, vendors
from runbook.drills.acting.case import Case
from runbook.errors import SandboxError

CASES: tuple[Case, ...] = (
    *postgres.CASES, *pooler.CASES, *alertmanager.CASES, *vendors.CASES, *cloud.CASES, *stores.CASES,
)  # fmt: skip


def chosen(kinds: Collection[str] = (), *, runbook: str | None = None) -> list[Case]:
    """The drills of these kinds, or of all, on the faults of this runbook, or of all.

    Raises
    ------
    SandboxError
        There is no drill of a kind.
    """
    known = {case.kind for case in CASES}
    if unknown := set(kinds) - known:
        raise SandboxError(f"no drill of {', '.join(sorted(unknown))}", remedy=f"Known: {', '.join(sorted(known))}")
    return [case for case in CASES if (not kinds or case.kind in kinds) and runbook in (None, case.runbook)]
