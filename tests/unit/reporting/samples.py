"""Result documents and executed notebooks of a connection runbook, as the engine would leave them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from runbook.reporting.charts import connections_by_state
from runbook.reporting.fragment import findings_html
from runbook.reporting.tables import table_html
from runbook.result import (
    RESULT_MIME,
    Action,
    Evidence,
    Findings,
    NotChecked,
    Precondition,
    Symptom,
    Verdict,
    empty_findings,
)

STARTED = datetime(2026, 3, 1, 3, 12, 5, tzinfo=UTC)
MEASURED = "2026-03-01T03:12:07.412000+00:00"
TITLE = "Database connections exhausted"


def _evidence(id: str, label: str, value: Any, **more: Any) -> Evidence:
    given = {"reading": "supports", "weight": 3, "source": "postgresql: holders", "measured_at": MEASURED} | more
    return Evidence(id=id, label=label, value=value, **given)


def _terminate_action() -> Action:
    targets = [
        {
            "pid": 48210 + i,
            "application_name": "api-leaky",
            "backend_start": f"2026-03-01T02:5{i}:10.104211+00:00",
            "state_change": f"2026-03-01T03:0{i}:44.871102+00:00",
            "idle_seconds": 500 - 40 * i,
        }
        for i in range(10)
    ]
    values = ",\n    ".join(
        f"({t['pid']}, timestamptz '{t['backend_start']}', timestamptz '{t['state_change']}')" for t in targets
    )
    return Action(
        id="act-1",
        kind="terminate_sessions",
        title="Terminate the ten oldest leaked sessions of api-leaky",
        cause="P01",
        targets=targets,
        preconditions=[
            Precondition(label="No other session waits for a lock of these", holds=True, value=0),
            Precondition(label="The sessions belong to an ordinary client role", holds=True, value="web"),
            Precondition(label="The owner of api-leaky was told", holds=None),
            Precondition(label="No backup runs through these sessions", holds=False, value="pg_dump, pid 48215"),
        ],
        by_hand="SELECT pid, pg_terminate_backend(pid, 2000)\nFROM pg_stat_activity\nJOIN (VALUES\n    "
        + values
        + "\n) AS target (pid, backend_start, state_change) USING (pid, backend_start, state_change);",
        undo="irreversible: the open transactions roll back, clients reconnect",
        needs="pg_signal_backend",
    )


def leaky_findings() -> dict[str, Any]:
    """P01 confirmed: ``api-leaky`` holds 20 of 25 usable slots; two sources could not be read."""
    evidence = [
        _evidence("P01.median_age", "Median age in idle in transaction", 245.3, unit="s", threshold="≥ 30", weight=6),
        _evidence("P01.share", "Share of usable slots held by one application", 0.8, unit="share", threshold="≥ 0.2"),
        _evidence("P01.waiters", "Sessions waiting for their locks", 0, unit="sessions", threshold="< 1"),
        _evidence("P12.trend", "Growth over four weeks", None, reading="unknown",
                  reason="prometheus is not configured"),
        _evidence("P04.idle", "Share of slots that are plainly idle", 0.04, unit="share", threshold="≥ 0.5"),
        _evidence("P01.deploy", "Release of the same application nearby", None, reading="unknown", weight=1,
                  source="github: commits", reason="not configured"),
        _evidence("P03.active", "Active sessions not waiting for a lock", 1, unit="sessions", threshold="≥ 8",
                  reading="refutes", source="postgresql: activity"),
    ]  # fmt: skip
    return Findings(
        symptom=Symptom(
            label="Usable connection slots in use", value=0.88, unit="share", threshold=0.8, breached=True, peak=0.92
        ),
        impact="New connections are refused when 3 more slots are taken; 22 of 25 are in use.",
        outcome="diagnosed",
        verdict=[
            Verdict(
                cause="P01", name="Idle-in-transaction leak", tier="confirmed", share=0.8, score=12, coverage=0.92,
                details={"application_name": "api-leaky", "role": "web", "sessions": 20, "median_age_seconds": 245.3},
                because=["P01.median_age", "P01.share", "P01.waiters"],
            ),
            Verdict(
                cause="P04", name="Pools larger than the server", tier="possible", share=0.04, score=1, coverage=1.0,
                role="contributing", against=["P04.idle"],
            ),
            Verdict(cause="P12", name="Genuine growth", tier="undetermined", share=0.0, score=0, coverage=0.0),
            Verdict(
                cause="P03", name="Slow-query saturation", tier="excluded", share=0.0, score=-4, coverage=1.0,
                against=["P03.active"],
            ),
        ],
        evidence=evidence,
        not_checked=[
            NotChecked(source="github: commits", state="not_configured", reason="github.repository is not set",
                       blocks=["P01"]),
            NotChecked(source="prometheus: connections over four weeks", state="not_configured",
                       reason="prometheus.url is not set", blocks=["P12"]),
        ],
        unexplained=0.16,
        actions=[
            _terminate_action(),
            Action(
                id="act-2", kind="alter_role", title="Give the role web a limit on idle transactions", cause="P01",
                targets=[{"role": "web", "setting": "idle_in_transaction_session_timeout", "from": "0", "to": "60s"}],
                preconditions=[Precondition(label="The role has no such limit yet", holds=True, value="0")],
                by_hand="ALTER ROLE web SET idle_in_transaction_session_timeout = '60s';",
                undo="ALTER ROLE web RESET idle_in_transaction_session_timeout;", needs=None,
            ),
        ],
    ).as_dict()  # fmt: skip


def lock_findings() -> dict[str, Any]:
    """P02 confirmed with its tree of waiters; part of the symptom is unexplained."""
    tree = [
        {"pid": 5120, "depth": 0, "state": "idle in transaction", "waits_seconds": None,
         "query": "UPDATE content SET status = $1 WHERE id = $2"},
        *({"pid": 5121 + i, "depth": 1, "state": "active", "waits_seconds": 40.5 + i, "query": "SELECT 1 FOR UPDATE"}
          for i in range(6)),
    ]  # fmt: skip
    return Findings(
        symptom=Symptom(label="Sessions waiting for a lock", value=6, unit="sessions", threshold=3, breached=True),
        impact="Six requests hang behind one open transaction.",
        outcome="diagnosed",
        verdict=[
            Verdict(
                cause="P02", name="Lock pile-up", tier="confirmed", share=0.55, score=9, coverage=1.0,
                details={"root_pid": 5120, "application_name": "worker-import", "waiters": 6, "tree": tree},
                because=["P02.blocked"],
            ),
            Verdict(cause="P03", name="Slow-query saturation", tier="probable", share=0.2, score=4, coverage=0.8,
                    role="consequence", consequence_of="P02", because=["P03.active"]),
        ],
        evidence=[
            _evidence("P02.blocked", "Sessions blocked", 6, unit="sessions", threshold="≥ 3", weight=6),
            _evidence("P03.active", "Active sessions", 9, unit="sessions", threshold="≥ 8"),
        ],
        unexplained=0.45,
    ).as_dict()  # fmt: skip


def healthy_findings() -> dict[str, Any]:
    """Nothing wrong, everything read."""
    return Findings(
        symptom=Symptom(
            label="Usable connection slots in use", value=0.12, unit="share", threshold=0.8, breached=False
        ),
        impact="none",
        outcome="healthy",
        verdict=[Verdict(cause="P01", name="Idle-in-transaction leak", tier="excluded", share=0, score=-4, coverage=1,
                         against=["P01.share"])],
        evidence=[_evidence("P01.share", "Share of usable slots held by one application", 0.0, unit="share",
                            threshold="≥ 0.2", reading="refutes")],
    ).as_dict()  # fmt: skip


def blind_findings() -> dict[str, Any]:
    """Undetermined: the role may not see other sessions."""
    return Findings(
        symptom=Symptom(label="Usable connection slots in use", value=None, unit="share", threshold=0.8, breached=None),
        impact="unknown",
        outcome="undetermined",
        verdict=[
            Verdict(cause=c, name=n, tier="undetermined", share=0, score=0, coverage=0.1)
            for c, n in (("P01", "Idle-in-transaction leak"), ("P02", "Lock pile-up"))
        ],
        evidence=[_evidence("P01.median_age", "Median age in idle in transaction", None, unit="s", threshold="≥ 30",
                            reading="unknown", weight=6, reason="18 sessions are hidden from this role")],
        not_checked=[NotChecked(source="postgresql: holders", state="permission_denied",
                                reason="18 sessions are hidden; GRANT pg_monitor TO diagnose", blocks=["P01", "P02"])],
        unexplained=1.0,
    ).as_dict()  # fmt: skip


def document(findings: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A whole result document around ``findings``."""
    return {
        "schema": 1,
        "run_id": "01JNA7Q2M8-db-connection-exhaustion",
        "runbook": "db_connection_exhaustion",
        "title": TITLE,
        "severity": "critical",
        "parameters": {"service": "shop", "window_minutes": 30, "idle_after_seconds": 30.0, "samples": 3},
        "alert": {
            "name": "database_connections",
            "status": "firing",
            "severity": "critical",
            "service": "shop",
            "labels": {"alertname": "database_connections", "service": "shop"},
            "annotations": {"summary": "more than 80 % of the connections are in use"},
            "starts_at": "2026-03-01T03:10:01Z",
        },
        "incident_id": "INC-2026-0117",
        "state": "succeeded",
        "error": None,
        "started_at": STARTED.isoformat(),
        "finished_at": (STARTED + timedelta(seconds=6.4)).isoformat(),
        "timings": {"queued_s": 0.012, "kernel_s": 0.09, "cells_s": 6.1, "render_s": 0.05, "total_s": 6.4},
        "versions": {"runbook": "0.1.0", "python": "3.11.7", "postgresql": "18.0"},
        **(leaky_findings() if findings is None else findings),
        "report": {"html": "report.html", "notebook": "notebook.ipynb", "result": "result.json"},
        **more,
    }


