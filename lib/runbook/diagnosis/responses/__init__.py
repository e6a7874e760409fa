"""R4, response times: readings of one run in, findings out.

A p95 is taken apart into the layers that a request passes; what one layer is known to have had, no other can have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from runbook.diagnosis import conclusion
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses import machine, outside, places, sql, waiting
from runbook.diagnosis.responses.facts import Facts
from runbook.diagnosis.responses.layers import decomposition
from runbook.diagnosis.responses.limits import Limits
from runbook.diagnosis.responses.prevention import prevention
from runbook.diagnosis.responses.proposals import propose
from runbook.diagnosis.responses.relations import edges
from runbook.diagnosis.responses.symptom import impact, symptom
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading, Verdict

__all__ = ["decomposition", "diagnose", "finding", "prevention"]

NO_HEALTHY = ""
"""This runbook has no cause that stands for *nothing wrong*."""
_IDENTITY = frozenset({"backend_start", "state_change", "query_start", "superuser", "replication", "backend_type"})


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *high_response_time*; the same readings give the same findings."""
    return _diagnosed(Readings(readings), parameters)


def finding(readings: Readings, parameters: Mapping[str, Any] | None = None) -> Verdict | None:
    """This runbook's leading finding on whatever readings are there, for another runbook's cause that stands for it."""
    return conclusion.leading(_diagnosed(readings, parameters or {}), NO_HEALTHY)


def _diagnosed(taken: Readings, parameters: Mapping[str, Any]) -> Findings:
    facts = Facts(taken, Limits.of(parameters))
    causes = _causes(facts)
    told = conclusion.findings(
        taken, causes, edges(facts, causes), symptom=symptom(facts), impact=lambda _: impact(facts),
        propose=lambda verdicts: propose(verdicts, facts), healthy=NO_HEALTHY, breached=facts.breached,
        peaked=facts.peaked, sufficient=facts.sufficient is not False,
    )  # fmt: skip
    return replace(told, verdict=[_without_identity(v) for v in told.verdict])


def _without_identity(found: Verdict) -> Verdict:
    """The verdict names who it is; by what a statement recognises the session stands with the action."""
    return replace(found, details={k: v for k, v in found.details.items() if k not in _IDENTITY})


def _causes(facts: Facts) -> list[Cause]:
    """Every cause; those that ask whether anything else explains the slow requests come last."""
    specific = [
        sql.slow_statement(facts),
        sql.lock_waits(facts),
        waiting.pool_wait(facts),
        machine.processors(facts),
        waiting.blocked_loop(facts),
        machine.memory(facts),
        machine.disk_io(facts),
        outside.vendor(facts),
        waiting.surge(facts),
        sql.in_a_loop(facts),
        waiting.redis_slow(facts),
        outside.network(facts),
        sql.replica_lag(facts),
        machine.quota(facts),
        sql.bloat(facts),
        places.artefact(facts),
    ]
    specific.append(places.release(facts, others=conclusion.any_other(specific, facts.breached)))
    return [*specific, places.one_place(facts, others=conclusion.any_other(specific, facts.breached))]
