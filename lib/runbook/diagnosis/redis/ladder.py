"""The way to Redis as a ladder of steps: what a picture is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis.ladder import Ladder, Rung, RungState
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.redis.facts import WALK, Facts
from runbook.diagnosis.redis.limits import Limits
from runbook.diagnosis.verdict import found
from runbook.result import Findings, Reading

LABELS: Mapping[str, str] = {
    "name": "name", "tcp": "connection", "tls": "TLS", "greeting": "greeting", "auth": "login", "ping": "PING",
    "database": "database", "info": "INFO", "write": "write",
}  # fmt: skip
_STATES: Mapping[str, RungState] = {"yes": "passes", "no": "fails", "not needed": "none"}


def ladder(readings: Sequence[Reading], parameters: Mapping[str, Any], findings: Findings | None) -> list[Ladder]:
    """The walk as one ladder; none where it was not walked."""
    facts = Facts(Readings(readings), Limits.of(parameters))
    reading = facts.readings.last(WALK)
    if facts.walk is None or reading is None:
        return []
    causes = tuple(v.cause for v in findings.verdict if found(v.tier) and v.cause != "K00") if findings else ()
    rungs = tuple(_rung(label, facts.walk.get(step) or {}) for step, label in LABELS.items())
    return [Ladder(vantage="from here", target=reading.target, rungs=rungs, causes=causes)]


def _rung(label: str, row: Mapping[str, Any]) -> Rung:
    answer, code, detail = (str(row.get(key) or "") for key in ("answer", "code", "detail"))
    state = _STATES.get(answer, "unknown")
    note = f"{code}: {detail}" if code and not detail.startswith(code) else detail
    if state == "unknown":
        note = detail or "not reached"
    return Rung(layer=label, state=state, note=note or ("not needed" if state == "none" else ""))
