"""The two newest commits in production, to be compared. Touches nothing but the reading that it is given."""

from __future__ import annotations

from runbook.diagnosis.errors.changes import FAILED
from runbook.result import Reading


def last_two(deployments: Reading | None) -> tuple[str, str] | None:
    """Commit hashes of the previous and of the newest deployment, in this order; ``None`` when there are not two."""
    if deployments is None or not deployments.known:
        return None
    rows = [r for r in deployments.rows if r.get("sha") and str(r.get("state") or "").lower() not in FAILED]
    rows.sort(key=lambda r: str(r.get("created_at") or ""), reverse=True)
    shas = list(dict.fromkeys(str(r["sha"]) for r in rows))
    return (shas[1], shas[0]) if len(shas) > 1 else None