def failed_document() -> dict[str, Any]:
    """The kernel died in the seventh cell; nothing was concluded."""
    return document(
        empty_findings("the run ended before it could conclude"),
        state="failed",
        error={
            "cell": "7 · 3 The machine",
            "name": "KernelDied",
            "message": "the kernel was killed (signal 9) while this cell ran",
        },
        versions={"runbook": "0.1.0"},
    )


PARAMETERS = """\
service: str = ""  # service that is looked at, as in the settings
window_minutes: int = 60  # how far back the window of the alert reaches, min [1..1440]
idle_after_seconds: float = 30.0  # age at which an idle transaction counts as leaked, s
samples: int = 3  # how often the symptom is measured [1..10]"""

HOLDERS = [
    {"application_name": "api-leaky", "role": "web", "client": "10.0.3.17", "state": "idle in transaction",
     "sessions": 20, "oldest_seconds": 512.4, "query": "SELECT id, status FROM content WHERE owner = $1 FOR SHARE"},
    {"application_name": "worker", "role": "worker", "client": "10.0.3.21", "state": "active", "sessions": 1,
     "oldest_seconds": 0.2, "query": "UPDATE content SET \"encodedAt\" = now() WHERE id = $1"},
    {"application_name": None, "role": "web", "client": "10.0.3.18", "state": "idle", "sessions": 1,
     "oldest_seconds": 4021.0, "query": ""},
]  # fmt: skip


