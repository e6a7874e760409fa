"""What every run does, done once on nothing in the zygote: what is imported, compiled and cached on the way is shared.

Nothing outside is touched: the server that is asked lies on a socket path that does not exist. No thread, connection
or process is left behind.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict

from runbook import catalog
from runbook.errors import RunbookError
from runbook.result import Action, Precondition, Reading


def rehearse() -> None:
    """Read, draw, diagnose and render once."""
    readings = _read()
    _show(readings)
    action = asdict(
        Action(
            id="rehearsal",
            kind="rehearsal",
            title="rehearsal",
            cause="rehearsal",
            targets=[{"pid": 1}],
            preconditions=[Precondition(label="rehearsal", holds=None)],
            by_hand="SELECT 1",
        )
    )
    for name in catalog.names():
        # A broken notebook is told of where somebody wants to run it.
        with contextlib.suppress(RunbookError, LookupError):
            _conclude(name, readings, action)


def _read() -> list[Reading]:
    from runbook.connectors.base import Context
    from runbook.connectors.postgres import Postgres, shipped_digests
    from runbook.connectors.shell import Shell

    context = Context()
    postgres = Postgres(context, "host=/nonexistent dbname=rehearsal")
    shipped_digests()
    readings = [postgres.connect(), postgres.probe("headroom"), Shell(context).run("rehearsal", ["/bin/true"])]
    postgres.close()
    context.redactor.row({"pid": 1, "state": "idle", "query": "SELECT 'x' FROM y -- z"})
    return readings


def _show(readings: list[Reading]) -> None:
    import pandas as pd

    from runbook.reporting.charts import connections_by_state
    from runbook.reporting.readings import reading_html

    pd.DataFrame([{"pid": 1, "state": "idle", "seconds": 0.5, "nothing": None}])
    for reading in readings:
        reading_html(reading, sql="SELECT 1")
    connections_by_state({"active": 1, "idle": 2}, usable=8, max_connections=10, threshold_share=0.8)


def _conclude(name: str, readings: list[Reading], action: dict[str, object]) -> None:
    from runbook.execution.document import diagnosis
    from runbook.reporting.fragment import actions_html, findings_html

    findings = diagnosis(catalog.load(name).diagnosis)(readings, {}).as_dict()
    findings_html(findings | {"actions": [action]})
    actions_html([action])
