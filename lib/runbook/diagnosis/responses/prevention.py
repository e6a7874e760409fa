"""Prevention, checked: what keeps slow responses from coming back. Source: reference fault model, R4 (Prevent)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.result import Reading

FIELDS = ("route", "release", "instance", "upstream")


def prevention(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """One row a guard: ``{check, holds, value, why}``; ``holds`` is ``None`` when it could not be read."""
    taken = Readings(readings)
    return [
        _alert(taken),
        _time_limit(taken, "statement_timeout", "a statement that nobody waits for any more should end"),
        _time_limit(taken, "lock_timeout", "a migration that waits for a lock makes everybody behind it wait"),
        _time_limit(taken, "idle_in_transaction_session_timeout", "an open transaction holds locks and dead rows"),
        _logged(taken),
        _statistics(taken),
        _fields(taken),
        _spans(taken),
        _loop(taken),
    ]


def _row(check: str, holds: bool | None, value: Any, why: str) -> dict[str, Any]:
    return {"check": check, "holds": holds, "value": value, "why": why}


def _alert(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("alert_rules")
    names = sorted({str(r.get("alertname")) for r in rows or [] if r.get("alertname")})
    return _row("an alert on the response time exists", None if rows is None else bool(names),
                ", ".join(names) or taken.why_unknown(("alert_rules",)),
                "users should not be the first to tell")  # fmt: skip


def _setting(taken: Readings, name: str) -> str | None:
    row = next((r for r in taken.rows("time_limits") or [] if r.get("name") == name), None)
    return None if row is None else str(row.get("setting"))


def _time_limit(taken: Readings, name: str, why: str) -> dict[str, Any]:
    setting = _setting(taken, name)
    mine = [r for r in taken.rows("time_limits") or [] if r.get("name") == name and r.get("setting") != "0"]
    elsewhere = [str(r.get("applies_to")).strip() for r in mine if r.get("source") == "role or database"]
    holds = None if setting is None else setting not in ("0", "-1") or bool(elsewhere)
    value = taken.why_unknown(("time_limits",)) if setting is None else ", ".join(elsewhere) or f"{setting} ms"
    return _row(f"{name} is set", holds, "not set" if holds is False else value, why)


def _logged(taken: Readings) -> dict[str, Any]:
    setting = _setting(taken, "log_min_duration_statement")
    value = "off" if setting == "-1" else f"{setting} ms"
    return _row("slow statements are logged", None if setting is None else setting != "-1",
                taken.why_unknown(("time_limits",)) if setting is None else value,
                "with its parameters a slow statement can be explained the day after")  # fmt: skip


def _statistics(taken: Readings) -> dict[str, Any]:
    reading = taken.last("statements")
    absent = reading is not None and reading.code in ("42P01", "55000")
    return _row("pg_stat_statements is there", True if taken.known("statements") else False if absent else None,
                "read" if taken.known("statements") else taken.why_unknown(("statements",)),
                "it names the statement that became slow, with what it was before")  # fmt: skip


def _fields(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("latency_splits")
    missing = [by for by in FIELDS if any(r.get("by") == by and r.get("missing") for r in rows or [])]
    return _row("the access log names route, release, instance and upstream", None if rows is None else not missing,
                "not read" if rows is None else f"missing: {', '.join(missing)}" if missing else "all there",
                "the split that concentrates the slow requests is half of the diagnosis")  # fmt: skip


def _spans(taken: Readings) -> dict[str, Any]:
    rows = [r for r in taken.rows("latency_splits") or [] if r.get("by") == "upstream" and r.get("value") is not None]
    known = [r for r in rows if r.get("spans")]
    return _row("the access log tells how long a vendor took (upstream_response_time)", bool(known) if rows else None,
                f"{len(known)} of {len(rows)} hosts" if rows else "no request to another host was seen",
                "without it a slow vendor and a slow route of ours look the same")  # fmt: skip


def _loop(taken: Readings) -> dict[str, Any]:
    rows = taken.rows("app_metrics")
    known = any("event_loop_lag_p99_ms" in r or "event_loop_lag_ms" in r for r in rows or [])
    return _row("the application exports its event loop's lag", None if rows is None else known,
                taken.why_unknown(("app_metrics",)) if rows is None else "exported" if known else "not exported",
                "a blocked loop slows everything and shows in nothing else")  # fmt: skip