def _reading(name: str, rows: list[dict[str, Any]], ms: float) -> NotebookNode:
    html = table_html(rows, caption=name, source="postgresql", target="127.0.0.1:5432/shop", duration_ms=ms)
    return new_output("display_data", {"text/html": html, "text/plain": f"{len(rows)} rows"})


def _chart() -> NotebookNode:
    chart = connections_by_state(
        {"idle in transaction": 20, "active": 1, "idle": 1}, usable=25, max_connections=30, threshold_share=0.8,
        samples=[
            {"measured_at": "2026-03-01T03:12:05Z", "states": {"idle in transaction": 19, "active": 3, "idle": 1}},
            {"measured_at": "2026-03-01T03:12:07Z", "states": {"idle in transaction": 20, "active": 2, "idle": 1}},
        ],
    )  # fmt: skip
    return new_output("display_data", chart._repr_mimebundle_())


class _Builder:
    def __init__(self) -> None:
        self.cells: list[NotebookNode] = []
        self._at = STARTED + timedelta(seconds=0.1)
        self._count = 0

    def markdown(self, text: str) -> None:
        self.cells.append(new_markdown_cell(text))

    def code(self, source: str, *outputs: NotebookNode, seconds: float = 0.03, tags: tuple[str, ...] = ()) -> None:
        self._count += 1
        cell = new_code_cell(source, outputs=list(outputs), execution_count=self._count)
        cell.metadata["papermill"] = {
            "status": "completed", "exception": False, "duration": seconds, "start_time": self._at.isoformat(),
            "end_time": (self._at + timedelta(seconds=seconds)).isoformat(),
        }  # fmt: skip
        cell.metadata["tags"] = list(tags)
        self._at += timedelta(seconds=seconds)
        self.cells.append(cell)


