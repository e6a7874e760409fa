"""Prevention, checked: which guards this server has set. Source: reference fault model, runbook R2 (Prevent)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.result import Reading


@dataclass(frozen=True)
class Guard:
    """A setting that bounds sessions, the version it came with, and why one wants it."""

    setting: str
    since: int
    why: str


GUARDS = (
    Guard("idle_in_transaction_session_timeout", 0, "ends a leaked transaction by itself"),
    Guard("statement_timeout", 0, "bounds a runaway statement; set it for the application's role, not for everybody"),
    Guard("lock_timeout", 0, "keeps a migration from queueing the whole application; set it for the migrating role"),
    Guard("idle_session_timeout", 140000, "returns forgotten sessions; not behind a pooler"),
    Guard("client_connection_check_interval", 140000, "notices that a client has gone while its statement runs"),
    Guard("transaction_timeout", 170000, "bounds a transaction as a whole"),
    Guard("tcp_keepalives_idle", 0, "notices a client whose host has gone"),
)


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    taken = Readings(readings)
    rows, connection = taken.rows("timeouts"), taken.row("connection")
    version = int(connection["version_num"]) if connection else None
    checks = [_checked(guard, rows, version) for guard in GUARDS if version is None or version >= guard.since]
    trend = taken.last("trend")
    metrics = trend is not None and trend.state != "not_configured"
    checks.append(
        {
            "check": "alerts at 80 % and 95 % of the usable slots",
            "holds": None,
            "value": "alert rules are not read" if metrics else "no metrics server is configured",
            "why": "the first gives time, the second wakes somebody",
        }
    )
    statements = taken.last("statements")
    absent = statements is not None and statements.state == "not_configured" and bool(statements.code)
    readable = statements is not None and statements.known
    checks.append(
        {
            "check": "pg_stat_statements",
            "holds": True if readable else False if absent else None,
            "value": "readable" if readable else statements.reason if statements is not None else "not read",
            "why": "names the statements that take the time",
        }
    )
    return checks


def _checked(guard: Guard, rows: list[dict[str, Any]] | None, version: int | None) -> dict[str, Any]:
    mine = [r for r in rows or [] if r["name"] == guard.setting]
    server = next((r for r in mine if r["applies_to"] == "(server)"), None)
    elsewhere = [f"{r['applies_to'].strip()}: {r['setting']}" for r in mine if r["applies_to"] != "(server)"]
    on = server is not None and str(server["setting"]) not in ("0", "")
    value = f"{server['setting']} {server['unit']}".strip() if server is not None else "not readable"
    return {
        "check": guard.setting,
        "holds": (on or bool(elsewhere)) if server is not None else None,
        "value": "; ".join([value, *elsewhere]),
        "why": guard.why,
    }
