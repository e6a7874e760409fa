"""What a diagnosis may have to do without: privileges and systems that it usually has."""

from __future__ import annotations

from runbook.sandbox.faults.registry import handicap
from runbook.sandbox.faults.scene import Scene


@handicap("no_pg_monitor", "the diagnosing role lacks pg_monitor", tried_with="P01", unknown=("postgresql",))
def no_pg_monitor(scene: Scene) -> None:
    """Sessions of others are hidden from the role that diagnoses."""
    scene.settings.setdefault("postgres", {})["dsn"] = scene.sandbox.dsn("nobody_special")