def notebook(findings: dict[str, Any] | None = None) -> NotebookNode:
    """An executed connection runbook, every section with its cells and outputs."""
    findings = leaky_findings() if findings is None else findings
    b = _Builder()
    b.markdown(
        f"# {TITLE}\n\n## Meaning, symptoms, impact\n\nPostgreSQL gives every session a slot. When the slots that "
        "ordinary roles can use run out, **new connections are refused** and the application fails at its first query."
        "\n\n- `FATAL: sorry, too many clients already` in the logs\n- requests that hang, then fail\n\n"
        "> Do not restart the database: it empties the slots and hides the cause.\n\n"
        "| alert | at |\n| --- | --- |\n| warning | 80 % |\n| critical | 95 % |\n"
    )
    b.code(PARAMETERS, tags=("parameters",))
    b.code('service = "shop"\nwindow_minutes = 30', tags=("injected-parameters",))
    b.code("from runbook import start\n\nrun = start(globals())", tags=("machine",))
    b.markdown("## Is it real?\n\nThe symptom is measured again before anything else: never diagnose a stale alert.")
    b.code("run.symptom()", _chart(), seconds=4.1)
    b.markdown("## Immediate actions\n\n### 1 Who holds the slots?\n\nOne row per application, role and state.")
    sql = (
        "%%sql holders\n-- Who holds the slots: one row per application, role, client and state.\n"
        "SELECT coalesce(nullif(application_name, ''), '(unset)') AS application_name, usename AS role,\n"
        "       state, count(*) AS sessions\nFROM pg_stat_activity\nWHERE backend_type = 'client backend'\n"
        "GROUP BY 1, 2, 3\nORDER BY sessions DESC"
    )
    b.code(sql, _reading("holders", HOLDERS, 12.4), seconds=0.02)
    b.markdown("### 2 Long-running queries\n\nActive for more than five minutes.")
    b.code("%%sql long_running\nSELECT pid, query FROM pg_stat_activity", _reading("long_running", [], 3.1))
    b.markdown("### 3 The machine\n\nSockets of the database, as the machine sees them.")
    shell = "\x1b[1mState\x1b[0m  \x1b[32mESTAB\x1b[0m 22\nState  CLOSE-WAIT 0\n"
    b.code("%%sh sockets\nss -Htn state established '( sport = :5432 )' | wc -l", new_output("stream", text=shell))
    b.markdown("### 4 Recent code changes\n\nCommits of the last day that touch transactions.")
    b.code("run.github.commits(hours=24)", _not_configured())
    b.markdown("## Investigation\n\n### Lock waits\n\nWho waits for whom, root first.")
    for name in ("lock_waits", "prepared", "slow_statements", "settings"):
        b.code(f"%%sql {name}\nSELECT 1 AS one", _reading(name, [{"one": 1, "name": name, "share": 0.125}], 2.0))
    b.markdown("## Verdict\n\nThe rules are in `runbook.diagnosis.connections`.")
    b.code("run.conclude()", conclusion(findings), seconds=0.01)
    b.markdown("## Resolution\n\nGuarded actions, proposed.\n\n## Prevention\n\nIs the timeout set?")
    b.code("run.settings_checked()", _reading("timeouts", [{"setting": "idle_in_transaction_session_timeout",
                                                            "value": "0", "good": False}], 1.0))  # fmt: skip
    b.markdown("## Communicate\n\nTell #incidents: severity, impact, state, next update.")
    return new_notebook(
        cells=b.cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )


def _not_configured() -> NotebookNode:
    html = table_html(
        [], caption="commits", source="github", state="not_configured", reason="github.repository is not set"
    )
    return new_output("display_data", {"text/html": html})


def conclusion(findings: dict[str, Any]) -> NotebookNode:
    """The display of a conclude cell."""
    data = {RESULT_MIME: findings, "text/html": findings_html(findings), "text/plain": findings["outcome"]}
    return new_output("display_data", data)


def broken_off_notebook() -> NotebookNode:
    """The same notebook, its kernel dead in the seventh cell."""
    nb = notebook()
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    code[6].metadata["papermill"] |= {"status": "failed", "exception": True, "duration": 1.4}
    code[6].outputs = [new_output("error", ename="KernelDied", evalue="the kernel was killed (signal 9)", traceback=[])]
    for cell in code[7:]:
        cell.metadata["papermill"] = {"status": "pending", "exception": None, "duration": None}
        cell.outputs, cell.execution_count = [], None
    return nb


SAMPLES: dict[str, Any] = {
    "leaky": lambda: (notebook(), document()),
    "locks": lambda: (notebook(lock_findings()), document(lock_findings())),
    "healthy": lambda: (notebook(healthy_findings()), document(healthy_findings(), alert=None, incident_id=None)),
    "undetermined": lambda: (notebook(blind_findings()), document(blind_findings())),
    "failed": lambda: (broken_off_notebook(), failed_document()),
}
"""Name → a notebook and its result document."""
